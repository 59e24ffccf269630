"""Matrices and charts, as pictures to keep and on the page."""

import math
import re

import numpy as np
import pytest

from ssl_demo.drawing import heat
from ssl_demo.figures import bar_picture, limits, panel_picture, place, ticks
from ssl_demo.pretext import Bar, Chart, Line, Matrix, Panel
from ssl_demo.ui.panels import panel_html

VALUES = np.array([[0.0, 0.5, 1.0], [1.0, 0.25, 0.0]])


def matrix(**more):
    return Panel("pairs", "Pairs", "All.", "judged", matrix=Matrix(VALUES, 0, 1, **more))


def chart(**more):
    lines = Line("ours", (1.0, 3.0, 2.0)), Line("<theirs>", (2.0, 2.5, math.nan))
    return Panel("loss", "Loss", "Falls.", "judged", chart=Chart((1.0, 10.0, 100.0), lines, "keys", "loss", log_x=True, **more))


def test_each_cell_of_a_matrix_has_the_colour_of_its_value():
    picture = panel_picture(matrix(), 30)
    assert picture.shape == (20, 30, 3)
    assert np.array_equal(picture[5::10, 5::10], heat(VALUES))


def test_edges_hold_pictures_and_marked_cells_are_framed():
    red = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    picture = panel_picture(matrix(row_pictures=(red, red), column_pictures=(red,) * 3, marked=((0, 0),)), 160)
    assert picture.shape == (120, 160, 3)
    assert tuple(picture[60, 20]) == tuple(picture[20, 60]) == (255, 0, 0), "rows at the left, columns on top"
    assert tuple(picture[20, 20]) == (255, 255, 255), "the corner is empty"
    plain = panel_picture(matrix(row_pictures=(red, red), column_pictures=(red,) * 3), 160)
    changed = np.argwhere((picture != plain).any(axis=2))
    assert changed.min() >= 40 and changed.max() < 80, "the frame is that of the first cell"


def test_an_empty_cell_stays_white_and_silent():
    panel = matrix(empty=((0, 1),))
    assert tuple(panel_picture(panel, 30)[5, 15]) == (255, 255, 255)
    told = panel_html(panel)
    assert told.count("data-says") == 5 and "0.50" not in told


def test_a_matrix_on_the_page_says_its_values_and_which_is_right():
    told = panel_html(matrix(marked=((1, 1),), what="cosine"))
    assert re.findall(r'data-says="([^"]*)"', told) == ["cosine 0.00", "cosine 0.50", "cosine 1.00", "cosine 1.00",
                                                        "cosine 0.25, the right one", "cosine 0.00"]
    assert 'aria-label="Pairs. All."' in told and told.count("marked") == 1


def test_a_chart_on_the_page_has_its_curves_axes_level_and_legend():
    told = panel_html(chart(now=10.0, level=("guessing", 2.0)))
    curves = re.findall(r'<polyline class="line-\d" points="([^"]*)"', told)
    assert [len(points.split()) for points in curves] == [3, 2], "what is no number is left out"
    first = [[float(number) for number in point.split(",")] for point in curves[0].split()]
    assert first[1][0] - first[0][0] == pytest.approx(first[2][0] - first[1][0], abs=0.2), "decades are as wide as each other"
    assert first[1][1] < first[2][1] < first[0][1], "more is higher up"
    for said in ("keys", "loss", "guessing", 'class="now"', "&lt;theirs&gt;"):
        assert said in told


def test_a_chart_is_drawn():
    picture = panel_picture(chart())
    assert picture.shape == (576, 768, 3)
    assert (picture == (47, 111, 183)).all(axis=2).sum() > 500, "its first curve is blue"
    assert not np.array_equal(picture, panel_picture(chart(now=10.0)))
    assert not np.array_equal(picture, panel_picture(chart(level=("guessing", 2.0))))


def test_a_flat_chart_and_one_of_a_single_point_are_drawn():
    for x, y in (((1.0, 2.0), (3.0, 3.0)), ((1.0,), (0.0,)), ((0.0, 1.0), (-2.0, -1.0))):
        panel = Panel("flat", "Flat", "Flat.", "judged", chart=Chart(x, (Line("one", y),), "x", "y"))
        assert panel_picture(panel).std() > 0 and "nan" not in panel_html(panel)


def test_ticks_are_round_and_inside():
    assert ticks(0, 10) == [0, 5, 10] or len(ticks(0, 10)) >= 4
    assert ticks(1, 1000, log=True) == [1, 10, 100, 1000]
    assert ticks(1, 14_000, log=True) == [1, 100, 10_000], "five labels would touch in the page's small charts"
    assert ticks(3, 7, log=True) == [3, 7], "less than a decade: its ends"
    for low, high in ((0, 1), (-3.2, 4.1), (0.0007, 0.0019), (5, 5000)):
        marks = ticks(low, high)
        assert 2 <= len(marks) <= 6 and low - 1e-9 <= marks[0] and marks[-1] <= high + 1e-9


def test_place_and_limits():
    assert place(5, 0, 10) == 0.5 and place(10, 1, 100, log=True) == pytest.approx(0.5) and place(3, 3, 3) == 0
    low, high = limits(chart().chart)
    assert low < 1 and high > 3
    assert limits(chart(level=("far", 9.0)).chart)[1] > 9


def test_a_panel_holds_exactly_one_thing():
    with pytest.raises(AssertionError, match="needs"):
        Panel("none", "None", "None.", "sees")
    with pytest.raises(AssertionError, match="needs"):
        Panel("two", "Two", "Two.", "sees", bars=(Bar("one", 0.5),), matrix=Matrix(VALUES, 0, 1))


def test_the_colour_of_a_bar_says_whether_the_answer_is_right():
    def colors(*bars):
        return {tuple(pixel) for pixel in bar_picture(bars).reshape(-1, 3)}

    right, wrong = (31, 122, 77), (179, 67, 30)
    assert right in colors(Bar("a", 0.9, True, True), Bar("b", 0.1, False, False)) - {wrong}
    assert wrong in colors(Bar("a", 0.1, True, False), Bar("b", 0.9, False, True)) - {right}

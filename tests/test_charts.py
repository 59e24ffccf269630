"""The charts of the transfer table, of any part of its rows."""

import re

import pytest

from ssl_demo import charts
from ssl_demo.pretext import all_tasks

FILL, VIEWS = (next(name for name, task in all_tasks().items() if word in task.card.family.lower()) for word in ("fill", "views"))


def row(encoder, protocol="knn", labels=None, accuracy=0.5, spread=None):
    return {"encoder": encoder, "kind": "trained", "protocol": protocol, "labels_per_class": labels, "accuracy": accuracy,
            "spread": spread}


def words(figure):
    """Everything that a figure writes."""
    texts = [annotation.text for annotation in figure.layout.annotations]
    for trace in figure.data:
        texts += [trace.name or "", *(str(text) for text in trace.text or ()), *(str(y) for y in trace.y if y is not None)]
    return " ".join(texts)


def test_the_shipped_table_is_drawn():
    table = charts.table()
    rows = table["rows"]
    for labels in charts.counts(rows):
        assert len(charts.bars(rows, labels).data) > 3
    for name in charts.trained(rows):
        assert charts.name_of(name) in words(charts.bars(rows))
        assert charts.name_of(name) in words(charts.curves(rows, "knn", 916)) or not charts.find(rows, name, "knn", None)
    assert charts.gap_sentence(rows).endswith((".", "”."))


@pytest.mark.parametrize("rows", [[], [row("pixels")], [row(f"{FILL}:untrained")], [row(FILL)], [row("a_task_of_later")]])
def test_any_part_of_the_rows_will_do(rows):
    for figure in (charts.bars(rows), charts.bars(rows, 10), charts.curves(rows, "knn", 916), charts.gap(rows),
                   charts.curves(rows, "finetune", 916)):  # fmt: skip
        assert figure.layout.height > 100 and figure.to_json()
    assert charts.gap_sentence(rows).startswith("Not measured yet")
    assert "not measured" in words(charts.gap(rows)) and "not measured" in words(charts.curves(rows, "finetune", 916))


def test_bars_stand_beside_untrained_and_pixels_with_their_spread():
    figure = charts.bars([row(FILL, accuracy=0.4, spread=0.03), row(f"{FILL}:untrained", accuracy=0.3),
                          row("pixels", accuracy=0.2), row(VIEWS, "linear", accuracy=0.6)])
    bar = next(trace for trace in figure.data if trace.type == "bar" and trace.xaxis == "x")
    assert list(bar.x) == [40] and list(bar.error_x.array) == [3] and list(bar.y) == [charts.name_of(FILL)]
    assert {"the same network, untrained", "bare pixels"} <= {trace.name for trace in figure.data}
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert len(shown) == len(set(shown)), "once in the legend"
    absent = {trace.xaxis: list(trace.y) for trace in figure.data if trace.type == "scatter" and trace.mode == "text"}
    assert absent["x"] == [charts.name_of(VIEWS)] and absent["x2"] == [charts.name_of(FILL)] and len(absent["x3"]) == 2


def test_the_supervised_ceiling_is_marked_beside_its_encoder():
    figure = charts.bars([row(FILL, accuracy=0.4), row(f"{FILL}:supervised", accuracy=0.7)])
    ceiling = next(trace for trace in figure.data if trace.name == charts.CEILING)
    assert list(ceiling.x) == [70] and list(ceiling.y) == [charts.name_of(FILL)]
    assert charts.CEILING in {key for key, *_ in charts.LEGEND}


def test_a_gap_is_over_the_draws_that_both_were_measured_with():
    def drawn(protocol, *accuracies):
        return row(FILL, protocol, 100, sum(accuracies) / len(accuracies)) | {"accuracies": list(accuracies)}

    rows = [drawn("linear", 0.5, 0.6, 0.9), drawn("finetune", 0.7, 0.8)]
    assert charts.gaps(rows)[1][FILL] == pytest.approx((0.55, 0.75))
    assert charts.gaps([drawn("linear", 0.5, 0.6), drawn("finetune", 0.7)])[1][FILL] == pytest.approx((0.5, 0.7))


def test_curves_are_on_a_logarithmic_axis_with_all_at_its_place():
    rows = [row(FILL, labels=10, accuracy=0.2, spread=0.01), row(FILL, labels=100, accuracy=0.3), row(FILL, accuracy=0.4)]
    figure = charts.curves(rows, "knn", 916)
    line = figure.data[0]
    assert list(line.x) == [10, 100, 916] and list(line.y) == [20, 30, 40] and list(line.error_y.array) == [1, 0, 0]
    assert figure.layout.xaxis.type == "log" and figure.layout.xaxis.ticktext[-1] == "all (916)"


def pair(encoder, linear, tuned):
    return [row(encoder, "linear", accuracy=linear), row(encoder, "finetune", accuracy=tuned)]


def family_rows(gaps):
    """Rows of as many encoders of a family as there are gaps; gaps: by a name of the family, in points."""
    names = {one: [name for name, task in all_tasks().items() if task.card.family == charts.family(one)] for one in gaps}
    return [one for known, values in gaps.items() for name, value in zip(names[known], values)
            for one in pair(name, 0.5, 0.5 + value / 100)]


@pytest.mark.parametrize("fill, views, verdict", [
    ((20, 22, 19), (6, 4, 5), "as the MAE paper found"),
    ((6, 4, 5), (20, 22, 19), "the opposite of what the MAE paper found"),
    ((7.3, 17.2, 9.3, 10.9, 9.3), (2.8, 5.1, 7.1, 9.0), "does not show here"),
])
def test_the_sentence_follows_from_the_rows(fill, views, verdict):
    rows = family_rows({FILL: fill, VIEWS: views})
    sentence = charts.gap_sentence(rows)
    assert verdict in sentence and f"adds {sum(fill) / len(fill):.1f} points" in sentence
    assert f"({len(fill)} measured)" in sentence and f"({len(views)})" in sentence


def test_the_interval_is_welchs_over_encoders():
    fill, views = (7.3, 17.2, 9.3, 10.9, 9.3), (2.8, 5.1, 7.1, 9.0)
    welch = pytest.importorskip("scipy.stats").ttest_ind(fill, views, equal_var=False).confidence_interval()
    half = (welch.high - welch.low) / 2
    assert half == pytest.approx(5.1, abs=0.05)
    assert f"+4.8 ± {half:.1f} points" in charts.gap_sentence(family_rows({FILL: fill, VIEWS: views}))


def test_one_encoder_does_not_tell_how_those_of_its_family_differ():
    sentence = charts.gap_sentence(family_rows({FILL: (30,), VIEWS: (1, 2)}))
    assert "+28.5 ± ? points" in sentence and "does not show here" in sentence


def test_the_readme_quotes_the_sentence():
    rows, readme = charts.table()["rows"], " ".join((charts.TABLE.parent.parent / "README.md").read_text("utf-8").split())
    for labels in (None, 100):
        sentence = charts.gap_sentence([one for one in rows if one["labels_per_class"] == labels])
        filling, views, difference, half = re.search(r"adds ([\d.]+) .* and ([\d.]+) .*difference \+([\d.]+) ± ([\d.]+)",
                                                     sentence).groups()
        assert f"{filling} points and {views} with {labels or 'all'} labels" in readme and f"({difference} ± {half} " in readme


def test_gaps_are_of_as_many_encoders_as_can_be():
    rows = [row(name, protocol, labels, 0.5) for name, labels in ((FILL, 100), (VIEWS, 100), (FILL, None))
            for protocol in ("linear", "finetune")]
    assert charts.gaps(rows) == (100, {FILL: (0.5, 0.5), VIEWS: (0.5, 0.5)})


def test_gaps_are_of_the_most_labels_that_both_were_measured_with():
    rows = [row(FILL, "linear", accuracy=0.5), *(dict(one, labels_per_class=10) for one in pair(FILL, 0.2, 0.3))]
    assert charts.gaps(rows) == (10, {FILL: (0.2, 0.3)})
    rows += [row(FILL, "finetune", accuracy=0.6)]
    assert charts.gaps(rows) == (None, {FILL: (0.5, 0.6)})
    rows += [dict(one, labels_per_class=10) for one in pair(VIEWS, 0.6, 0.7)]
    assert charts.gaps(rows)[0] == 10, "rather both families with few labels than one with all"
    assert charts.gap_sentence(rows).startswith("With 10 labels a class, fine-tuning adds 10.0 points")


def test_labels_move_apart_and_keep_their_order():
    apart = charts._apart([1.0, 1.1, 1.2, 9.0], 2.0)
    assert all(above - below >= 2 - 1e-3 for below, above in zip(apart, apart[1:])) and apart[3] == pytest.approx(9.0, abs=0.1)


def test_all_charts_share_one_template():
    figures = [charts.bars([]), charts.curves([], "knn", 9), charts.gap([])]
    assert len({figure.layout.template.to_json() if hasattr(figure.layout.template, "to_json") else str(figure.layout.template)
                for figure in figures}) == 1  # fmt: skip
    assert all(figure.layout.template.layout.font.size >= 12 for figure in figures)

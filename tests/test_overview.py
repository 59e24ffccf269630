"""The overview: every method on one photo, told from the same run as its tab."""

from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from ssl_demo import inference
from ssl_demo.examples import EXAMPLES
from ssl_demo.pretext import all_tasks
from ssl_demo.ui import overview_room
from ssl_demo.ui.overview_room import OverviewRoom, pick, short, told
from ssl_demo.video import Clip

PHOTO, OTHER = EXAMPLES[0].image, EXAMPLES[1].image


@pytest.mark.parametrize("name", all_tasks())
def test_what_a_card_names_is_there_and_can_be_drawn(name):
    card = all_tasks()[name].card
    result = inference.load(name).run(short(PHOTO) if card.input == "video" else PHOTO)
    named = {panel.name for panel in result.panels} | {key for key, number in result.figures.items() if number.text}
    assert set(card.overview) <= named, "the overview names a panel or a figure that is not there"
    for stage in ("sees", "answers"):
        panel = pick(result.panels, stage, card.overview)
        assert panel.stage == stage and (panel.image is not None or panel.video is not None), "bars are too small to read"
    assert told(result, card).count("<img") == 2 and card.title in told(result, card)


def test_a_card_may_name_another_panel_than_the_first():
    panels = [SimpleNamespace(name=name, stage=stage) for name, stage in (("a", "sees"), ("b", "answers"), ("c", "answers"))]
    assert pick(panels, "answers", ()).name == "b" and pick(panels, "answers", ("c",)).name == "c"


def test_clips_are_short():
    assert len(short(PHOTO).frames) == overview_room.FRAMES
    clip = Clip(np.zeros((30, 20, 24, 3), np.uint8), 10)
    assert short(clip).frames.shape == (overview_room.FRAMES, 20, 24, 3) and short(clip).fps == 10


@pytest.fixture
def room():
    """A room whose runs are counted, and of which one refuses."""
    runs = []

    def run(name, weights, photo, seed, controls, company):
        runs.append((name, photo))
        if name == "mae" and photo is OTHER:
            raise ValueError("Too <small>.")
        panel = SimpleNamespace(title="t", caption="c", image=np.zeros((9, 9, 3), np.uint8), video=None, bars=(), matrix=None,
                                chart=None)  # fmt: skip
        panels = [SimpleNamespace(**vars(panel), name=stage, stage=stage) for stage in ("sees", "answers")]
        figures = {name: SimpleNamespace(label="l", text="1", help="") for name in ("any", *all_tasks()[name].card.overview)}
        return SimpleNamespace(panels=panels, figures=figures, milliseconds=100 - len(runs))

    with gr.Blocks():
        room = OverviewRoom(run, gr.State(), gr.State(), PHOTO)
    room.runs = runs
    runs.clear()
    return room


def test_quick_methods_answer_first_and_a_refusal_stands_on_its_card(room):
    assert room.order == list(all_tasks())[::-1], "the room opened with each a millisecond quicker than the one before"
    steps = list(room.answer(SimpleNamespace(session_hash="a"), OTHER, OTHER, [], room.seen.value))
    changed = [[name for name, value in zip(room.cards, step[1:]) if isinstance(value, str)] for step in steps]
    assert changed == [[], *([name] for name in room.order)]
    refused = steps[1 + room.order.index("mae")][1 + list(room.cards).index("mae")]
    assert steps[-1][0] == (OTHER, OTHER, ()) and "Too &lt;small&gt;." in refused


def test_coming_back_to_the_same_photo_costs_nothing(room):
    asked = (OTHER, OTHER, ())
    assert len(list(room.answer(SimpleNamespace(session_hash="a"), OTHER, OTHER, None, asked))) == 1 and not room.runs


def test_a_newer_photo_of_the_same_visit_ends_the_older_answers(room):
    old = room.answer(SimpleNamespace(session_hash="a"), OTHER, OTHER, [], room.seen.value)
    other_visit = room.answer(SimpleNamespace(session_hash="b"), OTHER, OTHER, [], room.seen.value)
    next(old), next(old), next(other_visit)
    photo = Image.new("RGB", (40, 40))
    new = list(room.answer(SimpleNamespace(session_hash="a"), photo, photo, [], room.seen.value))
    assert list(old) == [] and len(new) == 13 and len(list(other_visit)) == 12

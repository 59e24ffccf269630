"""What a tab tells, as HTML: pictures, clips, what can be painted on, and how far long work is."""

import base64
import inspect
import io
import re
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ssl_demo.inference import Result
from ssl_demo.pretext import Panel, all_tasks
from ssl_demo.progress import Cancelled, steps
from ssl_demo.ui import links, task_tab, watching
from ssl_demo.ui.panels import data_url, panel_html
from ssl_demo.ui.story import link_html, progress_html, score_html
from ssl_demo.video import load_clip

TASK = next(iter(all_tasks().values()))


def ramp(*shape):
    return (np.arange(np.prod(shape)).reshape(shape) % 251).astype(np.uint8)


def decoded(url):
    return base64.b64decode(url.partition("base64,")[2])


def test_a_picture_is_exact_and_a_large_one_made_smaller():
    small, large = ramp(60, 40, 3), ramp(1300, 900, 3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(decoded(data_url(small))))), small)
    assert Image.open(io.BytesIO(decoded(data_url(large)))).size == (443, 640)


def test_a_clip_is_h264_in_the_page():
    frames = np.stack([np.full((32, 48, 3), 20 * t, dtype=np.uint8) for t in range(6)])
    told = panel_html(Panel("clip", "A <clip>", "Six frames.", "answers", video=frames, fps=8.0))
    assert "A &lt;clip&gt;" in told and "<img" not in told
    clip = load_clip(io.BytesIO(decoded(re.search(r'<video src="([^"]+)"', told)[1])), "clip.mp4")
    assert clip.frames.shape == frames.shape and clip.fps == pytest.approx(8, rel=0.01)
    assert np.abs(clip.frames.astype(int) - frames).max() < 8


def test_only_a_panel_that_takes_strokes_has_a_brush():
    image = ramp(8, 8, 3)
    plain = panel_html(Panel("one", "One", "It.", "sees", image))
    brush = panel_html(Panel("one", "One", "It.", "sees", image, brush="Paint <here>."))
    assert "brush" not in plain and "data-click" not in brush
    assert 'data-brush="one"' in brush and "brush-clear" in brush and "Paint &lt;here&gt;." in brush


def test_progress_says_what_is_done_and_what_is_left():
    told = progress_html(3, 12, "frames <encoded>", 6.0)
    assert "frames &lt;encoded&gt;: 3 of 12, about 18 s left" in told and "width:25%" in told and 'role="status"' in told
    assert "left" not in progress_html(0, 12, "frames", 6.0)


@pytest.fixture
def tab(monkeypatch):
    """A tab whose runs take as long as `pace` says; `ended` is set when one is over, however it ended."""
    import gradio as gr

    def run(name, weights, photo, seed, controls, company):
        try:
            for _ in steps(range(20), "frames read"):
                time.sleep(run.pace)
            return Result([Panel("one", "One", "It.", "sees", ramp(8, 8, 3))], {}, controls, 1.0)
        except Cancelled:
            run.cancelled = True
            raise
        finally:
            run.ended.set()

    run.ended, run.cancelled, run.pace = threading.Event(), False, 0.05
    monkeypatch.setattr(watching, "PATIENCE", 0.2)
    with gr.Blocks():
        made = task_tab.TaskTab(TASK, run)
    made.walk.walk = None  # its run holds none of the numbers that a walk tells
    return made


VISIT = SimpleNamespace(session_hash="a visit")


def values(tab):
    return [0, None, *(control.default for control in TASK.controls)]


@pytest.mark.parametrize("name", all_tasks())
def test_every_card_can_tell_its_score(name):
    card = all_tasks()[name].card
    names = {card.metric, *(metric for metric, _ in card.baselines), *card.also[:2]}
    told = score_html(card, {"heldout": {"score": 0.7, "chance": 0.1, "untrained": 0.2, "images": 1234,
                                         "metrics": dict.fromkeys(names, 0.3)}})
    assert card.show(0.7) in told and card.show(0.2) in told and "1,234 held-out" in told and "untrained" in told
    assert told.count(card.show(0.3)) == len(card.baselines) + 2 * bool(card.also)


def test_long_work_tells_how_far_it_is_and_then_the_answer(tab):
    told = list(tab.answer_slowly(VISIT, "photo", *values(tab)))
    assert len(told) > 2 and all("frames read" in progress for _, progress, _ in told[:-1])
    busy, progress, story = told[-1]
    assert busy["visible"] is False and progress == "" and 'data-panel="one"' in story


def test_short_work_shows_no_progress(tab):
    tab.run.pace = 0.001
    assert len(list(tab.answer_slowly(VISIT, "photo", *values(tab)))) == 1


def test_closing_long_work_ends_it(tab):
    tab.run.pace = 0.1
    telling = tab.answer_slowly(VISIT, "photo", *values(tab))
    next(telling)
    telling.close()
    assert tab.run.ended.wait(1) and tab.run.cancelled


def test_a_stopped_run_says_that_it_is_over_and_is_forgotten(tab):
    tab.run.pace = 0.1
    telling = tab.answer_slowly(VISIT, "photo", *values(tab))
    next(telling)
    tab.stop(SimpleNamespace(session_hash="another visit"))
    assert next(telling)[0]["visible"] is True, "each visit stops its own"
    tab.stop(VISIT)
    busy, progress, _ = list(telling)[-1]
    assert busy["visible"] is False and progress == "" and tab.run.cancelled and not tab.running.stop(VISIT.session_hash)


@pytest.mark.parametrize("name", all_tasks())
def test_the_code_on_the_tab_is_the_tasks_own(name):
    task, shown = all_tasks()[name], task_tab.code(all_tasks()[name])
    source = Path(inspect.getsourcefile(task)).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", shown, re.S)
    assert len(blocks) == 2 and "def example(" in blocks[0] and "def loss(" in blocks[1]
    assert all(textwrap.indent(block, "    ", str.strip) in source for block in blocks)


def test_of_an_own_network_the_link_says_that_it_asks_another():
    task, notes = all_tasks()["mae"], []
    for network in ("trained", "my one"):
        notes.append(link_html("?task=mae&photo=coffee", links.calls(task, 0, network, {})))
    assert "the network that ships" not in notes[0] and "the network that ships" in notes[1] and "FILE.safetensors" in notes[1]

"""What can be taken home from a tab: pictures, a slide, numbers."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from ssl_demo import inference
from ssl_demo.examples import EXAMPLES
from ssl_demo.figures import panel_file, panel_picture
from ssl_demo.pretext import all_tasks
from ssl_demo.ui import slide
from ssl_demo.ui.lettering import font, lines
from ssl_demo.ui.take_home import notes, parcel
from ssl_demo.video import Clip, camera_move

PHOTO = EXAMPLES[0].image


def run(name):
    moving = all_tasks()[name].card.input == "video"
    return inference.load(name).run(camera_move(PHOTO, 8) if moving else PHOTO)


@pytest.mark.parametrize("name", all_tasks())
def test_every_story_fits_a_slide(name):
    task, result = all_tasks()[name], run(name)
    steps = slide.arrange(result.panels, 200, 600)
    cells = [cell for found in steps.values() for cell in found]
    assert list(steps) == list(slide.STEPS) and {cell.panel.name for cell in cells} == {p.name for p in result.panels}
    for cell in cells:
        left, top, width, tall = cell.box
        assert cell.fits, f"{cell.panel.title} runs out of its place"
        assert left >= slide.EDGE and left + width <= slide.SIZE[0] - slide.EDGE + 1 and cell.bottom <= 801
        assert max(font(slide.TITLE, bold=True).getlength(line) for line in cell.title) <= cell.words
        assert min(cell.size) >= 60 or cell.panel.matrix is not None, "too small to be seen from the back row"
    for one, other in ((a, b) for a in cells for b in cells if a is not b):
        (x, y, w, h), (u, v, s, t) = one.box, other.box
        assert x + w <= u or u + s <= x or y + h <= v or v + t <= y, f"{one.panel.title} lies over {other.panel.title}"
    picture = np.asarray(slide.slide(result, task.card, notes(task, PHOTO, 0, "trained", result.controls, [])))
    assert picture.shape == (1080, 1920, 3)
    ground = np.array([0xF6, 0xF4, 0xEF])
    for edge in (picture[:30], picture[-15:], picture[:, :50], picture[:, -50:]):
        assert (edge == ground).all(), "something runs over the margin"


@pytest.mark.parametrize("name", ["simclr", "rotation", "video_color"])
def test_panels_come_at_full_size_and_numbers_as_json(name):
    task, result = all_tasks()[name], run(name)
    ask = [task, result, PHOTO, 3, "trained"]
    for panel in result.panels:
        file, kind, data = parcel(panel.name, *ask)
        assert (panel.name in file) and data[4:8] == b"ftyp" if panel.video is not None else kind == "image/png"
        if panel.video is None:
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), panel_picture(panel))
    packed = zipfile.ZipFile(io.BytesIO(parcel("panels", *ask)[2]))
    assert len(packed.namelist()) == len(result.panels) + 1 and packed.testzip() is None
    told = json.loads(parcel("results", *ask)[2])
    assert (told["task"], told["seed"], told["photo"], told["controls"]) == (name, 3, "chelsea", result.controls)
    assert set(told["numbers"]) == set(result.numbers) and len(told["panels"]) == len(result.panels)
    assert "3" in told["run_it"]["Command line"]
    with pytest.raises(ValueError, match="no panel"):
        parcel("nothing", *ask)


def test_a_slide_names_whose_photos_it_shows_and_nobody_else():
    rotation, simclr = all_tasks()["rotation"], all_tasks()["simclr"]
    own = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 80, 3), np.uint8))
    assert "Stéfan" in " ".join(notes(rotation, PHOTO, 0, "trained", {}, []))
    assert "Stéfan" not in " ".join(notes(rotation, own, 0, "trained", {}, []))
    assert "NASA" in " ".join(notes(simclr, own, 0, "trained", {}, [])), "examples stand beside it"
    assert "NASA" not in " ".join(notes(simclr, own, 0, "trained", {}, [own] * simclr.card.company))
    assert "untrained" in " ".join(notes(rotation, Clip(np.zeros((2, 8, 8, 3), np.uint8), 5), 0, "untrained", {}, []))


def test_lines_fit_and_lose_nothing():
    text = "Blue: large crops. Amber: small ones, extraordinarilylongword and more"
    for width in (60, 120, 400):
        rows = lines(text, width, font(20))
        assert all(font(20).getlength(row) <= width for row in rows)
        assert "".join(rows).replace(" ", "") == text.replace(" ", "")
    assert lines(text, 120, font(20), most=1)[0].endswith("…") and lines("", 50, font(20)) == []


def test_a_file_is_what_the_command_line_writes():
    panel = run("rotation").panels[0]
    ending, data = panel_file(panel)
    assert ending == "png" and Image.open(io.BytesIO(data)).width >= 384

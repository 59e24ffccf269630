"""The running app's endpoints, through gradio_client."""

import re

import numpy as np
import pytest
from PIL import Image

from ssl_demo.pretext import all_tasks
from ssl_demo.video import load_clip

TASKS = list(all_tasks())


@pytest.fixture(scope="module")
def client(url):
    from gradio_client import Client

    return Client(url, verbose=False)


def call(client, name, file, **controls):
    """The panels as arrays by title, and the numbers."""
    from gradio_client import handle_file

    panels, numbers = client.predict(file=handle_file(str(file)), api_name=f"/{name}", **controls)
    return {panel["caption"]: np.asarray(Image.open(panel["image"])) if "image" in panel else load_clip(panel["video"]).frames
            for panel in panels}, numbers


def file_for(files, name):
    """A good file of the kind that the task takes."""
    return files / ("clip.mp4" if all_tasks()[name].card.input == "video" else "plain.png")


@pytest.mark.parametrize("name", TASKS)
def test_endpoint_takes_file_seed_and_controls_by_name(client, name):
    parameters = [p["parameter_name"] for p in client.view_api(return_format="dict")["named_endpoints"][f"/{name}"]["parameters"]]
    task = all_tasks()[name]
    company = ["company"] if task.card.company else []
    assert parameters == ["file", "seed", "network", *(control.name for control in task.controls), *company]


@pytest.mark.parametrize("name", TASKS)
def test_endpoint_gives_the_same_pixels_again_and_others_for_another_seed(client, files, name):
    file, controls = file_for(files, name), all_tasks()[name].controls

    def panels(seed, **setting):
        shown, numbers = call(client, name, file, seed=seed, **setting)
        assert numbers
        return shown

    def same(one, other):
        return one.keys() == other.keys() and all(np.array_equal(one[title], other[title]) for title in one)

    first = panels(5)
    assert same(first, panels(5))
    # One choice may leave nothing to chance where another does.
    choices = [{c.name: choice} for c in controls if c.kind == "choice" for choice in c.choices]
    assert not same(first, panels(6)) or any(not same(panels(5, **choice), panels(6, **choice)) for choice in choices)


def test_company_joins_by_name_and_a_bad_photo_in_it_is_named(client, files):
    from gradio_client import handle_file

    name = next(name for name, task in all_tasks().items() if task.card.company)
    alone, _ = call(client, name, files / "plain.png")
    joined, _ = call(client, name, files / "plain.png", company=[handle_file(str(files / "phone.heic"))])
    assert any(not np.array_equal(alone[title], joined[title]) for title in alone)
    with pytest.raises(Exception, match="is a text file, not a photo"):
        call(client, name, files / "plain.png", company=[handle_file(str(files / "notes <b>.jpg"))])


def test_endpoint_reads_heic_like_png(client, files):
    heic, _ = call(client, "mae", files / "phone.heic")
    plain, _ = call(client, "mae", files / "plain.png")
    assert np.abs(heic["Your photo"].astype(int) - plain["Your photo"]).mean() < 6


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("file", ["notes <b>.jpg", "drawing.svg", "cut.jpg"])
def test_endpoint_names_a_bad_file_in_one_sentence(client, files, name, file):
    with pytest.raises(Exception) as caught:
        call(client, name, files / file)
    text = str(caught.value)
    assert re.search(re.escape(file.split()[0].removesuffix(".jpg")), text) and text.count("\n") == 0
    assert "/tmp" not in text and str(files) not in text and "Traceback" not in text


def test_endpoint_refuses_a_value_out_of_range(client, files):
    with pytest.raises(Exception, match="95"):
        call(client, "mae", files / "plain.png", mask_ratio=99)


def test_endpoint_refuses_a_patch_that_is_not_there(client, files):
    with pytest.raises(Exception, match="no patch 999"):
        call(client, "mae", files / "plain.png", kind="by hand", patches="999")

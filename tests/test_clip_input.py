"""The clip input of the app: what an event function receives, and what a visitor reads about a bad file."""

import subprocess
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from gradio.context import LocalContext
from gradio.data_classes import FileData
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from ssl_demo.ui.clip_input import CAMERA, ClipInput
from ssl_demo.video import Clip, encode_mp4, load_clip

GREEN = np.full((5, 48, 64, 3), (20, 200, 30), np.uint8)


@pytest.fixture(autouse=True)
def _no_ffmpeg(monkeypatch):
    """Nothing here may need the ffmpeg program."""

    def refuse(*arguments, **options):
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr("gradio._vendor.ffmpy.FFmpeg.run", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.fixture
def put(tmp_path):
    """put(name, content) writes a file as the API client hands it over."""

    def put(name, content=None):
        path = tmp_path / name
        path.write_bytes(encode_mp4(GREEN, 12) if content is None else content)
        return FileData(**handle_file(str(path)))

    return put


def refusal(payload):
    with pytest.raises(gr.Error) as caught:
        ClipInput().preprocess(payload)
    error = caught.value
    assert error.print_exception is False and error.__cause__ is None and error.__suppress_context__
    return error.message


def test_nothing_stays_nothing():
    assert ClipInput().preprocess(None) is None and ClipInput().postprocess(None) is None


@pytest.mark.parametrize("arguments", [{}, {"sources": ["webcam"]}, {"format": "webm"}, {"include_audio": True}])
def test_an_upload_is_a_clip(put, arguments):
    clip = ClipInput(**arguments).preprocess(put("clip.mp4"))
    assert isinstance(clip, Clip) and clip.fps == 12
    assert clip.frames.shape == GREEN.shape and np.abs(clip.frames.astype(int) - GREEN).max() <= 4


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\n/etc/passwd\n", b"%PDF-1.7", b"\xff\xd8\xff\xe0", b"\0\0\0\x20ftypisom"])
def test_bad_file_is_named_and_its_folder_is_not(put, tmp_path, content):
    message = refusal(put("cat.mp4", content))
    assert "“cat.mp4”" in message and str(tmp_path) not in message and "/" not in message


def test_name_comes_from_the_visitor_and_is_escaped(put):
    payload = put("stored.mp4", b"")
    payload.orig_name = "<img src=x onerror=alert(1)>.mp4"
    assert refusal(payload) == "“&lt;img src=x onerror=alert(1)&gt;.mp4” is empty (0 bytes)."
    payload.orig_name = None
    assert refusal(payload) == "“your clip” is empty (0 bytes)."


def test_no_path():
    assert refusal(FileData(path="")) == "No clip arrived; please upload it again."


def test_front_end_gets_all_that_gr_video_gets():
    """Gradio reads a component's properties off the signature of its constructor."""
    mine = ClipInput(label="Clip", height=99)
    stock = gr.Video(label="Clip", height=99, include_audio=False, webcam_options=CAMERA)
    config, stock_config = mine.get_config(), stock.get_config()
    assert config == stock_config and config["label"] == "Clip" and config["height"] == 99 and config["include_audio"] is False
    assert mine.get_block_name() == "video" and mine.get_block_class() == stock.get_block_class()


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1)])
def test_what_is_shown_can_be_played(tmp_path, size):
    component = ClipInput()
    component.GRADIO_CACHE = str(tmp_path)
    served = component.postprocess(Clip(GREEN[:, : size[0], : size[1]], 10.0))
    shown = load_clip(served.path)
    assert served.path.endswith(".mp4") and served.path.startswith(str(tmp_path))
    assert shown.frames.shape == (5, size[0] + size[0] % 2, size[1] + size[1] % 2, 3) and shown.fps == 10
    assert component.postprocess(Clip(GREEN[:, : size[0], : size[1]], 10.0)).path == served.path, "same clip, same file"


def test_initial_value(put, tmp_path):
    path = put("first.mp4").path
    for value in (Clip(GREEN), encode_mp4(GREEN, 12), path):
        assert load_clip(ClipInput(value).value["path"]).frames.shape == GREEN.shape


def test_what_the_page_put_there_is_told_from_what_a_person_brings(put):
    assert not ClipInput.is_new(FileData(**ClipInput(Clip(GREEN)).value))
    assert not ClipInput.is_new(FileData(**ClipInput(put("first.mp4").path).value))
    assert ClipInput.is_new(put("first.mp4"))


def test_other_files_of_the_server(put):
    payload, token = put("secret.mp4"), LocalContext.blocks.set(SimpleNamespace(has_launched=True))
    try:
        assert refusal(payload) == "Only uploaded clips can be used; please upload it first."
    finally:
        LocalContext.blocks.reset(token)


def test_through_a_running_server(put, tmp_path):
    with gr.Blocks() as demo:
        clip, text = ClipInput(), gr.Textbox()
        gr.Button().click(lambda clip: str(clip and clip.frames.shape), clip, text, api_name="size")
        gr.Button().click(lambda clip: clip and Clip(255 - clip.frames, clip.fps), clip, clip, api_name="negative")
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True)
    try:
        client = Client(url, verbose=False, download_files=str(tmp_path / "downloads"))

        def size(value):
            return client.predict(value, api_name="/size")

        good = put("good.mp4").path
        assert size(handle_file(good)) == "(5, 48, 64, 3)"
        assert size(None) == "None"
        answer = client.predict(handle_file(good), api_name="/negative")
        assert np.abs(load_clip(answer).frames.astype(int) - (255 - GREEN)).max() <= 6
        with pytest.raises(AppError, match="“bad.mp4” is a text file") as caught:
            size(handle_file(put("bad.mp4", b"text").path))
        assert str(tmp_path) not in str(caught.value)
        for disguise in ({}, {"meta": {}}, {"meta": {"_type": "other"}}):
            with pytest.raises(AppError):  # Gradio's own refusal
                size({"path": good, **disguise})
    finally:
        demo.close()

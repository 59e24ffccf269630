"""The picture input of the app: what an event function receives, and what a visitor reads about a bad file."""

import base64
import io

import gradio as gr
import numpy as np
import pytest
from gradio.data_classes import ImageData
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from ssl_demo.ui.photo_input import PhotoInput


@pytest.fixture
def put(tmp_path):
    """put(name, content) writes a file as the API client hands it over."""

    def put(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path)
        return ImageData(**handle_file(str(path)))

    return put


def refusal(payload):
    with pytest.raises(gr.Error) as caught:
        PhotoInput().preprocess(payload)
    error = caught.value
    assert error.print_exception is False and error.__cause__ is None and error.__suppress_context__
    return error.message


def test_nothing_stays_nothing():
    assert PhotoInput().preprocess(None) is None


def test_photo_is_upright_rgb(put, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGBA", (30, 20), (255, 0, 0, 128)).save(tmp_path / "turned.png", exif=exif)
    photo = PhotoInput().preprocess(put("turned.png", (tmp_path / "turned.png").read_bytes()))
    assert photo.mode == "RGB" and photo.size == (20, 30) and photo.getpixel((0, 0)) == (255, 127, 127)


def test_what_the_stock_component_gets_wrong(put):
    deep = put("deep.png", Image.fromarray(np.full((4, 4), 100 * 257, np.uint16)))
    assert PhotoInput().preprocess(deep).getpixel((0, 0)) == (100, 100, 100)
    palette = Image.new("P", (4, 4))
    palette.putpalette([10, 20, 30])
    assert PhotoInput().preprocess(put("p.gif", palette)).getpixel((0, 0)) == (10, 20, 30)


def test_large_photo_is_limited(put):
    assert PhotoInput().preprocess(put("wide.png", Image.new("RGB", (3000, 1500)))).size == (1024, 512)


def test_type_and_image_mode_change_nothing(put):
    payload = put("photo.png", Image.new("RGB", (4, 4)))
    for arguments in ({"type": "numpy"}, {"type": "filepath"}, {"image_mode": "L"}):
        assert PhotoInput(**arguments).preprocess(payload).mode == "RGB"


@pytest.mark.parametrize("content", [b"", b"text", b"<svg/>", b"%PDF-1.7", b"\xff\xd8\xff\xe0"])
def test_bad_file_is_named_and_its_folder_is_not(put, tmp_path, content):
    message = refusal(put("cat.jpg", content))
    assert "“cat.jpg”" in message and str(tmp_path) not in message and "/" not in message


def test_name_comes_from_the_visitor_and_is_escaped(put):
    payload = put("stored.jpg", b"")
    payload.orig_name = "<img src=x onerror=alert(1)>.jpg"
    assert refusal(payload) == "“&lt;img src=x onerror=alert(1)&gt;.jpg” is empty (0 bytes)."
    payload.orig_name = None
    assert refusal(payload) == "“your picture” is empty (0 bytes)."


def test_data_url(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (10, 20, 30)).save(buffer, "PNG")
    component = PhotoInput()
    component.GRADIO_CACHE = str(tmp_path)
    payload = ImageData(url="data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
    photo = component.preprocess(payload)
    assert photo.size == (5, 4) and photo.getpixel((0, 0)) == (10, 20, 30)
    with pytest.raises(gr.Error, match="arrived damaged"):
        component.preprocess(ImageData(url="data:image/png;base64,AAA"))


def test_no_path():
    assert refusal(ImageData(url="http://127.0.0.1:1/cat.png")) == "No picture arrived; please upload it again."


def test_front_end_gets_all_that_gr_image_gets():
    """Gradio reads a component's properties off the signature of its constructor."""
    mine, stock = PhotoInput(label="Photo", height=99, type="pil"), gr.Image(label="Photo", height=99, type="pil", format="png")
    config, stock_config = mine.get_config(), stock.get_config()
    assert config == stock_config and config["label"] == "Photo" and config["height"] == 99
    assert mine.get_block_name() == "image" and mine.get_block_class() == stock.get_block_class()


def test_output_is_exact(tmp_path):
    component = PhotoInput()
    component.GRADIO_CACHE = str(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    served = component.postprocess(Image.fromarray(noise))
    assert served.path.endswith(".png") and (np.asarray(Image.open(served.path)) == noise).all()


def test_initial_value(tmp_path):
    path = tmp_path / "first.png"
    Image.new("RGB", (4, 4)).save(path)
    for box in (PhotoInput(str(path)), PhotoInput(value=str(path))):
        assert Image.open(box.value["path"]).size == (4, 4)


def test_what_the_page_put_there_is_told_from_what_a_person_brings(tmp_path):
    path = tmp_path / "first.png"
    Image.new("RGB", (4, 4)).save(path)
    assert not PhotoInput.is_new(ImageData(**PhotoInput(str(path)).value))
    assert PhotoInput.is_new(ImageData(path=str(path), orig_name="first.png"))


def test_through_a_running_server(put, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (9, 9)).save(secret)
    with gr.Blocks() as demo:
        photo, text = PhotoInput(), gr.Textbox()
        gr.Button().click(lambda image: str(image and image.size), photo, text, api_name="size")
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True)
    try:
        client = Client(url, verbose=False)

        def size(value):
            return client.predict(value, api_name="/size")

        assert size(handle_file(put("good.png", Image.new("RGB", (30, 20))).path)) == "(30, 20)"
        assert size(None) == "None"
        with pytest.raises(AppError, match="“bad.jpg” is a text file") as caught:
            size(handle_file(put("bad.jpg", b"text").path))
        assert str(tmp_path) not in str(caught.value)
        for disguise in ({}, {"meta": {}}, {"meta": {"_type": "other"}}):
            with pytest.raises(AppError, match="Only uploaded pictures"):
                size({"path": str(secret), **disguise})
    finally:
        demo.close()

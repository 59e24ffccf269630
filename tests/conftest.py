"""What all tests share: one thread, a temporary cache, a few photos that everybody may use, and where the larger set lies."""

import os
import socket
import subprocess
import sys
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before anything reads them. Apps of two workers that shared a folder would delete each other's visitors' pictures.
os.environ["SSL_DEMO_CACHE"] = tempfile.mkdtemp(prefix="ssl_demo_test_")
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="ssl_demo_test_")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same arithmetic on every machine

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from pages import begin, launch, open_page, state
from PIL import Image

from ssl_demo.data import Photos
from ssl_demo.images import square
from ssl_demo.video import camera_move, encode_mp4

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
# Of every task a network that a few steps cost next to nothing.
SMALL = {"rotation": ["size=32", "width=8", "depths=[1,1]"],
         "relative_patch": ["size=64", "patch=12", "jitter=1", "width=8", "depths=[1,1,1]"],
         "jigsaw": ["size=32", "tile=8", "width=8", "depths=[1,1]", "permutations=20"],
         "inpainting": ["size=32", "width=8", "depths=[1,1,1]"],
         "colorization": ["size=32", "width=8", "depths=[1,1]", "decoder_width=8"],
         "split_brain": ["size=32", "width=8", "depths=[1,1]", "decoder_width=8"],
         "video_color": ["size=32", "width=8", "depths=[1,1]", "features=32", "clusters=4"],
         "mae": ["size=32", "width=32", "depth=1", "heads=2", "decoder_width=32", "decoder_depth=1"],
         "moco": ["size=32", "view=24", "width=8", "depths=[1,1]", "features=16", "queue=32"],
         "simclr": ["size=32", "view=24", "width=8", "depths=[1,1]", "hidden=32", "projection=16"],
         "cpc": ["size=32", "cell=16", "stride=8", "patch=12", "width=8", "depths=[1,1]", "features=32"],
         "dino": ["size=32", "view=16", "local=8", "stem_width=8", "stem_depths=[1,1]", "width=32", "depth=1", "heads=2",
                  "hidden=32", "bottleneck=8", "prototypes=32"]}  # fmt: skip
SKIMAGE = ("astronaut", "chelsea", "coffee", "rocket")  # credited in ssl_demo/examples.py


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Tests of the running app come first, so that of two workers one starts the app and Chromium, and not both."""
    items.sort(key=lambda item: not {"url", "chromium"} & set(getattr(item, "fixturenames", ())))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What a page showed when its test failed stands in the report: on other machines nobody sees the page."""
    report = yield
    pages = {id(value): value for value in getattr(item, "funcargs", {}).values() if hasattr(value, "errors")}
    if call.when == "call" and report.failed:
        report.sections += [("the page, when its test failed", state(page)) for page in pages.values()]
    return report


def shared(name):
    """A path below ``../shared/data``; the test is skipped, and says why, where that is not there."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {path}, photos that are not part of the repository")
    return path


def generator(seed=0):
    """All chance of a test."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session", autouse=True)
def _remove_cache():
    yield
    import shutil

    for folder in ("SSL_DEMO_CACHE", "GRADIO_TEMP_DIR"):
        shutil.rmtree(os.environ[folder], ignore_errors=True)


@pytest.fixture(scope="session")
def photo():
    """Eileen Collins, NASA, public domain: 512 x 512."""
    return Image.fromarray(skimage.data.astronaut())


@pytest.fixture(scope="session")
def photos():
    """32 square crops of the four photos of scikit-image, 144 pixels a side."""
    random, crops = np.random.default_rng(0), []
    for number in range(32):
        whole = Image.fromarray(getattr(skimage.data, SKIMAGE[number % len(SKIMAGE)])())
        side = int(random.integers(180, min(whole.size) + 1))
        left, top = (int(random.integers(0, length - side + 1)) for length in whole.size)
        crops.append(np.asarray(square(whole.crop((left, top, left + side, top + side)), 144)))
    return Photos(np.stack(crops), [f"{SKIMAGE[number % len(SKIMAGE)]}-{number}" for number in range(32)])


@pytest.fixture(scope="session")
def folder(photos, tmp_path_factory):
    """The same photos as PNG files in a folder, for the command line."""
    path = tmp_path_factory.mktemp("photos")
    for name, pixels in zip(photos.names, photos.array):
        Image.fromarray(pixels).save(path / f"{name}.png")
    return path


@pytest.fixture(scope="session")
def clip(photo):
    """A camera moving over that photo: 24 frames of 144 x 144."""
    return camera_move(photo)


@pytest.fixture(scope="session")
def clip_folder(photos, tmp_path_factory):
    """Seven sequences of six frames `NAME/frames/00000.png` and as many masks: a square slides over a photo."""
    path = tmp_path_factory.mktemp("clips")
    for number, pixels in enumerate(photos.array[:7]):
        for kind in ("frames", "masks"):
            (path / "abcdefg"[number] / kind).mkdir(parents=True)
        for t in range(6):
            frame, mask = pixels.copy(), np.zeros((144, 144), np.uint8)
            left = 20 + (4 + number) * t
            mask[50:90, left : left + 40] = 1
            frame[50:90, left : left + 40] = photos.array[number + 8][:40, :40]
            Image.fromarray(frame).save(path / "abcdefg"[number] / "frames" / f"{t:05d}.png")
            Image.fromarray(mask).save(path / "abcdefg"[number] / "masks" / f"{t:05d}.png")
    return path


@pytest.fixture(scope="session")
def two_processes():
    """two_processes(script, arguments): a script run by two processes that know of each other; what each printed."""
    def run(script, *arguments):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                  "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}  # fmt: skip
        command = [sys.executable, "-c", script, *map(str, arguments)]
        processes = [subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True, cwd=ROOT,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in range(2)]  # fmt: skip
        try:
            ends = [process.communicate(timeout=240) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], ends[0][1][-2000:] + ends[1][1][-2000:]
        return [out for out, _ in ends]

    return run


@pytest.fixture(autouse=True)
def _one_thread():
    yield
    torch.set_num_threads(1)  # commands choose their own


@pytest.fixture
def weights_in(monkeypatch):
    """weights_in(folder): for the time of a test, that folder is where bundled weights lie."""
    from ssl_demo.inference import load

    def weights_in(folder):
        monkeypatch.setattr("ssl_demo.checkpoints.WEIGHTS", folder)
        load.cache_clear()  # networks are cached for the life of an app; here weights come and go
        return folder

    yield weights_in
    load.cache_clear()


@pytest.fixture
def no_weights(tmp_path, weights_in):
    """An empty folder in place of the bundled weights; returns it."""
    (tmp_path / "weights").mkdir()
    return weights_in(tmp_path / "weights")


@pytest.fixture(scope="session")
def url():
    patch = pytest.MonkeyPatch()
    patch.setenv("NO_PROXY", "127.0.0.1")
    import app

    _, address, _ = app.demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **app.LAUNCH)
    yield address.rstrip("/")
    app.demo.close()
    patch.undo()


@pytest.fixture(scope="session")
def chromium():
    yield from launch()


@pytest.fixture(scope="session")
def visit(chromium, url):
    """One page for all tests that leave no trace in the others, or begin with `begin`: to open one takes seconds."""
    yield from open_page(chromium, url, 1440, 900)


@pytest.fixture
def page(visit):
    """That page on the tab of rotation, as a visit begins."""
    begin(visit, "rotation")
    return visit


@pytest.fixture
def mae_page(visit):
    """That page on the tab of the masked autoencoder, as a visit begins."""
    begin(visit, "mae")
    return visit


@pytest.fixture
def fresh_page(chromium, url):
    """A page of a test's own."""
    yield from open_page(chromium, url, 1440, 900)


@pytest.fixture(scope="session")
def phone(chromium, url):
    yield from open_page(chromium, url, 390, 844)


@pytest.fixture
def app(url):
    """The app that is served."""
    import app

    return app.demo.app


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Files a visitor may bring: good photos, and things that are none."""
    import skimage.data

    folder = tmp_path_factory.mktemp("brought")
    photo = Image.fromarray(skimage.data.astronaut()).crop((60, 0, 460, 300))
    photo.save(folder / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.rotate(90, expand=True).save(folder / "sideways.jpg", exif=exif, quality=95)
    photo.save(folder / "phone.heic", quality=90)
    clip = camera_move(photo, frames=6, size=96)
    (folder / "clip.mp4").write_bytes(encode_mp4(clip.frames, clip.fps))
    (folder / "notes <b>.jpg").write_text("not a photo")
    (folder / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    (folder / "cut.jpg").write_bytes((folder / "sideways.jpg").read_bytes()[:3000])
    return folder

"""Nothing that a visitor brought outlives the visit."""

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from pages import upload
from PIL import Image

from ssl_demo.ui import lab_visits, leaving

SIZE = (413, 307)  # of no other picture here


@pytest.fixture
def quickly(monkeypatch):
    monkeypatch.setattr(leaving, "AWAY", 2.0)
    monkeypatch.setattr(leaving, "EVERY", 0.3)


@pytest.fixture
def file(tmp_path):
    pixels = np.random.default_rng(7).integers(0, 255, (*SIZE[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    return tmp_path / "mine.png"


def pictures():
    """How many pictures of that size this process holds."""
    gc.collect()
    return sum(1 for one in gc.get_objects() if issubclass(type(one), Image.Image) and one.size == SIZE)


def files():
    """All that lies where uploads arrive. `os.walk` minds no folder that goes meanwhile: other visits end beside this one."""
    return {Path(folder, name) for folder, _, names in os.walk(os.environ["GRADIO_TEMP_DIR"]) for name in names}


def until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()


def test_a_photo_is_there_for_the_visit_and_gone_after_it(chromium, url, file, quickly, app):
    others = set(leaving.guests.here)  # other tests' pages may stay
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    try:
        page.goto(url)
        page.wait_for_selector(".method img")
        before = files()
        visits = {visit for visit, count in leaving.guests.here.items() if count} - others
        upload(page, file)
        assert until(lambda: {"mine.png", "image.png"} <= {path.name for path in files() - before} and pictures())
        page.wait_for_timeout(1000 * (leaving.AWAY + 3 * leaving.EVERY))
        assert files() - before and pictures(), "an open page keeps what was brought"  # others' files may go meanwhile
    finally:
        page.close()  # whatever went wrong: the next test asks that nothing be left
    assert until(lambda: files() <= before and not pictures()), (files() - before, pictures())
    assert visits and not visits & set(app.state_holder.session_data)


def test_programs_leave_nothing_either(url, file, quickly, app, tmp_path):
    before = files()
    client = Client(url, verbose=False, download_files=tmp_path / "theirs")  # what they fetch is theirs
    client.predict(file=handle_file(str(file)), api_name="/rotation")
    assert files() - before
    client.close()
    assert until(lambda: files() <= before and not pictures()), (files() - before, pictures())


def test_a_run_that_was_begun_by_plain_http_lasts_as_long_as_somebody_asks_about_it(url, quickly, monkeypatch):
    """There is no page that could close: what Gradio takes for the visit is the id of the first call."""
    monkeypatch.setattr(leaving, "AWAY", 3.0)  # a busy machine may take two to ask
    small = ["rotation", "examples", 60, "tiny", "scratch", {"batch": "4"}, "", 0, None, None, None]
    visit = httpx.post(f"{url}/gradio_api/call/lab_start", json={"data": small}).json()["event_id"]
    assert until(lambda: lab_visits.lab().runs(visit))
    (run,) = lab_visits.lab().runs(visit)
    begin = time.monotonic()
    while time.monotonic() < begin + leaving.AWAY + 1:
        asked = httpx.post(f"{url}/gradio_api/run/lab_status", json={"data": [""], "session_hash": visit}, timeout=30)
        assert asked.json()["data"][0]["state"] in ("waiting", "running"), asked.text
        time.sleep(0.3)
    assert until(lambda: not lab_visits.lab().runs(visit), 30) and run.join(10) and visit not in lab_visits.owners()


def begun(visit, photo):
    """A run of that visit which has made a step, and weights that it keeps."""
    run = lab_visits.start(visit, "rotation", "examples", seconds=60, size="tiny", start_from="scratch", called="", seed=0,
                           knobs={"batch": "4"}, photo=photo, moving=photo, brought=[], company=[])
    assert until(lambda: run.view().step)
    return run, lab_visits.shelf().keep(visit, Path(__file__))


def test_a_page_that_closes_frees_the_place_of_its_run_and_finds_everything_when_it_comes_back_soon(url, quickly, photo):
    visit = "a page with a weak network"

    @contextlib.contextmanager
    def page():
        with httpx.stream("GET", f"{url}/gradio_api/heartbeat/{visit}", timeout=60) as connection:
            beats = connection.iter_raw()  # whose end would be that of the connection
            next(beats)
            yield

    with contextlib.ExitStack() as anew:
        with page():
            run, kept = begun(visit, photo)
            anew.enter_context(page())
        assert until(lambda: leaving.guests.here[visit] == 1, 30)
        time.sleep(0.5)
        assert run.going, "the page has connected anew, and only the connection before has ended"
    assert until(lambda: not run.going, 30) and run.join(30)
    with page():
        time.sleep(leaving.AWAY + 2 * leaving.EVERY)
        assert lab_visits.lab().runs(visit) == [run] and run.view().weights.is_file() and kept.is_file()
    assert until(lambda: visit not in lab_visits.owners(), 30)
    assert not lab_visits.lab().runs(visit) and not run.view().weights.exists() and not kept.exists()


def test_who_comes_back_soon_finds_everything(monkeypatch):
    guests, clock = leaving.Guests(), [1000.0]
    monkeypatch.setattr(leaving, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    assert not guests.is_here("a")
    guests.come("a")
    clock[0] += 5000
    assert guests.is_here("a"), "however long a page is open"
    guests.go("a")
    clock[0] += leaving.AWAY - 1
    assert guests.is_here("a") and not guests.is_here("b")
    clock[0] += 2
    assert not guests.is_here("a")


def test_a_look_that_fails_is_not_the_last(monkeypatch):
    looks = []

    def forget(app):
        looks.append(app)
        raise RuntimeError("dictionary changed size during iteration")

    async def some_time():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(leaving.Leaving.look("app"), 0.5)

    monkeypatch.setattr(leaving, "EVERY", 0.01)
    monkeypatch.setattr(leaving.guests, "forget", forget)
    with ThreadPoolExecutor(1) as thread:  # Playwright has a loop of its own in this one
        thread.submit(asyncio.run, some_time()).result()
    assert looks.count("app") > 1  # the app that other tests ask looks as well


def test_pages_come_and_go_while_those_that_went_are_looked_after(monkeypatch):
    """The counts are right afterwards, and no look fails over a page that comes during it."""
    guests, done = leaving.Guests(), threading.Event()
    blocks = SimpleNamespace(temp_file_sets=[], blocks={})
    app = SimpleNamespace(get_blocks=lambda: blocks, state_holder=SimpleNamespace(session_data={}, time_last_used={}))
    monkeypatch.setattr(leaving, "AWAY", 0.001)
    monkeypatch.setattr(leaving.visits, "owners", dict)  # those of other tests may stay

    def visitors():
        for number in range(3000):
            guests.come(f"visit {number}")
            guests.go(f"visit {number}")
        guests.come("who stays")
        done.set()

    thread, pause = threading.Thread(target=visitors), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # seconds between two threads' turns: what is rare comes often
    try:
        thread.start()
        while not done.is_set():
            guests.forget(app)
    finally:
        sys.setswitchinterval(pause)
        thread.join()
    guests.forget(app)
    assert guests.here == {"who stays": 1}


def test_the_page_says_no_less_than_the_truth():
    minutes = {"two": 2}[leaving.TOLD.split()[0]]
    assert leaving.AWAY + leaving.EVERY < 60 * minutes

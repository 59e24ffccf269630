"""How tests drive the running app's page in Chromium: opening it, what it shows, and what a visitor does. No tests.

Opening the page takes seconds of processor time, so tests share one (``page``, ``mae_page`` and ``phone`` of conftest.py), which
``begin`` leads back to where a visit begins.
"""

import base64
import io
import itertools
import os
import re
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from ssl_demo.examples import EXAMPLES
from ssl_demo.pretext import all_tasks

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TASKS = list(all_tasks())
ASKS = re.compile("/gradio_api/(run/|queue/join)")  # not the stream that answers the latter: its end is not always told
_asked = itertools.count()


def launch():
    """Playwright's Chromium, running until the generator is closed; skips where there is none, and fails so on CI."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("the page cannot be tested: there is no Chromium (Debian: apt-get install chromium)")
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"])
        yield browser
        browser.close()


def open_page(chromium, url, width, height):
    page = chromium.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(60_000)  # other work may share the machine
    page.outside, page.errors, page.waits_for = [], [], set()
    local = ("data:", "blob:", url)
    page.on("request", lambda request: None if request.url.startswith(local) else page.outside.append(request.url))
    # What the app was asked and has not answered; Gradio's heartbeat and what is only fetched are not waited for.
    page.on("request", lambda request: page.waits_for.add(request) if ASKS.search(request.url) else None)
    for end in ("requestfinished", "requestfailed"):
        page.on(end, lambda request: page.waits_for.discard(request))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(f"{message.text} at {message.location.get('url', '')}")
            if message.type == "error" else None)
    # A page that is left for another address logs that its connections end: no mistake of the one that has come.
    page.on("domcontentloaded", lambda _: page.errors.__setitem__(slice(None), [
        error for error in page.errors if not any(left in error for left in ("AbortError", "Connection errored out"))]))
    page.goto(url)
    page.wait_for_selector(".method img")
    open_tab(page, "rotation")  # where the tests below begin, whichever tab is the first
    yield page
    page.close()


def settle(page, seconds=0.03):
    """Waits until the page has all its answers, and for so long asks for none that follow from them; at most 20 s."""
    end, quiet = time.monotonic() + 20, 0
    while quiet * 0.03 < seconds and time.monotonic() < end:
        page.wait_for_timeout(30)
        quiet = 0 if page.waits_for else quiet + 1


def begin(page, task):
    """Leads a page that others have used to a task's tab, all there and the photo as at first, and no toast or mistake left.

    Where something differs from that the server is asked for it by a link, as a lecture does it. What a test before left on its
    way arrives first: a late answer would change what this one has made.
    """
    settle(page)
    page.evaluate("document.querySelectorAll('.toast-close').forEach(button => button.click())")
    page.wait_for_selector(".toast-body", state="detached")
    if page.locator(".lecture").count():
        page.keyboard.press("Escape")
    if page.viewport_size != {"width": 1440, "height": 900}:
        page.set_viewport_size({"width": 1440, "height": 900})
    if not page.locator("#photo input[type=file]").count():  # the box stands at the camera, or at the clipboard
        page.click("#photo button[aria-label='Upload file']")
    open_tab(page, task)
    link, photo = f"?task={task}&photo={EXAMPLES[0].name}", page.input_value("#photo-name :is(input, textarea)")
    as_at_first = f"#{task}-story .story[data-link='{link}']"
    seed = page.input_value(f"#{task}-seed input")
    there = page.locator("#photo img:visible").count() and page.locator(as_at_first).count()
    if (photo, seed) != (EXAMPLES[0].name, "0") or not there:
        page.evaluate("""link => {
            const task = new URLSearchParams(link.split('#')[0]).get('task');
            const box = document.querySelector(`#asked-${task} :is(input, textarea)`);
            box.value = link;
            box.dispatchEvent(new Event('input', {bubbles: true}));
        }""", f"{link}#test{next(_asked)}")
        page.wait_for_function("name => document.querySelector('#photo-name :is(input, textarea)').value === name"
                               " && document.querySelector('#photo img:not(.hide)')", arg=EXAMPLES[0].name)
    page.wait_for_selector(as_at_first)
    page.wait_for_function("box => document.querySelector(box).value === '0'", arg=f"#{task}-seed input")
    settle(page)
    page.evaluate("window.scrollTo(0, 0)")
    page.errors.clear()


def state(page):
    """Where a page stands, as text: its address, its mistakes, what it told, and what its events asked for."""
    try:
        told = page.evaluate("""() => {
            const value = (box) => document.querySelector(`${box} :is(input, textarea)`)?.value;
            const texts = (found) => [...document.querySelectorAll(found)].map((one) => one.innerText).filter(Boolean);
            const again = [...document.querySelectorAll('[id^=again-]')].map((box) => [box.id, value(`#${box.id}`)]);
            return {address: location.search, open: window.place?.now(), photo: value('#photo-name'), hears: value('#hears'),
                    again: again.filter(([, asked]) => asked), told: texts('.toast-body, .told-mistake, [role=alert]'),
                    works: texts('.progress, #photo'), files: document.querySelectorAll('#photo input[type=file]').length};
        }""")
    except Exception as error:  # the page itself may be gone
        told = {"gone": str(error)}
    return "\n".join(f"{name}: {value}" for name, value in {**told, "errors": page.errors, "outside": page.outside}.items())


def source(page, task, panel):
    return page.get_attribute(f"#{task}-story [data-panel={panel}] img", "src")


def picture(page, task, panel):
    """A panel's exact pixels, from the PNG in the page."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source(page, task, panel).split(",", 1)[1]))).convert("RGB"))


def wait_for_change(page, task, panel, before):
    page.wait_for_function("([selector, before]) => { const image = document.querySelector(selector);"
                           " return image && image.src !== before }",
                           arg=[f"#{task}-story [data-panel={panel}] img", before])


def upload(page, file):
    """Gives the photo's box a file; a box that holds a photo is emptied first, as a visitor would."""
    page.set_input_files("#photo input[type=file]", str(file))


def choose(page, box, option):
    page.click(f"{box} input")
    page.get_by_role("option", name=option).click()


def open_tab(page, task):
    page.click("#room-methods-button")
    page.get_by_role("tab", name=all_tasks()[task].card.title).click()
    page.wait_for_selector(f"#{task}-story .story img")


def set_slider(page, selector, value):
    page.evaluate("([selector, value]) => { const e = document.querySelector(selector); e.value = value;"
                  " e.dispatchEvent(new Event('input', {bubbles: true})) }", [f"{selector} input[type=range]", value])

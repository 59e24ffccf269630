"""What benchmarks of the page share: the app in a process of its own, and Chromium to look at it with. No benchmark itself."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def served(**environment: str) -> Iterator[tuple[int, str]]:
    """The number of the app's process, and its address, for as long as the block lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "NO_PROXY": "127.0.0.1", **environment}
    app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(url, timeout=5).read()
                break
            except OSError:
                if app.poll() is not None:
                    break
                time.sleep(0.5)
        if app.poll() is not None:
            sys.exit("The app did not start.")
        yield app.pid, url
    finally:
        app.terminate()
        app.wait(20)


@contextmanager
def browsed() -> Iterator[Page]:
    """An empty page of a laptop's size in Chromium; where there is none, one sentence and the end."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("There is no Chromium here.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(60_000)  # the machine may be busy
        yield page
        browser.close()

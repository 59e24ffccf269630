"""Nothing that the page needs lies on another machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import ROOT
from pages import open_tab

# Run where there is no network but the machine's own: it starts the app, and asks the page and one endpoint.
ALONE = """
import json, os, socket, sys, urllib.request
try:
    socket.create_connection(("1.1.1.1", 443), timeout=3)
    sys.exit("there is a network here")
except OSError:
    pass
import app
from gradio_client import Client, handle_file
_, url, _ = app.demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **app.LAUNCH)
page = urllib.request.urlopen(url).read().decode()
panels, numbers = Client(url, verbose=False).predict(file=handle_file(sys.argv[1]), seed=0, api_name="/rotation")
print(json.dumps({"page": "Self-supervised learning, seen" in page, "panels": len(panels), "numbers": numbers,
                  "folder": os.environ["GRADIO_TEMP_DIR"], "kept": len(os.listdir(os.environ["GRADIO_TEMP_DIR"]))}))
"""


def test_no_request_leaves_the_machine_in_any_room(page, url):
    """Nor has one when the page was opened, or in any test before this."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    open_tab(page, "mae")
    for room, shows in (("transfer", "#transfer-story .map .own image"), ("teach", "#teach-story"), ("lab", "#lab-panels img"),
                        ("overview", ".method img")):
        page.click(f"#room-{room}-button")
        page.wait_for_selector(shows, timeout=60_000)
    page.click("#room-transfer-button")
    page.click("#measured button.label-wrap")
    page.wait_for_selector("#measured-gap .js-plotly-plot .main-svg", timeout=60_000)
    assert any(one.startswith(url) for one in asked), "requests are seen at all"
    assert page.outside == []


def test_the_app_starts_and_answers_without_a_network(photo, tmp_path):
    alone = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if not shutil.which("unshare") or not shutil.which("ip") or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a process have a network of its own (unshare, ip)")
    photo.save(tmp_path / "photo.png")
    done = subprocess.run([*alone, sys.executable, "-c", ALONE, str(tmp_path / "photo.png")], cwd=ROOT, text=True,
                          capture_output=True, timeout=400,
                          env={name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"})
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert answer["page"] and answer["panels"] >= 4 and answer["numbers"]
    shared = Path(tempfile.gettempdir(), "gradio")  # where other apps would delete its visitors' files, and it theirs
    assert answer["kept"] and Path(answer["folder"]) != shared and not Path(answer["folder"]).exists(), "gone with the app"

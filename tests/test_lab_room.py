"""The training lab, through its API and in Chromium."""

import asyncio
import json
import math
import re
import time
import zipfile
from dataclasses import replace

import gradio as gr
import pytest
from pages import open_page, settle, source, wait_for_change
from safetensors.torch import save_file

from ssl_demo import comparison, live
from ssl_demo.checkpoints import load_weights, save_weights, sha256
from ssl_demo.live import Point, View
from ssl_demo.pretext import all_tasks, create
from ssl_demo.ui import lab_drawing, lab_room, lab_visits

QUICK = {"task": "rotation", "size": "tiny", "knobs": {"batch": "4"}}


@pytest.fixture(scope="module")
def two(url):
    from gradio_client import Client

    return [Client(url, verbose=False) for _ in range(2)]


@pytest.fixture
def clients(two):
    """Two visits; what they began is over at the end."""
    yield two
    for client in two:
        lab_visits.leave(client.session_hash)


@pytest.fixture(scope="module")
def visit(chromium, url):
    yield from opened(chromium, url)


def opened(chromium, url):
    for page in open_page(chromium, url, 1440, 900):
        page.get_by_role("tab", name="Training lab").click()
        page.wait_for_selector("#lab-panels img")
        yield page


def until(what, seconds=60):
    """Waits for something that is true, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come")


def answer_late(monkeypatch, elem_id, event, seconds=1.2, only=lambda inputs: True):
    """What the app says to an event arrives so much later than it was found, and after younger answers."""
    plain = gr.Blocks.process_api

    async def process_api(self, block_fn, inputs, *args, **more):
        answer = await plain(self, block_fn, inputs, *args, **more)
        told = [getattr(self.blocks[block], "elem_id", None) for block, name in block_fn.targets if name == event]
        if elem_id in told and only(inputs):
            await asyncio.sleep(seconds)
        return answer

    monkeypatch.setattr(gr.Blocks, "process_api", process_api)


def status(client, **which):
    return client.predict(api_name="/lab_status", **which)


def wait_for_state(client, *states):
    return until(lambda: (now := status(client))["state"] in states and now)


def test_a_run_trains_ends_in_its_time_and_stays_its_owners(clients):
    ours, theirs = clients
    begun = ours.predict(seconds=2, api_name="/lab_start", **QUICK)
    assert begun["state"] == "running" and begun["place"] == 0 and begun["skipped"] == []
    with pytest.raises(Exception, match="No training of yours"):
        status(theirs)
    with pytest.raises(Exception, match="There is no training"):
        status(theirs, id=begun["id"])
    with pytest.raises(Exception, match="There is no training"):
        theirs.predict(id=begun["id"], api_name="/lab_stop")
    other = theirs.predict(seconds=60, api_name="/lab_start", **QUICK)
    assert other["state"] == "running", "two at once"
    with pytest.raises(Exception, match="One training of yours is going already"):
        theirs.predict(seconds=60, api_name="/lab_start", **QUICK)
    done = wait_for_state(ours, "finished", "failed")
    assert done["state"] == "finished" and done["weights"] and done["step"] >= 1 and math.isfinite(done["loss"])
    assert 0 <= done["metric"] <= 1 and done["metric_chance"] == 0.25 and math.isclose(done["loss_level"], math.log(4))
    assert status(theirs)["id"] == other["id"] and status(theirs)["state"] == "running"


def test_stop_ends_it_with_the_step_it_is_at(clients):
    client = clients[0]
    client.predict(seconds=60, api_name="/lab_start", **QUICK)
    until(lambda: status(client)["step"] > 1)
    at = client.predict(api_name="/lab_stop")["step"]
    done = wait_for_state(client, "stopped", "finished")
    assert done["state"] == "stopped" and done["step"] <= at + 1 and done["weights"]


def test_the_time_is_capped_and_a_photo_that_cannot_be_read_is_named_while_the_good_one_trains(clients, files):
    from gradio_client import handle_file

    client = clients[0]
    photos = [handle_file(str(files / name)) for name in ("notes <b>.jpg", "plain.png")]
    begun = client.predict(seconds=1e9, photos=photos, api_name="/lab_start", **QUICK)
    assert begun["budget"] == lab_visits.lab().most_seconds
    assert len(begun["skipped"]) == 1 and "notes" in begun["skipped"][0] and "is a text file" in begun["skipped"][0]
    assert begun["data"] == "the photo you added"
    assert until(lambda: status(client)["step"])
    client.predict(api_name="/lab_stop")
    with pytest.raises(Exception, match="is a text file, not a photo"):
        client.predict(photos=photos[:1], api_name="/lab_start", **QUICK)


@pytest.mark.parametrize("wrong, says", [
    ({"task": "nothing"}, "There is no task"), ({"data": "/etc"}, "There is no data called"), ({"data": "host:/etc"}, "no data"),
    ({"data": "photos"}, "Add some photos first"), ({"seconds": -1}, "above 0"), ({"size": "huge"}, "one of tiny, small"),
    ({"knobs": {"lr": "much"}}, "must be one of"), ({"start": "/etc/passwd"}, "starts from scratch"),
    ({"data": "clip"}, "Bring a clip"),
])  # fmt: skip
def test_what_cannot_be_is_said_in_one_sentence(clients, wrong, says):
    with pytest.raises(Exception, match=says) as caught:
        clients[0].predict(api_name="/lab_start", **{**QUICK, **wrong})
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_full_lab_shows_the_place_and_is_free_when_a_page_closes(chromium, url, clients, monkeypatch):
    monkeypatch.setattr(lab_visits.lab(), "at_once", 1)
    monkeypatch.setattr(lab_visits.lab(), "waiting", 1)
    visits = opened(chromium, url)
    page = next(visits)
    page.click("#lab-start")
    page.wait_for_selector("#lab-status [data-state=running]")
    waits = clients[0].predict(seconds=60, api_name="/lab_start", **QUICK)
    assert waits["state"] == "waiting" and waits["place"] == 1 and status(clients[0])["place"] == 1
    with pytest.raises(Exception, match="Too many trainings wait here already") as caught:
        clients[1].predict(seconds=60, api_name="/lab_start", **QUICK)
    assert "\n" not in str(caught.value)
    page.wait_for_selector("#lab-status [data-step]:not([data-step='0'])")
    next(visits, None)  # the visitor leaves in the middle
    assert wait_for_state(clients[0], "running")["place"] == 0


def test_from_start_to_the_weights_in_the_methods_tab_and_on_disk(visit, tmp_path):
    before, asked = visit.inner_text("#lab-panels"), []
    assert "untrained" in before and "4 example photos, for 60 s" in visit.inner_text("#lab-plan")
    visit.click("#lab-start")
    visit.wait_for_selector("#lab-charts polyline")
    visit.wait_for_function("document.querySelector('#lab-panels').innerText.includes('After step')")
    assert visit.is_disabled("#lab-start") and visit.is_disabled("#lab-use")
    visit.click("#lab-pause")
    visit.wait_for_selector("#lab-status [data-state=paused]")
    step = int(visit.get_attribute("#lab-status [data-step]", "data-step"))
    visit.click("#lab-step")
    visit.wait_for_selector(f"#lab-status [data-state=paused][data-step='{step + 1}']")
    visit.click("#lab-pause")
    visit.wait_for_selector("#lab-status [data-state=running]")

    visit.get_by_role("tab", name="Methods").click()  # in a closed room nothing is asked for
    visit.wait_for_selector("#page .story img >> visible=true")
    settle(visit, 2 * lab_room.TICK)
    visit.on("request", lambda request: asked.append(request.url))
    visit.wait_for_timeout(1200)
    assert asked == []
    visit.get_by_role("tab", name="Training lab").click()
    visit.wait_for_function(f"Number(document.querySelector('#lab-status [data-step]').dataset.step) > {step + 1}")
    visit.click("#lab-stop")
    visit.wait_for_selector("#lab-status [data-state=stopped]")

    visit.wait_for_selector("#lab-download:not([disabled])")
    with visit.expect_download() as download:
        visit.click("#lab-download")
    download.value.save_as(tmp_path / "run.zip")
    zipfile.ZipFile(tmp_path / "run.zip").extractall(tmp_path)
    weights = tmp_path / "rotation.safetensors"
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["sha256"] == sha256(weights) and card["data"] == ["the 4 example photos"]
    load_weights("rotation", weights)

    bundled = source(visit, "rotation", "attention") if visit.locator("#rotation-story [data-panel=attention]").count() else None
    visit.click("#lab-use")
    visit.wait_for_selector("#rotation-story .step-answers img")
    assert visit.input_value("#rotation-network input") == "Yours: Rotation"
    if bundled:
        wait_for_change(visit, "rotation", "attention", bundled)
    assert visit.errors == [] and visit.outside == []


def test_what_arrives_late_leaves_no_room_behind_the_run(visit, monkeypatch):
    """Neither an answer to Stop that was found while weights were written, nor that of a clock in a closed room."""
    page = visit
    page.get_by_role("tab", name="Training lab").click()
    page.wait_for_selector("#lab-start:not([disabled])")
    answer_late(monkeypatch, "lab-clock", "tick", only=lambda inputs: inputs[0] != "lab")
    page.click("#lab-start")
    page.wait_for_selector("#lab-status [data-state=running][data-step]:not([data-step='0'])")
    is_tick = re.compile(r'"data":\["rotation",[^,]+,"loss","steps"')
    with page.expect_request(lambda request: is_tick.search(request.post_data or "")):
        page.get_by_role("tab", name="Methods").click()
    page.get_by_role("tab", name="Training lab").click()
    page.wait_for_timeout(1600)
    step = page.get_attribute("#lab-status [data-step]", "data-step")
    page.wait_for_function(f"document.querySelector('#lab-status [data-step]').dataset.step > {step}")

    save = live.Run._save
    monkeypatch.setattr(live.Run, "_save", lambda self, last: time.sleep(0.5) or save(self, last))
    answer_late(monkeypatch, "lab-stop", "click")
    page.click("#lab-stop")
    page.wait_for_selector("#lab-download:not([disabled])")
    page.wait_for_timeout(1600)
    page.wait_for_selector("#lab-download:not([disabled])")
    page.wait_for_selector("#lab-status [data-state=stopped]")
    settle(page, 2 * lab_room.TICK)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1000)
    assert asked == [] and page.errors == []


@pytest.mark.slow
def test_twenty_seconds_from_start_to_the_weights_in_every_room(chromium, url, monkeypatch):
    monkeypatch.setattr(lab_visits.lab(), "most_seconds", 20)  # a host's cap, whatever the page asks for
    visits = opened(chromium, url)
    page = next(visits)
    page.click("#lab-start")
    page.wait_for_selector("#lab-status [data-state=finished]", timeout=180_000)
    assert 19 < float(page.inner_text("#lab-status .figures div:last-child dd").split()[0]) < 24
    page.wait_for_selector("#lab-figure .js-plotly-plot >> visible=true")
    page.click("#lab-use")
    page.wait_for_selector("#rotation-story .step-answers img")
    assert page.input_value("#rotation-network input") == "Yours: Rotation"

    page.get_by_role("tab", name="Transfer").click()
    page.wait_for_selector("#transfer-story .map", timeout=60_000)
    page.click("#transfer-encoder input")
    page.get_by_role("option", name="Yours: Rotation").click()
    page.wait_for_selector("#transfer-teach >> visible=true")
    assert "the photos behind these figures do not ship" in page.inner_text("#transfer-story")
    page.click("#transfer-teach")
    page.wait_for_selector("#teach-example >> visible=true")
    page.click("#teach-example")
    page.wait_for_selector("#teach-story .lanes .own .reach", timeout=120_000)
    assert "Yours: Rotation" in page.inner_text("#teach-story .lanes .own >> nth=0")
    assert page.errors == [] and page.outside == []
    next(visits, None)


def test_weights_that_are_brought_join_and_others_are_refused(visit, tmp_path):
    task = create("jigsaw")
    model = task.build()
    save_weights(tmp_path / "mine.safetensors", task, model, {})
    values = {name: value.half()[..., :1].contiguous() for name, value in model.state_dict().items() if value.ndim}
    save_file(values, tmp_path / "bent.safetensors", metadata={"task": "jigsaw", "config": json.dumps(task.config)})
    (tmp_path / "text.safetensors").write_text("not weights")
    visit.get_by_role("tab", name="Training lab").click()
    for name, says in (("text", "is not a whole safetensors file"), ("bent", "does not fit the network")):
        visit.set_input_files("#room-lab .lab-keep input[type=file]", str(tmp_path / f"{name}.safetensors"))
        toast = visit.wait_for_selector(f".toast-body:has-text('{name}.safetensors')")
        assert says in toast.inner_text() and "/tmp" not in toast.inner_text()
    assert visit.is_visible("#lab-start")
    visit.set_input_files("#room-lab .lab-keep input[type=file]", str(tmp_path / "mine.safetensors"))
    visit.wait_for_selector("#jigsaw-story .step-answers img")
    assert visit.input_value("#jigsaw-network input") == "Yours: mine"
    assert visit.errors == []


def view(name, task, loss, metric, level):
    points = [Point(step, step / 4, 8 * step, loss / step, metric) for step in range(1, 9)]
    card = all_tasks()[task].card
    return View(name, name, task, "photos", "finished", points=points, loss_level=level, metric_label=card.metric_label,
                metric_chance=0.25, step=8)


def side_by_side(views, what, over):
    return lab_drawing.compared_html(comparison.compare(views, what, over))


def test_runs_of_one_method_share_a_chart_and_losses_of_several_their_unit():
    one, two = (view(name, "rotation", 1.4, 0.5, ("guessing", 1.386)) for name in ("first", "second <b>"))
    drawn = side_by_side([one, two], "loss", "steps")
    assert drawn.count("<polyline") == 2 and "second &lt;b&gt;" in drawn and "<b>" not in drawn and "guessing" in drawn
    other = view("third", "mae", 0.1, 0.05, ("at the start", 0.1))
    mixed = side_by_side([one, other], "loss", "seconds")
    assert mixed.count("<polyline") == 2 and "1 is guessing, or the start" in mixed
    judged = side_by_side([one, other], "metric", "steps")
    assert judged.count("<polyline") == 1 and "judged otherwise: first" in judged
    assert "<polyline" not in side_by_side([], "loss", "steps")


def test_runs_that_are_over_are_a_figure_not_told_apart_by_colour_alone():
    runs = [view(f"run {number} <b>", "rotation", 1.4, 0.5, ("guessing", 1.386)) for number in range(5)]
    figure = comparison.figure(comparison.compare(runs, "metric", "seconds"))
    assert [line.name for line in figure.data] == [f"run {number} &lt;b&gt;" for number in range(5)]
    assert len({line.line.dash for line in figure.data}) == len({line.line.color for line in figure.data}) == 5
    assert list(figure.data[0].y) == [50.0] * 8 and list(figure.data[0].x) == [step / 4 for step in range(1, 9)]
    assert figure.layout.shapes[0].y0 == 25.0 and figure.layout.template.layout.font.size >= 12
    room = lab_room.TrainingLab.__new__(lab_room.TrainingLab)
    room.compared, room.figure = "html", "plot"
    over = room.side_by_side(runs, "loss", "steps")
    assert over["plot"]["visible"] and over["html"] == ""
    going = room.side_by_side([*runs[:2], replace(runs[2], state="running")], "loss", "steps")
    assert not going["plot"]["visible"] and going["html"].count("<polyline") == 3
    mixed = room.side_by_side([runs[0], view("other", "mae", 0.1, 0.05, None)], "metric", "steps")
    assert "judged otherwise: run 0 &lt;b&gt;" in mixed["html"] and len(json.loads(mixed["plot"]["value"].plot)["data"]) == 1


def test_what_a_run_shows_names_its_trouble_and_is_text():
    failed = View("x", "mine <i>", "rotation", "photos <u>", "failed", error="The loss is no number any more <s>.")
    drawn = lab_drawing.status_html(failed)
    assert "no number any more &lt;s&gt;" in drawn and "mine &lt;i&gt;" in drawn and "<u>" not in drawn
    assert lab_drawing.charts_html(failed).count("<svg") == 2, "their places are kept where there is nothing to draw"
    assert len(lab_drawing.smooth([1.0] * 20)) == 20 and lab_drawing.smooth([0, 2]) == [0, 1]


def test_who_leaves_while_data_are_fetched_leaves_no_training_behind(photo, monkeypatch):
    gather = lab_visits.gather

    def slowly(*arguments):
        lab_visits.leave("somebody")
        return gather(*arguments)

    monkeypatch.setattr(lab_visits, "gather", slowly)
    with pytest.raises(ValueError, match="visit is over"):
        lab_visits.start("somebody", "rotation", "examples", seconds=60, size="tiny", start_from="scratch", knobs={}, called="",
                         seed=0, photo=photo, moving=photo, brought=[], company=[])
    assert lab_visits.lab().runs("somebody") == []


def test_names_of_a_visit_are_told_apart():
    assert lab_visits.unused("Rotation", []) == "Rotation"
    assert lab_visits.unused("Rotation", ["Rotation", "Rotation 2"]) == "Rotation 3"
    own, name = lab_visits.join({"mae": {"mine": "a"}}, "mae", "mine", "b")
    assert name == "mine 2" and own == {"mae": {"mine": "a", "mine 2": "b"}}

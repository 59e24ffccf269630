"""The training lab's engine: plans, runs that are paused and stopped, the limits of a host, and what weights it takes back."""

import json
import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ssl_demo import live, live_data, live_watch, probes
from ssl_demo.checkpoints import load_weights, read_card
from ssl_demo.cli import main
from ssl_demo.clips import Clips
from ssl_demo.data import Photos
from ssl_demo.labelled import Labelled
from ssl_demo.pretext import all_tasks

TASKS = list(all_tasks())


@pytest.fixture
def lab(tmp_path):
    lab = live.Lab(at_once=2, waiting=2, most_seconds=60, folder=tmp_path / "lab", data=[])
    yield lab
    lab.close()


@pytest.fixture(scope="module", autouse=True)
def few_crops():
    """A tenth of the crops: what is made of them here needs no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_data, "CROPS", 16)
        yield


@pytest.fixture(scope="module")
def small(photo):
    return photo.resize((200, 160))


@pytest.fixture(scope="module")
def crops(small):
    return live_data.photos_of([small], all_tasks()["rotation"])


@pytest.fixture
def plan(lab, crops, photo):
    """plan(steps=..., ...): a small training of rotation."""
    def plan(**settings):
        given = {"seconds": 30, "size": "tiny", "photo": photo, "knobs": {"batch": "4"}, "lab": lab, **settings}
        return live.plan("rotation", crops, "your photo", **given)

    return plan


def until(happens, seconds=60.0):
    """Waits for something; how long it took."""
    start = time.monotonic()
    while not happens():
        assert time.monotonic() - start < seconds, "it never happened"
        time.sleep(0.01)
    return time.monotonic() - start


def at_once(happens):
    """Within a second, as a visitor expects; a machine that does other things as well is given three."""
    return until(happens) < (1 if os.getloadavg()[0] < 1.5 * os.cpu_count() else 3)


def ended(run):
    until(lambda: not run.going)
    assert run.join(5)
    return run.view()


# Runs


def test_a_run_ends_with_weights_that_everything_takes(lab, plan, photo, tmp_path, capsys):
    view = ended(lab.start("me", plan(steps=6, name="My first <run>")))
    assert (view.state, view.error, view.step, view.panels_step) == ("finished", "", 6, 6)
    assert view.points[0].step == 1 and view.points[-1].step == 6 and view.points[-1].images == 24
    assert view.loss_level == ("guessing", pytest.approx(np.log(4))) and view.metric_chance == 0.25
    assert [panel.name for panel in view.panels][0] == "photo" and view.metric_label == "Turned back correctly"
    assert live.accept(view.weights) == ("rotation", view.weights) and view.weights.name == "my-first-run.safetensors"
    task, model = load_weights("rotation", view.weights)
    assert task.config["width"] < task.defaults["width"] and not model.training
    card = read_card(view.weights)
    assert (card["steps"], card["images_seen"], card["data"], card["seed"]) == (6, 24, ["your photo"], 0)
    assert card["recipe"]["batch"] == 4 and card["curve"][-1]["step"] == 6 and card["minutes"] >= 0 and card["machine"]
    photo.save(tmp_path / "photo.png")
    command = ["run", "rotation", str(tmp_path / "photo.png"), "--weights", str(view.weights), "--out", str(tmp_path), "--json"]
    assert main(command) == 0 and json.loads(capsys.readouterr().out)["weights"] == "my-first-run"


def test_pause_step_resume_stop(lab, plan):
    run = lab.start("me", plan())
    until(lambda: run.view().step >= 2)
    run.pause()
    until(lambda: run.view().state == "paused")
    before = run.view()
    time.sleep(0.3)
    assert run.view().step == before.step and run.view().seconds == before.seconds, "a pause costs nothing"
    for count in (1, 2):
        run.one_step()
        until(lambda count=count: run.view().panels_step == before.step + count)
    time.sleep(0.1)
    view = run.view()
    assert (view.step, view.state) == (before.step + 2, "paused") and view.points[-1].step == view.step
    run.resume()
    until(lambda: run.view().step > view.step + 1)
    assert run.view().state == "running" and run.view().seconds_left < 30
    run.stop()
    assert at_once(lambda: not run.going)
    view = run.view()
    assert view.state == "stopped" and load_weights("rotation", view.weights)


def test_stopped_while_paused_within_a_second(lab, plan):
    run = lab.start("me", plan())
    run.pause()
    until(lambda: run.view().state == "paused")
    run.stop()
    assert at_once(lambda: not run.going) and run.view().state == "stopped"


def test_one_step_of_a_run_that_has_not_begun(lab, plan):
    first, second = lab.start("a", plan()), lab.start("b", plan())
    run = lab.start("c", plan())
    run.one_step()
    first.stop()
    until(lambda: run.view().step == 1 and run.view().state == "paused")
    time.sleep(0.1)
    assert run.view().step == 1
    second.stop()


def test_it_ends_in_time(lab, plan):
    view = ended(lab.start("me", plan(seconds=0.5)))
    assert view.state == "finished" and 0.5 <= view.seconds < 3 and view.seconds_left == 0 and view.budget == 0.5


def test_what_goes_wrong_is_said(lab, plan, monkeypatch):
    asked = plan(steps=3)
    real = type(asked.task).loss
    monkeypatch.setattr(type(asked.task), "loss", lambda *given: (real(*given)[0] * float("nan"), {}))
    view = ended(lab.start("me", asked))
    assert view.state == "failed" and view.error.startswith("The loss is not a number any more at step 1") and not view.weights
    monkeypatch.setattr(type(asked.task), "loss", lambda *given: 1 / 0)
    view = ended(lab.start("me", asked))
    assert view.state == "failed" and view.error == "The training broke off (ZeroDivisionError)."


def test_two_side_by_side_learn_what_each_learns_alone(lab, plan):
    def learned(owner, seed):
        return lab.start(owner, plan(steps=6, seed=seed))

    together = learned("a", 1), learned("b", 2)
    together = [load_file(ended(run).weights) for run in together]
    alone = [load_file(ended(learned("c", seed)).weights) for seed in (1, 2)]
    for one, other in zip(together, alone):
        assert all(torch.equal(one[name], other[name]) for name in other)
    assert not torch.equal(together[0]["head.weight"], together[1]["head.weight"])


def test_neighbours_are_asked_where_there_are_classes(lab, plan, crops):
    labels = np.arange(40) % 2
    flat = np.stack([np.full((144, 144, 3), 40 + 150 * label, np.uint8) for label in labels])
    brightness = Photos(flat, list(map(str, labels)))
    labelled = Labelled(["dark", "bright"], brightness, labels, brightness, labels)
    view = ended(lab.start("me", plan(steps=2, labelled=labelled)))
    (step, accuracy), = view.probe
    task, model = load_weights("rotation", view.weights)
    with torch.no_grad():
        features = task.features(model, brightness.tensor(np.arange(40))[:, :, ::2, ::2][:, :, :72, :72])[0]
    assert step == 2 and accuracy == 1.0 == probes.accuracy(probes.knn(features, labels, features, 2), labels)


@pytest.mark.parametrize("name", TASKS)
def test_every_method_learns_live_from_one_photo(name, lab, small):
    task = all_tasks()[name]
    data = live_data.clips_of([small], task) if task.card.input == "video" else live_data.photos_of([small], task)
    asked = live.plan(name, data, "your photo", seconds=9, size="tiny", knobs={"batch": "4"}, photo=small, lab=lab, steps=2)
    asked = replace(asked, recipe=replace(asked.recipe, batch=3, precision="float32"))
    view = ended(lab.start("me", asked))
    assert (view.state, view.step, view.panels_step) == ("finished", 2, 2), view.error
    assert view.panels and np.isfinite(view.metric_chance) and view.metric_label and np.isfinite(view.loss_level[1])
    assert load_weights(name, view.weights)


def test_the_curve_stays_short_and_keeps_its_ends(plan):
    watcher = live_watch.Watcher(plan())
    for step in range(1, 2001):
        points = watcher._thinned(live_watch.Point(step, step / 10, step, 5.0 if step == 1 else 1.0, step))
        assert len(points) <= live_watch.POINTS and points[0].loss == 5 and points[-1].step == step
    gaps = np.diff([point.step for point in points[1:-1]])
    assert len(points) > live_watch.POINTS / 3 and gaps.min() == gaps.max() == 16
    assert {point.loss for point in points[1:]} == {1.0}


# The host's limits


def test_a_third_waits_knows_its_place_and_starts_by_itself(lab, plan):
    first, second = lab.start("a", plan()), lab.start("b", plan())
    third, fourth = lab.start("c", plan()), lab.start("d", plan())
    assert [(run.view().state, run.view().place) for run in (third, fourth)] == [("waiting", 0), ("waiting", 1)]
    assert first.view().state == "running" and first.view().place == 0
    with pytest.raises(ValueError, match="Too many trainings wait here"):
        lab.start("e", plan())
    assert not lab.runs("e")
    first.stop()
    until(lambda: third.view().step > 0)
    assert fourth.view().place == 0 and fourth.view().state == "waiting"
    fourth.stop()
    assert fourth.view().state == "stopped" and fourth.view().weights is None and second.going
    assert lab.run("c", third.id) is third and lab.run("a", third.id) is None


def test_one_at_a_time_for_each_visitor_and_the_newest_five_kept(lab, plan):
    run = lab.start("me", plan())
    with pytest.raises(ValueError, match="One training of yours is going"):
        lab.start("me", plan())
    run.stop()
    runs = [lab.start("me", plan(steps=1))]  # the old one ends after its step
    for _ in range(5):
        ended(runs[-1])
        runs.append(lab.start("me", plan(steps=1)))
    ended(runs[-1])
    assert lab.runs("me") == runs[-5:] and not runs[0].view().weights.exists() and runs[1].view().weights.exists()


def test_who_leaves_takes_everything_along(lab, plan, tmp_path):
    done = ended(lab.start("me", plan(steps=1)))
    other = ended(lab.start("other", plan(steps=1)))
    run = lab.start("me", plan())
    until(lambda: run.view().step > 0)
    lab.leave("me")
    assert not run.going and not lab.runs("me") and not done.weights.exists() and other.weights.exists()
    assert not [thread for thread in threading.enumerate() if thread.name == f"training-{run.id}"]
    assert "me" not in "".join(path.name for path in (tmp_path / "lab").iterdir())
    lab.leave("nobody")


def test_who_leaves_while_weights_are_written_leaves_none(lab, plan, tmp_path, monkeypatch):
    writing, gone, save, join = threading.Event(), threading.Event(), live.checkpoints.save_weights, live.Run.join

    def slowly(*arguments):
        writing.set()
        assert gone.wait(60)
        save(*arguments)

    monkeypatch.setattr(live.checkpoints, "save_weights", slowly)
    monkeypatch.setattr(live.Run, "join", lambda run, seconds=None: join(run, seconds and 0.1))
    run = lab.start("me", plan(steps=1))
    assert writing.wait(60)
    lab.leave("me")
    gone.set()
    assert join(run, 60) and not [path for path in (tmp_path / "lab").rglob("*") if path.is_file()]


def test_limits_come_from_the_environment(monkeypatch, plan, lab):
    for name, value in {"RUNS": "3", "WAITING": "0", "SECONDS": "7", "DATA": "/photos:torchvision:CIFAR10:b.tar"}.items():
        monkeypatch.setenv(f"SSL_DEMO_LAB_{name}", value)
    other = live.Lab()
    assert (other.at_once, other.waiting, other.most_seconds) == (3, 0, 7)
    assert other.host_data() == ["/photos", "torchvision:CIFAR10", "b.tar"]
    assert plan(lab=other, seconds=1e9).seconds == 7 and plan(seconds="12").seconds == 12
    monkeypatch.setenv("SSL_DEMO_LAB_RUNS", "many")
    with pytest.raises(ValueError, match="SSL_DEMO_LAB_RUNS must be a number"):
        live.Lab()


# Plans


@pytest.mark.parametrize("wrong, said", [
    ({"seconds": 0}, "number of seconds above 0"), ({"seconds": "nan"}, "number of seconds above 0"),
    ({"size": "huge"}, "one of tiny, small, bundled"), ({"knobs": {"speed": 1}}, "There is no knob “speed”"),
    ({"knobs": {"lr": "fast"}}, "“lr” must be one of"), ({"start": "my-network"}, "There are no weights “my-network”"),
    ({"seed": -1}, "The seed must be"), ({"photo": None}, "Choose a photo"),
])  # fmt: skip
def test_what_cannot_be_planned(plan, wrong, said):
    with pytest.raises(ValueError, match=said):
        plan(**wrong)


def test_data_of_the_wrong_kind(lab, crops, photo):
    with pytest.raises(ValueError, match="learns from clips"):
        live.plan("video_color", crops, "x", seconds=1, photo=photo, lab=lab)
    with pytest.raises(ValueError, match="nothing to learn from"):
        live.plan("rotation", crops.take([]), "x", seconds=1, photo=photo, lab=lab)


@pytest.mark.parametrize("name", TASKS)
def test_sizes_grow_and_knobs_are_settings(name, lab, photo):
    task, sizes = all_tasks()[name], live.sizes(name)
    counts = []
    data = live_data.example_data(task)
    for size in sizes:
        made = live.plan(name, data, "x", seconds=1, size=size, photo=photo, lab=lab)
        with torch.device("meta"):
            counts.append(sum(p.numel() for p in made.task.build().parameters()))
    assert counts == sorted(counts) and counts[0] < counts[-1] / 1.5 and list(sizes)[-1] == "bundled"
    for control in task.knobs:
        assert control.parse(control.default) == task.defaults[control.name], control.name
    for control in live.knobs(name):
        value = control.choices[-1] if control.choices else not control.default if control.kind == "toggle" else control.maximum
        turned = live.plan(name, data, "x", seconds=1, photo=photo, lab=lab, knobs={control.name: value})
        changed = turned.task.config.get(control.name, getattr(turned.recipe, control.name, None))
        assert str(changed) == str(value) or changed == pytest.approx(float(value)), control.name


def test_what_is_turned_is_trained(lab, crops, photo):
    made = live.plan("mae", crops, "x", seconds=1, photo=photo, lab=lab, knobs={"mask_ratio": 50})
    images = torch.rand(1, 3, 96, 96)
    examples = [make(images, torch.Generator()) for make in (made.task.training_example, made.task.evaluation_example)]
    assert [example["hidden"].float().mean() for example in examples] == [0.5, 0.75]


def test_training_goes_on_from_weights(lab, plan):
    first = ended(lab.start("me", plan(steps=3)))
    second = plan(steps=1, start=str(first.weights), size="bundled", knobs={"batch": "4", "lr": "0.0002"})
    assert second.task.config == load_weights("rotation", first.weights)[0].config, "the size is that of the weights"
    view = ended(lab.start("me", second))
    assert view.state == "finished", view.error
    one, other = (load_file(path)["head.weight"] for path in (first.weights, view.weights))
    assert 0 < (one - other).abs().max() < 0.01


def test_a_knob_that_asks_for_another_network_than_the_weights_is_refused(lab, crops, photo):
    known = {"lab": lab, "photo": photo, "seconds": 1, "start": "split_brain-long"}
    assert live.plan("split_brain", crops, "x", **known, knobs={"autoencoder": False}).task.config["autoencoder"] is False
    with pytest.raises(ValueError, match="“Both halves see all” asks for another network"):
        live.plan("split_brain", crops, "x", **known, knobs={"autoencoder": True})


def test_a_step_of_clips_is_never_longer_than_a_stop_may_take():
    batches = {name: next(knob for knob in live.knobs(name) if knob.name == "batch").choices for name in ("video_color", "mae")}
    assert batches == {"video_color": ("auto", "4", "8"), "mae": ("auto", "4", "8", "16", "32")}


# Data


def test_a_single_photo_gives_crops_that_differ(photo):
    task = all_tasks()["rotation"]
    made = live_data.photos_of([photo], task)  # not the small one: crops below 144 pixels would be enlarged
    assert made.array.shape == (live_data.CROPS, 144, 144, 3)
    assert len({pixels.tobytes() for pixels in made.array}) == live_data.CROPS
    assert np.array_equal(made.array, live_data.photos_of([photo], task).array)
    assert not np.array_equal(made.array[1], live_data.photos_of([photo], task, seed=1).array[1])
    assert len(live_data.photos_of([photo] * 4, task)) == live_data.CROPS
    assert len(live_data.photos_of([Image.new("RGB", (1, 3))] * 300, task)) == 300
    whole = live_data.photos_of([photo], all_tasks()["mae"])  # which crops by itself, and not as far
    assert len(whole) == 1 and np.array_equal(whole.array[0], made.array[0])
    with pytest.raises(ValueError, match="no photo"):
        live_data.photos_of([], task)


def test_clips_and_photos_together(clip, photo):
    task = all_tasks()["video_color"]
    made = live_data.clips_of([clip, photo, replace(clip, frames=clip.frames[:1])], task)
    assert [len(rows) for rows in made.rows.values()] == [24] and len(made.photos) == live_data.CROPS and not made.masks
    assert len(live_data.clips_of([clip], task).photos) == 0
    with pytest.raises(ValueError, match="no clip"):
        live_data.clips_of([], task)
    assert isinstance(live_data.example_data(task), Clips) and isinstance(live_data.example_data(all_tasks()["mae"]), Photos)


def test_the_hosts_sets(photos, folder, clip_folder, tmp_path):
    rotation = all_tasks()["rotation"]
    data, labelled = live_data.load_named(str(folder), rotation)
    assert len(data) == 32 and labelled is None
    for number, pixels in enumerate(photos.array[:24]):
        place = tmp_path / ("val" if number % 3 == 0 else "train") / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    data, labelled = live_data.load_named(str(tmp_path), rotation)
    assert len(data) == 16 and labelled.classes == ["a", "b"] and len(labelled.train) == 16 and len(labelled.test) == 8
    moving, _ = live_data.load_named(str(clip_folder), all_tasks()["video_color"])
    assert 1 <= len(moving.rows) < 7
    for wrong in (str(tmp_path / "nothing"), "torchvision:Nothing"):
        with pytest.raises(ValueError, match="Nothing|nothing"):
            live_data.load_named(wrong, rotation)


def test_some_of_each_kind(photos, folder):
    from ssl_demo.data import load_some

    some = load_some([folder], 32, 8, wanted=lambda name: name.split("-")[0])
    assert len(some) == 8 and {name.split("-")[0] for name in some.names} == {name.split("-")[0] for name in photos.names}


# Weights that visitors bring


@pytest.fixture(scope="module")
def brought(tmp_path_factory):
    """brought(config, change, name): a file of weights of rotation, altered."""
    from ssl_demo.pretext import create

    task = create("rotation", width=16, depths=[1, 1, 1])
    tensors = task.build().state_dict()

    def brought(config=None, change=lambda tensors: tensors, name="mine.safetensors", task_name="rotation"):
        path = tmp_path_factory.mktemp("brought") / name
        config = config if isinstance(config, str) else json.dumps(task.config | (config or {}))
        save_file(change(dict(tensors)), path, {"task": task_name, "config": config})
        return path

    return brought


def test_sound_weights_are_taken(brought):
    path = brought(change=lambda tensors: tensors | {"head.bias": torch.ones(4, dtype=torch.bfloat16)})
    assert live.accept(path) == ("rotation", path)
    assert torch.equal(load_weights("rotation", path)[1].head.bias, torch.ones(4))


def test_a_brought_network_can_be_used_at_the_size_it_was_measured_at(tmp_path):
    """DINO keeps the positions of its patches; those of a network built to be measured only are none."""
    from ssl_demo.checkpoints import save_weights
    from ssl_demo.pretext import create

    task = create("dino", size=64, stem_width=8, stem_depths=[1, 1, 1], width=16, hidden=16, bottleneck=8, prototypes=16)
    save_weights(tmp_path / "mine.safetensors", task, task.build(), {})
    task, model = load_weights(*live.accept(tmp_path / "mine.safetensors"))
    assert task.features(model, torch.zeros(1, 3, 64, 64))[0].isfinite().all()


@pytest.mark.parametrize("wrong, said", [
    ({"config": {"width": 10**9}}, "whose “width” cannot be"), ({"config": {"depths": [10**6]}}, "whose “depths” cannot be"),
    ({"config": {"width": 16.5}}, "whose “width” cannot be"), ({"config": {"walls": 3}}, "no setting “walls”"),
    ({"config": {"width": 700, "depths": [9, 9, 9]}}, "too large"), ({"config": {"width": 32}}, "does not fit"),
    ({"config": {"width": -16}}, "No network can be built"), ({"task_name": "nothing"}, "does not say which task"),
    ({"change": lambda t: t | {"head.bias": torch.full((4,), torch.nan)}}, "numbers that are none"),
    ({"change": lambda t: t | {"more": torch.zeros(1)}}, "does not fit"), ({"name": "mine.pt"}, "as .safetensors files only"),
    *[({"change": lambda t, to=to: t | {"head.bias": torch.zeros(4, dtype=to)}}, "numbers of a kind")
      for to in (torch.float8_e4m3fn, torch.float64, torch.bool, torch.complex64)],
    ({"change": lambda t: t | {"encoder.stem.1.num_batches_tracked": torch.zeros(())}}, r"of a kind \(float32\)"),
    ({"config": "[" * 200_000}, "does not say how its network is built"),
])  # fmt: skip
def test_unsound_weights_are_not(brought, wrong, said):
    with pytest.raises(ValueError, match=said):
        live.accept(brought(**wrong))


def test_what_is_no_file_of_weights(tmp_path, monkeypatch, brought):
    (tmp_path / "cut.safetensors").write_bytes(brought().read_bytes()[:999])
    (tmp_path / "text.safetensors").write_text("hello")
    for name, said in (("cut", "not a whole safetensors"), ("text", "not a whole safetensors"), ("none", "There is no file")):
        with pytest.raises(ValueError, match=said):
            live.accept(tmp_path / f"{name}.safetensors")
    monkeypatch.setattr("ssl_demo.checkpoints.MOST_PARAMETERS", 1000)
    with pytest.raises(ValueError, match="the limit is"):
        live.accept(brought())

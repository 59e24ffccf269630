"""A run is a function of its seed: stopped, killed and resumed, or spread over processes, it follows the same curve."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssl_demo import cli, training
from ssl_demo.clips import Clips
from ssl_demo.pretext import Recipe, all_tasks, create
from ssl_demo.tasks.mae import MAE
from ssl_demo.training import load_checkpoint, precision, schedule, train, update_average, with_settings

MAE_SMALL = {"size": 32, "width": 32, "depth": 2, "heads": 2, "decoder_width": 32, "decoder_depth": 1}
ROTATION_SMALL = {"size": 32, "width": 8, "depths": [1, 1]}
RECIPE = Recipe(batch=8, precision="float32")
SETTINGS = [f"{name}={value}" for name, value in {**MAE_SMALL, "batch": 8, "precision": "float32"}.items()]
ROOT = Path(training.__file__).parents[1]


@pytest.fixture(params=[("mae", MAE_SMALL), ("rotation", ROTATION_SMALL)], ids=lambda param: param[0])
def task(request):
    name, config = request.param
    return create(name, **config)


@pytest.fixture
def mae():
    return create("mae", **MAE_SMALL)


def losses(run):
    return [snapshot.loss for snapshot in run]


def vector(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def weights(snapshot):
    return vector(snapshot.model)


# The same curve


def test_same_seed_same_curve(task, photos):
    one, other = (losses(train(task, photos, RECIPE, steps=4, seed=1, every=0)) for _ in range(2))
    assert one == other and one != losses(train(task, photos, RECIPE, steps=4, seed=2, every=0))


def test_every_step_has_a_chance_of_its_own(photos):
    seeds = []

    class Spy(MAE):
        def training_example(self, images, rng):
            seeds.append(rng.initial_seed())
            return super().training_example(images, rng)

    for seed in (0, 1):
        list(train(Spy(**MAE_SMALL), photos, RECIPE, steps=4, seed=seed))
    assert len(set(seeds)) == 8


def test_the_rest_of_the_process_keeps_its_chance(task, photos):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    losses(train(task, photos, RECIPE, steps=2, every=0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stop", [1, 5, 9])
def test_resumed_equals_uninterrupted(task, photos, tmp_path, stop):
    whole = list(train(task, photos, RECIPE, steps=10, seed=3, every=0))
    checkpoint, first = tmp_path / "run.checkpoint", []
    run = train(task, photos, RECIPE, steps=10, seed=3, every=0, checkpoint=checkpoint)
    for snapshot in run:
        first.append(snapshot)
        if snapshot.step == stop:
            run.close()
    rest = list(train(task, photos, RECIPE, steps=10, seed=3, every=0, checkpoint=checkpoint, resume=checkpoint))
    assert [s.step for s in [*first, *rest]] == list(range(1, 11))
    assert [s.loss for s in [*first, *rest]] == pytest.approx([s.loss for s in whole], rel=1e-5)
    assert torch.allclose(weights(rest[-1]), weights(whole[-1]), atol=1e-6)
    assert rest[0].seconds > first[-1].seconds and rest[-1].images == 80 and rest[-1].done and not first[-1].done


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupt_waits_for_the_end_of_the_step(mae, photos, tmp_path, monkeypatch, optimizer):
    """Whatever moment Ctrl-C comes at, what is kept is whole, and the run goes on as if nothing had been."""
    recipe, checkpoint = replace(RECIPE, optimizer=optimizer), tmp_path / "run.checkpoint"
    whole = list(train(mae, photos, recipe, steps=5, seed=3, every=0))
    kind, moved = type(training.make_optimizer(mae.build(), recipe)), []
    step = kind.step

    def interrupted(self, *arguments):
        moved.append(step(self, *arguments))
        if len(moved) == 3:
            os.kill(os.getpid(), signal.SIGINT)  # between the weights' move and its being counted

    with monkeypatch.context() as patch:
        patch.setattr(kind, "step", interrupted)
        heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background hears nothing
        with pytest.raises(KeyboardInterrupt):
            list(train(mae, photos, recipe, steps=5, seed=3, every=0, checkpoint=checkpoint))
        assert torch.load(checkpoint)["step"] == 3 and signal.signal(signal.SIGINT, heard) is signal.default_int_handler
    rest = list(train(mae, photos, recipe, steps=5, seed=3, every=0, checkpoint=checkpoint, resume=checkpoint))
    assert [s.loss for s in rest] == pytest.approx([s.loss for s in whole[3:]], rel=1e-5)


def test_resuming_a_finished_run_gives_what_it_came_to_and_trains_no_further(mae, photos, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    *_, last = train(mae, photos, RECIPE, steps=2, every=0, checkpoint=checkpoint)
    for _ in range(2):  # it keeps what it found
        (again,) = train(mae, photos, RECIPE, steps=2, every=0, checkpoint=checkpoint, resume=checkpoint)
        assert (again.step, again.loss, again.metric, again.done) == (2, last.loss, last.metric, True)
        assert torch.equal(weights(again), weights(last))


def test_milestones_are_the_averaged_weights_after_powers_of_two(task, photos):
    kept, after = {}, {}
    for snapshot in train(task, photos, RECIPE, steps=9, every=0,
                          milestone=lambda step, average: kept.update({step: vector(average)})):  # fmt: skip
        after[snapshot.step] = weights(snapshot)
    assert list(kept) == [1, 2, 4, 8]
    assert all(torch.equal(kept[step], after[step]) for step in kept) and not torch.equal(kept[4], kept[8])


def test_who_watches_says_when_a_snapshot_is_due(task, photos):
    answers = iter([False, True, False, False, True, False])
    steps = [s.step for s in train(task, photos, RECIPE, steps=6, every=0, due=lambda: next(answers))]
    assert steps == [2, 5, 6], "and the last one comes unasked"


KILLED = """
import sys, time, torch
torch.set_num_threads(1)
import ssl_demo.training
train = ssl_demo.training.train
def slowly(*arguments, **named):
    for snapshot in train(*arguments, **named, save_every=0.02, every=0):
        yield snapshot
        time.sleep(0.02)
ssl_demo.training.train = slowly
from ssl_demo.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_killed_and_resumed(folder, tmp_path, capsys):
    """SIGKILL at any moment leaves a whole checkpoint and no weights; going on ends where the whole run would have."""
    arguments = ["train", "mae", "--data", str(folder), "--steps", "60", "--seed", "2", "--json", "--config", *SETTINGS]
    out = tmp_path / "killed.safetensors"
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments, "--out", str(out)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)  # fmt: skip
    checkpoint, log = out.with_suffix(".checkpoint"), out.with_suffix(".jsonl")
    deadline = time.monotonic() + 90
    while (
        not (checkpoint.exists() and log.read_text().count("\n") > 2) and process.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not out.exists() and not out.with_suffix(".json").exists()
    task, recipe = with_settings(MAE, dict(setting.split("=") for setting in SETTINGS))
    step = load_checkpoint(checkpoint, task, recipe, 2)["step"]
    assert 0 < step < 60

    assert cli.main([*arguments, "--out", str(out), "--resume", str(checkpoint)]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert cli.main([*arguments, "--out", str(tmp_path / "whole.safetensors")]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert resumed["steps"] == whole["steps"] == 60 and resumed["images_seen"] == 480
    assert resumed["score"] == pytest.approx(whole["score"], rel=1e-3) and resumed["loss_first"] == whole["loss_first"]
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(set(steps)), "steps that the kill lost stand in the log once"


@pytest.fixture
def checkpoint(mae, photos, tmp_path):
    path = tmp_path / "run.checkpoint"
    list(train(mae, photos, RECIPE, steps=1, checkpoint=path))
    return path


def test_checkpoint_of_something_else(mae, photos, checkpoint, tmp_path):
    rotation = create("rotation", **ROTATION_SMALL)
    damaged, text = tmp_path / "damaged.checkpoint", tmp_path / "text.checkpoint"
    damaged.write_bytes(checkpoint.read_bytes()[:1000])
    text.write_text("{}")
    cases = {
        "of rotation": (rotation, RECIPE, 0, checkpoint),
        "another configuration": (create("mae", **{**MAE_SMALL, "depth": 1}), RECIPE, 0, checkpoint),
        "another configuration;": (mae, replace(RECIPE, lr=0.5), 0, checkpoint),
        "with seed 0": (mae, RECIPE, 1, checkpoint),
        "is not a checkpoint": (mae, RECIPE, 0, damaged),
        "not a checkpoint": (mae, RECIPE, 0, text),
        "There is no checkpoint": (mae, RECIPE, 0, tmp_path / "gone"),
    }
    for message, (task, recipe, seed, path) in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            next(train(task, photos, recipe, steps=3, seed=seed, resume=path))
        assert "\n" not in str(caught.value)


def test_a_checkpoint_runs_no_code(mae, photos, tmp_path):
    """It is data: a pickle that would call something is refused."""
    import pickle

    class Calls:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'called'}",)

    (tmp_path / "evil.checkpoint").write_bytes(pickle.dumps(Calls(), protocol=2))
    with pytest.raises(ValueError, match="is not a checkpoint"):
        next(train(mae, photos, RECIPE, steps=3, resume=tmp_path / "evil.checkpoint"))
    assert not (tmp_path / "called").exists()


def test_start_from_another_network(mae, photos):
    torch.manual_seed(8)
    model = mae.build()
    snapshot = next(train(mae, photos, replace(RECIPE, lr=1e-12), steps=5, start_from=model))
    assert torch.allclose(torch.cat([p.flatten() for p in model.parameters()]),
                          torch.cat([p.flatten() for p in snapshot.model.parameters()]), atol=1e-6)  # fmt: skip


# Budget and cancelling


def test_minutes_end_near_their_time(mae, photos):
    start = time.monotonic()
    last = list(train(mae, photos, RECIPE, minutes=0.02))[-1]
    assert 1.2 <= last.seconds < 4 and last.done and last.progress == 1 and time.monotonic() - start < 10


@pytest.mark.parametrize("length", [{}, {"steps": 1, "minutes": 1}, {"steps": 0}, {"minutes": 0}, {"steps": -1}])
def test_the_length_is_given_once(mae, photos, length):
    with pytest.raises(ValueError, match="The length|Give the length"):
        next(train(mae, photos, RECIPE, **length))


def test_cancelling_is_quick_and_keeps_the_run(task, photos, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    run = train(task, photos, RECIPE, steps=10**6, checkpoint=checkpoint)
    snapshots = [next(run), next(run)]
    start = time.monotonic()
    run.close()
    assert time.monotonic() - start < 3  # other tests share the machine
    assert load_checkpoint(checkpoint, task, RECIPE, 0)["step"] == snapshots[-1].step > 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_snapshots(mae, photos):
    snapshots = list(train(mae, photos, RECIPE, steps=3, every=0))
    assert [s.step for s in snapshots] == [1, 2, 3] and [s.images for s in snapshots] == [8, 16, 24]
    assert [s.progress for s in snapshots] == pytest.approx([1 / 3, 2 / 3, 1]) and [s.done for s in snapshots] == [
        False,
        False,
        True,
    ]
    assert all(s.images_per_second == pytest.approx(s.images / s.seconds) for s in snapshots)
    assert not snapshots[-1].model.training and all(not p.requires_grad for p in snapshots[-1].model.parameters())
    sparse = list(train(mae, photos, RECIPE, steps=3, every=1e9))
    assert [s.step for s in sparse] == [1, 3]
    assert sparse[-1].loss == pytest.approx((snapshots[1].loss + snapshots[2].loss) / 2, rel=1e-5), "a mean since the last"


def test_log(mae, photos, tmp_path):
    log = tmp_path / "new/folder/run.jsonl"
    snapshots = list(train(mae, photos, RECIPE, steps=3, every=0, log=log))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3] and [line["images"] for line in lines] == [8, 16, 24]
    assert all(line.keys() >= {"step", "seconds", "images", "loss", "metric"} for line in lines)
    assert [line["loss"] for line in lines] == pytest.approx([s.loss for s in snapshots], abs=1e-5)


def test_a_loss_that_is_no_number_ends_it_and_keeps_what_was(mae, photos, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"

    def batches(step):
        return torch.full((8, 3, 32, 32), math.nan if step == 3 else 0.5)

    run = train(mae, photos, RECIPE, steps=9, batches=batches, checkpoint=checkpoint, save_every=0)
    with pytest.raises(FloatingPointError, match="step 4"):
        list(run)
    saved = load_checkpoint(checkpoint, mae, RECIPE, 0)
    assert saved["step"] == 3 and all(value.isfinite().all() for value in saved["model"].values())


@pytest.mark.parametrize("name", all_tasks())
def test_every_task_trains_by_its_own_recipe(name, photos):
    task = create(name)
    recipe = replace(task.recipe, batch=4)
    data = Clips.moving(photos) if task.card.input == "video" else photos
    last = list(train(task, data, recipe, steps=2))[-1]
    assert math.isfinite(last.loss) and math.isfinite(last.metric) and last.step == 2


def test_a_task_can_be_trained_in_bfloat16(task, photos):
    full, half = (
        losses(train(task, photos, replace(RECIPE, precision=name), steps=3, every=0)) for name in ("float32", "bfloat16")
    )
    assert half == pytest.approx(full, rel=0.05) and half != full


# Parts


def test_average_is_the_formula():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    average = copy.deepcopy(model)
    for value in model.state_dict().values():
        value.add_(1)
    before = copy.deepcopy(average.state_dict())
    update_average(average, model, 0.9)
    for name, value in average.state_dict().items():
        theirs = model.state_dict()[name]
        expected = 0.9 * before[name] + 0.1 * theirs if value.is_floating_point() else theirs
        assert torch.allclose(value, expected), name


def test_average_follows_quickly_at_first_and_slowly_later(mae, photos):
    """The decay of step s is at most (1 + s) / (10 + s): a short run is not left with its first weights."""
    steps = list(train(mae, photos, replace(RECIPE, ema=0.5), steps=1))
    torch.manual_seed(0)
    first = torch.cat([value.flatten().double() for value in mae.build().state_dict().values()])
    assert (weights(steps[-1]) - first).abs().max() > 1e-5


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5])
def test_schedule(warmup):
    rates = [schedule(step / 1000, warmup) for step in range(1001)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1, abs=1e-3) and peak == pytest.approx(1000 * warmup, abs=1)
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert all(rate > 0 for rate in rates) and rates[-1] == pytest.approx(0.01)
    middle = schedule(warmup + (1 - warmup) / 2, warmup)
    assert middle == pytest.approx(0.505)


def test_rate_and_decay_reach_the_optimizer(mae, photos, monkeypatch):
    made = []

    class Spy(torch.optim.AdamW):
        def step(self, *arguments):
            made.append([group["lr"] for group in self.param_groups])
            return super().step(*arguments)

    monkeypatch.setattr(torch.optim, "AdamW", Spy)
    list(train(mae, photos, replace(RECIPE, lr=0.01, warmup=0.5), steps=4))
    assert [rates[0] for rates in made] == pytest.approx([0.01 * schedule(step / 4, 0.5) for step in range(4)])


def test_weight_decay_spares_biases_and_gains(task):
    matrices, others = training._groups(task.build(), 0.1)
    assert matrices["weight_decay"] == 0.1 and others["weight_decay"] == 0
    assert all(p.ndim > 1 for p in matrices["params"]) and all(p.ndim <= 1 for p in others["params"])
    assert len(matrices["params"]) + len(others["params"]) == len(list(task.build().parameters()))


def test_precision(monkeypatch):
    device = torch.device("cpu")
    assert precision("float32", device) == torch.float32 and precision("bfloat16", device) == torch.bfloat16
    for slower, chosen in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)):
        monkeypatch.setattr(training, "_bfloat16_pays", {})
        monkeypatch.setattr(training, "_time_product", lambda dtype, slower=slower: 2.0 if dtype == slower else 1.0)
        assert precision("auto", device) == chosen
    with pytest.raises(ValueError, match="“precision” must be auto, float32 or bfloat16, not half."):
        precision("half", device)


# Settings


def test_settings_go_where_they_belong():
    task, recipe = with_settings(MAE, {"width": "64", "heads": "4", "norm_pix": "true", "lr": "1", "flip": "False",
                                       "crop": "[0.2, 1]", "loss_on": "all", "precision": "float32"})  # fmt: skip
    assert task.config == {**MAE.defaults, "width": 64, "heads": 4, "norm_pix": True, "loss_on": "all"}
    assert recipe == replace(MAE.recipe, lr=1.0, flip=False, crop=(0.2, 1), precision="float32") and type(recipe.lr) is float
    rotation, _ = with_settings(all_tasks()["rotation"], {"depths": "[1,1]"})
    assert rotation.config["depths"] == [1, 1]
    assert with_settings(MAE, {})[1] == MAE.recipe


@pytest.mark.parametrize(
    "name, text",
    [("speed", "1"), ("__class__", "1"), ("__init__", "1"), ("width", "wide"), ("width", "1.5"), ("width", "true"),
     ("width", ""), ("norm_pix", "1"), ("lr", "[1]"), ("lr", "nan"), ("lr", "-1"), ("lr", "0"),
     ("crop", "0.5"), ("crop", "[1]"), ("crop", "[2, 3]"), ("crop", '["a", "b"]'), ("flip", "2"), ("batch", "0"),
     ("color", "3"), ("ema", "1"), ("warmup", "1"), ("precision", "half"), ("loss_on", "some"), ("size", "100"),
     ("size", "0"), ("patch", "0"), ("heads", "7"), ("width", "-4"), ("depth", "null")],
)  # fmt: skip
def test_wrong_settings(name, text):
    with pytest.raises(ValueError) as caught:
        with_settings(MAE, {name: text})
    assert str(caught.value).endswith(".") and len(str(caught.value)) < 300


@pytest.mark.parametrize("depths", ['["a"]', "3", "[-1.5]", "[[1]]"])
def test_wrong_depths(depths):
    with pytest.raises(ValueError, match=r"\.$"):
        with_settings(all_tasks()["rotation"], {"depths": depths})

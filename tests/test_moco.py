"""The queue holds what it should, at the age it says; the key encoder follows; what is said of drift is measured."""

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import generator

from ssl_demo import drawing, inference, momentum
from ssl_demo.checkpoints import load_weights, save_weights
from ssl_demo.data import Batches, centre
from ssl_demo.pretext import create
from ssl_demo.tasks.moco import MomentumContrast
from ssl_demo.training import train

ROOT = Path(inference.__file__).parents[1]
SMALL = {"size": 48, "view": 32, "width": 8, "depths": [1, 1], "features": 16, "queue": 20}
SHORT = dataclasses.replace(create("moco").recipe, batch=8, ema=0.5)


@pytest.fixture(scope="module")
def task():
    return create("moco", **SMALL)


@pytest.fixture(scope="module")
def images(photos):
    return next(centre(photos, 48, 8))


@pytest.fixture
def model(task):
    torch.manual_seed(0)
    return task.build()


@pytest.fixture(scope="module")
def trained(task, photos):
    *_, last = train(task, photos, SHORT, steps=12, every=1e9)
    return last.model


def keys_of(number, count=8):
    """Keys (B, D) that can be told: all their energy is in one axis."""
    return torch.eye(16)[torch.full((count,), number)]


# The queue


def test_a_fresh_queue_is_of_length_one_and_of_no_age(model):
    keys, ages = model.newest_first()
    assert keys.shape == (20, 16) and torch.allclose(keys.norm(dim=1), torch.ones(20)) and (ages == -1).all()


def test_the_newest_keys_come_first_and_the_oldest_go(model):
    for number in range(4):  # 32 keys into 20 places
        model.step(keys_of(number), 0.9)
    keys, ages = model.newest_first()
    assert keys.argmax(dim=1).tolist() == [3] * 8 + [2] * 8 + [1] * 4
    assert ages.tolist() == [0] * 8 + [1] * 8 + [2] * 4 and int(model.place) == 12


def test_what_is_no_key_yet_is_known_as_such(model):
    model.step(keys_of(5), 0.9)
    keys, ages = model.newest_first()
    assert ages.tolist() == [0] * 8 + [-1] * 12 and (keys[:8, 5] == 1).all()


def test_more_keys_than_places(model):
    model.step(torch.eye(16).repeat(2, 1), 0.9)
    keys, ages = model.newest_first()
    assert keys.argmax(dim=1).tolist() == [*range(15, -1, -1), *range(15, 11, -1)] and (ages == 0).all()


def test_only_training_puts_keys_in(task, model, images):
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        task.predict(model.eval(), task.example(images, generator()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_step_of_training_puts_in_the_keys_it_compared(task, model, images):
    example = task.training_example(images, generator())
    prediction = task.predict(model.train(), example)
    task.after_step(model, example, prediction, 0.0)
    assert torch.equal(model.newest_first()[0][:8], prediction["keys"].flip(0))


def test_weights_keep_their_queue(task, trained, tmp_path):
    save_weights(tmp_path / "moco-test.safetensors", task, trained, {})
    loaded, network = load_weights("moco", tmp_path / "moco-test.safetensors")
    keys, ages = network.newest_first()
    assert torch.equal(ages, trained.newest_first()[1]) and ages.max() == 2 and ages.min() == 0
    assert torch.allclose(keys, trained.newest_first()[0], atol=1e-3) and loaded.config == task.config


# The two encoders


def test_the_key_encoder_follows_and_takes_no_gradient(task, model, images):
    old = [p.clone() for p in model.key.parameters()]
    with torch.no_grad():
        for p in model.query.parameters():
            p.add_(1)
    model.step(keys_of(0), 0.75)
    assert all(torch.allclose(p, was + 0.25, atol=1e-6) for p, was in zip(model.key.parameters(), old))
    example = task.training_example(images, generator())
    loss, _ = task.loss(example, task.predict(model.train(), example))
    loss.backward()
    assert all(p.grad is None for p in model.key.parameters()) and all(p.grad is not None for p in model.query.parameters())


def test_training_leaves_the_key_encoder_between_its_start_and_the_query_encoder(task, photos):
    torch.manual_seed(0)
    start = task.build()
    *_, last = train(task, photos, SHORT, steps=5, every=1e9, seed=0)
    apart = momentum.distance(last.model.key, last.model.query)
    moved = momentum.distance(last.model.query, start.query)
    assert 0 < apart < moved
    assert int(last.model.drift.steps) == 5


def test_momentum_on_the_tab_moves_the_key_encoder_along_its_lag(task, trained, images):
    trained.eval()
    with torch.no_grad():
        example = task.example(images, generator())
        settings = {m: task.example(images, generator(), momentum=m) for m in ("0", "0.9", "0.99", "0.999")}
        predicted = {m: task.predict(trained, setting) for m, setting in settings.items()}
        assert torch.allclose(predicted["0"]["keys"], trained.query(example["others"]), atol=1e-5), "no momentum: one network"
        assert torch.equal(predicted["0.99"]["keys"], trained.key(example["others"])), "training's: the stored one"
    own = predicted["0"]["keys"]
    near, far = ((predicted[m]["keys"] - own).square().sum() for m in ("0.9", "0.999"))
    assert 0 < near < far
    assert all(torch.equal(p["queries"], predicted["0"]["queries"]) for p in predicted.values())


# The loss


def test_loss_is_a_double_loop_over_the_batch_and_the_queue(task, trained, images):
    example = task.example(images, generator(), length=16, temperature=0.5)
    with torch.no_grad():
        prediction = task.predict(trained.eval(), example)
        loss, _ = task.loss(example, prediction)
    queue, losses = trained.newest_first()[0], []
    for i, query in enumerate(prediction["queries"]):
        scores = [float(query @ key) / 0.5 for key in [*prediction["keys"], *queue[:16]]]
        losses.append(math.log(sum(map(math.exp, scores))) - scores[i])
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_points_of_chance_are_no_rivals_once_there_are_keys(task, model, images):
    example = task.training_example(images, generator())
    model.eval()
    with torch.no_grad():
        assert task.similarities(example, task.predict(model, example)).shape == (8, 28)
        model.step(keys_of(0), 0.9)
        assert task.similarities(example, task.predict(model, example)).shape == (8, 16)


def test_loss_begins_near_that_of_guessing(images):
    """A little below: a fresh network already finds two views of a photo more alike than a point of chance."""
    task = create("moco", **{**SMALL, "queue": 512, "features": 128})
    torch.manual_seed(0)
    example = task.training_example(images, generator())
    loss, numbers = task.loss(example, task.predict(task.build().train(), example))
    assert 0.6 * math.log(520) < loss.item() < 1.1 * math.log(520) and numbers["feature_spread"] > 0.8


def test_the_chart_ends_at_the_loss(task, trained, images):
    example = task.example(images, generator())
    with torch.no_grad():
        prediction = task.predict(trained.eval(), example)
        loss, _ = task.loss(example, prediction)
    chart = next(panel.chart for panel in task.render(example, prediction) if panel.name == "loss")
    yours, mean, guess = chart.lines
    assert chart.x[0] == 1 and chart.x[-1] == 20 and chart.now == 20
    assert mean.y[-1] == pytest.approx(loss.item(), rel=1e-4) and guess.y[-1] == pytest.approx(math.log(28))
    assert yours.y[-1] == pytest.approx(task.numbers(trained, example, prediction)["loss"].value, rel=1e-4)
    assert list(yours.y) == sorted(yours.y), "more rivals cannot cost less"


def test_views_collapse_is_named(task):
    assert "collapse" in task.alarm({"feature_spread": 0.01}) and not task.alarm({"feature_spread": 0.9})


@pytest.mark.parametrize("config", [{"queue": 0}, {"momentum": 1.0}, {"temperature": 0.0}, {"view": 4}])
def test_settings_that_make_no_sense_are_refused(config):
    with pytest.raises(ValueError, match="cannot be") as caught:
        create("moco", **config)
    assert str(caught.value).endswith(".")


def test_settings_of_training_reach_the_loss(images):
    example = create("moco", **SMALL, temperature=0.07, momentum=0.9).training_example(images, generator())
    assert example["temperature"].unique().item() == pytest.approx(0.07) and example["momentum"][0] == 0.9


# Drift


class Weights(torch.nn.Module):
    """A leader of a few samples' worth of weights."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(10, momentum.EVERY))


def test_lag_behind_a_steady_leader_is_the_closed_form():
    """v m / (1 - m) when the leader goes v a step, once the follower has swung in; the follower itself then goes v a step."""
    leader = Weights()
    drift, v = momentum.Drift(leader), 1e-4
    for _ in range(400):
        leader.weight.data += v
        drift.step(leader, span=20)
    for number, m in enumerate(momentum.MOMENTA[:3]):
        lag = (leader.weight[0, 0] - drift.followers[number, 0]).item()
        assert lag == pytest.approx(v * m / (1 - m), rel=0.02, abs=1e-6)
    assert drift.lag[0] == 0 and (drift.lag.diff() > 0).all() and (drift.change.diff() < 0).all()
    assert drift.change[0].item() == pytest.approx(20 * v, rel=0.05), "a follower without momentum is the leader"


def test_drift_is_a_mean_over_all_steps():
    leader, drift, lags = Weights(), None, []
    drift = momentum.Drift(leader)
    for step in range(7):
        leader.weight.data += 0.01 * (step % 3)
        drift.step(leader, span=3)
        lags.append((drift.followers[3] - drift.sample(leader)).norm() / drift.sample(leader).norm())
    assert drift.lag[3].item() == pytest.approx(np.mean(lags), rel=1e-4)


def test_lag_of_other_momenta():
    drift = momentum.Drift(Weights())
    assert drift.ratio(0.5, 0.99) == drift.ratio(0.99, 0.99) == 1, "not trained"
    drift.lag.copy_(torch.arange(8.0))
    assert drift.ratio(0.0, 0.99) == 0 and drift.ratio(0.99, 0.99) == 1 and drift.ratio(0.999, 0.99) == pytest.approx(5 / 3)
    assert 1 < drift.ratio(0.98, 0.9) < 3


def test_the_sample_is_of_the_query_encoder():
    torch.manual_seed(0)
    model = MomentumContrast(48, (2, 2, 2), 128, 64)
    sample = model.drift.sample(model.query)
    total = sum(p.numel() for p in model.query.parameters() if p.ndim > 1)
    assert len(sample) == pytest.approx(total / momentum.EVERY, rel=0.05) and model.drift.followers.shape == (8, len(sample))


# The tab


def test_views_are_cut_where_the_boxes_say(task, images):
    example = task.example(images, generator())
    assert example["boxes"].shape == (8, 2, 4) and example["inputs"].shape == example["others"].shape == (8, 3, 32, 32)
    left, top, width, _ = example["boxes"].unbind(dim=2)
    assert (width.square() >= 0.199).all() and (left + width <= 1.0001).all() and (top + width <= 1.0001).all()


def test_controls_act(photo):
    runner = inference.load("moco", "untrained")
    base = runner.run(photo)
    assert base.numbers["rival_age"] is None and base.numbers["encoders_apart"] == 0, "untrained: no keys, one network"
    short = runner.run(photo, length=16)
    cold = runner.run(photo, temperature=0.05)
    assert short.numbers["loss"] < base.numbers["loss"] != cold.numbers["loss"]
    strips = [next(p.image for p in result.panels if p.name == "queue") for result in (base, short)]
    hidden = [(strip == np.array(drawing.HIDDEN)).all(axis=2).mean() for strip in strips]
    assert hidden[0] < 0.01 < 0.5 < hidden[1]


def test_the_own_key_is_framed_where_it_ranks(photo):
    result = inference.load("moco", "untrained").run(photo)
    nearest = next(panel for panel in result.panels if panel.name == "nearest")
    place = result.numbers["rank_here"] - 1
    green = np.argwhere((nearest.image == np.array((0x35, 0xC0, 0x7A))).all(axis=2)).mean(axis=0)
    assert place == int(green[0] // 120) * 4 + int(green[1] // 100)
    assert f"{place + 1} of 12" in nearest.caption


def test_batches_of_training_are_whole_photos(photos):
    """The recipe leaves the crops to the views."""
    task = create("moco")
    recipe = task.recipe
    batch = Batches(photos, 4, 144, 0, recipe.crop, recipe.flip, recipe.color)(0)
    whole = next(centre(photos, 144, 32))
    assert all((batch[n] - whole).abs().amax(dim=(1, 2, 3)).min() < 0.01 for n in range(4))

"""Colorization: no colour enters the network, the weights can be undone, and what is counted of photos stays in the weights."""

import math

import numpy as np
import pytest
import torch
from conftest import generator
from PIL import Image

from ssl_demo import inference, lab, lab_drawing
from ssl_demo.data import centre
from ssl_demo.pretext import create
from ssl_demo.training import train

SMALL = {"size": 32, "width": 8, "depths": [1, 1], "decoder_width": 8}


@pytest.fixture
def task():
    return create("colorization", **SMALL)


@pytest.fixture
def model(task, photos):
    torch.manual_seed(0)
    model = task.build()
    task.prepare(model, photos)
    torch.nn.init.normal_(model.net.head.weight, std=0.5)  # so that it says different things of different photos
    return model.eval()


@pytest.fixture
def images(photos):
    return next(centre(photos, 32, 6))


@pytest.fixture
def runner():
    return inference.load("colorization", "untrained")


# What it sees


def test_no_color_enters(task, model, images):
    grey = lab.lab_to_rgb(torch.cat([lab.rgb_to_lab(images)[:, :1], torch.zeros(6, 2, 32, 32)], dim=1))
    shown, hidden = task.example(images, generator()), task.example(grey, generator())
    assert shown["inputs"].shape == (6, 1, 32, 32) and torch.allclose(shown["inputs"], hidden["inputs"], atol=1e-3)
    assert (shown["targets"] - hidden["targets"]).abs().max() > 10
    with torch.no_grad():
        one, other = task.predict(model, shown)["logits"], task.predict(model, {**shown, "targets": hidden["targets"]})["logits"]
    assert torch.equal(one, other) and one.shape == (6, 306, 8, 8)


def test_answers_at_a_quarter_of_the_size():
    task = create("colorization")
    assert task.build().eval()(torch.zeros(1, 1, 96, 96)).shape == (1, 306, 24, 24)


def test_a_scale_more_is_a_scale_coarser():
    task = create("colorization", **{**SMALL, "depths": [1, 1, 1]})
    model = task.build()
    assert model.features(torch.zeros(2, 1, 32, 32)).shape == (2, 32, 2, 2)
    assert [tuple(part.shape[1:]) for part in model.net.maps(torch.zeros(2, 1, 32, 32))] == [(8, 8, 8), (16, 4, 4), (32, 2, 2)]


# The loss


def test_rare_colors_count_more(task, images):
    torch.manual_seed(0)
    logits = torch.randn(6, 306, 8, 8)
    frequencies = torch.rand(306, generator=generator()) + 0.05
    example = task.example(images, generator())
    prediction = {"logits": logits, "frequencies": frequencies.expand(6, -1)}
    with_weights, _ = task.loss(example, prediction)
    plain, _ = create("colorization", rebalance=False, **SMALL).loss(example, prediction)
    assert plain.item() == pytest.approx(lab.color_loss(logits, example["targets"]).item())
    expected = lab.color_loss(logits, example["targets"], lab.rebalancing(frequencies, 0.5))
    assert with_weights.item() == pytest.approx(expected.item()) and with_weights.item() != pytest.approx(plain.item(), rel=1e-3)


def test_the_best_weighted_answer_is_the_truth_times_the_weights(task):
    """And so dividing the weights out gives the truth back: what the switch does."""
    random = generator(1)
    truth, frequencies = torch.rand(306, generator=random), torch.rand(306, generator=random) + 0.05
    truth, weights = truth / truth.sum(), task._weights(frequencies)
    logits = torch.zeros(306, requires_grad=True)
    loss = -(weights * truth * logits.log_softmax(dim=0)).sum()
    best = (truth * weights).log()
    at_best = -(weights * truth * best.log_softmax(dim=0)).sum()
    assert at_best < loss
    (slope,) = torch.autograd.grad(-(weights * truth * (b := best.clone().requires_grad_()).log_softmax(dim=0)).sum(), b)
    assert slope.abs().max() < 1e-6
    prediction = {"logits": best[None, :, None, None], "frequencies": frequencies[None]}
    off, on = ({"rebalanced": torch.tensor([value])} for value in (False, True))
    assert torch.allclose(task._logits(off, prediction).softmax(dim=1).flatten(), truth, atol=1e-6)
    answered = truth * lab.rebalancing(frequencies, task.config["answer_uniform"])
    assert torch.allclose(task._logits(on, prediction).softmax(dim=1).flatten(), answered / answered.sum(), atol=1e-6)
    as_trained = create("colorization", answer_uniform=0.5, **SMALL)
    assert torch.allclose(as_trained._logits(on, prediction), prediction["logits"], atol=1e-5)


def test_without_weights_there_is_nothing_to_undo(images):
    task = create("colorization", rebalance=False, **SMALL)
    prediction = {"logits": torch.randn(6, 306, 8, 8), "frequencies": torch.rand(6, 306) + 0.1}
    on, off = (task.example(images, generator(), rebalanced=value) for value in (True, False))
    assert torch.equal(task._answer(on, prediction), task._answer(off, prediction))


# What is counted before the first step


def test_prepare_counts_and_begins_at_the_base_rate(task, photos, images):
    torch.manual_seed(0)
    model = task.build()
    assert torch.equal(model.frequencies, torch.ones(306)) and not model.frequencies.requires_grad
    task.prepare(model, photos)
    counted = torch.ones(306)
    lab.count_colors(photos, counted)
    assert torch.equal(model.frequencies, counted) and "frequencies" in model.state_dict()
    guess = model.net.head.bias.softmax(dim=0)
    expected = counted * task._weights(counted)
    assert torch.allclose(guess, expected / expected.sum(), atol=1e-6)
    example = task.example(images, generator())
    assert task.loss(example, task.predict(model, example))[0] < math.log(306)


def test_training_prepares_once_and_keeps_it(task, photos, monkeypatch, tmp_path):
    calls, prepare = [], type(task).prepare
    monkeypatch.setattr(type(task), "prepare", lambda self, model, given: (calls.append(given), prepare(self, model, given)))
    counted = torch.ones(306)
    lab.count_colors(photos, counted)
    settings = dict(recipe=task.recipe.__class__(batch=4), seed=0, checkpoint=tmp_path / "a.checkpoint")
    (*_, last) = train(task, photos, steps=2, **settings)
    assert len(calls) == 1 and calls[0] is photos and torch.allclose(last.model.frequencies, counted)
    (*_, longer) = train(task, photos, steps=3, resume=tmp_path / "a.checkpoint", **settings)
    assert len(calls) == 1 and longer.step == 3 and torch.allclose(longer.model.frequencies, counted)
    (*_, other) = train(task, photos.take(range(3)), steps=1, start_from=last.model, **{**settings, "checkpoint": None})
    assert len(calls) == 1 and torch.allclose(other.model.frequencies, counted), "it goes on from weights that know"


# What is measured


def test_figures_of_grey_stand_beside(task, model, images):
    example = task.example(images, generator())
    with torch.no_grad():
        metrics = task.metrics(example, task.predict(model, example))
    assert {"auc", "auc_rebalanced", "ab_rmse", "auc_gray", "auc_gray_rebalanced"} <= metrics.keys()
    error = example["targets"].square().sum(dim=1).sqrt()
    area = torch.stack([(error <= t).float().mean(dim=(1, 2)) for t in range(151)]).mean(dim=0)
    assert torch.allclose(metrics["auc_gray"], area, atol=1e-5)
    undone = task.example(images, generator(), rebalanced=False)
    with torch.no_grad():
        assert torch.equal(metrics["auc_undone"], task.metrics(undone, task.predict(model, undone))["auc"])


def test_the_score_is_that_of_the_default_controls(task, images):
    assert task.example(images, generator())["temperature"].tolist() == pytest.approx([0.38] * 6)
    assert task.evaluation_example(images, generator())["rebalanced"].all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("value", [0, 128, 255, None])
def test_truly_grey_photos(runner, photo, mode, value):
    grey = photo.convert("L") if value is None else Image.new("L", (200, 150), value)
    result = runner.run(grey.convert(mode))
    assert result.numbers["auc_gray"] == pytest.approx(1, abs=0.01) and math.isfinite(result.numbers["auc_rebalanced"])
    assert all(value is None or math.isfinite(value) for value in result.numbers.values())


# What is shown


def panels(result):
    return {panel.name: panel for panel in result.panels}


def test_colors_lie_on_the_photos_own_lightness(runner, photo):
    """At the photo's own resolution: the answer has its edges, and its lightness where a screen can show it."""
    shown = panels(runner.run(photo))
    picture, own = shown["colored"].image, shown["photo"].image
    assert picture.shape == own.shape == (512, 512, 3) and (own == np.asarray(photo)).all()
    ours, truth = (lab.rgb_to_lab(torch.from_numpy(p.copy()).permute(2, 0, 1)[None] / 255)[0, 0] for p in (picture, own))
    off = (ours - truth).abs()
    assert off.median() < 1 and (off < 6).float().mean() > 0.9


def test_strips_make_the_same_picture():
    photo, ab = torch.rand(3, 50, 50, generator=generator()), torch.randn(2, 8, 8, generator=generator(1)) * 30
    whole = lab_drawing.recolored(photo, ab)
    assert whole.shape == (50, 50, 3) and (whole == lab_drawing.recolored(photo, ab, strip=300)).all()
    assert (whole == lab_drawing.recolored(photo, ab, strip=1)).all()


def test_temperature_runs_from_mode_to_mean(task, model, images):
    with torch.no_grad():
        prediction = task.predict(model, task.example(images, generator()))
    mode, mean = (task._answer(task.example(images, generator(), temperature=t), prediction) for t in (0.0, 1.0))
    logits = task._logits(task.example(images, generator()), prediction)
    assert torch.allclose(mode, lab.ab_bins()[logits.argmax(dim=1)].movedim(-1, 1), atol=0.5)
    shares = logits.softmax(dim=1)
    assert torch.allclose(mean, torch.einsum("bqhw,qc->bchw", shares, lab.ab_bins()), atol=1e-3)


def test_a_click_asks_about_a_place(runner, photo):
    first = runner.run(photo)
    changes = runner.click(photo, 0, first.controls, "colored", 0.25, 1.0)
    assert changes == {"pixel": "25.0 100.0"}
    second = runner.run(photo, **changes)
    one, other = panels(first), panels(second)
    assert (one["distribution"].image != other["distribution"].image).any() and (one["grey"].image != other["grey"].image).any()
    assert (one["colored"].image == other["colored"].image).all()
    assert panels(runner.run(photo, seed=5, **changes))["grey"].image.tobytes() == other["grey"].image.tobytes(), "no chance"


def test_the_plane_shows_the_likeliest_largest():
    shares = torch.full((306,), 1e-4)
    red = int(lab.nearest_bin(torch.tensor([70.0, 60.0])))
    shares[red] = 1
    plane = lab_drawing.ab_plane(shares, 55.0, torch.tensor([-20.0, 20.0]), torch.tensor([0.0, 0.0]))
    a, b = (lab.ab_bins()[red] / lab.GRID).tolist()
    row, column = (round((lab.REACH + value + 0.5) * lab_drawing.CELL) for value in (-b, a))
    assert plane[row, column, 0] > 200 and plane[row, column, 1] < 100, "a red square, right and up"
    assert plane.shape == (400, 400, 3)


def test_numbers_of_the_place_asked_about(runner, photo):
    numbers = runner.run(photo, pixel="50 50").numbers
    bins = lab.ab_bins().tolist()
    assert numbers["top_share"] >= numbers["true_share"] > 0 and [numbers["top_a"], numbers["top_b"]] in bins
    assert numbers["entropy"] == pytest.approx(math.log(306), abs=0.1), "untrained: anything goes"

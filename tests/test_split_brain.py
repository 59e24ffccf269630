"""Split-brain: the halves share no parameter, neither sees a channel of the other, and the control sees everything."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import generator

from ssl_demo import inference, lab
from ssl_demo.data import centre
from ssl_demo.pretext import create

SMALL = {"size": 32, "width": 8, "depths": [1, 1], "decoder_width": 8, "levels": 20}


def built(**config):
    task = create("split_brain", **SMALL, **config)
    torch.manual_seed(0)
    model = task.build()
    for head in (model.to_colors.head, model.to_lightness.head):
        torch.nn.init.normal_(head.weight, std=0.5)
    return task, model


@pytest.fixture
def images(photos):
    return next(centre(photos, 32, 4))


def test_halves_share_no_parameter():
    _, model = built()
    one, other = ({value.untyped_storage().data_ptr() for value in half.state_dict().values()}
                  for half in (model.to_colors, model.to_lightness))  # fmt: skip
    assert one and other and not one & other
    known = {name for name, _ in model.named_parameters()}
    assert all(name.startswith(("to_colors.", "to_lightness.")) for name in known), "nothing else learns"


@pytest.mark.parametrize("training", [False, True])
def test_no_half_sees_a_channel_of_the_other(images, training):
    task, model = built()
    model.train(training)
    example, noise = task.example(images, generator()), torch.randn(4, 3, 32, 32, generator=generator(1)) * 20
    with torch.no_grad():
        before = task.predict(model, example)
        for channels, blind, moved in ((slice(1, 3), "logits", "lightness"), (slice(0, 1), "lightness", "logits")):
            changed = example["inputs"].clone()
            changed[:, channels] += noise[:, channels]
            after = task.predict(model, {**example, "inputs": changed})
            assert torch.equal(before[blind], after[blind]) and not torch.allclose(before[moved], after[moved])


def test_no_gradient_crosses(images):
    task, model = built()
    inputs = lab.rgb_to_lab(images).requires_grad_()
    colors, lightness = model(inputs)
    (of_colors,) = torch.autograd.grad(colors.square().sum(), inputs, retain_graph=True)
    (of_lightness,) = torch.autograd.grad(lightness.square().sum(), inputs)
    assert of_colors[:, 0].any() and not of_colors[:, 1:].any()
    assert of_lightness[:, 1:].any() and not of_lightness[:, 0].any()


def test_the_control_sees_everything(images):
    task, model = built(autoencoder=True)
    example = task.example(images, generator())
    with torch.no_grad():
        before = task.predict(model.eval(), example)
        for channel in range(3):
            changed = example["inputs"].clone()
            changed[:, channel] += 20
            after = task.predict(model, {**example, "inputs": changed})
            assert not torch.equal(before["logits"], after["logits"]) and not torch.equal(before["lightness"], after["lightness"])
    _, split = built()
    sizes = [sum(p.numel() for p in net.parameters()) for net in (split, model)]
    assert sizes[1] - sizes[0] == 4 * 9 * (2 + 1), "only the first filters differ"


def test_answers(images):
    task, model = built()
    prediction = task.predict(model.eval(), task.example(images, generator()))
    assert prediction["logits"].shape == (4, 306, 8, 8) and prediction["lightness"].shape == (4, 20, 8, 8)
    colors, lightness = task._answers(task.example(images, generator()), prediction)
    assert colors.shape == (4, 2, 8, 8) and lightness.shape == (4, 1, 8, 8) and 0 <= lightness.min() and lightness.max() <= 100


def test_lightness_is_the_mean_and_colours_stand_for_milder_weights(images):
    task, _ = built()
    logits, light = torch.randn(4, 306, 2, 2), torch.zeros(4, 20, 2, 2)
    light[:, 0] = 3.0
    frequencies = torch.rand(306) + 0.1
    prediction = {"logits": logits, "lightness": light, "frequencies": frequencies.expand(4, -1)}
    for temperature in (0.0, 0.38, 1.0):
        _, lightness = task._answers(task.example(images, generator(), temperature=temperature), prediction)
        share = math.exp(3) / (math.exp(3) + 19)
        assert torch.allclose(lightness, torch.tensor(share * 2.5 + (1 - share) * 52.5)), "the mean at any temperature"
    shift = (lab.rebalancing(frequencies, task.config["answer_uniform"]) / lab.rebalancing(frequencies, 0.5)).log()
    assert torch.allclose(task._logits(prediction), logits + shift[:, None, None], atol=1e-5)


def test_loss_is_the_sum_of_both(images):
    task, model = built()
    task.prepare(model, _Photos(images))
    example = task.example(images, generator())
    prediction = task.predict(model.eval(), example)
    loss, numbers = task.loss(example, prediction)
    assert loss.item() == pytest.approx(numbers["loss_ab"] + numbers["loss_l"], rel=1e-5)
    expected = lab.color_loss(prediction["logits"], example["targets"][:, 1:], lab.rebalancing(model.frequencies, 0.5))
    assert numbers["loss_ab"] == pytest.approx(expected.item(), rel=1e-5)
    level = (example["targets"][:, 0, 2::4, 2::4] / 5).long().clamp(0, 19)
    assert numbers["loss_l"] == pytest.approx(F.cross_entropy(prediction["lightness"], level).item(), rel=1e-5)


class _Photos:
    """As much of `data.Photos` as counting colours needs."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def tensor(self, indices):
        return self.images[indices]


def test_prepare_counts_colors(images):
    task, model = built()
    assert torch.equal(model.frequencies, torch.ones(306))
    task.prepare(model, _Photos(images))
    assert model.frequencies.max() > 3 and model.to_colors.head.bias.std() > 0.5


def test_a_right_answer_scores_full(images):
    task, _ = built()
    example = task.example(images, generator(), temperature=0.0)
    truth = example["targets"]
    logits = torch.zeros(4, 306, 32, 32).scatter(1, lab.nearest_bin(truth[:, 1:].movedim(1, -1))[:, None], 50.0)
    light = torch.zeros(4, 20, 32, 32).scatter(1, (truth[:, :1] / 5).long().clamp(0, 19), 50.0)
    metrics = task.metrics(example, {"logits": logits, "lightness": light, "frequencies": torch.ones(4, 306)})
    assert (metrics["auc"] > 0.96).all() and (metrics["l_rmse"] < 2).all() and (metrics["l_rmse_mean"] > 5).all()
    assert (metrics["ab_rmse"] < 4).all()


def test_features_are_those_of_both_halves(images):
    task, model = built()
    model.eval()
    with torch.no_grad():
        vectors, grid = task.features(model, images)
        greyed = lab.lab_to_rgb(torch.cat([lab.rgb_to_lab(images)[:, :1], torch.zeros(4, 2, 32, 32)], dim=1))
        grey, _ = task.features(model, greyed)
    assert vectors.shape == (4, 32) and grid.shape == (4, 32, 4, 4)
    assert torch.allclose(vectors[:, :16], grey[:, :16], atol=1e-3), "the first half sees lightness alone"
    assert not torch.allclose(vectors[:, 16:], grey[:, 16:], atol=1e-3)
    assert torch.allclose(grey[:, 16:], grey[:1, 16:].expand(4, -1), atol=1e-3), "and the second, colour alone"


def test_panels_hold_both_inputs_and_both_answers(photo):
    result = inference.load("split_brain", "untrained").run(photo, pixel="30 60")
    shown = {panel.name: panel.image for panel in result.panels}
    assert {"photo", "lightness", "colors", "guessed_colors", "guessed_lightness", "recombined", "distribution"} == shown.keys()
    assert (shown["lightness"][..., 0] == shown["lightness"][..., 1]).mean() > 0.99, "no colour in it"
    light = lab.rgb_to_lab(torch.from_numpy(shown["colors"].copy()).permute(2, 0, 1)[None] / 255)[0, 0]
    assert np.median((light - 65).abs()) < 1, "and no lightness in this one"
    assert runner_click(photo, result) == {"pixel": "50.0 25.0"}


def runner_click(photo, result):
    return inference.load("split_brain", "untrained").click(photo, 0, result.controls, "lightness", 0.5, 0.25)


@pytest.mark.parametrize("value", [0, 200])
def test_flat_grey_photos(photo, value):
    numbers = inference.load("split_brain", "untrained").run(photo.convert("L").point(lambda _: value)).numbers
    assert numbers["auc_gray"] == pytest.approx(1, abs=0.01) and numbers["l_rmse_mean"] == pytest.approx(0, abs=1e-3)

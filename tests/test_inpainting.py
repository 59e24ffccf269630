"""What is hidden stays hidden; the bottleneck, the two losses and the guesses beside ours are what they are said to be."""

import json

import numpy as np
import pytest
import skimage.metrics
import torch
import torch.nn.functional as F
from conftest import generator

from ssl_demo import cli, drawing, inference
from ssl_demo.baselines import mean_color, telea
from ssl_demo.data import centre
from ssl_demo.nets import reverse_gradient
from ssl_demo.pretext import Card, PretextTask, all_tasks, create, parse_controls
from ssl_demo.tasks.inpainting import MEAN, MOST, OVERLAP, SPREAD, TELLING, ChannelWise, centre_hole
from ssl_demo.training import evaluate

SMALL = {"size": 32, "width": 8, "depths": [1, 1, 1]}
STROKES = "6 20 20 60 30; 9 70 80"
REGIONS = [{"region": "centre"}, {"region": "blocks"}, {"region": "painted", "strokes": STROKES}]


@pytest.fixture(scope="module")
def task():
    return create("inpainting")


@pytest.fixture(scope="module")
def images(photos):
    return next(centre(photos, 96, 8))


@pytest.fixture(scope="module")
def model(task):
    torch.manual_seed(0)
    return task.build().eval()


@pytest.fixture(scope="module")
def small(photos):
    """A small task, its network in double precision and an example of training."""
    task = create("inpainting", **SMALL)
    torch.manual_seed(0)
    model = task.build().double().train()
    return task, model, task.training_example(next(centre(photos, 32, 6)).double(), generator())


# What is hidden


@pytest.mark.parametrize("controls", REGIONS)
def test_hidden_pixels_never_enter_the_network(task, model, images, controls):
    example = task.example(images, generator(), **controls)
    hidden = example["hidden"][:, None]
    others = torch.where(hidden, torch.rand(images.shape, generator=generator(1)), images)
    changed = task.example(others, generator(), **controls)
    assert not torch.equal(others, images) and torch.equal(changed["targets"], others)
    assert torch.equal(changed["inputs"], example["inputs"]) and torch.equal(changed["classical"] * ~hidden, images * ~hidden)
    assert torch.equal(changed["classical"], example["classical"]), "nor do they enter the classical guess"
    with torch.no_grad():
        one, other = task.predict(model, example), task.predict(model, changed)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_hidden_pixels_do_not_reach_the_picture_in_training_either(small):
    """There the discriminator sees the whole photo; what is painted still does not depend on it."""
    task, model, example = small
    others = torch.where(example["hidden"][:, None], 1 - example["targets"], example["targets"])
    one, other = (task.predict(model, {**example, "targets": targets}) for targets in (example["targets"], others))
    assert torch.equal(one["picture"], other["picture"]) and not torch.equal(one["judged_real"], other["judged_real"])


@pytest.mark.parametrize("controls", REGIONS)
def test_inputs_are_the_rest_and_the_mask(task, images, controls):
    example = task.example(images, generator(), **controls)
    hidden, inputs = example["hidden"], example["inputs"]
    assert inputs.shape == (8, 4, 96, 96) and torch.equal(inputs[:, 3], hidden.float())
    assert (inputs[:, :3].movedim(1, 3)[hidden] == MEAN).all()
    assert torch.equal(inputs[:, :3] * ~hidden[:, None], images * ~hidden[:, None])


def test_the_centre_hole_is_a_quarter(task, images):
    for size in (32, 96):
        hidden = centre_hole(size)
        assert hidden.float().mean() == 0.25 and torch.equal(hidden, hidden.flip(0)) and torch.equal(hidden, hidden.T)
    for example in (task.example(images, generator()), task.evaluation_example(images, generator(9))):
        assert (example["hidden"] == centre_hole(96)).all()


def test_strokes_count_only_where_painted_is_chosen(task, images):
    centred = task.example(images, generator(), strokes=STROKES)
    assert torch.equal(centred["hidden"], task.example(images, generator())["hidden"])
    painted = task.example(images, generator(), region="painted", strokes=STROKES)
    assert np.array_equal(painted["hidden"][3].numpy(), drawing.painted(STROKES, 96))
    changes = task.paint(STROKES)
    assert changes == {"region": "painted", "strokes": STROKES} and parse_controls(task, changes) == changes


def test_painting_goes_to_the_brush_control_of_any_task():
    class Other(PretextTask):
        card, controls = all_tasks()["inpainting"].card, all_tasks()["inpainting"].controls

    assert Other().paint("5 1 2") == {"strokes": "5 1 2"} and create("mae").paint("5 1 2") == {}


def test_holes_in_training_are_mixed(task, images):
    """Half of them in the centre, the others neither too small to learn from nor too large to fill."""
    hidden = torch.cat([task.training_example(images, generator(seed))["hidden"] for seed in range(50)])
    in_centre = (hidden == centre_hole(96)).all(dim=(1, 2))
    assert 0.4 < in_centre.float().mean() < 0.6
    shares = hidden[~in_centre].float().mean(dim=(1, 2))
    assert 0.005 < shares.min() and shares.max() < 0.6 and 0.1 < shares.mean() < 0.3


def test_random_holes_are_what_they_are_said_to_be():
    for seed in range(50):
        blocks = drawing.random_blocks(64, generator(seed))
        assert blocks.shape == (64, 64) and 0.04 < blocks.mean() < 0.36
        strokes = drawing.random_strokes(generator(seed))
        assert 1 <= len(strokes.split(";")) <= 4
        brush = next(control for control in create("inpainting").controls if control.kind == "brush")
        assert drawing.painted(brush.parse(strokes), 64).any()
        assert strokes == drawing.random_strokes(generator(seed)) != drawing.random_strokes(generator(seed + 1))


# Network


def test_channel_wise_layer_joins_the_cells_of_each_channel_alone():
    layer, grid = ChannelWise(5, 12), torch.randn(2, 5, 3, 4)
    with torch.no_grad():
        layer.bias.normal_()
        mixed = torch.stack([torch.stack([F.relu(grid[b, c].flatten() @ layer.weight[c] + layer.bias[c, 0]) for c in range(5)])
                             for b in range(2)])
        assert torch.allclose(layer(grid), layer.mix(mixed.unflatten(2, (3, 4))), atol=1e-5)
    assert layer.weight.numel() == 5 * 12**2, "not (5 * 12) ** 2, which is the paper's point"


def test_what_is_seen_anywhere_reaches_every_place(task, images):
    model = task.build().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)  # fresh blocks are the identity, which sees only every eighth pixel
    inputs = task.example(images[:1], generator())["inputs"].requires_grad_()
    model.decode(model.encode(inputs))[0, :, 48, 48].sum().backward()
    assert (inputs.grad[0, :3].abs().sum(0) > 0).float().mean() > 0.99


def test_size_must_fit():
    with pytest.raises(ValueError, match="multiple of 16"):
        create("inpainting", size=40).build()


def test_features_are_those_of_the_whole_photo(task, model, images):
    with torch.no_grad():
        vectors, grid = task.features(model, images)
        whole = task.predict(model, task.example(images, generator(), region="painted"))["encoded"]
    assert torch.equal(grid, whole) and torch.equal(vectors, grid.mean(dim=(2, 3))) and grid.shape == (8, 192, 6, 6)


# Losses


def test_reversal_changes_the_gradient_alone():
    values = torch.randn(4, requires_grad=True)
    same = reverse_gradient(values, 0.25)
    assert torch.equal(same, values)
    (same * torch.arange(4.0)).sum().backward()
    assert torch.equal(values.grad, -0.25 * torch.arange(4.0))


def test_one_backward_pass_is_the_minimax(small):
    """The discriminator goes down its own error; the painter down the squared error and, by 0.001, up the discriminator's."""
    task, model, example = small
    names, parameters = zip(*((n, p) for n, p in model.named_parameters()))
    loss, numbers = task.loss(example, task.predict(model, example))
    got = torch.autograd.grad(loss, parameters)

    picture = model.decode(model.encode(example["inputs"]))
    filled = torch.where(example["hidden"][:, None], picture, example["targets"])
    real, fake = (model.discriminator((photo - MEAN) / SPREAD) for photo in (example["targets"], filled))
    told = (F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
            + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))) / 2
    squared, _ = task.loss(example, {"picture": picture})
    assert numbers["told_apart"] == pytest.approx(told.item(), rel=1e-3)
    assert loss.item() == pytest.approx((squared + TELLING * told).item(), rel=1e-5)
    up, down = (torch.autograd.grad(part, parameters, retain_graph=True, allow_unused=True) for part in (told, squared))
    for name, one, of_told, of_squared in zip(names, got, up, down):
        expected = TELLING * of_told if name.startswith("discriminator") else of_squared - 0.001 * of_told
        assert torch.allclose(one, expected, rtol=1e-4, atol=1e-6), name


def test_discriminator_rests_outside_training(task, model, images):
    with torch.no_grad():
        assert task.predict(model, task.example(images[:2], generator())).keys() == {"encoded", "picture"}
    share = sum(p.numel() for p in model.discriminator.parameters()) / sum(p.numel() for p in model.parameters())
    assert share < 0.05


def test_loss_counts_the_hole_and_ten_times_the_seam(task, images):
    example = task.example(images, generator())
    hidden = example["hidden"]
    wide = torch.zeros_like(hidden)
    wide[:, 24 - OVERLAP : 72 + OVERLAP, 24 - OVERLAP : 72 + OVERLAP] = True

    def loss(where):
        return task.loss(example, {"picture": images + SPREAD * where[:, None]})[0].item()

    inner, ring = hidden.sum().item(), (wide & ~hidden).sum().item()
    assert loss(hidden) == pytest.approx(inner / (inner + 10 * ring), rel=1e-5)
    assert loss(wide & ~hidden) == pytest.approx(10 * ring / (inner + 10 * ring), rel=1e-5)
    assert loss(wide) == pytest.approx(1, rel=1e-5) and loss(~wide) == 0


# What is measured


def test_metrics_are_psnr_and_l1_of_the_hole(task, model, images):
    example = task.example(images, generator(), region="blocks")
    with torch.no_grad():
        prediction = task.predict(model, example)
    metrics = task.metrics(example, prediction)
    guesses = {"hidden": prediction["picture"].clamp(0, 1), "classical": example["classical"],
               "mean_color": mean_color(images, example["hidden"])}
    for name, guess in guesses.items():
        for i in range(len(images)):
            truth, told = (picture[i].permute(1, 2, 0)[example["hidden"][i]].double().numpy() for picture in (images, guess))
            psnr = skimage.metrics.peak_signal_noise_ratio(truth, told, data_range=1)
            assert metrics[f"psnr_{name}"][i].item() == pytest.approx(psnr, abs=1e-3)
            assert metrics[f"l1_{name}"][i].item() == pytest.approx(np.abs(truth - told).mean(), abs=1e-5)
    exact = task.metrics(example, {"picture": images})
    assert (exact["psnr_hidden"] == MOST).all() and (exact["l1_hidden"] == 0).all()


def test_the_classical_guess_is_made_where_it_is_shown_and_scored_only(task, model, images, photos):
    example = task.training_example(images, generator())
    with torch.no_grad():
        assert "psnr_classical" not in task.metrics(example, task.predict(model, example))
    totals = evaluate(task, model, photos.take(range(4)))
    assert {"psnr_hidden", "psnr_classical", "psnr_mean_color", "l1_hidden", "l1_classical", "l1_mean_color"} < totals.keys()
    assert "Telea" in totals["classical"] and totals["psnr_classical"] > totals["psnr_mean_color"] + 0.5


@pytest.mark.parametrize("shown", [["--json"], []])
def test_evaluate_names_the_classical_guess(capsys, folder, no_weights, shown):
    assert cli.main(["evaluate", "inpainting", "--data", str(folder), "--limit", "2", "--weights", "untrained", *shown]) == 0
    out = capsys.readouterr().out
    assert "Telea" in (json.loads(out)["metrics"]["classical"] if shown else out)


def test_telea_fills_holes_and_nothing_else(images):
    hidden = torch.tensor(drawing.painted(STROKES, 96)).repeat(8, 1, 1)
    filled = telea(images, hidden, 9)
    assert torch.equal(filled * ~hidden[:, None], images * ~hidden[:, None]) and 0 <= filled.min() and filled.max() <= 1
    flat = torch.full((1, 3, 96, 96), 0.4)
    assert torch.allclose(telea(flat, hidden[:1], 9), flat, atol=0.01)
    nothing, everything = torch.zeros(1, 96, 96, dtype=torch.bool), torch.ones(1, 96, 96, dtype=torch.bool)
    assert torch.equal(telea(images[:1], nothing, 9), images[:1])
    assert telea(images[:1], everything, 9).std() == 0 and (mean_color(images[:1], everything) == 0.5).all()


def test_mean_color_is_that_of_visible_pixels(images):
    hidden = centre_hole(96).repeat(8, 1, 1)
    color = mean_color(images, hidden)
    expected = images[2].permute(1, 2, 0)[~hidden[2]].mean(dim=0)
    assert torch.allclose(color[2, :, 48, 48], expected, atol=1e-5)
    assert torch.equal(color * ~hidden[:, None], images * ~hidden[:, None])


def test_scores_read_as_people_write_them(task):
    assert task.card.show(17.1249) == "17.12 dB"
    assert create("rotation").card.show(0.7234) == "72.3%" and create("mae").card.show(0.01894) == "0.0189"
    assert Card.show.__doc__


# What is drawn


def panels(result):
    return {panel.name: panel for panel in result.panels}


def test_panels_paste_into_the_hole(photo):
    shown = panels(inference.load("inpainting", "untrained").run(photo))
    hidden = centre_hole(96).numpy()
    original, raw = shown["photo"].image, shown["raw"].image
    assert (shown["sees"].image[hidden] == drawing.HIDDEN).all() and shown["sees"].brush
    for name in ("sees", "filled", "classical", "mean_color"):
        assert np.array_equal(shown[name].image[~hidden], original[~hidden]), name
    assert np.array_equal(shown["filled"].image[hidden], raw[hidden]) and not np.array_equal(raw[~hidden], original[~hidden])
    assert (shown["error"].image[~hidden] == drawing.heat(np.zeros((1, 1)))[0, 0]).all()
    assert len(np.unique(shown["mean_color"].image[hidden], axis=0)) == 1


def test_numbers_stand_beside_one_another(photo):
    figures = inference.load("inpainting", "untrained").run(photo).figures
    for kind in ("psnr", "l1"):
        assert {f"{kind}_hidden", f"{kind}_classical", f"{kind}_mean_color"} <= figures.keys()
        assert "classical" in figures[f"{kind}_hidden"].help and "mean colour" in figures[f"{kind}_hidden"].help
    assert figures["gain"].value == pytest.approx(figures["psnr_hidden"].value - figures["psnr_classical"].value)
    assert figures["hidden"].value == 0.25 and sum(bool(figure.text) for figure in figures.values()) <= 6


@pytest.mark.parametrize("strokes", ["", "0.1 -40 -40"])
def test_nothing_hidden_is_said(photo, strokes):
    result = inference.load("inpainting", "untrained").run(photo, region="painted", strokes=strokes)
    shown = panels(result)
    assert "Nothing is hidden" in shown["sees"].caption and np.array_equal(shown["filled"].image, shown["photo"].image)
    assert result.numbers["hidden"] == 0 and result.numbers["psnr_hidden"] is result.numbers["gain"] is None
    assert result.figures["psnr_hidden"].text == "–" and "nan" not in json.dumps(result.numbers, allow_nan=False)


def test_everything_hidden_is_answered(photo):
    result = inference.load("inpainting", "untrained").run(photo, region="painted", strokes="50 0 0 100 100 0 100 100 0")
    assert result.numbers["hidden"] == 1 and all(value is not None for value in result.numbers.values())

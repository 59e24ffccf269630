"""Nothing of a hidden patch reaches the network or the picture; only hidden patches are judged; only visible ones cost work."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import generator

from ssl_demo import inference
from ssl_demo.baselines import smooth_interpolation
from ssl_demo.data import centre
from ssl_demo.nets import multiply_adds, patchify, sincos_positions, unpatchify
from ssl_demo.pretext import create, parse_controls

KINDS = ("random", "block", "grid")
SMALL = {"size": 32, "width": 32, "depth": 2, "heads": 2, "decoder_width": 32, "decoder_depth": 1}  # 4 x 4 patches of 8 x 8


@pytest.fixture(scope="module")
def task():
    return create("mae")


@pytest.fixture(scope="module")
def images(photos):
    return next(centre(photos, 96, 4))


@pytest.fixture(scope="module")
def small():
    return create("mae", **SMALL)


@pytest.fixture(scope="module")
def small_images(photos):
    return next(centre(photos, 32, 4))


def network(task):
    torch.manual_seed(0)
    return task.build().eval()


def predict(task, model, example):
    with torch.no_grad():
        return task.predict(model, example)


# Patches


@pytest.mark.parametrize("patch", [2, 4, 8, 16])
def test_unpatchify_undoes_patchify(images, patch):
    patches = patchify(images, patch)
    assert patches.shape == (4, (96 // patch) ** 2, 3 * patch**2) and torch.equal(unpatchify(patches, patch), images)


def test_patches_stand_in_reading_order(images):
    patches = patchify(images, 8).unflatten(2, (3, 8, 8))
    assert torch.equal(patches[:, 0], images[:, :, :8, :8])
    assert torch.equal(patches[:, 1], images[:, :, :8, 8:16])
    assert torch.equal(patches[:, 12], images[:, :, 8:16, :8])


def test_positions_differ():
    positions = sincos_positions(12, 64)
    distances = torch.cdist(positions.double(), positions.double()) + torch.eye(144) * 9
    assert positions.shape == (144, 64) and distances.min() > 0.1
    assert positions[:, :32].reshape(12, 12, 32).std(dim=1).max() == 0, "the first half speaks of rows"
    assert positions[:, 32:].reshape(12, 12, 32).std(dim=0).max() == 0, "the second of columns"


# What is hidden


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [96, 80, 160])
def test_exactly_the_share_is_hidden(task, kind, size):
    images, count = torch.zeros(3, 3, size, size), (size // 8) ** 2
    for ratio in range(96):
        example = task.example(images, generator(ratio), mask_ratio=ratio, kind=kind)
        assert example["hidden"].sum(dim=1).tolist() == [round(count * ratio / 100)] * 3
        assert example["visible"].shape == (3, count - round(count * ratio / 100))


@pytest.mark.parametrize("kind", KINDS)
def test_visible_and_hidden_are_one_mask(task, images, kind):
    example = task.example(images, generator(), kind=kind)
    for visible, hidden, inputs, targets in zip(*(example[key] for key in ("visible", "hidden", "inputs", "targets"))):
        assert visible.tolist() == (~hidden).nonzero().flatten().tolist()
        assert torch.equal(inputs, targets[visible])
    assert torch.equal(unpatchify(example["targets"], 8), images)


def test_kinds_hide_what_their_names_say(task, images):
    hidden = {kind: task.example(images, generator(), mask_ratio=25, kind=kind)["hidden"].reshape(4, 12, 12) for kind in KINDS}
    for mask in hidden["block"]:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        assert len(rows) == len(columns) == 6 and mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert all((mask.unfold(0, 2, 2).unfold(1, 2, 2).sum((2, 3)) == 1).all() for mask in hidden["grid"])
    assert len({mask.numpy().tobytes() for mask in hidden["random"]}) == 4
    chess = task.example(images, generator(), mask_ratio=50, kind="grid")["hidden"][0].reshape(12, 12)
    assert (chess[:, 1:] != chess[:, :-1]).all() and (chess[1:] != chess[:-1]).all()


@pytest.mark.parametrize("kind", ["random", "grid"])  # a block has to move to fit
def test_a_higher_ratio_hides_more_of_the_same(task, images, kind):
    """Moving the slider adds patches and shuffles nothing, so that one can see what a single patch is worth."""
    masks = [task.example(images, generator(), mask_ratio=ratio, kind=kind)["hidden"] for ratio in (0, 20, 50, 75, 95)]
    assert all((less <= more).all() for less, more in zip(masks, masks[1:]))


@pytest.mark.parametrize("chosen", ["", "0", "0 5 17", "143", " ".join(map(str, range(144)))])
def test_by_hand_hides_the_chosen_ones(task, images, chosen):
    hidden = task.example(images, generator(), kind="by hand", patches=chosen)["hidden"]
    assert [mask.nonzero().flatten().tolist() for mask in hidden] == [[int(number) for number in chosen.split()]] * 4


def test_a_patch_that_is_not_there(photo):
    with pytest.raises(ValueError, match="no patch 144: they are numbered 0 to 143"):
        inference.load("mae", "untrained").run(photo, kind="by hand", patches="3 144")


def test_a_click_toggles_one_patch(task, images):
    example = task.example(images[:1], generator())
    before = example["hidden"][0]
    for row, column in ((0, 0), (11, 11), (3, 7)):
        changes = task.click("visible", (column + 0.5) / 12, (row + 0.5) / 12, example)
        assert changes["kind"] == "by hand"
        after = task.example(images[:1], generator(9), **parse_controls(task, changes))["hidden"][0]
        assert (after != before).nonzero().flatten().tolist() == [row * 12 + column]
    assert task.click("visible", 1.0, 1.0, example) == task.click("visible", 0.999, 0.999, example), "the edge is the last patch"


# No leak


def disturbed(images, hidden, patch):
    """The images with arbitrary other pixels in their hidden patches."""
    patches = patchify(images, patch)
    other = torch.rand(patches.shape, generator=generator(77)) ** 2
    return unpatchify(torch.where(hidden[:, :, None], other, patches), patch)


def panel_bytes(task, example, prediction):
    return {panel.name: panel.image.tobytes() for panel in task.render(example, prediction)}


@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_pixels_change_nothing(images, kind, norm_pix):
    """Not a bit of the inputs, the prediction, the pictures drawn of it, or the blur beside it."""
    task = create("mae", norm_pix=norm_pix)
    model = network(task)
    one = task.example(images, generator(1), kind=kind)
    other = task.example(disturbed(images, one["hidden"], 8), generator(1), kind=kind)
    assert not torch.equal(one["targets"], other["targets"]) and torch.equal(one["hidden"], other["hidden"])
    assert torch.equal(one["inputs"], other["inputs"])
    predictions = predict(task, model, one), predict(task, model, other)
    assert predictions[0].keys() == predictions[1].keys()
    assert all(torch.equal(predictions[0][key], predictions[1][key]) for key in predictions[0])
    panels = panel_bytes(task, one, predictions[0]), panel_bytes(task, other, predictions[1])
    blind = {"visible", "reconstruction", "raw", "smooth"}
    assert all(panels[0][name] == panels[1][name] for name in blind) and panels[0]["photo"] != panels[1]["photo"]
    assert panels[0].keys() - blind == {"photo", "error"}, "what is left shows the truth, or is judged by it"


def test_a_whole_photo_of_other_pixels(task, images):
    """The extreme: hidden patches all black or all white. The panels of the answer stay as they are, to the bit."""
    model, seen = network(task), []
    hidden = task.example(images, generator())["hidden"]
    for value in (0.0, 1.0):
        patches = torch.where(hidden[:, :, None], torch.tensor(value), patchify(images, 8))
        example = task.example(unpatchify(patches, 8), generator())
        seen.append(panel_bytes(task, example, predict(task, model, example)))
    assert all(seen[0][name] == seen[1][name] for name in ("visible", "reconstruction", "raw", "smooth"))


def test_visible_pixels_do_change_it(task, images):
    """The test above is able to fail."""
    model = network(task)
    one = task.example(images, generator(1))
    other = task.example(disturbed(images, ~one["hidden"], 8), generator(1))
    one, other = panel_bytes(task, one, predict(task, model, one)), panel_bytes(task, other, predict(task, model, other))
    assert all(one[name] != other[name] for name in ("visible", "reconstruction", "raw", "smooth"))


def test_reconstruction_keeps_the_visible_patches(task, images):
    example = task.example(images, generator())
    panels = {panel.name: panel.image for panel in task.render(example, predict(task, network(task), example))}
    visible = np.kron(~example["hidden"][0].reshape(12, 12).numpy(), np.ones((8, 8))).astype(bool)
    assert (panels["reconstruction"][visible] == panels["photo"][visible]).all()
    assert (panels["reconstruction"][~visible] == panels["raw"][~visible]).all()
    assert (panels["visible"][visible] == panels["photo"][visible]).all() and len(
        np.unique(panels["visible"][~visible], axis=0)
    ) == 1


# The loss


def shifted(prediction, mask, by=0.3):
    return {"patches": prediction["patches"] + by * mask[:, :, None]}


@pytest.mark.parametrize("norm_pix", [False, True])
def test_loss_looks_at_hidden_patches_only(images, norm_pix):
    for loss_on, visible_counts in (("hidden", False), ("all", True)):
        task = create("mae", loss_on=loss_on, norm_pix=norm_pix)
        example = task.example(images, generator())
        prediction = predict(task, network(task), example)
        before = task.loss(example, prediction)[0]
        assert (task.loss(example, shifted(prediction, ~example["hidden"]))[0] != before) == visible_counts
        assert task.loss(example, shifted(prediction, example["hidden"]))[0] != before


def test_loss_is_the_papers(task, images):
    """Mean over hidden patches of the mean squared error, on standardised pixels; written out as loops."""
    example = task.example(images, generator())
    prediction = predict(task, network(task), example)
    errors = [
        ((prediction["patches"][b, n] - example["targets"][b, n]) / 0.27).square().mean().item()
        for b in range(4)
        for n in range(144)
        if example["hidden"][b, n]
    ]
    assert len(errors) == 4 * 108 and task.loss(example, prediction)[0].item() == pytest.approx(
        sum(errors) / len(errors), rel=1e-4
    )


def test_normalised_targets(images):
    """The paper's: each patch with mean 0 and variance 1, so a prediction of just that costs nothing."""
    task = create("mae", norm_pix=True)
    example = task.example(images, generator())
    targets = example["targets"]
    exact = (targets - targets.mean(2, keepdim=True)) / (targets.var(2, keepdim=True) + 1e-6).sqrt()
    assert task.loss(example, {"patches": exact})[0].item() == pytest.approx(0, abs=1e-9)
    assert task.loss(example, {"patches": targets})[0] > 0.1


# The work


def test_the_encoder_gets_visible_tokens_only(small, small_images, monkeypatch):
    model, seen = network(small), []
    for block in model.encoder:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    for ratio in (0, 25, 75):
        seen.clear()
        predict(small, model, small.example(small_images, generator(), mask_ratio=ratio))
        assert seen == [(4, round(16 * (1 - ratio / 100)), 32)] * 2


def test_multiply_adds_follow_the_visible_patches(task, images):
    """Linear layers cost in proportion to the visible patches, attention to their square: a quarter costs less than a quarter."""
    model, work = network(task), {}
    for ratio in (0, 50, 75):
        example = task.example(images[:1], generator(), mask_ratio=ratio)
        work[ratio] = multiply_adds(model.encode, example["inputs"], example["visible"])
    width, depth, pixels = task.config["width"], task.config["depth"], 192

    def expected(tokens):
        return tokens * (pixels * width + depth * 12 * width**2) + depth * 2 * tokens**2 * width

    assert work == {0: expected(144), 50: expected(72), 75: expected(36)}
    assert work[75] < work[0] / 4


def test_the_tab_prints_that_work(photo):
    numbers = inference.load("mae", "untrained").run(photo, mask_ratio=75).numbers
    assert (numbers["tokens"], numbers["tokens_all"]) == (36, 144)
    assert 0 < numbers["multiply_adds"] < numbers["multiply_adds_all"] / 4
    assert numbers["encoder_milliseconds"] > 0 and numbers["encoder_milliseconds_all"] > 0


# Ends of the range


@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize(
    "controls",
    [{"mask_ratio": 0}, {"mask_ratio": 95}, {"kind": "by hand"}, {"kind": "by hand", "patches": " ".join(map(str, range(144)))}],
)
def test_nothing_or_everything_hidden(photo, controls, norm_pix):
    task = create("mae", norm_pix=norm_pix)
    result = inference.Runner(task, network(task)).run(photo, **controls)
    json.dumps(result.numbers, allow_nan=False)
    assert len(result.panels) == 6
    none_hidden = result.numbers["tokens"] == 144
    assert (result.numbers["mse_hidden"] == 0) == none_hidden and (result.numbers["ratio_to_smooth"] is None) == none_hidden


@pytest.mark.parametrize("norm_pix", [False, True])
def test_everything_hidden_is_finite(small_images, norm_pix):
    small = create("mae", **SMALL, norm_pix=norm_pix)
    example = small.example(small_images, generator(), kind="by hand", patches=" ".join(map(str, range(16))))
    prediction = predict(small, network(small), example)
    assert example["inputs"].shape == (4, 0, 192) and prediction["patches"].isfinite().all()
    assert all(values.isfinite().all() for values in small.metrics(example, prediction).values())
    grey = smooth_interpolation(small_images, torch.ones(4, 32, 32, dtype=torch.bool), 1.0)
    assert torch.allclose(grey, torch.tensor(0.5), atol=1e-4), "where nothing is seen, the blur guesses what the mean colour does"


def test_nothing_hidden_costs_nothing(small, small_images):
    example = small.example(small_images, generator(), mask_ratio=0)
    prediction = predict(small, network(small), example)
    assert small.loss(example, prediction)[0] == 0
    assert all((values == 0).all() for values in small.metrics(example, prediction).values())


# What a network has to beat


def test_blur_equals_the_double_loop():
    images = torch.rand(1, 3, 9, 9, generator=generator())
    hidden = torch.rand(1, 9, 9, generator=generator(1)) < 0.6
    sigma, expected = 1.3, images.clone()
    for y, x in hidden[0].nonzero().tolist():
        total, weights = torch.zeros(3), 0.0
        for v, u in (~hidden[0]).nonzero().tolist():
            weight = math.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * sigma**2))
            total, weights = total + weight * images[0, :, v, u], weights + weight
        expected[0, :, y, x] = total / weights
    assert torch.allclose(smooth_interpolation(images, hidden, sigma), expected, atol=1e-5)


def test_blur_reaches_across_the_largest_hole(images):
    """One visible patch in a corner, everything else hidden: still the colours of that patch, never a division by nothing."""
    hidden = torch.ones(4, 96, 96, dtype=torch.bool)
    hidden[:, :8, :8] = False
    blurred, corner = smooth_interpolation(images, hidden, 3.0), images[:, :, :8, :8].flatten(2)
    assert blurred.isfinite().all() and torch.equal(blurred[:, :, :8, :8], images[:, :, :8, :8])
    low, high = corner.min(dim=2).values[:, :, None, None], corner.max(dim=2).values[:, :, None, None]
    assert (blurred >= low - 1e-5).all() and (blurred <= high + 1e-5).all()


def test_metrics_by_hand(small, small_images):
    """The errors of the drawing and of the two guesses, written out for each photo."""
    example = small.example(small_images, generator())
    prediction = predict(small, network(small), example)
    metrics = small.metrics(example, prediction)
    for b in range(4):
        hidden = np.kron(example["hidden"][b].reshape(4, 4).numpy(), np.ones((8, 8))).astype(bool)
        truth = small_images[b].numpy()[:, hidden]
        color = small_images[b].numpy()[:, ~hidden].mean(axis=1, keepdims=True)
        drawn = unpatchify(prediction["patches"], 8)[b].clamp(0, 1).numpy()[:, hidden]
        assert metrics["mse_mean_color"][b].item() == pytest.approx(((truth - color) ** 2).mean(), rel=1e-4)
        assert metrics["mse_hidden"][b].item() == pytest.approx(((truth - drawn) ** 2).mean(), rel=1e-4)
        mask = torch.from_numpy(hidden)[None]
        blurred = smooth_interpolation(small_images[b : b + 1], mask, 1.0)[0].numpy()[:, hidden]  # 1/32 of 32 pixels
        assert metrics["mse_smooth"][b].item() == pytest.approx(((truth - blurred) ** 2).mean(), rel=1e-4)


def test_ratio_is_that_of_the_means(task):
    metrics = {"mse_hidden": torch.tensor([1.0, 3.0]), "mse_smooth": torch.tensor([4.0, 4.0]), "mse_mean_color": torch.ones(2)}
    assert task.aggregate(metrics) == {"mse_hidden": 2.0, "mse_smooth": 4.0, "mse_mean_color": 1.0, "ratio_to_smooth": 0.5}


@pytest.mark.parametrize("config", [{"loss_on": "some"}, {"size": 100}])
def test_settings_that_make_no_sense(config):
    with pytest.raises(ValueError, match=r"\.$"):
        create("mae", **config).build()

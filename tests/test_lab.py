"""Colours: Lab as others compute it, bins that hold every colour of a screen, and the paper's equations against plain loops."""

import math

import numpy as np
import pytest
import skimage.color
import torch

from ssl_demo import lab
from ssl_demo.data import Photos


@pytest.fixture
def colors():
    """sRGB colours, (4096, 3): the corners of the cube, greys, and random ones."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    greys = torch.linspace(0, 1, 64)[:, None].expand(-1, 3)
    return torch.cat([corners, greys, torch.rand(4096 - 72, 3, generator=torch.Generator().manual_seed(0))])


def as_image(colors):
    return colors.T[None, :, :, None]  # (1, 3, count, 1)


@pytest.fixture
def ab(colors):
    return lab.rgb_to_lab(as_image(colors))[0, 1:, :, 0].T


# Conversion


def test_round_trip(colors):
    image = as_image(colors)
    assert torch.allclose(lab.lab_to_rgb(lab.rgb_to_lab(image)), image, atol=1e-4)


def test_lab_is_what_another_library_says(colors):
    ours, theirs = lab.rgb_to_lab(as_image(colors))[0, :, :, 0].T, skimage.color.rgb2lab(colors.numpy()[None])[0]
    assert np.abs(ours.numpy() - theirs).max() < 0.05


def test_white_black_and_grey():
    white, black, grey = lab.rgb_to_lab(as_image(torch.tensor([[1.0] * 3, [0.0] * 3, [0.5] * 3])))[0, :, :, 0].T
    assert torch.allclose(white, torch.tensor([100.0, 0, 0]), atol=0.02)
    assert torch.allclose(black, torch.zeros(3), atol=0.02) and grey[1:].abs().max() < 0.02


def test_what_no_screen_shows_is_clamped():
    assert lab.lab_to_rgb(torch.tensor([50.0, 200, -200])[None, :, None, None]).clamp(0, 1).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_around_it_does_not_matter(colors, dtype):
    image = as_image(colors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lab.rgb_to_lab(image), lab.rgb_to_lab(image.float()))
        inside = lab.rgb_to_lab(image.to(dtype))
    assert inside.dtype == torch.float32 and torch.equal(inside, lab.rgb_to_lab(image.to(dtype).float()))


# Bins


def test_bins_are_points_of_the_grid():
    bins = lab.ab_bins()
    assert bins.shape == (306, 2) and len(bins.unique(dim=0)) == 306
    assert torch.equal(bins, (bins / lab.GRID).round() * lab.GRID) and bins.abs().max() < lab.REACH * lab.GRID
    assert (bins == 0).all(dim=1).any(), "grey is one of them"


def test_every_color_lies_among_four_bins(ab):
    known = {tuple(point) for point in lab.ab_bins().tolist()}
    for a, b in (ab / lab.GRID).tolist():
        around = {(f(a) * lab.GRID, g(b) * lab.GRID) for f in (math.floor, math.ceil) for g in (math.floor, math.ceil)}
        assert around <= known, (a, b)


def test_every_bin_is_near_a_color():
    levels = torch.linspace(0, 1, 40)
    every = lab.rgb_to_lab(as_image(torch.cartesian_prod(levels, levels, levels)))[0, 1:, :, 0].T
    assert torch.cdist(lab.ab_bins(), every).min(dim=1).values.max() < lab.GRID * 2**0.5 + 0.1


@pytest.mark.parametrize("around", [lambda: torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode,
                                    lambda: torch.device("meta"), torch.no_grad])  # fmt: skip
def test_bins_do_not_depend_on_who_asks_first(around):
    usual = lab.ab_bins().clone()
    lab._gamut.cache_clear()
    with around():
        first = lab.ab_bins()
    assert torch.equal(first, usual) and not first.is_inference() and first.device.type == "cpu"


def test_encoding_takes_the_nearest_five(ab):
    bins = lab.ab_bins()
    distance, expected = torch.cdist(ab.double(), bins.double()).topk(5, largest=False)
    nearest, shares = lab.encode(ab)
    assert nearest.shape == shares.shape == (len(ab), 5)
    found = (ab[:, None].double() - bins[nearest]).norm(dim=2)
    used = shares > 0  # at the edge of the gamut fewer than five bins may be near
    assert torch.allclose(found[used], distance[used], atol=1e-3) and used[:, :4].all() and used.float().mean() > 0.98
    gaussian = (-distance.square() / 50).exp() * used
    assert torch.allclose(shares.double(), gaussian / gaussian.sum(dim=1, keepdim=True), atol=1e-4)
    assert torch.allclose(shares.sum(dim=1), torch.ones(len(ab)))


def test_encoding_decodes_back(ab):
    nearest, shares = lab.encode(ab)
    off = ((lab.ab_bins()[nearest] * shares[..., None]).sum(dim=1) - ab).norm(dim=1)
    inside = (shares > 0).all(dim=1)
    assert off.mean() < 0.3 and off[inside].max() < 1, "a tenth of a bin's width"
    assert off.max() < 5


def test_encoding_of_a_bin_is_the_bin_first():
    bins = lab.ab_bins()
    nearest, shares = lab.encode(bins)
    assert torch.equal(nearest[:, 0], torch.arange(len(bins))) and torch.equal(lab.nearest_bin(bins), nearest[:, 0])
    assert (shares[:, :1] >= shares).all()


def test_nearest_bin_is_the_nearest(ab):
    assert torch.equal(lab.nearest_bin(ab), lab.encode(ab)[0][:, 0])
    assert lab.nearest_bin(ab.reshape(64, 64, 2)).shape == (64, 64)


# Distributions


@pytest.fixture
def logits():
    return torch.randn(2, 306, 3, 4, generator=torch.Generator().manual_seed(1)) * 3


def test_annealed_mean_at_one_is_the_mean(logits):
    shares = logits.double().exp() / logits.double().exp().sum(dim=1, keepdim=True)
    mean = sum(shares[:, q, None] * lab.ab_bins()[q].double()[None, :, None, None] for q in range(306))
    assert torch.allclose(lab.annealed_mean(logits, 1.0).double(), mean, atol=1e-3)


def test_annealed_mean_at_zero_is_the_mode(logits):
    mode = lab.ab_bins()[logits.argmax(dim=1)].movedim(-1, 1)
    assert torch.allclose(lab.annealed_mean(logits, 0.0), mode, atol=1e-2)


def test_annealed_mean_goes_from_mean_to_mode(logits):
    mode = lab.annealed_mean(logits, 0.0)
    far = [(lab.annealed_mean(logits, t) - mode).norm().item() for t in (0.02, 0.2, 0.38, 0.7, 1.0)]
    assert far == sorted(far) and far[0] < 0.2 * far[-1]
    shares = (logits / 0.38).softmax(dim=1)  # f_T(z) = exp(log z / T) / sum, equation 5
    assert torch.allclose(lab.annealed_mean(logits), torch.einsum("bqhw,qc->bchw", shares, lab.ab_bins()), atol=1e-4)


def test_each_photo_may_have_its_own_temperature(logits):
    both = lab.annealed_mean(logits, torch.tensor([0.0, 1.0])[:, None, None, None])
    assert torch.equal(both[:1], lab.annealed_mean(logits[:1], 0.0)) and torch.equal(both[1:], lab.annealed_mean(logits[1:], 1.0))


def test_entropy():
    sure = torch.zeros(1, 306, 1, 1)
    assert lab.entropy(sure).item() == pytest.approx(math.log(306), abs=1e-4)
    sure[0, 7] = 100
    assert lab.entropy(sure).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1.0])
def test_weights_are_the_papers(uniform):
    frequencies = torch.rand(306, generator=torch.Generator().manual_seed(2)) + 0.05
    frequencies /= frequencies.mean()
    p = frequencies / 306
    w = 1 / ((1 - uniform) * p + uniform / 306)  # equation 4
    w = w / (p * w).sum()
    assert torch.allclose(lab.rebalancing(frequencies, uniform), w, rtol=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_the_papers(logits, weighted):
    truth = lab.rgb_to_lab(torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(3)))[:, 1:]
    logits = torch.randn(2, 306, 4, 4, generator=torch.Generator().manual_seed(4))
    truth = truth[:, :, :, :12]
    weights = torch.rand(306, generator=torch.Generator().manual_seed(5)) if weighted else None
    total = 0.0
    for b in range(2):
        for h in range(4):
            for w in range(4):
                nearest, shares = lab.encode(truth[b, :, 3 * h + 1, 3 * w + 1])  # the middle of its 3 x 3 pixels
                target = torch.zeros(306).scatter(0, nearest, shares)
                each = -(target * logits[b, :, h, w].log_softmax(dim=0)).sum()
                total += each * (1 if weights is None else weights[target.argmax()])
    assert lab.color_loss(logits, truth, weights).item() == pytest.approx((total / 32).item(), rel=1e-4)


def test_sample_takes_pixels():
    maps = torch.arange(36.0).reshape(1, 1, 6, 6)
    assert lab.sample(maps, 3).flatten().tolist() == [7, 9, 11, 19, 21, 23, 31, 33, 35] and torch.equal(lab.sample(maps, 6), maps)


# Scores


def area_by_loop(predicted, truth, weights):
    error = (predicted - truth).square().sum(dim=0).sqrt()
    return sum(((error <= t) * weights).sum() / weights.sum() for t in range(151)).item() / 151


def test_curve_area_is_the_mean_over_thresholds():
    random = torch.Generator().manual_seed(6)
    predicted, truth = (torch.randn(3, 2, 5, 5, generator=random) * 50 for _ in range(2))
    weights = torch.rand(3, 5, 5, generator=random)
    for w in (weights, None):
        ours = lab.curve_area(predicted, truth, w)
        loop = [area_by_loop(p, t, torch.ones(5, 5) if w is None else w[i]) for i, (p, t) in enumerate(zip(predicted, truth))]
        assert ours.tolist() == pytest.approx(loop, rel=1e-5)


def test_curve_area_of_right_and_hopeless():
    truth = torch.zeros(1, 2, 3, 3)
    assert lab.curve_area(truth, truth).item() == 1
    assert lab.curve_area(truth + 200, truth).item() == 0


def test_figures_of_an_answer():
    truth = lab.rgb_to_lab(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(7)))[:, 1:]
    frequencies = torch.rand(306, generator=torch.Generator().manual_seed(8)) + 0.1
    right, grey = lab.color_metrics(truth, truth, frequencies), lab.color_metrics(torch.zeros(2, 2, 4, 4), truth, frequencies)
    assert right["auc"].tolist() == right["auc_rebalanced"].tolist() == [1, 1] and right["ab_rmse"].tolist() == [0, 0]
    assert torch.equal(grey["auc"], grey["auc_gray"]) and torch.equal(grey["auc_rebalanced"], grey["auc_gray_rebalanced"])
    assert torch.equal(right["auc_gray"], grey["auc_gray"]) and (grey["auc"] < 1).all()
    assert grey["ab_rmse"].tolist() == pytest.approx(truth.square().mean(dim=(1, 2, 3)).sqrt().tolist())


def test_a_set_counts_as_one_large_photo():
    random = torch.Generator().manual_seed(9)
    truth = lab.rgb_to_lab(torch.rand(4, 3, 8, 8, generator=random) ** torch.tensor([1.0, 3, 0.3, 1])[:, None, None, None])[:, 1:]
    answer, frequencies = truth + torch.randn(4, 2, 8, 8, generator=random) * 20, torch.rand(306, generator=random) + 0.05
    pooled = lab.pool(lab.color_metrics(answer, truth, frequencies))
    one = [part.movedim(0, 1).reshape(1, 2, 32, 8) for part in (answer, truth)]
    weights = 1 / frequencies[lab.nearest_bin(one[1].movedim(1, -1))]
    assert pooled["auc"] == pytest.approx(lab.curve_area(*one).item(), rel=1e-5)
    assert pooled["auc_rebalanced"] == pytest.approx(lab.curve_area(*one, weights).item(), rel=1e-5)
    assert pooled["ab_rmse"] == pytest.approx((one[0] - one[1]).square().mean().sqrt().item(), rel=1e-5)


# Counting


def test_counting_colors(photos):
    counted = [torch.ones(306) for _ in range(2)]
    for frequencies in counted:
        lab.count_colors(photos, frequencies)
    assert torch.equal(*counted), "no chance"
    assert counted[0].min() == pytest.approx(lab.RAREST) and 1 <= counted[0].mean() < 1.1
    grey = int(lab.nearest_bin(torch.zeros(2)))
    assert counted[0][grey] > 5, "pale colours are met most"
    few = torch.ones(306)
    lab.count_colors(photos, few, count=5)
    assert not torch.equal(few, counted[0]) and few.isfinite().all()


def test_counting_a_single_color():
    red = np.zeros((3, 20, 20, 3), np.uint8)
    red[..., 0] = 255
    frequencies = torch.ones(306)
    lab.count_colors(Photos(red, ["a", "b", "c"]), frequencies)
    truth = lab.rgb_to_lab(torch.tensor([1.0, 0, 0])[None, :, None, None])[0, 1:, 0, 0]
    assert int(frequencies.argmax()) == int(lab.nearest_bin(truth)) and (frequencies > 1).sum() <= 9, "smoothed to its neighbours"


def test_place_in_a_photo():
    logits, lightness = torch.zeros(306, 2, 2), torch.arange(16.0).reshape(1, 4, 4)
    logits[3, 1, 0] = 100
    answer = torch.arange(8.0).reshape(2, 2, 2)
    found = lab.at_place(logits, lightness, torch.zeros(2, 4, 4), answer, torch.tensor([0.26, 1.0]))
    assert found["shares"].argmax() == 3 and found["lightness"] == 13 and found["answer"].tolist() == [2, 6]
    assert lab.at_place(logits, lightness, torch.zeros(2, 4, 4), answer, torch.tensor([0.0, 0.0]))["lightness"] == 0


def test_hex_color():
    assert lab.hex_color(0.0, torch.zeros(2)) == "#000000" and lab.hex_color(100.0, torch.zeros(2)) == "#ffffff"
    red = lab.rgb_to_lab(torch.tensor([1.0, 0, 0])[None, :, None, None])[0, :, 0, 0]
    assert lab.hex_color(red[0].item(), red[1:]) == "#ff0000"

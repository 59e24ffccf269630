"""Random views: one seed means one chance, strength 0 changes nothing, and a crop's box is where it was cut."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import generator

from ssl_demo.views import GREY, blur, change_colors, crop, drop_colors


def place(count=1, size=96):
    """Pictures whose colours are places: red says how far right, green how far down, as shares; blue is a half."""
    along = (torch.arange(size) + 0.5) / size
    x, y = along.expand(size, size), along[:, None].expand(size, size)
    return torch.stack([x, y, torch.full_like(x, 0.5)]).expand(count, -1, -1, -1)


@pytest.fixture(scope="module")
def images(photos):
    return F.interpolate(photos.tensor(np.arange(16)), size=96, mode="area")


def cut(images, rng, **named):
    return crop(images, rng, 64, **named)[0]


CHANGES = [pytest.param(change, id=change.__name__) for change in (cut, change_colors, drop_colors, blur)]


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_seed_is_the_same_view(images, change):
    before = images.clone()
    one, again, other = (change(images, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(images, before), "the photos were changed"
    assert one.shape[:2] == images.shape[:2] and one.min() >= 0 and one.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    "change, settings",
    [(cut, [{"strength": 0}, {"strength": 0.5}, {"flip": False}, {"area": (0.9, 1.0)}]),
     (change_colors, [{"strength": 0}, {"chance": 0}, {"chance": 1}]),
     (drop_colors, [{"chance": 0}, {"chance": 1}]),
     (blur, [{"chance": 0}, {"chance": 1}, {"sigma": (0.5, 0.6)}])],
)  # fmt: skip
def test_a_knob_shifts_no_others_chance(images, change, settings):
    """However a change is set, as much chance is drawn, so that what comes after it sees the same."""
    after = []
    for setting in [{}, *settings]:
        rng = generator(7)
        change(images, rng, **setting)
        after.append(torch.rand(3, generator=rng).tolist())
    assert all(one == after[0] for one in after)


@pytest.mark.parametrize("change", CHANGES)
def test_chance_is_the_generators(images, change):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    change(images, generator())
    assert torch.equal(before, torch.get_rng_state())


# Crops


@pytest.mark.parametrize("flip", [True, False])
def test_a_box_is_where_the_view_was_cut(flip):
    """In a picture that says where each pixel lies, a view's colours are the places its box tells."""
    views, boxes = crop(place(64), generator(), 32, (0.2, 1.0), flip)
    across = (torch.arange(32) + 0.5) / 32
    for view, (left, top, width, mirrored) in zip(views, boxes.tolist()):
        x = left + width * (across.flip(0) if mirrored else across)
        # A pixel at the very edge lies half outside of the pixel centres that a picture has.
        assert torch.allclose(view[0], x.expand(32, 32), atol=0.006)
        assert torch.allclose(view[1], (top + width * across)[:, None].expand(32, 32), atol=0.006)
    assert set(boxes[:, 3].tolist()) == ({0.0, 1.0} if flip else {0.0})


@pytest.mark.parametrize("area", [(0.2, 1.0), (0.1, 0.3), (1.0, 1.0)])
def test_boxes_keep_to_the_picture_and_to_their_area(area):
    _, boxes = crop(place(2000, 8), generator(1), 8, area)
    left, top, width, mirrored = boxes.unbind(1)
    assert left.min() >= 0 and top.min() >= 0
    assert (left + width).max() <= 1 + 1e-6 and (top + width).max() <= 1 + 1e-6
    assert (width.square() >= area[0] - 1e-6).all() and (width.square() <= area[1] + 1e-6).all()
    assert width.square().mean().item() == pytest.approx(sum(area) / 2, abs=0.02), "areas are chosen evenly"
    assert mirrored.mean().item() == pytest.approx(0.5, abs=0.05)


def test_without_strength_a_crop_is_the_whole_picture(images):
    views, boxes = crop(images, generator(), 96, strength=0)
    assert torch.allclose(views, images, atol=1e-5)
    assert (boxes == torch.tensor([0.0, 0.0, 1.0, 0.0])).all()


def test_strength_moves_a_crop_towards_the_whole_picture():
    full, half = (crop(place(50), generator(2), 16, strength=strength)[1] for strength in (1.0, 0.5))
    assert torch.allclose(1 - half[:, 2].square(), (1 - full[:, 2].square()) / 2, atol=1e-5)


def test_crops_of_large_pictures_do_not_alias():
    """A fine chessboard seen from afar is grey."""
    board = ((torch.arange(256)[:, None] + torch.arange(256)) % 2).float().expand(4, 3, 256, 256)
    views, _ = crop(board, generator(), 32, (0.5, 1.0))
    assert (views - 0.5).abs().max() < 0.05


def test_each_picture_has_its_own_chance():
    _, boxes = crop(place(20, 8), generator(), 8)
    assert len({tuple(box) for box in boxes.tolist()}) == 20


# Colours


def test_without_strength_colours_stay(images):
    for setting in ({"strength": 0}, {"chance": 0}):
        assert torch.allclose(change_colors(images, generator(), **setting), images, atol=1e-5)


def test_colours_change_as_often_as_asked():
    images = torch.rand(1000, 3, 4, 4, generator=generator())
    moved = (change_colors(images, generator(1), chance=0.8) - images).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert moved.float().mean().item() == pytest.approx(0.8, abs=0.04)


def test_more_strength_is_more_change(images):
    moved = [(change_colors(images, generator(), s) - images).abs().mean().item() for s in (0, 0.25, 0.5, 1.0)]
    assert moved == sorted(moved) and moved[0] < 1e-5 and moved[3] > 0.05


def test_brightness_is_a_factor_for_greys():
    """A grey of one lightness has neither contrast, saturation nor hue: only brightness is left, 0.6 to 1.4."""
    out = change_colors(torch.full((500, 3, 2, 2), 0.5), generator(), chance=1) / 0.5
    assert torch.allclose(out, out[:, :1, :1, :1].expand_as(out), atol=1e-4), "it stays one grey"
    assert 0.6 - 1e-4 <= out.min() < 0.65 and 1.35 < out.max() <= 1.4 + 1e-4


def test_lightness_does_not_depend_on_hue_and_saturation():
    """What is left after brightness and contrast, lightness above all, is the same for all colours of one lightness."""
    weights = torch.tensor(GREY)
    colors = torch.tensor([[0.5, 0.5, 0.5], [0.6, 0.45, 0.5 + (0.05 * weights[1] - 0.1 * weights[0]) / weights[2]]])
    picture = colors.T[None, :, None].expand(64, -1, 2, -1)  # two colours side by side
    light = torch.einsum("bchw,c->bhw", change_colors(picture, generator(), chance=1), weights)
    assert torch.allclose(light[:, :, 0], light[:, :, 1], atol=2e-3)


def test_dropped_colours_are_grey(images):
    grey = drop_colors(images, generator(), chance=1)
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 0], grey[:, 2])
    assert torch.allclose(grey[:, 0], torch.einsum("bchw,c->bhw", images, torch.tensor(GREY)), atol=1e-6)
    assert torch.equal(drop_colors(images, generator(), chance=0), images)
    many = torch.rand(2000, 3, 1, 1, generator=generator())
    is_grey = (drop_colors(many, generator(1), chance=0.2).std(dim=1) == 0).flatten()
    assert is_grey.float().mean().item() == pytest.approx(0.2, abs=0.03)


# Blur


def test_without_a_chance_nothing_is_blurred(images):
    assert torch.equal(blur(images, generator(), chance=0), images)


def test_blur_keeps_what_is_flat_and_softens_what_is_not(images):
    flat = torch.full((4, 3, 16, 16), 0.3)
    assert torch.allclose(blur(flat, generator(), chance=1), flat, atol=1e-5)
    steps = [(view[..., 1:] - view[..., :-1]).abs().mean().item()
             for view in (images, blur(images, generator(), 1, (0.8, 0.8)), blur(images, generator(), 1, (2.0, 2.0)))]
    assert steps[0] > 1.2 * steps[1] > 1.2 * 1.2 * steps[2]


def test_blur_is_a_gaussian():
    dot = torch.zeros(1, 3, 17, 17)
    dot[:, :, 8, 8] = 1
    spot = blur(dot, generator(), chance=1, sigma=(1.0, 1.0))[0, 0]
    assert spot.sum().item() == pytest.approx(1, abs=1e-4)
    assert (spot[8, 9] / spot[8, 8]).item() == pytest.approx(np.exp(-0.5), rel=1e-3)
    assert (spot[9, 9] / spot[8, 8]).item() == pytest.approx(np.exp(-1.0), rel=1e-3)


def test_blur_of_tiny_pictures():
    tiny = torch.rand(3, 3, 2, 2, generator=generator())
    assert blur(tiny, generator(), chance=1).isfinite().all()


def test_only_some_are_blurred(images):
    same = (blur(images, generator(5), chance=0.5) == images).flatten(1).all(dim=1)
    assert 0 < same.sum() < len(images)

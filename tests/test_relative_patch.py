"""The science of relative patch prediction: where patches are cut, what stands between them, what colours tell."""

import numpy as np
import pytest
import torch
from conftest import generator

from ssl_demo import inference
from ssl_demo.pretext import create
from ssl_demo.tasks.relative_patch import NAMES, PAIRS, STEPS, cut, guard


@pytest.fixture(scope="module")
def task():
    return create("relative_patch")


@pytest.fixture(scope="module")
def images(photos):
    return photos.tensor(np.arange(8))


def test_patches_are_cut_where_it_says(task, images):
    example = task.example(images, generator(), colors="all")
    patch = task.config["patch"]
    for number in (0, 5):
        for which in range(9):
            row, column = example["places"][number, which].tolist()
            assert torch.equal(example["inputs"][number, which], images[number, :, row : row + patch, column : column + patch])


@pytest.mark.parametrize("gap, least", [(50, 16), (25, 8), (0, 0)])
def test_a_gap_lies_between_the_centre_and_every_neighbour(task, images, gap, least):
    jitter, patch = task.config["jitter"], task.config["patch"]
    found = set()
    for seed in range(20):
        places = task.example(images, generator(seed), gap=gap)["places"]
        assert places.min() >= 0 and places.max() + patch <= images.shape[-1]
        apart = (places[:, 1:] - places[:, :1]).abs().amax(dim=2) - patch  # along the axis in which they lie furthest apart
        assert apart.min() >= least - 2 * jitter and apart.max() <= least + 2 * jitter
        found |= set(apart.flatten().tolist())
    assert len(found) > 4 * jitter - 2, "the jitter makes the gap unpredictable"


def test_neighbours_lie_where_their_names_say(task, images):
    places = task.example(images, generator())["places"].float()
    direction = (places[:, 1:] - places[:, :1]) / (task.config["patch"] * 1.5)
    assert torch.equal(direction.round().long(), STEPS[1:].expand(len(images), -1, -1))
    assert NAMES[0] == "above left" and STEPS[1].tolist() == [-1, -1] and NAMES[4] == "right" and STEPS[5].tolist() == [0, 1]


def test_nothing_between_the_patches_reaches_the_network(task, images):
    example = task.example(images, generator(3))
    seen = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
    for number, places in enumerate(example["places"].tolist()):
        for row, column in places:
            seen[number, row : row + task.config["patch"], column : column + task.config["patch"]] = True
    assert 0.2 < (~seen).float().mean() < 0.9
    changed = torch.where(seen[:, None], images, torch.rand(images.shape, generator=generator()))
    assert torch.equal(task.example(changed, generator(3))["inputs"], example["inputs"])


def test_projection_leaves_nothing_along_green_against_magenta(images):
    patches = images[:, None, :, :28, :28]
    projected = guard(patches, "projected", generator())
    along = torch.tensor([-1.0, 2.0, -1.0])
    assert torch.einsum("bpchw,c->bphw", patches, along).abs().max() > 0.1
    assert torch.einsum("bpchw,c->bphw", projected, along).abs().max() < 1e-5
    grey = patches.mean(dim=2, keepdim=True).expand_as(patches)
    assert torch.allclose(guard(grey, "projected", generator()), grey, atol=1e-6)


def test_dropping_keeps_one_channel_of_each_patch(images):
    patches = cut(images, torch.zeros(len(images), 9, 2, dtype=torch.long), 28)
    dropped = guard(patches, "dropped", generator())
    kept = (dropped == patches).flatten(3).all(dim=3)  # (B, 9, 3)
    assert (kept.sum(dim=2) == 1).all() and all(kept[..., channel].any() for channel in range(3))
    lost = dropped[~kept]
    assert (lost - 0.5).abs().max() < 0.1
    assert torch.equal(guard(patches, "all", generator()), patches)


def test_a_click_moves_the_centre_there(task, photo):
    runner = inference.load("relative_patch", "untrained")
    patch = task.config["patch"]
    for x, y in [(0.5, 0.5), (0.4, 0.6), (0.6, 0.45)]:
        controls = runner.click(photo, 0, {}, "photo", x, y)
        example = runner.example(photo, 0, controls)
        (row, column), size = example["places"][0, 0].tolist(), example["images"].shape[-1]
        assert size > task.size, "the photo is a little larger, so that the grid has room to move"
        assert abs((row + patch / 2) / size - y) * size <= task.config["jitter"] + 1
        assert abs((column + patch / 2) / size - x) * size <= task.config["jitter"] + 1
    corner = runner.example(photo, 0, runner.click(photo, 0, {}, "photo", 0.0, 1.0))["places"][0]
    assert corner.min() >= 0 and corner.max() + patch <= size  # as near as the nine patches fit


def test_all_eight_pairs_are_the_same_as_eight_pairs_alone(task, images):
    torch.manual_seed(0)
    model, example = task.build().eval(), task.example(images[:2], generator())
    with torch.no_grad():
        together = task.predict(model, example)["logits"]
        for k in range(8):
            two = model.describe(model.encoder(example["inputs"][:, [0, k + 1]].flatten(0, 1))).unflatten(0, (2, 2))
            alone = model.compare(model.first(two[:, 0]) + model.second(two[:, 1]))
            assert torch.allclose(alone, together[:, k], atol=1e-5)


def test_every_pair_of_neighbours_is_asked_once_and_the_centres_first():
    assert PAIRS[:8].tolist() == [[0, k + 1, k] for k in range(8)]
    assert len(PAIRS) == 40 == len({tuple(pair) for pair in PAIRS[:, :2].tolist()})
    for first, second, place in PAIRS.tolist():
        assert (STEPS[second] - STEPS[first]).tolist() == STEPS[1 + place].tolist()

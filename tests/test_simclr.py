"""SimCLR: what its views are, that its loss is the paper's, and that the tab tells of the batch that was compared."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import generator
from PIL import Image

from ssl_demo import drawing, inference, views
from ssl_demo.data import centre
from ssl_demo.examples import EXAMPLES
from ssl_demo.pretext import create, parse_controls
from ssl_demo.tasks.simclr import PHOTOS, TEMPERATURE
from ssl_demo.training import Step, evaluate, train

SMALL = {"size": 32, "view": 24, "width": 8, "depths": [1, 1], "hidden": 32, "projection": 16}
PLAIN = {"crop": 0, "color": 0, "grey": 0, "blur": 0}


@pytest.fixture(scope="module")
def task():
    return create("simclr", **SMALL)


@pytest.fixture(scope="module")
def images(photos, task):
    return next(centre(photos, task.size, 16))


@pytest.fixture(scope="module")
def model(task):
    torch.manual_seed(0)
    return task.build()


def of(projections, temperature=TEMPERATURE):
    """An example and a prediction with these projections (B, 2, D), brought to length 1."""
    projections = F.normalize(projections.float(), dim=2)
    return ({"temperature": torch.full((len(projections),), temperature)},
            {"projections": projections, "features": torch.rand(*projections.shape[:2], 8)})


# The views


def test_two_views_of_each_photo(task, images):
    example = task.example(images, generator())
    assert example["inputs"].shape == (16, 2, 3, 24, 24) and example["boxes"].shape == (16, 2, 4)
    assert example["targets"].tolist() == list(range(16))
    assert (example["inputs"][:, 0] - example["inputs"][:, 1]).abs().mean() > 0.05, "they differ"


def test_views_are_cut_where_their_boxes_are(task, images):
    example = task.example(images, generator(), color=0, grey=0, blur=0)
    for photo, pair, boxes in zip(images, example["inputs"], example["boxes"].tolist()):
        for view, (left, top, width, mirrored) in zip(pair, boxes):
            x, y = ((torch.arange(24) + 0.5) / 24 * width + start for start in (left, top))
            grid = torch.stack(torch.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij")[::-1], dim=2)
            cut = F.grid_sample(photo[None], grid[None], padding_mode="border", align_corners=False)[0]
            assert torch.allclose(view, cut.flip(2) if mirrored else cut, atol=1e-4)


def test_without_changes_both_views_are_the_photo(task, images):
    example = task.example(images, generator(), **PLAIN)
    whole = views.crop(images, generator(), 24, strength=0)[0]
    assert torch.allclose(example["inputs"][:, 0], whole, atol=1e-5) and torch.allclose(example["inputs"][:, 1], whole, atol=1e-5)


@pytest.mark.parametrize("name, value", [("crop", 0), ("color", 0), ("grey", 0), ("grey", 100), ("blur", 0), ("blur", 100)])
def test_a_change_shifts_no_others_chance(task, images, name, value):
    """Turning one down leaves the others as they were: the boxes with colours, the colours with blur."""
    before, after = (task.example(images, generator(3), **{**dict(grey=0, blur=0), **knob}) for knob in ({}, {name: value}))
    assert torch.equal(before["boxes"], after["boxes"]) == (name != "crop")
    if name == "crop":  # the lightness, whatever is seen of it, is changed by the same factors
        light = [task.example(torch.full_like(images, 0.5), generator(3), **knob)["inputs"] for knob in ({}, {"crop": 0})]
        assert torch.allclose(*light, atol=1e-5)
    if (name, value) == ("grey", 100):
        weights = torch.tensor(views.GREY)[:, None, None]
        light = (before["inputs"] * weights).sum(2, keepdim=True)
        assert torch.allclose(after["inputs"], light.expand_as(after["inputs"]), atol=1e-4)


def test_fewer_photos_are_the_same_views_of_the_first(task, images):
    every, few = task.example(images, generator(2)), task.example(images, generator(2), photos=5)
    assert len(every["inputs"]) == 16, "the largest number means all, as in training"
    assert all(len(values) == 5 and torch.equal(values, every[name][:5]) for name, values in few.items())
    assert len(task.example(images[:3], generator(), photos=5)["inputs"]) == 3


def test_settings_that_make_no_sense():
    for view in (4, 33):
        with pytest.raises(ValueError, match="“view” must be from 8 to “size”"):
            create("simclr", **{**SMALL, "view": view})


# The loss


def test_loss_is_the_papers_equation(task):
    """Equation 1 as it stands there: pairs (2k - 1, 2k) both ways, over 2N views, the view itself left out."""
    example, prediction = of(torch.randn(5, 2, 7, generator=generator()), 0.5)
    z, total = prediction["projections"].flatten(0, 1).tolist(), 0.0

    def sim(i, j):
        return sum(a * b for a, b in zip(z[i], z[j]))

    def l(i, j):  # noqa: E743  the paper's letter
        return -math.log(math.exp(sim(i, j) / 0.5) / sum(math.exp(sim(i, k) / 0.5) for k in range(10) if k != i))

    for k in range(5):
        total += l(2 * k, 2 * k + 1) + l(2 * k + 1, 2 * k)
    assert task.loss(example, prediction)[0].item() == pytest.approx(total / 10, rel=1e-5)


def test_loss_of_vectors_that_say_nothing_is_that_of_guessing(task):
    example, prediction = of(torch.ones(6, 2, 4), 0.1)
    assert task.loss(example, prediction)[0].item() == pytest.approx(math.log(11), rel=1e-5)
    assert task.metrics(example, prediction)["accuracy"].sum() == 0


def test_loss_begins_near_guessing(task, images, model):
    """Well above nothing and not above guessing by much: views of a photo are somewhat alike before anything is learned."""
    example = task.training_example(images, generator())
    loss = task.loss(example, task.predict(model.train(), example))[0].item()
    model.eval()
    assert 0.5 * math.log(31) < loss < 1.3 * math.log(31)


def test_the_loss_needs_no_more_than_what_is_gathered(task, images, model):
    """Each process has its own example, and the projections of all: the loss is that of the whole batch."""
    examples = [task.example(images[part], generator(seed)) for seed, part in enumerate((slice(0, 8), slice(8, 16)))]
    with torch.no_grad():
        apart = [task.predict(model.eval(), example) for example in examples]
    assert task.gathered == ("projections",)
    together = torch.cat([prediction["projections"] for prediction in apart])
    losses = [task.loss(example, prediction | {"projections": together})[0] for example, prediction in zip(examples, apart)]
    whole = {"temperature": torch.full((16,), TEMPERATURE)}
    expected = task.loss(whole, {"projections": together, "features": torch.cat([p["features"] for p in apart])})[0]
    assert losses[0] == losses[1] == expected
    metrics = task.metrics(examples[0], apart[0] | {"projections": together})
    assert len(metrics["accuracy"]) == 16 and metrics["candidates"][0] == 31


def test_collapse_is_named(task, images, model):
    example = task.example(images, generator())
    prediction = task.predict(model, example)
    assert task.alarm(task.loss(example, prediction)[1]) == "", "an untrained network is not collapsed"
    alike = torch.rand(8).expand(16, 2, -1) + 1e-4 * torch.rand(16, 2, 8)
    numbers = task.loss(example, prediction | {"features": alike})[1]
    assert "collapse" in task.alarm(numbers)


# What is measured


def test_metrics(task):
    pairs = torch.eye(6)[[0, 0, 1, 2, 3, 3]].reshape(3, 2, 6)  # the second photo's views at right angles
    metrics = task.metrics(*of(pairs))
    assert metrics["accuracy"].tolist() == [1, 0, 1] and metrics["alignment"].tolist() == [0, 2, 0]
    assert metrics["candidates"].tolist() == [5] * 3 and metrics["chance"].tolist() == pytest.approx([0.2] * 3)
    assert metrics["uniformity"].tolist() == pytest.approx([-4] * 3), "within each set of first, or second, views"


def test_evaluation_is_of_whole_batches(task, model, photos):
    scores = evaluate(task, model.eval(), photos, batch=16)
    assert scores["candidates"] == 31 and scores["chance"] == pytest.approx(1 / 31) and 0 <= scores["accuracy"] <= 1
    assert {"alignment", "uniformity", "feature_spread"} <= scores.keys()


def test_learns_to_find_partners():
    """Five textures, cropped, mirrored and recoloured: the signal can be learned, and views never seen before are matched."""
    task = create("simclr", **SMALL)
    y, x = torch.meshgrid(torch.arange(32) // 2, torch.arange(32) // 2, indexing="ij")
    noise = torch.rand(32, 32, generator=generator())
    textures = torch.stack([torch.full_like(noise, 0.5), x % 2 * 1.0, y % 2 * 1.0, (x + y) % 2 * 1.0, noise])
    pictures = (textures * 0.6 + 0.2)[:, None].expand(-1, 3, -1, -1)
    torch.manual_seed(0)
    model = task.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(80):
        example = task.training_example(pictures, generator(step))
        loss, _ = task.loss(example, task.predict(model, example))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    example = task.example(pictures, generator(1000))
    with torch.no_grad():
        learned = task.metrics(example, task.predict(model, example))
    assert learned["accuracy"].mean() >= 0.6 and learned["chance"][0] == pytest.approx(1 / 9)


def test_training_watches_the_spread(task, photos, tmp_path):
    from dataclasses import replace

    recipe = replace(task.recipe, batch=8)
    for snapshot in train(task, photos, recipe, steps=3, log=tmp_path / "log.jsonl", every=0):
        assert snapshot.numbers["feature_spread"] > 0.1 and not snapshot.alarm
    assert snapshot.done and "feature_spread" in (tmp_path / "log.jsonl").read_text()


def test_a_step_is_what_the_loss_says(task, images):
    torch.manual_seed(0)
    model = task.build().train()
    example = task.training_example(images, generator())
    loss, _, prediction = Step(task, model, torch.float32)(example)
    assert loss == task.loss(example, prediction)[0] and prediction["projections"].shape == (16, 2, 16)
    assert torch.allclose(prediction["projections"].norm(dim=2), torch.ones(16, 2), atol=1e-5)


# The tab


@pytest.fixture(scope="module")
def runner():
    return inference.load("simclr", "untrained")


@pytest.fixture(scope="module")
def result(runner, photo):
    return runner.run(photo, seed=0)


def panel(result, name):
    return next(panel for panel in result.panels if panel.name == name)


def test_a_run_has_the_visitors_photo_first(runner, photo, result):
    example = runner.example(photo, 0, result.controls)
    assert len(example["inputs"]) == PHOTOS and len(panel(result, "matrix").matrix.row_pictures) == 2 * PHOTOS
    brought = [other.image for other in EXAMPLES if other.name != "astronaut"]
    with_company = runner.example(photo, 0, result.controls, brought)
    assert torch.equal(example["images"][0], with_company["images"][0])


def test_photos_that_were_brought_are_rivals(runner, photo):
    red = Image.fromarray(np.full((40, 40, 3), (250, 10, 10), np.uint8))
    example = runner.example(photo, 0, parse_controls(runner.task, {}), [red])
    assert example["images"][1].mean(dim=(1, 2)).tolist() == pytest.approx([250 / 255, 10 / 255, 10 / 255], abs=0.01)


def test_matrix_says_all_similarities(runner, photo, result):
    matrix, example = panel(result, "matrix").matrix, runner.example(photo, 0, result.controls)
    with torch.no_grad():
        flat = runner.task.predict(runner.model, example)["projections"].flatten(0, 1)
    assert np.allclose(matrix.values, (flat @ flat.T).numpy(), atol=1e-4)
    assert set(matrix.marked) == {(k, k ^ 1) for k in range(2 * PHOTOS)}
    assert set(matrix.empty) == {(k, k) for k in range(2 * PHOTOS)}
    assert matrix.values[0, 1] == pytest.approx(result.numbers["cosine"])


def test_bars_are_the_softmax_row(result):
    values = panel(result, "matrix").matrix.values[0].astype(float)
    shares = np.exp(values / TEMPERATURE) * (np.arange(len(values)) > 0)
    shares /= shares.sum()
    bars = panel(result, "softmax").bars
    true = next(bar for bar in bars if bar.true)
    assert [bar.value for bar in bars[:4]] == pytest.approx(sorted(shares)[::-1][:4], rel=1e-3)
    assert true.value == pytest.approx(shares[1], rel=1e-3) and true.label == "orange view"
    assert bars[0].chosen and sum(bar.chosen for bar in bars) == sum(bar.true for bar in bars) == 1
    assert result.numbers["loss_first"] == pytest.approx(-math.log(true.value), rel=1e-3)
    assert (result.numbers["rank"] == 1) == (true is bars[0])


def test_losses_are_those_of_the_rows(result):
    strip, values = panel(result, "losses").matrix, panel(result, "matrix").matrix.values.astype(float)
    assert strip.values.shape == (2, PHOTOS) and len(strip.column_pictures) == PHOTOS
    for k in range(2 * PHOTOS):
        row = np.delete(values[k], k) / TEMPERATURE
        expected = np.log(np.exp(row).sum()) - values[k, k ^ 1] / TEMPERATURE
        assert strip.values[k % 2, k // 2] == pytest.approx(expected, abs=1e-4)
    numbers = result.numbers
    assert numbers["loss"] == pytest.approx(strip.values[:, 0].mean())
    assert numbers["loss_all"] == pytest.approx(strip.values.mean())
    assert numbers["loss_guessing"] == pytest.approx(math.log(2 * PHOTOS - 1)) == pytest.approx(strip.high)


def test_temperature_changes_the_loss_and_not_the_similarities(runner, photo, result):
    cold = runner.run(photo, seed=0, temperature=0.05)
    assert np.array_equal(panel(cold, "matrix").matrix.values, panel(result, "matrix").matrix.values)
    assert cold.numbers["loss"] != pytest.approx(result.numbers["loss"], rel=0.05)
    assert panel(cold, "softmax").bars[0].value > panel(result, "softmax").bars[0].value, "low temperature: surer of the nearest"
    assert cold.numbers["rank"] == result.numbers["rank"]


def test_the_chart_holds_the_loss_at_each_temperature(runner, photo, result):
    chart = panel(result, "temperatures").chart
    assert chart.now == pytest.approx(TEMPERATURE) and chart.level[1] == pytest.approx(result.numbers["loss_guessing"])
    for temperature in (0.05, 1.0):
        at, there = (0 if temperature < 0.5 else -1), runner.run(photo, seed=0, temperature=temperature).numbers
        assert chart.x[at] == pytest.approx(temperature)
        yours, every = (line.y[at] for line in chart.lines)
        assert yours == pytest.approx(there["loss"], rel=1e-4) and every == pytest.approx(there["loss_all"], rel=1e-4)


def test_fewer_photos_are_fewer_rivals(runner, photo, result):
    few = runner.run(photo, seed=0, photos=3)
    values = panel(few, "matrix").matrix.values
    assert np.allclose(values, panel(result, "matrix").matrix.values[:6, :6], atol=1e-4), "the same views"
    assert few.numbers["negatives"] == 4 and few.numbers["loss_guessing"] == pytest.approx(math.log(5))
    assert few.numbers["loss"] < result.numbers["loss"], "each rival that is left out lowers the loss"


def test_without_changes_the_partner_is_found(runner, photo):
    """Both views are then one picture: similarity 1, even to an untrained network, and nothing is learned from it."""
    numbers = runner.run(photo, **PLAIN).numbers
    assert numbers["cosine"] == pytest.approx(1, abs=1e-4) and numbers["rank"] == numbers["rank_second"] == 1
    assert numbers["accuracy"] == 1 and numbers["alignment"] == pytest.approx(0, abs=1e-4)


def test_boxes_are_drawn_where_the_views_were_cut(runner, photo, result):
    image = panel(result, "photo").image.astype(int)
    boxes = runner.example(photo, 0, result.controls)["boxes"][0].tolist()
    for (left, top, width, _), color in zip(boxes, ((0x4A, 0xA3, 0xFF), (0xFF, 0x9D, 0x2E))):
        rows, columns = np.nonzero((image == color).all(axis=2))
        side = len(image)
        for drawn, meant in ((columns.min(), left), (rows.min(), top), (columns.max(), left + width), (rows.max(), top + width)):
            assert abs((drawn + 0.5) / side - meant) < 0.03


def test_the_true_partner_is_edged_in_green(runner, photo):
    picture = panel(runner.run(photo, **PLAIN), "likeliest").image
    green = (picture == (0x35, 0xC0, 0x7A)).all(axis=2)
    step = picture.shape[1] // 6
    assert green[:, step : 2 * step].any() and not green[:, 2 * step + 4 :].any() and not green[:, : step - 4].any()


def test_pictures_on_a_wall_and_their_edges():
    tiles = [np.full((24, 24, 3), shade, np.uint8) for shade in (10, 20, 30)]
    wall = drawing.wall(tiles, across=2, gap=3)
    assert wall.shape == (57, 57, 3) and wall[3, 3, 0] == 10 and wall[26, 30, 0] == 20 and wall[30, 26, 0] == 30
    assert (wall[:, :3] == drawing.HIDDEN).all() and (wall[30:, 30:] == drawing.HIDDEN).all()
    edged = drawing.edged(tiles[0], "#ff0000")
    assert (edged[0] == (255, 0, 0)).all() and (edged[:, -1] == (255, 0, 0)).all() and (edged[1:-1, 1:-1] == 10).all()
    assert (tiles[0] == 10).all() and drawing.edged(tiles[0][:8, :8], "#ff0000").shape == (8, 8, 3)


def test_captions_are_short(runner, photo):
    for controls in ({}, PLAIN, {"photos": 2}):
        assert all(len(panel.caption) <= 48 for panel in runner.run(photo, **controls).panels)


def test_about_six_figures_are_shown(result):
    assert 4 <= sum(bool(figure.text) for figure in result.figures.values()) <= 7

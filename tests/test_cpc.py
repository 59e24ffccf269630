"""Patches are cut where they say, context never looks down, the probe teaches nothing, and ranks are those of a sorted list."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import generator

from ssl_demo import inference
from ssl_demo.contrastive import info_nce
from ssl_demo.data import centre
from ssl_demo.pretext import create
from ssl_demo.training import evaluate

SMALL = {"size": 48, "cell": 16, "stride": 8, "patch": 12, "width": 8, "depths": [1, 1], "features": 32, "embedding": 16}


@pytest.fixture(scope="module")
def task():
    return create("cpc", **SMALL)


@pytest.fixture(scope="module")
def images(photos):
    return next(centre(photos, SMALL["size"], 4))


@pytest.fixture
def model(task):
    torch.manual_seed(0)
    return task.build().eval()


@pytest.fixture
def run(task, model, images):
    example = task.example(images, generator())
    with torch.no_grad():
        return example, task.predict(model, example)


# The grid


def test_undisturbed_patches_are_the_middles_of_cells(task, images):
    inputs = task.example(images, generator(), disturbed=False)["inputs"]
    assert inputs.shape == (4, 25, 3, 12, 12)
    for patch in (0, 7, 24):
        top, left = patch // 5 * 8 + 2, patch % 5 * 8 + 2
        assert torch.allclose(inputs[:, patch], images[:, :, top : top + 12, left : left + 12], atol=1e-6)


def test_disturbed_patches_stay_inside_their_cells(task):
    """A photo whose pixels tell where they are, and no change of colours."""
    place = torch.arange(48.0) / 48
    photo = torch.stack([place.expand(48, 48), place[:, None].expand(48, 48), torch.zeros(48, 48)])[None]
    inputs = create("cpc", **SMALL, jitter=0.0).example(photo, generator(1))["inputs"][0]
    left, top = (inputs[:, channel, 0, 0] * 48 for channel in (0, 1))
    column, row = torch.arange(25) % 5 * 8, torch.arange(25) // 5 * 8
    for moved in (left - column, top - row):
        assert -1e-4 <= moved.min() < 1 and 3 < moved.max() <= 4 + 1e-4, "from the first to the last place in the cell"
    assert not torch.allclose(left - column, top - row), "down and right by themselves"


def test_patches_are_coloured_by_themselves(task):
    flat = torch.tensor([0.7, 0.4, 0.2])[None, :, None, None].expand(1, 3, 48, 48).contiguous()
    colors = task.example(flat, generator())["inputs"][0].mean(dim=(2, 3))  # (25, 3)
    assert len({tuple(round(value, 3) for value in color) for color in colors.tolist()}) > 15
    plain = task.example(flat, generator(), disturbed=False)["inputs"][0]
    assert torch.allclose(plain, flat[:, :, :12, :12].expand(25, -1, -1, -1))


def test_every_patch_below_is_asked_for_once_from_each_row_above(task):
    k, place = task.asked(torch.device("cpu"))
    assert len(k) == 5 * (4 + 3 + 2 + 1) and sorted(k.tolist()) == k.tolist()
    assert all(int((place == patch).sum()) == patch // 5 for patch in range(25))
    assert ((place // 5 - k) >= 0).all(), "the context is a row of the grid"


# What may be known


def test_each_patch_is_encoded_alone(task, model, images):
    patches = task.example(images, generator())["inputs"]
    other = patches.clone()
    other[1, 13] = torch.rand(3, 12, 12, generator=generator())
    with torch.no_grad():
        changed = (model.encode(patches) != model.encode(other)).any(dim=2)
    assert changed.nonzero().tolist() == [[1, 13]]


def test_context_knows_nothing_of_the_rows_below(model):
    z = torch.randn(1, 25, 32, generator=generator(), requires_grad=True)
    context = model.sum_up(z)
    for row in range(5):
        weights = torch.randn(5, 32, generator=generator(row))
        (gradient,) = torch.autograd.grad((context[0, row * 5 : row * 5 + 5] * weights).sum(), z, retain_graph=True)
        touched = gradient[0].abs().amax(dim=1).view(5, 5).amax(dim=1) > 0
        assert not touched[row + 1 :].any(), f"row {row} looks down"
        assert touched[: row + 1].all() or row == 4, "every row above is seen"


def test_guesses_do_not_change_with_what_they_are_asked_for(task, model, images):
    """Whatever stands in the rows from k below the context on, the guesses are the same."""
    example = task.example(images, generator())
    for k in range(1, 5):
        for last in range(5 - k):  # the row of the context
            changed = {**example, "inputs": example["inputs"].clone()}
            changed["inputs"][:, (last + 1) * 5 :] = 0
            with torch.no_grad():
                one, other = (task.predict(model, given)["guesses"] for given in (example, changed))
            steps, place = task.asked(torch.device("cpu"))
            here = (steps == k) & (place // 5 == last + k)
            assert torch.equal(one[:, here], other[:, here])


def test_the_probe_teaches_encoder_and_context_nothing(task, model, images):
    example = task.example(images, generator())
    similarity, right, k = task._compare(task.predict(model, example))
    losses = info_nce(similarity, right, 0.1).unflatten(0, (-1, len(k)))

    def moved(loss):
        """The names of the parameters that this loss has a gradient for."""
        model.zero_grad()
        loss.backward(retain_graph=True)
        return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}

    assert moved(losses[:, k == 1].mean()) == {"below.0.weight"}
    learning = moved(losses[:, k > 1].mean())
    assert {"encoder.layers.0.weight", "context.0.look.weight", "project.weight", "below.1.weight"} < learning
    assert "below.0.weight" not in learning


def test_nothing_skipped_teaches_with_all_rows(images):
    task = create("cpc", **SMALL, skip=0)
    torch.manual_seed(0)
    model = task.build()
    similarity, right, k = task._compare(task.predict(model, task.example(images, generator())))
    info_nce(similarity, right, 0.1).unflatten(0, (-1, len(k)))[:, k == 1].mean().backward()
    assert model.encoder.layers[0].weight.grad.abs().max() > 0


# Loss and figures


def test_loss_is_that_of_a_loop_over_questions(task, run):
    example, prediction = run
    keys, guesses = prediction["keys"], prediction["guesses"]
    every = [key for photo in keys for key in photo]
    losses = []
    for photo, asked in enumerate(guesses):
        for guess, place in zip(asked, example["targets"][photo].tolist()):
            shares = [math.exp(float(guess @ key) / 0.1) for key in every]
            losses.append(-math.log(shares[photo * 25 + place] / sum(shares)))
    assert task.loss(example, prediction)[0].item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_knowing_nothing_costs_the_logarithm_of_the_candidates(task):
    """A network that says the same of every patch finds none, and is reported as collapsed."""
    same = F.normalize(torch.ones(3, 50, 16), dim=2)
    prediction = {"keys": same[:, :25], "guesses": same}
    loss, numbers = task.loss({}, prediction)
    metrics = task.metrics({}, prediction)
    assert loss.item() == pytest.approx(math.log(75), rel=1e-5)
    assert (metrics["accuracy"] == 0).all() and (metrics["candidates"] == 75).all()
    assert metrics["feature_spread"].max() < 1e-3 and "collapse" in task.alarm(numbers)
    assert not task.alarm({**numbers, "feature_spread": 0.8})


def test_perfect_guesses_find_every_patch(task):
    keys = F.normalize(torch.randn(3, 25, 16, generator=generator()), dim=2)
    prediction = {"keys": keys, "guesses": keys[:, task.asked(torch.device("cpu"))[1]]}
    metrics = task.metrics({}, prediction)
    for name in ("accuracy", "accuracy_overlapping", "accuracy_2", "accuracy_3", "accuracy_4"):
        assert (metrics[name] == 1).all()
    assert metrics["alignment"].max() < 1e-6 and metrics["uniformity"].max() < -3


def test_candidates_of_several_processes_are_gathered(task, run):
    """The loss of a batch is that of its halves put together, as the training loop does over processes."""
    example, prediction = run
    assert prediction.keys() == set(task.gathered)
    halves = [{name: value[half] for name, value in prediction.items()} for half in (slice(2), slice(2, 4))]
    whole = {name: torch.cat([half[name] for half in halves]) for name in task.gathered}
    assert task.loss({}, whole)[0] == task.loss(example, prediction)[0] > task.loss({}, halves[0])[0]


def test_evaluation_counts_all_patches_of_its_batch(task, model, photos):
    figures = evaluate(task, model, photos.take(range(8)), batch=4)
    assert figures["candidates"] == 100 and figures["chance"] == pytest.approx(0.01)
    assert figures["accuracy"] < 0.2


# The tab


@pytest.fixture(scope="module")
def runner():
    return inference.load("cpc", "untrained")


def test_figures_of_a_run_are_those_of_a_sorted_list(runner, photo):
    task, controls = runner.task, {"target": "30 90", "below": 3, "temperature": 0.5, "disturbed": True}
    example = runner.example(photo, 0, controls)
    with torch.no_grad():
        prediction = task.predict(runner.model, example)
    k, place = task.asked(torch.device("cpu"))
    assert int(example["place"][0]) == 21, "row 5, column 2 of five"
    asked = int(((k == 3) & (place == 21)).nonzero())
    cosines = (prediction["guesses"][0, asked] @ prediction["keys"].flatten(0, 1).T).tolist()
    numbers = runner.run(photo, **controls).numbers
    assert numbers["candidates"] == len(cosines) == 200
    assert numbers["rank"] == 1 + sorted(cosines, reverse=True).index(cosines[21])
    shares = [math.exp(cosine / 0.5) for cosine in cosines]
    assert numbers["probability_true"] == pytest.approx(shares[21] / sum(shares), rel=1e-4)
    assert numbers["loss"] == pytest.approx(-math.log(numbers["probability_true"]), rel=1e-6)


def test_temperature_changes_how_sure_it_is_and_no_rank(runner, photo):
    sharp, flat = (runner.run(photo, temperature=temperature) for temperature in (0.02, 1))
    assert sharp.numbers["rank"] == flat.numbers["rank"] and sharp.numbers["loss"] != flat.numbers["loss"]
    assert flat.numbers["probability_true"] == pytest.approx(1 / 200, rel=1)
    pictures = [{panel.name: panel.image for panel in result.panels} for result in (sharp, flat)]
    assert (pictures[0]["ranks"] == pictures[1]["ranks"]).all() and (pictures[0]["ranking"] == pictures[1]["ranking"]).all()


@pytest.mark.parametrize("panel, x, y, target", [
    ("photo", 0.5, 0.7, "50.0 66.7"), ("photo", 0.99, 0.99, "83.3 83.3"), ("context", 0.16, 0.51, "16.7 50.0"),
    ("patches", 0.05, 0.95, "16.7 83.3"), ("ranks", 0.5, 0.5, "50.0 50.0"), ("photo", 0.3, 0.0, "33.3 50.0"),
])  # fmt: skip
def test_a_click_asks_for_the_patch_under_it(runner, photo, panel, x, y, target):
    """Rows that have nothing above to be foretold from give way to the first that has."""
    assert runner.click(photo, 0, {}, panel, x, y) == {"target": target}
    assert runner.click(photo, 0, {"target": target}, panel, x, y) == {"target": target}


def test_rows_that_are_not_seen_are_not_shown(runner, photo):
    """Black below: neither the covered photo nor the board of patches changes, the one asked for aside."""
    dark = photo.copy()
    dark.paste("black", (0, 300, 512, 512))  # rows 1 and 2 of five end at 256
    panels = [{panel.name: panel for panel in runner.run(picture, below=2).panels} for picture in (photo, dark)]
    assert (panels[0]["context"].image == panels[1]["context"].image).all()
    boards = [panel["patches"].image for panel in panels]
    third = boards[0].shape[0] // 5 * 3
    assert (boards[0][:third] == boards[1][:third]).all() and (boards[0] != boards[1]).any()


def test_the_right_patch_is_among_those_that_are_shown(runner, photo):
    for below in (1, 2, 4):
        panels = {panel.name: panel for panel in runner.run(photo, below=below, target="80 90").panels}
        (true,) = [bar for bar in panels["probabilities"].bars if bar.true]
        assert "yours, row 5" in true.label
        chart = panels["distance"].chart
        assert chart.now == below and chart.level[1] == pytest.approx(math.log(200)) and len(chart.lines[0].y) == 4


@pytest.mark.parametrize("config, word", [({"patch": 40}, "patch"), ({"size": 48}, "size"), ({"skip": 4}, "skip"),
                                          ({"temperature": 0.0}, "temperature"), ({"stride": 0}, "stride")])
def test_settings_that_do_not_fit_are_refused(config, word):
    with pytest.raises(ValueError, match=word):
        create("cpc", **config)


def test_more_rows_below_than_there_are_is_refused(images):
    with pytest.raises(ValueError, match="“below”"):
        create("cpc", **{**SMALL, "size": 32}).example(images[:, :, :32, :32], generator(), below=3)

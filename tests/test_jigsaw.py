"""The orders are as far apart as promised; tiles keep nothing of their neighbours; the network sees each of them alone."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import generator

from ssl_demo import drawing, inference
from ssl_demo.checkpoints import load_weights, save_weights
from ssl_demo.data import centre
from ssl_demo.pretext import Control, create
from ssl_demo.tasks.jigsaw import MEAN, ORDERS, SPREAD, TILES, permutation_set, shuffle
from ssl_demo.training import with_settings

SMALL = {"size": 48, "tile": 12, "width": 8, "depths": [1, 1], "permutations": 10}


@pytest.fixture(scope="module")
def task():
    return create("jigsaw")


@pytest.fixture(scope="module")
def images(photos):
    return next(centre(photos, 96, 8))


@pytest.fixture(scope="module")
def model(task):
    torch.manual_seed(0)
    return task.build().eval()


def text(order):
    return " ".join(str(int(tile)) for tile in order)


def pixels(example):
    """What the inputs are as colours, where they were not normalised."""
    return example["inputs"] * SPREAD + MEAN


# The orders


@pytest.fixture(scope="module")
def every():
    return np.array(list(itertools.permutations(range(TILES))), dtype=np.int8)


@pytest.mark.parametrize("seed", [0, 7])
def test_each_order_is_the_furthest_from_those_before(every, seed):
    """Algorithm 1, step by step: the largest sum of Hamming distances, and of those the largest least distance, among all 9!."""
    orders = permutation_set(25, seed).numpy()
    distances = np.stack([(every != order).sum(axis=1, dtype=np.int64) for order in orders])  # (K, 9!)
    for step in range(1, len(orders)):
        total, least = distances[:step].sum(axis=0), distances[:step].min(axis=0)
        to_those = [int((orders[step] != before).sum()) for before in orders[:step]]
        untaken = least > 0
        assert sum(to_those) == total[untaken].max(), step
        assert min(to_those) == least[untaken & (total == sum(to_those))].max(), step


def test_orders_are_all_different_permutations(task):
    orders = task.permutations
    assert orders.shape == (100, 9) and orders.dtype == torch.int64
    assert torch.equal(orders.sort(dim=1).values, torch.arange(9).expand(100, 9))
    assert len(set(map(tuple, orders.tolist()))) == 100


def test_orders_are_far_apart(task):
    """Further than orders drawn by luck, which differ in 8 places on average, and never by one swap of two tiles."""
    distances = (task.permutations[:, None] != task.permutations).sum(dim=2)[~torch.eye(100, dtype=torch.bool)]
    assert distances.float().mean() > 8.05 and distances.min() >= 4


def test_orders_begin_with_nine_that_share_no_place(task):
    """Nine is as many as can differ everywhere: a Latin square."""
    distances = (task.permutations[:9, None] != task.permutations[:9]).sum(dim=2)
    assert torch.equal(distances, 9 - 9 * torch.eye(9, dtype=torch.int64))


def test_orders_follow_from_count_and_seed(task):
    permutation_set.cache_clear()
    again = permutation_set(100, 0)
    assert torch.equal(again, task.permutations)
    first = [[5, 7, 0, 4, 2, 3, 6, 1, 8], [6, 1, 3, 7, 4, 8, 2, 5, 0]]
    assert again[:2].tolist() == first, "weights trained with the old set would answer other orders"
    assert torch.equal(permutation_set(30, 0), again[:30]) and not torch.equal(permutation_set(30, 1), again[:30])


def test_weights_bring_their_orders(tmp_path):
    task = create("jigsaw", **SMALL, permutation_seed=5)
    torch.manual_seed(0)
    save_weights(tmp_path / "jigsaw-test.safetensors", task, task.build(), {})
    loaded, network = load_weights("jigsaw", tmp_path / "jigsaw-test.safetensors")
    assert network.permutations.dtype == torch.int64
    assert torch.equal(network.permutations, permutation_set(10, 5)) and torch.equal(loaded.permutations, network.permutations)


def test_a_network_of_other_orders_is_not_asked(photos):
    images = next(centre(photos, 48, 2))
    one, other = create("jigsaw", **SMALL), create("jigsaw", **SMALL, permutation_seed=1)
    with pytest.raises(AssertionError, match="other orders"):
        one.predict(other.build(), one.example(images, generator()))


@pytest.mark.parametrize("config", [{"size": 70}, {"tile": 33}, {"tile": 2}, {"permutations": 1}, {"permutation_seed": -1}])
def test_settings_that_make_no_sense_are_refused(config):
    with pytest.raises(ValueError, match="must be") as caught:
        create("jigsaw", **config)
    assert str(caught.value).endswith(".")


def test_settings_of_the_command_line():
    task, _ = with_settings(type(create("jigsaw")), {"size": "48", "tile": "12", "permutations": "20"})
    assert task.build().order[-1].out_features == 20


# The tiles


def test_shuffling_and_putting_back(task, images):
    example = task.training_example(images, generator())
    tiles, orders = example["inputs"], example["orders"]
    assert tiles.shape == (8, 9, 3, 24, 24) and orders.shape == (8, ORDERS, 9) and example["targets"].shape == (8, ORDERS)
    assert torch.equal(orders, task.permutations[example["targets"]])
    shuffled = shuffle(tiles, orders)  # (B, M, 9, 3, 24, 24)
    for m in range(ORDERS):
        for place in range(TILES):
            assert torch.equal(shuffled[3, m, place], tiles[3, orders[3, m, place]])
        assert torch.equal(shuffle(shuffled[:, m], orders[:, m].argsort(dim=1)[:, None])[:, 0], tiles)


def test_tiles_are_cut_from_their_cells(task, images):
    example = task.example(images, generator(), grey="none", normalise=False)
    corners = example["corners"]
    assert corners.min() == 0 and corners.max() == 8
    for number, tile in itertools.product(range(8), range(TILES)):
        row, column = (corners[number, tile] + torch.tensor(divmod(tile, 3)) * 32).tolist()
        assert torch.allclose(pixels(example)[number, tile], images[number, :, row : row + 24, column : column + 24], atol=1e-6)


@pytest.mark.parametrize("grey", ["none", "all"])
def test_nothing_from_outside_a_tile_reaches_it(task, images, grey):
    """All pixels that no tile covers may change, and another tile's too: a tile's input stays what it was."""
    before = task.example(images, generator(2), grey=grey)
    inside, first = torch.zeros(8, 1, 96, 96, dtype=torch.bool), torch.zeros(8, 1, 96, 96, dtype=torch.bool)
    for number, tile in itertools.product(range(8), range(TILES)):
        row, column = (before["corners"][number, tile] + torch.tensor(divmod(tile, 3)) * 32).tolist()
        inside[number, :, row : row + 24, column : column + 24] = True
        first[number, :, row : row + 24, column : column + 24] |= tile == 4
    around = task.example(torch.where(inside, images, 1 - images), generator(2), grey=grey)
    assert torch.equal(around["inputs"], before["inputs"]) and not inside.all()
    middle = task.example(torch.where(first, 1 - images.square(), images), generator(2), grey=grey)
    changed = (middle["inputs"] != before["inputs"]).flatten(2).any(dim=2)
    assert changed[:, 4].all() and changed.sum() == 8


def test_tiles_are_normalised_one_by_one(task, images):
    inputs = task.training_example(images, generator())["inputs"]
    assert inputs.mean(dim=(3, 4)).abs().max() < 1e-4
    assert torch.allclose(inputs.std(dim=(3, 4), correction=0), torch.ones(8, 9, 3), atol=1e-3)
    brighter = task.training_example(images * 0.5 + 0.3, generator())["inputs"]
    assert torch.allclose(brighter, inputs, atol=1e-3), "brightness and contrast are told"
    raw = task.example(images, generator(), normalise=False)["inputs"]
    assert raw.mean(dim=(3, 4)).std(dim=1).mean() > 0.1


def test_a_flat_photo_has_finite_tiles(task):
    assert task.example(torch.full((1, 3, 96, 96), 0.7), generator())["inputs"].abs().max() < 1e-2


def test_three_photos_in_ten_are_grey(task, images):
    """Whole photos, not tiles."""
    coloured = images[:1].repeat(400, 1, 1, 1)
    example = task.training_example(coloured, generator())
    flat = (example["inputs"][:, :, 0] - example["inputs"][:, :, 1]).abs().amax(dim=(2, 3)) < 1e-4  # (B, 9)
    assert torch.equal(flat.all(dim=1), flat.any(dim=1))
    assert flat[:, 0].float().mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 400))
    for grey in ("all", "none"):
        raw = task.example(images, generator(), grey=grey, normalise=False)["inputs"]
        assert ((raw[:, :, 0] - raw[:, :, 1]).abs().amax(dim=(1, 2, 3)) < 1e-6).all() == (grey == "all")


def test_without_gaps_tiles_touch(task):
    """A slope stays a slope across the cuts: the step from tile to tile is that inside a tile."""
    slope = torch.linspace(0, 1, 96).expand(1, 3, 96, 96)
    tiles = pixels(task.example(slope, generator(), gap=False, normalise=False, grey="none"))[0]
    row = torch.cat([tiles[0, 0, 5], tiles[1, 0, 5], tiles[2, 0, 5]])
    steps = row.diff()
    assert steps.min() > 0.3 * steps.median() and steps.max() < 1.7 * steps.median()
    gaps = pixels(task.example(slope, generator(), normalise=False, grey="none"))[0]
    assert (gaps[1, 0, 5, 0] - gaps[0, 0, 5, -1]) > 1.9 / 95


def test_controls_take_no_other_chance(task, images):
    """A seed means one chance, whatever the knobs say: the order and the cuts stay."""
    states, orders = [], []
    knobs = ({"grey": "all"}, {"gap": False}, {"normalise": False}, {"shuffle": "by hand", "tiles": "0 1 2 3 4 5 6 7 8"})
    for knob in ({}, *knobs):
        rng = generator(4)
        orders.append(task.example(images, rng, **knob)["orders"])
        states.append(rng.get_state())
    assert all(torch.equal(state, states[0]) for state in states)
    assert all(torch.equal(order, orders[0]) for order in orders[:4]) and not torch.equal(orders[4], orders[0])


# The network


def test_shuffled_encodings_are_encodings_of_shuffled_tiles(task, model, images):
    """The trunk sees each tile alone, so that one encoding serves any number of orders."""
    example = task.training_example(images, generator())
    with torch.no_grad():
        encoded = shuffle(model.encode(example["inputs"]), example["orders"])  # (B, M, 9, D)
        tiles = shuffle(example["inputs"], example["orders"])  # (B, M, 9, 3, h, w)
        for m in range(ORDERS):
            assert torch.allclose(model.encode(tiles[:, m]), encoded[:, m], atol=1e-5)


def test_four_orders_at_once_are_one_after_the_other(task, model, images):
    example = task.training_example(images, generator())
    with torch.no_grad():
        together = task.predict(model, example)["logits"]
        for m in range(ORDERS):
            alone = task.predict(model, {"inputs": example["inputs"], "orders": example["orders"][:, m : m + 1]})["logits"]
            assert torch.allclose(alone[:, 0], together[:, m], atol=1e-5)


def test_accuracy_counts_whole_orders_and_tiles(task):
    orders = task.permutations[[0, 1]][None]  # one photo, two orders
    logits = torch.full((1, 2, 100), -9.0)
    logits[0, 0, 0] = logits[0, 1, 0] = 9  # it says order 0 twice, which shares no place with order 1
    metrics = task.metrics({"orders": orders, "targets": torch.tensor([[0, 1]])}, {"logits": logits})
    assert metrics["accuracy"].tolist() == [0.5] and metrics["tiles_right"].tolist() == [0.5]


# By hand


def test_an_order_by_hand(task, images):
    known = task.permutations[42]
    example = task.example(images, generator(), shuffle="by hand", tiles=text(known))
    assert (example["orders"] == known).all() and (example["targets"] == 42).all()
    ignored = task.example(images, generator(), tiles=text(known))
    assert torch.equal(ignored["orders"], task.example(images, generator(), shuffle="by hand")["orders"])


def test_an_order_outside_the_set_counts_as_the_nearest(photo, task):
    order = task.permutations[42].clone()
    order[[2, 5]] = order[[5, 2]]
    result = inference.load("jigsaw", "untrained").run(photo, shuffle="by hand", tiles=text(order))
    bars = next(panel.bars for panel in result.panels if panel.bars)
    assert result.numbers["hamming_to_set"] == 2 and next(bar.label for bar in bars if bar.true).split()[1] == "#42"
    assert inference.load("jigsaw", "untrained").run(photo).numbers["hamming_to_set"] == 0


@pytest.mark.parametrize("shuffle_by", ["seed", "by hand"])
@pytest.mark.parametrize("controls", [{"tiles": "0 1 2"}, {"tiles": "0 1 2 3 4 5 6 7 7"}, {"tiles": "1 2 3 4 5 6 7 8 9"},
                                      {"picked": "9"}, {"picked": "1 2"}])  # fmt: skip
def test_what_is_no_order_is_refused(photo, controls, shuffle_by):
    with pytest.raises(ValueError, match=f"“{next(iter(controls))}” must") as caught:
        inference.load("jigsaw", "untrained").run(photo, shuffle=shuffle_by, **controls)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_an_order_keeps_its_order():
    control = Control("tiles", "", "order", "", "")
    assert control.parse("4, 0 08 4") == "4 0 8 4" and control.parse("") == control.parse(None) == ""
    with pytest.raises(ValueError, match="“tiles” must be whole numbers"):
        control.parse("4 -1")


def test_two_clicks_swap_two_tiles(photo, task):
    runner = inference.load("jigsaw", "untrained")
    controls = runner.run(photo, seed=3).controls
    before = runner.example(photo, 3, controls)["orders"][0, 0].tolist()
    controls |= runner.click(photo, 3, controls, "shuffled", 0.9, 0.1)
    assert controls["picked"] == "2" and controls["tiles"] == "" and controls["shuffle"] == "seed"
    assert runner.example(photo, 3, controls)["orders"][0, 0].tolist() == before
    controls |= runner.click(photo, 3, controls, "shuffled", 0.5, 1.0)
    after = before.copy()
    after[2], after[7] = before[7], before[2]
    assert controls["picked"] == "" and controls["shuffle"] == "by hand" and controls["tiles"] == text(after)
    assert runner.example(photo, 3, controls)["orders"][0, 0].tolist() == after
    for x, y in ((0.9, 0.1), (0.5, 0.9)):  # and back, whatever the seed
        controls |= runner.click(photo, 4, controls, "shuffled", x, y)
    assert controls["tiles"] == text(before)


def test_a_second_click_on_a_tile_lets_it_go(photo):
    runner = inference.load("jigsaw", "untrained")
    controls = runner.run(photo).controls
    picked = controls | runner.click(photo, 0, controls, "shuffled", 0.5, 0.5)
    assert picked["picked"] == "4" and picked | runner.click(photo, 0, picked, "shuffled", 0.4, 0.6) == controls


def test_the_picked_tile_is_outlined(photo):
    runner = inference.load("jigsaw", "untrained")
    one, other = (next(p.image for p in runner.run(photo, picked=picked).panels if p.name == "shuffled") for picked in ("", "8"))
    rows, columns = np.nonzero((one != other).any(axis=2))
    assert min(rows) >= 150 and min(columns) >= 150


# What is drawn


def panels_of(task, example, answer):
    logits = torch.full((1, 1, 100), -2.0)
    logits[0, 0, answer] = 9.0
    return {panel.name: panel for panel in task.render(example, {"logits": logits})}


def test_the_right_answer_puts_the_photo_together(task, images):
    example = task.example(images[:1], generator())
    truth = int(example["targets"])
    panels = panels_of(task, example, truth)
    tiles = [drawing.picture(tile * SPREAD + MEAN) for tile in example["inputs"][0]]
    assert (panels["arranged"].image == drawing.tile_board(tiles)).all() and "9 of 9" in panels["arranged"].caption
    shuffled = drawing.tile_board([tiles[tile] for tile in example["orders"][0, 0]])
    assert (panels["shuffled"].image == shuffled).all()
    bars = panels["probabilities"].bars
    assert len(bars) == 5 and bars[0].true and bars[0].chosen and bars[0].label.startswith(f"1. #{truth} ")


def test_a_wrong_answer_is_crossed_out_tile_by_tile(task, images):
    example = task.example(images[:1], generator(), shuffle="by hand", tiles=text(task.permutations[0]))
    answer = next(k for k in range(1, 100) if 0 < (task.permutations[k] == task.permutations[0]).sum() < 9)
    panels = panels_of(task, example, answer)
    right = (task.permutations[answer] == task.permutations[0]).sum()
    assert panels["arranged"].caption.startswith(f"{right} of 9 right")
    said, order = task.permutations[answer].tolist(), task.permutations[0].tolist()
    tiles = [drawing.picture(tile * SPREAD + MEAN) for tile in example["inputs"][0]]
    plain = drawing.tile_board([tiles[order[said.index(place)]] for place in range(TILES)])
    marked = (plain != panels["arranged"].image).any(axis=2)
    for place in range(TILES):
        row, column = (6 + 78 * at for at in divmod(place, 3))
        assert marked[row : row + 72, column : column + 72].any() == (order[said.index(place)] != place)
        assert not marked[row + 24 : row + 70, column + 2 : column + 48].any(), "another tile, or one that cannot be seen"
    bars = panels["probabilities"].bars
    assert sum(bar.true for bar in bars) == 1 and bars[0].chosen and not bars[0].true


def test_the_true_order_is_among_the_bars_however_unlikely(task, images):
    example = task.example(images[:1], generator())
    logits = torch.arange(100.0)[None, None]
    logits[0, 0, int(example["targets"])] = -50
    bars = task.render(example, {"logits": logits})[-1].bars
    assert len(bars) == 6 and bars[5].true and bars[5].label.startswith("100. ")


def test_captions_are_short(photo):
    runner = inference.load("jigsaw", "untrained")
    for controls in ({}, {"gap": False}, {"normalise": False, "grey": "all"}):
        assert all(len(panel.caption) <= 40 for panel in runner.run(photo, **controls).panels)


def test_numbers_agree_with_the_panels(photo):
    result = inference.load("jigsaw", "untrained").run(photo, seed=2)
    numbers, panels = result.numbers, {panel.name: panel for panel in result.panels}
    true = next(bar for bar in panels["probabilities"].bars if bar.true)
    assert true.value == pytest.approx(numbers["probability_true"]) and numbers["correct"] == int(true.chosen)
    assert numbers["loss"] == pytest.approx(-math.log(numbers["probability_true"]), rel=1e-4)
    assert panels["arranged"].caption.startswith(f"{numbers['tiles_right']} of 9")


def test_learns_the_slope_of_a_picture():
    """Tiles that show where they lie are put back, with all guards on: the signal can be learned."""
    task = create("jigsaw", **SMALL)
    y, x = torch.meshgrid(torch.arange(48) // 16, torch.arange(48) // 16, indexing="ij")
    stripes = torch.sin(torch.arange(48.0)[:, None] * (0.4 + 0.5 * x) + torch.arange(48.0) * (0.4 + 0.5 * y)) * 0.4 + 0.5
    pictures = stripes.expand(16, 3, 48, 48)
    torch.manual_seed(0)
    model = task.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        example = task.training_example(pictures, generator(step))
        prediction = task.predict(model, example)
        loss, _ = task.loss(example, prediction)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert task.metrics(example, prediction)["accuracy"].mean() > 0.8

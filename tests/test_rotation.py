"""Turns are exact and leave no trace but the content; the map of what spoke for an answer adds up to it."""

import io
import math

import numpy as np
import pytest
import torch
from conftest import generator
from PIL import Image

from ssl_demo import drawing, inference
from ssl_demo.checkpoints import UNTRAINED, bundled
from ssl_demo.data import centre
from ssl_demo.images import square, to_tensor
from ssl_demo.pretext import create, parse_controls

WEIGHTS = [UNTRAINED, *bundled("rotation")]


@pytest.fixture(scope="module")
def task():
    return create("rotation")


@pytest.fixture(scope="module")
def images(photos):
    return next(centre(photos, 96, 8))


def turned_back(example):
    return torch.stack([torch.rot90(image, -int(k), (1, 2)) for image, k in zip(example["inputs"], example["targets"])])


def seen(picture, **controls):
    """What the network is shown of a picture, as integers (3, H, W)."""
    runner = inference.load("rotation", "untrained")
    example = runner.example(picture, 0, parse_controls(runner.task, controls))
    return (example["inputs"][0] * 255).round().int()


# The signal


def test_a_batch_holds_all_four_turns_of_every_photo(task, images):
    example = task.training_example(images, generator())
    assert example["targets"].bincount().tolist() == [8, 8, 8, 8]
    assert torch.equal(turned_back(example), images.repeat(4, 1, 1, 1))
    assert len({image.numpy().tobytes() for image in example["inputs"]}) == 32


def test_random_turns_are_exact_and_of_every_kind(task, images):
    example = task.example(images.repeat(8, 1, 1, 1), generator())
    assert torch.equal(turned_back(example), images.repeat(8, 1, 1, 1))
    assert example["targets"].unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("angle", ["0", "90", "180", "270"])
def test_chosen_angle(task, images, angle):
    example = task.example(images, generator(), angle=angle)
    assert example["targets"].tolist() == [int(angle) // 90] * 8 and torch.equal(turned_back(example), images)


def test_turns_are_counter_clockwise(photo):
    """As the labels say and as Pillow counts: the left edge comes to lie below."""
    picture = Image.new("RGB", (96, 96))
    picture.paste((255, 0, 0), (0, 0, 48, 96))
    turned = seen(picture, angle="90")
    assert turned[0, 90].min() == 255 and turned[0, 5].max() == 0


def test_random_and_chosen_take_the_same_chance(task, images):
    """A seed means one chance, whatever the knobs say."""
    one, other = generator(4), generator(4)
    task.example(images, one)
    task.example(images, other, angle="90")
    assert torch.equal(one.get_state(), other.get_state())


# What could cheat


@pytest.mark.parametrize("resolution", [48, 96, 112, 192])
@pytest.mark.parametrize("size", [(512, 512), (301, 200), (200, 301), (90, 60)])
def test_turning_before_or_after_the_upload_is_the_same(photo, size, resolution):
    """Cropping and resizing commute with turning: whoever uploads a photo lying on its side shows the network the same pixels."""
    photo = photo.resize(size)
    for angle, turn in ((90, Image.Transpose.ROTATE_90), (180, Image.Transpose.ROTATE_180), (270, Image.Transpose.ROTATE_270)):
        before = seen(photo.transpose(turn), angle="0", resolution=resolution)
        after = seen(photo, angle=str(angle), resolution=resolution)
        assert (before - after).abs().max() <= 1


def test_jpeg_blocks_turn_with_the_photo(photo):
    """Compressed hard before it is uploaded: the four inputs are still the same pixels, turned, so no block tells."""
    stream = io.BytesIO()
    photo.crop((3, 5, 503, 405)).save(stream, "JPEG", quality=40)
    compressed = Image.open(stream).convert("RGB")
    upright = seen(compressed, angle="0")
    for k in (1, 2, 3):
        assert torch.equal(torch.rot90(upright, k, (1, 2)), seen(compressed, angle=str(90 * k)))


def noise(count, side=96, seed=0):
    """Pictures without content, through the same door as uploads."""
    random = np.random.default_rng(seed)
    pictures = (Image.fromarray(random.integers(0, 256, (side * 3 // 2, side * 4 // 3, 3), dtype=np.uint8)) for _ in range(count))
    return torch.stack([to_tensor(square(picture, side)) for picture in pictures])


def noise_accuracy(task, model, pictures):
    """The share of turned noise pictures that are turned back, and the deviation that mere luck has."""
    with torch.inference_mode():
        answers = [task.metrics(e, task.predict(model, e))["accuracy"] for e in (task.training_example(part, generator())
                                                                                  for part in pictures.split(20))]  # fmt: skip
    answers = torch.cat(answers)
    return answers.mean().item(), math.sqrt(0.25 * 0.75 / len(answers))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_noise_gives_no_hint(task, weights):
    """Without content there is nothing to go by. Better than luck would mean that the turns leave a trace."""
    runner = inference.load("rotation", weights)
    accuracy, luck = noise_accuracy(task, runner.model, noise(100))
    assert abs(accuracy - 0.25) < 3 * luck


def trained_on(pictures):
    """A task and its small network after 40 steps on turned pictures, still in training mode: its averages have not settled."""
    task = create("rotation", width=8, depths=[1, 1])
    torch.manual_seed(0)
    model = task.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(40):
        example = task.training_example(pictures[step % 4 * 16 :][:16], generator())
        loss, _ = task.loss(example, task.predict(model, example))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return task, model


def test_noise_cannot_be_learned():
    """A network trained on turned noise finds no trace of the turn in new noise: there is none to find."""
    accuracy, luck = noise_accuracy(*trained_on(noise(64, 48, seed=1)), noise(120, 48, seed=2))
    assert abs(accuracy - 0.25) < 4 * luck


def test_a_trace_would_be_found():
    """The test above is able to fail: a border that the turn leaves dark on one side is learned at once."""
    traced, others = noise(64, 48, seed=1), noise(40, 48, seed=2)
    traced[:, :, :3] = others[:, :, :3] = 0
    assert noise_accuracy(*trained_on(traced), others)[0] > 0.6


# What is drawn


@pytest.mark.parametrize("size", [48, 96, 160])
def test_evidence_adds_up_to_the_answer(task, photos, size):
    """The class activation map is exact: the mean of each angle's cells is its logit."""
    torch.manual_seed(0)
    model = task.build().eval()
    torch.nn.init.normal_(model.head.bias)
    example = task.training_example(next(centre(photos, size, 4)), generator())
    with torch.no_grad():
        prediction = task.predict(model, example)
    assert prediction["evidence"].shape == (16, 4, size // 16, size // 16)
    assert torch.allclose(prediction["evidence"].mean(dim=(2, 3)), prediction["logits"], atol=1e-4)
    assert prediction["evidence"].std(dim=(2, 3)).min() > 0


def test_panels_of_a_known_answer(task, images):
    """Logits set by hand: the panel turned back by a right answer is the photo, by a wrong one it is not."""
    example = task.example(images[:1], generator(), angle="270")
    for answer in range(4):
        logits = torch.full((1, 4), -2.0)
        logits[0, answer] = 3.0
        panels = task.render(example, {"logits": logits, "evidence": torch.zeros(1, 4, 6, 6)})
        pictures = {panel.name: panel for panel in panels}
        same = (pictures["turned_back"].image == drawing.picture(images[0])).all()
        assert same == (answer == 3)
        bars = pictures["probabilities"].bars
        assert [bar.chosen for bar in bars].index(True) == answer and [bar.true for bar in bars] == [False, False, False, True]
        assert sum(bar.value for bar in bars) == pytest.approx(1)
        assert ("right" in pictures["turned_back"].caption) == (answer == 3)


def test_numbers_agree_with_the_panels(photo):
    result = inference.load("rotation", "untrained").run(photo, angle="180")
    numbers, bars = result.numbers, next(panel.bars for panel in result.panels if panel.bars)
    assert numbers["truth"] == 180 and numbers["correct"] == int(numbers["answer"] == 180)
    assert bars[2].value == pytest.approx(numbers["probability_true"]) and bars[2].true
    assert numbers["loss"] == pytest.approx(-math.log(numbers["probability_true"]), rel=1e-4)


def test_accuracy_counts_the_right_answers(task):
    example = {"targets": torch.tensor([0, 1, 2, 3])}
    prediction = {"logits": torch.eye(4)[[0, 1, 3, 2]]}
    metrics = task.metrics(example, prediction)
    assert metrics["accuracy"].tolist() == [1, 1, 0, 0] and task.aggregate(metrics) == {"accuracy": 0.5, "classes": 4.0}

"""The loss is the paper's, over pairs of different crops; the teacher follows; without its guards it collapses, and says so."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import generator

from ssl_demo import inference
from ssl_demo.checkpoints import load_weights
from ssl_demo.contrastive import entropy, overlap, shared_out
from ssl_demo.data import centre
from ssl_demo.nets import sincos_positions
from ssl_demo.pretext import create
from ssl_demo.tasks.dino import GLOBAL, LOCAL, STUDENT, TEACHER
from ssl_demo.training import train
from ssl_demo.vit import Prototypes, principal_colors, sampled_positions

SMALL = {"size": 32, "view": 16, "local": 8, "stem_width": 8, "stem_depths": [1, 1], "width": 32, "depth": 2, "heads": 2,
         "hidden": 32, "bottleneck": 8, "prototypes": 32}  # fmt: skip


@pytest.fixture(scope="module")
def task():
    return create("dino")


@pytest.fixture(scope="module")
def images(photos):
    return next(centre(photos, 96, 8))


@pytest.fixture(scope="module")
def model(task):
    torch.manual_seed(0)
    return task.build().eval()


# Crops


def test_two_large_crops_and_two_small_ones(task, images):
    example = task.example(images, generator())
    assert example["inputs"].shape == (8, 2, 3, 64, 64) and example["locals"].shape == (8, 2, 3, 32, 32)
    assert torch.equal(example["targets"], example["inputs"]), "the teacher sees the large ones only"
    for name, (least, most) in (("inputs_boxes", GLOBAL), ("locals_boxes", LOCAL)):
        left, top, width, _ = example[name].unbind(2)
        assert (width.square() >= least - 1e-5).all() and (width.square() <= most + 1e-5).all()
        assert (torch.stack([left, top]) >= 0).all() and (torch.stack([left, top]) + width <= 1 + 1e-5).all()
    assert (example["inputs"][:, 0] - example["inputs"][:, 1]).abs().mean() > 0.02


def test_settings_change_no_crop(task, images):
    one = task.example(images, generator(3))
    other = task.example(images, generator(3), teacher_temperature=0.2, student_temperature=0.3, centring=False)
    assert torch.equal(one["inputs"], other["inputs"]) and torch.equal(one["locals"], other["locals"])
    assert one["settings"][0].tolist() == pytest.approx([TEACHER, STUDENT, 1])
    assert other["settings"][0].tolist() == pytest.approx([0.2, 0.3, 0])


def test_training_takes_its_settings_from_the_configuration(images):
    task = create("dino", centring=False, teacher_temperature=0.07)
    assert task.training_example(images, generator())["settings"][0].tolist() == pytest.approx([0.07, STUDENT, 0])


# The loss


def by_hand(example, prediction, sharp, soft, centring):
    """Algorithm 1 of the paper, over its loops."""
    total, count = 0.0, 0
    for photo in range(len(prediction["teacher"])):
        for t, answer in enumerate(prediction["teacher"][photo]):
            target = ((answer - centring * prediction["centre"][0]) / sharp).softmax(dim=0)
            for s, other in enumerate(prediction["student"][photo]):
                if s != t:
                    total -= (target * (other / soft).log_softmax(dim=0)).sum().item()
                    count += 1
    return total / count


@pytest.mark.parametrize("sharp, soft, centring", [(TEACHER, STUDENT, True), (0.07, 0.2, True), (TEACHER, STUDENT, False)])
def test_loss_is_the_papers(model, images, sharp, soft, centring):
    task = create("dino", sinkhorn=0)
    example = task.example(images, generator(1), teacher_temperature=sharp, student_temperature=soft, centring=centring)
    with torch.no_grad():
        prediction = task.predict(model, example)
        prediction["centre"] = 0.1 * torch.randn(1, 1024, generator=generator())
        loss, numbers = task.loss(example, prediction)
    assert prediction["student"].shape == (8, 4, 1024) and prediction["teacher"].shape == (8, 2, 1024)
    assert loss.item() == pytest.approx(by_hand(example, prediction, sharp, soft, centring), rel=1e-4)
    assert numbers["kl"] == pytest.approx(loss.item() - numbers["entropy_each"]) and numbers["kl"] > 0


def test_loss_of_answers_that_are_all_alike(task, images):
    """Even answers cost log K, and so does any network that says the same of all with an even target."""
    example = task.example(images, generator())
    even = {"student": torch.zeros(8, 4, 1024), "teacher": torch.zeros(8, 2, 1024), "centre": torch.zeros(1, 1024),
            "features": torch.ones(8, 2, 16)}  # fmt: skip
    loss, numbers = task.loss(example, even)
    assert loss.item() == pytest.approx(math.log(1024), rel=1e-5) and numbers["kl"] == pytest.approx(0, abs=1e-4)


def test_gradients_reach_the_student_only(task, images):
    torch.manual_seed(0)
    model = task.build().train()
    example = task.training_example(images, generator())
    task.loss(example, task.predict(model, example))[0].backward()
    assert all(p.grad is not None for p in model.student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())


def test_cosines_keep_their_last_digits_in_bfloat16(model, images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosines = model.teacher["head"](model.teacher["encoder"](images)[:, 0])
    assert cosines.dtype == torch.float32 and cosines.unique().numel() > 0.9 * cosines.numel() and cosines.abs().max() <= 1.001


def test_sinkhorn_shares_out_what_one_prototype_would_take():
    logits = torch.randn(16, 2, 24, generator=generator()) + 5 * (torch.arange(24) == 3)
    even, plain = shared_out(logits, 20), shared_out(logits, 0)
    assert even.shape == logits.shape and torch.allclose(even.sum(dim=2), torch.ones(16, 2))
    assert torch.allclose(even.mean(dim=(0, 1)), torch.full((24,), 1 / 24), atol=2e-3), "each prototype gets the same"
    assert torch.allclose(plain, logits.softmax(dim=2)) and plain.mean(dim=(0, 1))[3] > 0.6
    rows = even.flatten(0, 1)  # what it changes is a factor for each photo and one for each prototype, nothing else
    ratios = (rows / plain.flatten(0, 1)).log()
    assert torch.allclose(ratios - ratios.mean(0) - ratios.mean(1, keepdim=True) + ratios.mean(), torch.zeros(32, 24), atol=1e-3)
    huge = shared_out(torch.eye(8)[:, None] / 0.005, 3)
    assert torch.isfinite(huge).all() and torch.allclose(huge[:, 0], torch.eye(8), atol=1e-3), "nor does it lose small ones"


def test_training_targets_are_shared_out_unless_the_guard_is_off(images):
    """With Sinkhorn's rounds no prototype is everybody's favourite; with the toggle off one is, in training as in the tab."""
    torch.manual_seed(0)
    task, plain = create("dino"), create("dino", sinkhorn=0)
    model = task.build().train()
    on, off = (task.example(images, generator(), centring=centring) for centring in (True, False))
    with torch.no_grad():
        prediction = task.predict(model, on)
        prediction["teacher"][:, :, 7] += 1
        targets = shared_out(prediction["teacher"] / TEACHER, 3)
        logs = (prediction["student"] / STUDENT).log_softmax(dim=2)
        cross = -torch.einsum("btk,bsk->bts", targets, logs)
        others = ~torch.eye(2, 4, dtype=torch.bool)
        assert task.loss(on, prediction)[0].item() == pytest.approx(cross[:, others].mean().item(), rel=1e-5)
        assert task.loss(off, prediction)[0].item() == plain.loss(off, prediction)[0].item()
        assert task.loss(on, prediction)[0].item() != pytest.approx(plain.loss(on, prediction)[0].item(), rel=1e-3)


# What follows a step


def test_teacher_begins_as_the_student_and_follows_it(images):
    task = create("dino", momentum=0.9)
    torch.manual_seed(0)
    model = task.build()
    pairs = list(zip(model.teacher.parameters(), model.student.parameters(), strict=True))
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    example = task.training_example(images, generator())
    prediction = task.predict(model, example)
    with torch.no_grad():
        for _, theirs in pairs:
            theirs.add_(1)
        before = [mine.clone() for mine, _ in pairs]
        task.after_step(model, example, prediction, 0.0)
        assert all(torch.allclose(mine, old + 0.1, atol=1e-5) for (mine, _), old in zip(pairs, before))
        before = [mine.clone() for mine, _ in pairs]
        task.after_step(model, example, prediction, 1.0)
    assert all(torch.equal(mine, old) for (mine, _), old in zip(pairs, before)), "at the end it stands still"


def test_centre_runs_after_the_teachers_mean(task, images):
    torch.manual_seed(0)
    model = task.build()
    example = task.training_example(images, generator())
    with torch.no_grad():
        prediction = task.predict(model, example)
        for _ in range(80):
            task.after_step(model, example, prediction, 0.5)
    assert torch.allclose(model.centre, prediction["teacher"].mean(dim=(0, 1)), atol=1e-3)
    assert prediction["teacher"].shape == (8, 2, 1024) and "teacher" in task.gathered


# Collapse


def answers(kind):
    """Sixteen photos' answers: each its own prototype, one for all, or each prototype alike."""
    cosines = torch.zeros(16, 2, 1024)
    if kind == "own":
        cosines[torch.arange(16), :, torch.arange(16)] = 1
    elif kind == "one":
        cosines[:, :, 7] = 1
    features = torch.eye(16)[:, None].expand(-1, 2, -1)
    return {"teacher": cosines, "student": cosines.repeat(1, 2, 1), "centre": torch.zeros(1, 1024), "features": features}


@pytest.mark.parametrize("kind, said", [("own", ""), ("one", "same few prototypes"), ("even", "each prototype the same share")])
def test_alarm_names_the_kind_of_collapse(task, photos, kind, said):
    example = task.example(next(centre(photos, 96, 16)), generator())
    _, numbers = task.loss(example, answers(kind))
    assert said in task.alarm(numbers) and bool(said) == bool(task.alarm(numbers))


def test_alarm_hears_features_that_are_all_alike(task, photos):
    example, prediction = task.example(next(centre(photos, 96, 16)), generator()), answers("own")
    _, numbers = task.loss(example, {**prediction, "features": torch.ones(16, 2, 8)})
    assert "features" in task.alarm(numbers)


def test_an_untrained_network_has_not_collapsed(task, photos):
    torch.manual_seed(0)
    model = task.build().train()
    example = task.training_example(next(centre(photos, 96, 16)), generator())
    with torch.no_grad():
        assert not task.alarm(task.loss(example, task.predict(model, example))[1])


def test_centring_undoes_a_favourite(task, images):
    """A prototype that all photos like keeps nothing once the centre is taken off, and everything without."""
    example = {centring: task.example(images, generator(), centring=centring) for centring in (True, False)}
    prediction = answers("own")
    for name in ("teacher", "student", "features"):
        prediction[name] = prediction[name][:8].clone()
    prediction["teacher"][:, :, 900] += 2
    prediction["centre"] = prediction["teacher"].mean(dim=(0, 1))[None]
    numbers = {centring: task.loss(example[centring], prediction)[1] for centring in example}
    assert numbers[False]["entropy_mean"] < 0.01 and numbers[True]["entropy_mean"] > math.log(8) - 0.01
    assert not task.alarm(numbers[True]) and "same few prototypes" in task.alarm(numbers[False])


# Metrics


def test_agreement_is_with_the_other_crop(task, photos):
    example = task.example(next(centre(photos, 96, 16)), generator())
    prediction = answers("own")
    metrics = task.metrics(example, prediction)
    assert (metrics["accuracy"] == 1).all() and (metrics["agreement_shuffled"] == 0).all()
    prediction["student"] = prediction["student"].clone()
    prediction["student"][0, 0] = 0
    prediction["student"][0, 0, 500] = 1  # one of its crops is answered otherwise, so the teacher's other crop is not met
    metrics = task.metrics(example, prediction)
    assert metrics["accuracy"].tolist() == [0.5] + [1.0] * 15
    assert (metrics["candidates"] == 1024).all()
    one = task.metrics(example, answers("one"))
    assert (one["accuracy"] == 1).all() and (one["agreement_shuffled"] == 1).all(), "collapse agrees with everybody"


def test_entropy():
    assert entropy(torch.tensor([1.0, 0, 0, 0])).item() == 0
    assert entropy(torch.full((4,), 0.25)).item() == pytest.approx(math.log(4))


def test_overlap_is_of_the_same_only():
    one = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.2, 0.8]])
    assert torch.allclose(overlap(one, one), torch.eye(2), atol=1e-6)
    assert overlap(one, torch.full((1, 4), 0.25)).flatten().tolist() == pytest.approx([0.5**0.5, 0.5 * (0.2**0.5 + 0.8**0.5)])


# The transformer


def test_positions_of_the_trained_grid_are_whole_and_finer_ones_lie_between():
    own, finer = sampled_positions(6, 6, 32), sampled_positions(12, 6, 32)
    assert own.shape == (36, 32) and finer.shape == (144, 32)
    quarter = finer.unflatten(0, (12, 12))
    assert torch.allclose(own[0, 8:16], torch.ones(8)) and (sincos_positions(6, 32)[0] - own[0]).abs().max() < 1e-6
    between = quarter[3, 3] @ own.T  # the place of patch (3, 3) of 12 lies in patch (1, 1) of 6
    assert between.argmax().item() == 6 + 1


def test_the_class_token_begins_as_the_patches_mean(model, images):
    encoder = model.teacher["encoder"]
    with torch.no_grad():
        tokens = encoder.embed(images)
    assert torch.allclose(tokens[:, 0], encoder.class_token + tokens[:, 1:].mean(dim=1), atol=1e-5)
    assert tokens[:, 0].std(dim=0).mean() > 0.01, "so it differs from photo to photo before attention has learned anything"


def test_the_head_takes_off_what_all_tokens_share():
    torch.manual_seed(0)
    head, tokens = Prototypes(16, 32, 8, 64).train(), torch.randn(32, 3, 16)
    assert torch.allclose(head(tokens), head(tokens + 10 * torch.randn(16)), atol=1e-3)


def test_attention_is_that_of_the_last_block(model, images):
    encoder = model.teacher["encoder"]
    with torch.no_grad():
        tokens, attention = encoder.attention(images[:2])
        last, seen = encoder.blocks[-1], encoder.embed(images[:2])
        for block in encoder.blocks[:-1]:
            seen = block(seen)
        query, key, _ = last.attn.qkv(last.norm1(seen)).unflatten(2, (3, 4, 44)).unbind(2)
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(44)
        assert torch.allclose(tokens, encoder(images[:2]), atol=1e-5)
    assert attention.shape == (2, 4, 36) and (attention.sum(dim=2) <= 1).all()
    assert torch.allclose(attention, scores.softmax(dim=3)[:, :, 0, 1:], atol=1e-5)


@pytest.mark.parametrize("size", [32, 64, 96, 192])
def test_any_size(model, size):
    with torch.no_grad():
        tokens = model.teacher["encoder"](torch.rand(1, 3, size, size))
    assert tokens.shape == (1, 1 + (size // 16) ** 2, 176)


def test_principal_components_colour_what_differs():
    """Two kinds of patches: left and right get two colours, and a patch's sign does not turn them round."""
    patches = torch.randn(16, 8, generator=generator()) * 0.01
    patches[torch.arange(16) % 4 < 2] += torch.tensor([5.0, 0, 0, 0, 0, 0, 0, 0])
    colors = principal_colors(patches, 64)
    assert colors.shape == (64, 64, 3) and colors.dtype == np.uint8
    red = colors[:, :, 0].astype(float)
    assert red[:, :32].mean() > 200 and red[:, 32:].mean() < 55
    assert (principal_colors(torch.ones(16, 8), 16) == 0).all(), "patches that are all one have no components"


# The tab


def test_numbers_agree_with_the_loss(photo):
    runner = inference.load("dino", "untrained")
    one, hot = runner.run(photo, seed=1), runner.run(photo, seed=1, teacher_temperature=0.2)
    assert hot.numbers["entropy_teacher"] > one.numbers["entropy_teacher"]
    assert one.numbers["entropy_student"] == hot.numbers["entropy_student"] and 0 <= one.numbers["agreement"] <= 1
    assert runner.run(photo, seed=1, student_temperature=0.3).numbers["entropy_student"] > one.numbers["entropy_student"]
    assert one.numbers["kl"] > 0 and 0 < one.numbers["most_used"] <= 1


def test_centring_is_shown(photo):
    torch.manual_seed(0)
    runner = inference.Runner(*load_weights("dino", "untrained"))  # its own, to be changed
    runner.model.centre += 0.3 * torch.randn(1024)
    on, off = (runner.run(photo, centring=centring) for centring in (True, False))
    assert on.numbers["entropy_teacher"] != off.numbers["entropy_teacher"]
    assert on.numbers["entropy_mean"] == off.numbers["entropy_mean"], "the comparison itself does not depend on the toggle"
    curves = next(panel.chart for panel in on.panels if panel.name == "collapse").lines
    assert [curve.label for curve in curves] == ["centred", "raw"] and curves[0].y != curves[1].y
    shown = [curve.y[0] for curve in curves]
    assert shown == pytest.approx([on.numbers["most_used"], on.numbers["most_used_raw"]])


def test_answers_and_pairs(photo):
    run = inference.load("dino").run(photo)
    panels = {panel.name: panel for panel in run.panels}
    teacher, student = panels["answers"].chart.lines
    assert list(teacher.y) == sorted(teacher.y, reverse=True) and len(student.y) == len(teacher.y) == 20
    matrix = panels["pairs"].matrix
    assert matrix.values.shape == (8, 8) and len(matrix.row_pictures) == len(matrix.column_pictures) == 8
    rights = matrix.values.argmax(axis=1) == np.arange(8)
    assert run.numbers["recognised"] == rights.mean() and 0 < rights.mean() <= 1, "the number counts what the panel shows"
    assert matrix.marked == tuple((n, n) for n in range(8)) and 0 <= matrix.values.min() <= matrix.values.max() <= 1


def test_attention_is_drawn_finer_than_it_was_trained(photo):
    panels = {panel.name: panel for panel in inference.load("dino", "untrained").run(photo).panels}
    assert panels["attention"].image.shape[0] > 2 * 192, "four heads, each at 192 pixels"
    assert len(np.unique(panels["components"].image.reshape(-1, 3), axis=0)) > 24 * 24 / 2


# Training


@pytest.mark.parametrize("config, said", [({"view": 20}, "“view”"), ({"local": 0}, "“local”"), ({"locals": 0}, "“locals”"),
                                          ({"momentum": 1.5}, "“momentum”"),
                                          ({"sinkhorn": -1}, "“sinkhorn”")])  # fmt: skip
def test_impossible_settings_are_refused(config, said):
    with pytest.raises(ValueError, match=said):
        create("dino", **config)


@pytest.fixture(scope="module")
def train_small(photos):
    def train_small(**config):
        task = create("dino", **SMALL, momentum=0.9, sinkhorn=0, **config)
        recipe = replace(task.recipe, batch=32, lr=1e-3, precision="float32")
        *_, last = train(task, photos, recipe, steps=300, every=0)
        return last

    return train_small


@pytest.mark.slow
def test_both_guards_are_needed(train_small):
    """Figure 7 of the paper: without centring one prototype takes everything, without sharpening all get the same."""
    guarded, free, blunt = train_small(), train_small(centring=False), train_small(teacher_temperature=0.3)
    told = [one.numbers["entropy_mean"] - one.numbers["entropy_each"] for one in (guarded, free, blunt)]  # of the photo
    assert not guarded.alarm and told[0] > 1 and guarded.numbers["feature_spread"] > 0.1
    assert told[1] < 0.5 * told[0] and free.numbers["entropy_mean"] < 1.2, "a few prototypes take everything"
    assert told[2] < 0.5 * told[0] and blunt.numbers["entropy_each"] > 0.85 * math.log(32), "all get nearly the same"


def test_kappa_is_what_is_agreed_beyond_shuffled_photos(task):
    told = task.aggregate({"accuracy": torch.tensor([1.0, 0.0]), "agreement_shuffled": torch.tensor([0.2, 0.0])})
    assert told["kappa"] == pytest.approx((0.5 - 0.1) / 0.9) and told["kappa_shuffled"] == 0
    same = torch.full((2,), 0.98)  # an untrained network says the same of all, and agrees
    assert task.aggregate({"accuracy": same, "agreement_shuffled": same})["kappa"] == pytest.approx(0)

"""What every task promises, whatever its paper. A new file in ``ssl_demo/tasks`` is held to all of it without an edit here."""

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from conftest import SMALL, generator
from PIL import Image

from ssl_demo import inference
from ssl_demo.checkpoints import UNTRAINED, load_weights
from ssl_demo.clips import ClipBatches, Clips, load_to_score
from ssl_demo.data import centre
from ssl_demo.pretext import FAMILIES, STAGES, Card, Control, all_tasks, create, parse_controls
from ssl_demo.training import evaluate, with_settings

PACKAGE = Path(inference.__file__).parent
PHOTO = Image.fromarray(skimage.data.astronaut())
CONTROLS = [
    pytest.param(name, control, id=f"{name}-{control.name}") for name, task in all_tasks().items() for control in task.controls
]


def refusal(function, *arguments, **named):
    """The one sentence of a ValueError."""
    with pytest.raises(ValueError) as caught:
        function(*arguments, **named)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence, sentence
    return sentence


def short(name):
    """Controls that keep a clip short, where a task takes clips: few frames show as much as many."""
    return {"frames": 4} if all_tasks()[name].card.input == "video" else {}


@functools.cache
def untrained(name):
    """A task with an untrained network, kept: other tests empty the app's cache."""
    return inference.Runner(*load_weights(name, UNTRAINED))


@functools.cache
def first_run(name):
    """That of a photo, with all controls as at first."""
    return untrained(name).run(PHOTO, seed=0, **short(name))


def clone(example):
    return {name: value.clone() for name, value in example.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(params=all_tasks(), scope="module")
def task(request):
    return create(request.param)


@pytest.fixture(scope="module")
def name(task):
    return task.card.name


def eight(task, photos):
    """Eight photos, or clips, as the task takes them."""
    if task.card.input == "video":
        return ClipBatches(Clips.moving(photos), 8, task.size)(0)
    return next(centre(photos, task.size, 8))


@pytest.fixture(scope="module")
def images(task, photos):
    return eight(task, photos)


@pytest.fixture(scope="module")
def scored(task, photos, clip_folder):
    """Six photos, or clips with masks, to measure on."""
    return load_to_score([clip_folder], limit=6) if task.card.input == "video" else photos.take(range(6))


@pytest.fixture(scope="module")
def model(task):
    torch.manual_seed(0)
    return task.build()


@pytest.fixture(scope="module")
def step(task, model, images):
    """One training step's example, prediction and loss, with the gradients left in the model."""
    example = task.training_example(images, generator())
    if task.card.input == "video":  # something in the middle that is to be followed
        example["masks"] = torch.zeros(*images.shape[:2], *images.shape[3:], dtype=torch.long)
        example["masks"][:, :, 40:90, 40:90] = 1
    model.train()
    model.zero_grad()
    prediction = task.predict(model, example)
    loss, numbers = task.loss(example, prediction)
    loss.backward()
    model.eval()
    return example, prediction, loss.detach(), numbers


# Card and file


def test_card(task):
    card = task.card
    assert isinstance(card, Card)
    for field in dataclasses.fields(card):
        value = getattr(card, field.name)
        assert value not in ("", None) or field.name in ("watch", "unit", "untrained_note", "paper_score"), field.name
        assert not isinstance(value, str) or value == value.strip(), field.name
    assert card.name.isidentifier() and card.name == card.name.lower()
    assert card.family in FAMILIES and 1990 <= card.year <= 2030 and card.link.startswith("https://")
    assert card.input in ("image", "video")
    assert card.idea.endswith(".") and "\n" not in card.idea and ". " not in card.idea, "the idea is one sentence"
    assert len(card.shortcut) > 40
    assert isinstance(card.chance, str) or math.isfinite(card.chance)


def test_chance_is_a_level_or_a_metric(task, step):
    example, prediction, *_ = step
    chance, metrics = task.card.chance, task.metrics(example, prediction)
    assert metrics[chance].isfinite().all() if isinstance(chance, str) else not task.card.percent or 0 < chance < 1


def test_figures_that_are_shown_are_measured(task, model, images):
    if task.card.input == "video":
        pytest.skip("what clips are scored on needs masks: test_video_color.py")
    example = task.evaluation_example(images, generator())
    with torch.no_grad():
        measured = task.aggregate(task.metrics(example, task.predict(model, example)))
    shown = {task.card.metric, *(metric for metric, _ in task.card.baselines), *task.card.also[:2]}
    assert shown <= measured.keys()


def test_file_reads_as_a_lesson(task):
    path = Path(inspect.getfile(type(task)))
    source = path.read_text()
    paragraphs = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")
    assert len(paragraphs) > 3, "title, idea, what could cheat, where we differ"
    assert all("." in paragraph for paragraph in paragraphs[1:]), "a paragraph opens with its heading and a full stop"
    assert 120 <= len(source.splitlines()) <= 250, f"{path.name} has {len(source.splitlines())} lines"


def test_members_stand_in_the_papers_order(task):
    order = [member for member in vars(type(task)) if member in vars(type(task).__mro__[1])]
    expected = ["card", "controls", "defaults", "recipe", "input_size", "__init__", "build", "prepare", "example",
                "training_example", "evaluation_example", "predict", "loss", "metrics", "aggregate", "render", "numbers", "click",
                "paint", "features"]  # fmt: skip
    order = [member for member in order if member in expected]
    assert order == sorted(order, key=expected.index)


def test_nothing_outside_the_tasks_knows_one_by_name():
    """No ``if task.name == "mae"`` anywhere: no string that is a task's name, in fact."""
    files = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "tasks"] + [PACKAGE.parent / "app.py"]
    found = [
        f"{path.name}:{node.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in all_tasks()
    ]
    assert len(files) > 10 and not found


# Controls


@pytest.mark.parametrize("name, control", CONTROLS)
def test_control_describes_itself(name, control):
    assert control.name.isidentifier() and control.label and control.help.endswith(".")
    assert control.kind in ("slider", "choice", "toggle", "patches", "order", "point", "brush")
    assert control.kind != "choice" or len(set(control.choices)) == len(control.choices) >= 2
    assert control.kind != "slider" or control.minimum < control.maximum


@pytest.mark.parametrize("name, control", CONTROLS)
def test_default_parses_to_itself(name, control):
    assert control.parse(control.default) == control.default
    assert control.parse(str(control.default)) == control.default
    assert json.loads(json.dumps(control.default)) == control.default


WRONG = {
    "slider": lambda c: [c.minimum - 1, c.maximum + 1, "many", None, "nan", float("inf"), [], {}],
    "choice": lambda c: ["", "none of these", None, 12345, []],
    "toggle": lambda c: ["", "perhaps", None, 2, []],
    "patches": lambda c: ["-1", "1.5", "a", "0x1", "1234567", {"a": 1}],
    "order": lambda c: ["-1", "1.5", "a", "0x1", "1234567", {"a": 1}],
    "point": lambda c: ["50", "1 2 3", "-1 5", "5 101", "a b", "nan 1"],
    "brush": lambda c: ["50", "5 10", "5 10 20 30", "0 5 5", "60 5 5", "5 5 999", "a b c", "5 nan 1", {"a": 1}],
}


@pytest.mark.parametrize("name, control", CONTROLS)
def test_wrong_values_are_refused(name, control):
    for value in WRONG[control.kind](control):
        assert f"“{control.name}”" in refusal(control.parse, value)


@pytest.mark.parametrize("name, control", CONTROLS)
def test_every_extreme_runs(name, control):
    """The ends of a slider, each choice: finite numbers that JSON can hold, and panels."""
    values = {
        "slider": [control.minimum, control.maximum],
        "choice": control.choices,
        "toggle": [True, False],
        "patches": ["", "0 5"],
        "order": [""],
        "point": ["", "0 0", "50 33.3", "100 100"],
        "brush": ["", "5 50 50", "4 10 20 30 40; 8 70 70 80 70", "50 50 50"],
    }
    for value in values[control.kind]:
        setting = {**short(name), control.name: value}
        is_first = control.parse(value) == {control.name: control.default, **short(name)}[control.name]
        result = first_run(name) if is_first else untrained(name).run(PHOTO, **setting)
        assert result.controls[control.name] == control.parse(value) and result.panels
        json.dumps(result.numbers, allow_nan=False)


def test_patches_are_sorted_and_single():
    control = Control("patches", "", "patches", "", "")
    assert control.parse(" 17, 5 0 5 ") == "0 5 17" and control.parse(None) == ""


def test_unknown_names_are_refused(task, name):
    assert "“zoom”" in refusal(parse_controls, task, {"zoom": 1})
    assert "“zoom”" in refusal(create, name, zoom=1)
    assert "“nothing”" in refusal(create, "nothing")


@pytest.mark.parametrize("name, knob, taught", [("simclr", "temperature", 0.5), ("dino", "centring", False)])
def test_a_network_that_learned_with_another_setting_is_asked_with_it(name, knob, taught):
    assert parse_controls(create(name, **{knob: taught}), {})[knob] == taught != parse_controls(all_tasks()[name], {})[knob]
    given = all_tasks()[name].controls[[control.name for control in all_tasks()[name].controls].index(knob)].default
    assert parse_controls(create(name, **{knob: taught}), {knob: given})[knob] == given


def test_input_size_of_the_defaults_is_that_of_training(task):
    assert task.input_size(**parse_controls(task, {})) == task.input_size() == task.size == task.config["size"]


# Signal


def test_example_is_a_function_of_its_seed(task, images):
    controls, before = parse_controls(task, {}), images.clone()
    one, other = (task.example(images, generator(3), **controls) for _ in range(2))
    assert {"inputs", "targets"} <= one.keys() and same(one, other)
    assert torch.equal(images, before), "the images were changed"
    assert not any(value.requires_grad for value in one.values())


def test_example_takes_no_chance_but_the_generators(task, images):
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    task.training_example(images, generator())
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


def test_defaults_give_the_signal_of_training(task, images):
    """A control's default is the setting of training: leaving the controls out changes nothing, and the input looks alike."""
    given = task.example(images, generator(5), **parse_controls(task, {}))
    assert same(given, task.example(images, generator(5)))
    trained = task.training_example(images, generator(5))
    assert given["inputs"].shape[1:] == trained["inputs"].shape[1:] and given["inputs"].dtype == trained["inputs"].dtype


def test_config_is_plain(task):
    assert json.loads(json.dumps(task.config)) == task.config


# Network


def test_build_is_seeded_and_touches_no_file(task, monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("build() may not read or write")

    def build():
        torch.manual_seed(1)
        return task.build().state_dict()

    build()  # imports what is imported lazily
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    monkeypatch.setattr("os.open", refuse)
    monkeypatch.setattr("socket.socket", refuse)
    one, other = build(), build()
    assert same(one, other) and len(one) > 4


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_any_batch_size(task, model, images, batch):
    example = task.training_example(images[:batch], generator())
    model.train()
    loss, _ = task.loss(example, task.predict(model, example))
    model.eval()
    with torch.no_grad():
        metrics = task.metrics(example, task.predict(model, example))
    assert loss.isfinite() and all(values.isfinite().all() for values in metrics.values())


def test_prediction_does_not_depend_on_the_batch(task, model, images):
    """In evaluation mode, each photo is answered as if it were alone."""
    example = task.example(images, generator())
    with torch.no_grad():
        whole = task.predict(model.eval(), example)
        first = task.predict(model, {key: value[:1] for key, value in example.items()})
    for key in (key for key in first if first[key].ndim):
        scale = max(1, whole[key].abs().max().item())  # colours are up to a hundred
        assert torch.allclose(first[key], whole[key][:1], atol=5e-4 * scale), key


def test_prediction_is_finite_and_changes_no_example(task, model, images):
    example = task.training_example(images, generator())
    before = clone(example)
    with torch.no_grad():
        prediction = task.predict(model.eval(), example)
        task.loss(example, prediction)
        task.metrics(example, prediction)
    assert prediction and all(value.isfinite().all() for value in prediction.values())
    assert same(example, before)


def test_loss_is_a_finite_scalar(step):
    *_, loss, numbers = step
    assert loss.ndim == 0 and loss.isfinite() and loss > 0
    json.dumps(numbers, allow_nan=False)
    assert all(isinstance(value, (int, float)) for value in numbers.values())


@pytest.mark.usefixtures("step")
def test_every_parameter_gets_a_gradient(model):
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for name, p in trained:
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
    assert len(trained) > 4


def test_loss_begins_near_chance(task, step):
    """A fresh classifier knows nothing, so its cross-entropy is that of guessing."""
    if task.card.metric != "accuracy" or isinstance(task.card.chance, str):
        pytest.skip(f"{task.card.name} is no classifier with a known chance")
    assert step[2].item() == pytest.approx(math.log(1 / task.card.chance), rel=0.15)


def test_thirty_steps_learn_a_batch(task, name, photos):
    """A small network of its kind, where conftest.py has one for the task."""
    task, _ = with_settings(type(task), dict(setting.split("=") for setting in SMALL.get(name, [])))
    torch.manual_seed(0)
    model = task.build().train()
    example = task.training_example(eight(task, photos)[:2], generator())
    lr = 4 * task.recipe.lr if name in SMALL else task.recipe.lr  # small networks bear, and need, more
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, task.recipe.beta2), weight_decay=0)
    losses = []
    for number in range(31):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (number + 1) / 5)
        loss, _ = task.loss(example, task.predict(model, example))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), task.recipe.clip)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad.count_nonzero() == 0]
    assert not idle, "parameters that no gradient ever moves"


# What is measured and drawn


def test_metrics_are_per_example(task, step):
    example, prediction, *_ = step
    metrics = task.metrics(example, prediction)
    count = len(example["targets"])
    assert task.card.metric in metrics
    assert all(values.shape == (count,) and not values.is_complex() for values in metrics.values())
    totals = task.aggregate(metrics)
    assert metrics.keys() <= totals.keys()
    assert all(isinstance(value, str) and value or math.isfinite(value) for value in totals.values())


def test_evaluation_is_repeatable_and_independent_of_its_batches(task, model, scored):
    one = evaluate(task, model.eval(), scored, seed=1, batch=6)
    assert one == evaluate(task, model, scored, seed=1, batch=6)
    assert one.keys() == evaluate(task, model, scored, seed=1, batch=4).keys() and task.card.metric in one


@pytest.fixture(scope="module")
def result(name):
    return first_run(name)


@pytest.mark.parametrize("compares, shuffled", [("simclr", True), ("rotation", False)])
def test_photos_that_are_compared_are_not_taken_in_the_order_of_their_names(compares, shuffled, photos, monkeypatch):
    """Sets lie sorted by class: the other photos of a batch would be of one's own class, and how many a matter of names."""
    small, _ = with_settings(all_tasks()[compares], dict(setting.split("=") for setting in SMALL[compares]))
    batches = []
    for hook, answer in (("evaluation_example", lambda images, rng: batches.append(images) or {}), ("aggregate", dict),
                         ("predict", lambda model, example: {}), ("metrics", lambda example, prediction: {})):  # fmt: skip
        monkeypatch.setattr(small, hook, answer)
    evaluate(small, torch.nn.Linear(1, 1), photos, batch=8)
    seen, ordered = torch.cat(batches), torch.cat(list(centre(photos, small.size, 8)))
    assert len(seen) == len(ordered) == 32 and torch.equal(seen, ordered) != shuffled
    assert torch.allclose(seen.sum(0), ordered.sum(0), atol=1e-3), "each of them once"


def test_panels(result):
    panels = result.panels
    assert len({panel.name for panel in panels}) == len({panel.title for panel in panels}) == len(panels)
    assert {panel.stage for panel in panels} == set(STAGES), "every step of the tab shows something"
    assert [STAGES.index(panel.stage) for panel in panels] == sorted(STAGES.index(panel.stage) for panel in panels)
    for panel in panels:
        assert panel.name.isidentifier() and panel.title and panel.caption.endswith("."), panel.name
        if panel.image is not None:
            assert panel.image.dtype == np.uint8 and panel.image.ndim == 3 and panel.image.shape[2] == 3 and panel.image.size
        elif panel.video is not None:
            assert panel.video.dtype == np.uint8 and len(panel.video) > 1 and panel.video.std() > 1 and panel.fps > 0
        elif panel.matrix is not None:
            assert panel.matrix.values.ndim == 2 and panel.matrix.values.size and panel.matrix.low < panel.matrix.high
        elif panel.chart is not None:
            assert all(len(line.y) == len(panel.chart.x) and line.label for line in panel.chart.lines)
        else:
            assert all(0 <= bar.value <= 1 and math.isfinite(bar.value) and bar.label for bar in panel.bars)
            assert sum(bar.true for bar in panel.bars) >= 1


def test_pictures_show_something(result):
    """No panel is one flat colour."""
    assert all(panel.image.std() > 1 for panel in result.panels if panel.image is not None)


def test_numbers_are_plain(result):
    assert result.numbers and json.loads(json.dumps(result.numbers, allow_nan=False)) == result.numbers
    for key, figure in result.figures.items():
        assert key.isidentifier() and figure.label
    assert any(figure.text for figure in result.figures.values()), "a person gets to read some"


def pixels(result):
    """All that a result shows, in a form that can be compared."""
    arrays = [(p.image, p.video, p.matrix and p.matrix.values) for p in result.panels]
    drawn = [next((held.tobytes() for held in held_in if held is not None), p.bars or p.chart)
             for held_in, p in zip(arrays, result.panels)]
    return [(p.name, p.title, p.caption, p.stage, shown) for p, shown in zip(result.panels, drawn)]


def test_same_photo_seed_and_controls_give_the_same_pixels(name, result):
    assert pixels(untrained(name).run(PHOTO, seed=0, **short(name))) == pixels(result)
    torch.manual_seed(99)
    again = inference.Runner(*load_weights(name, UNTRAINED)).run(PHOTO, seed="0", **short(name))
    assert pixels(again) == pixels(result), "a second process would differ"


def test_another_seed_is_another_chance(name):
    """By default, or where the default leaves nothing to chance (a hole in the middle), under another choice."""
    settings = [{}] + [{c.name: choice} for c in all_tasks()[name].controls if c.kind == "choice" for choice in c.choices]

    def outcomes(setting):
        return (str(pixels(untrained(name).run(PHOTO, seed=seed, **short(name), **setting))) for seed in range(5))

    assert any(one != other for setting in settings for one, other in itertools.pairwise(outcomes(setting)))


def test_a_file_is_the_same_as_its_picture(task, name, photo, clip, result, tmp_path):
    runner, file = untrained(name), tmp_path / "photo.png"
    if task.card.input == "video":  # the photo under a moving camera, frame by frame
        file = tmp_path
        for number, frame in enumerate(clip.frames):
            Image.fromarray(frame).save(tmp_path / f"{number:05d}.png")
        assert pixels(runner.run(clip, **short(name))) == pixels(result)
    else:
        photo.save(file)
    again = (runner.run(path, **short(name)) for path in (file, str(file)))
    assert all(pixels(one) == pixels(result) for one in again)


@pytest.mark.parametrize("size, mode", [((1, 1), "L"), ((7, 300), "RGBA"), ((301, 200), "RGB")])  # two things, one run for both
def test_any_picture(name, photo, size, mode):
    result = untrained(name).run(photo.resize(size).convert(mode), **short(name))
    json.dumps(result.numbers, allow_nan=False)
    assert result.panels


@pytest.mark.parametrize("seed", [-1, 2**31, "three", 1.5, [], True])
def test_wrong_seeds_are_refused(name, photo, seed):
    assert "seed" in refusal(untrained(name).run, photo, seed=seed)


def test_wrong_control_is_refused_by_a_run(name, photo):
    assert "“zoom”" in refusal(untrained(name).run, photo, zoom=2)


def test_a_click_sets_controls_that_run(name, photo, task, result):
    """What `click` returns for any place of a clickable panel are values of the task's own controls."""
    runner, places = untrained(name), (0.0, 0.5, 1.0)
    for panel in (panel for panel in result.panels if panel.click):
        for x, y in ((x, y) for x in places for y in places):
            changes = runner.click(photo, 0, result.controls, panel.name, x, y)
            assert changes and parse_controls(task, changes)
        changes = {**short(name), **changes}
        assert runner.run(photo, **changes).controls == parse_controls(task, changes)


# What is kept


def test_features(task, model, images):
    with torch.no_grad():
        single = images[:, 0] if task.card.input == "video" else images  # what is kept sees one picture at a time
        vectors, grid = task.features(model.eval(), single[:3])
        alone, _ = task.features(model, single[:1])
    assert vectors.ndim == 2 and len(vectors) == 3 and vectors.isfinite().all()
    assert vectors.shape[1] >= 32 and vectors.std(dim=0).max() > 0, "all photos have the same features"
    assert torch.allclose(alone, vectors[:1], atol=1e-4)
    if grid is not None:
        assert grid.ndim == 4 and grid.shape[:2] == vectors.shape and grid.isfinite().all() and min(grid.shape[2:]) > 1

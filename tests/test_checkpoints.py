"""Weights are loaded to the last tensor or not at all, and a card says what they are."""

import copy
import functools
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ssl_demo import checkpoints, inference
from ssl_demo.checkpoints import bundled, find, load_weights, read_card, save_weights, sha256
from ssl_demo.clips import ClipBatches, Clips
from ssl_demo.data import centre
from ssl_demo.pretext import all_tasks, create

WEIGHTS = Path(checkpoints.__file__).parents[1] / "weights"
BUNDLED = sorted(WEIGHTS.glob("*.safetensors")) or [pytest.param(None, marks=pytest.mark.skip("no weights are bundled yet"))]


@pytest.fixture(params=all_tasks())
def name(request):
    return request.param


@functools.cache
def built(name):
    """A network that is not to be changed."""
    torch.manual_seed(3)
    return create(name).build().eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """saved(name): that network's weights and card as they were saved once. Not to be changed."""
    folder = tmp_path_factory.mktemp("saved")

    def saved(name):
        path = folder / f"{name}-test.safetensors"
        if not path.exists():
            save_weights(path, create(name), built(name), {"heldout": {"score": 0.5}})
            assert not list(folder.glob(".*")), "temporary files are gone"
        return path

    return saved


@pytest.fixture
def model(name):
    return copy.deepcopy(built(name))


@pytest.fixture
def path(name, saved, no_weights):
    """Weights in the folder where bundled ones lie."""
    for kind in (".safetensors", ".json"):
        shutil.copy(saved(name).with_suffix(kind), no_weights)
    return no_weights / saved(name).name


def refusal(function, *arguments):
    with pytest.raises(ValueError) as caught:
        function(*arguments)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def rewrite(path, change=lambda tensors, header: None):
    """The same file with other content, its card made to match."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    change(tensors, header)
    save_file(tensors, path, metadata=header)
    card = read_card(path)
    path.with_suffix(".json").write_text(json.dumps({**card, "sha256": sha256(path)}))


# There and back


def test_predictions_survive_float16(name, model, path, photos):
    task, loaded = load_weights(name, path)
    assert not loaded.training and all(value.dtype != torch.float16 for value in loaded.state_dict().values())
    is_video = task.card.input == "video"
    images = ClipBatches(Clips.moving(photos), 2, task.size)(0) if is_video else next(centre(photos, task.size, 2))
    example = task.training_example(images, torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = task.predict(model, example), task.predict(loaded, example)
    for key in before:
        spread = before[key].float().std().item() or 1
        assert (before[key] - after[key]).abs().max().item() < 0.03 * spread, key


def test_file_is_half_precision_and_the_card_describes_it(name, model, path):
    card, tensors = read_card(path), load_file(path)
    assert all(value.dtype == torch.float16 for value in tensors.values() if value.is_floating_point())
    assert tensors.keys() == model.state_dict().keys()
    assert card["file"] == path.name and card["sha256"] == sha256(path) and card["bytes"] == path.stat().st_size
    assert card["params"] == sum(p.numel() for p in model.parameters()) and card["task"] == name
    assert card["config"] == create(name).config and card["heldout"] == {"score": 0.5}


def test_configuration_comes_back(no_weights):
    task = create("rotation", size=64, width=16, depths=[1, 1])
    save_weights(no_weights / "rotation-other.safetensors", task, task.build(), {})
    loaded, model = load_weights("rotation")
    assert loaded.config == task.config and model.encoder.width == 32


def test_channels_last_networks_can_be_saved(name, model, no_weights):
    model = model.to(memory_format=torch.channels_last)
    save_weights(no_weights / f"{name}-a.safetensors", create(name), model, {})
    _, loaded = load_weights(name, f"{name}-a")
    assert all(torch.allclose(value, model.state_dict()[key], atol=1e-3, rtol=1e-3) for key, value in loaded.state_dict().items())


def test_other_endings_are_refused(name, model, tmp_path):
    assert "model.pt" in refusal(save_weights, tmp_path / "model.pt", create(name), model, {})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_what_was(tmp_path):
    path = tmp_path / "kept"
    path.write_text("before")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        checkpoints.write_atomically(path, fail)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


# Refused


def test_missing_and_extra_tensors(name, path):
    rewrite(path)
    load_weights(name, path)  # rewritten but unchanged, it loads
    last = list(load_file(path))[-1]
    whole = path.read_bytes(), path.with_suffix(".json").read_bytes()
    changes = {
        "missing": lambda tensors, header: tensors.pop(last),
        "extra": lambda tensors, header: tensors.update(more=torch.zeros(1)),
        "renamed": lambda tensors, header: tensors.update(more=tensors.pop(last)),
        "shape": lambda tensors, header: tensors.update({last: torch.zeros(3, 1, 4)}),
        "config": lambda tensors, header: header.update(
            config=json.dumps({"size": 32, "patch": 4} if name == "mae" else {"width": 8})
        ),
    }
    for change in changes.values():
        path.write_bytes(whole[0])
        path.with_suffix(".json").write_bytes(whole[1])
        rewrite(path, change)
        assert "does not fit" in refusal(load_weights, name, path)


def test_weights_of_another_task(name, path):
    for other in all_tasks():
        if other != name:
            assert f"of {name}, not of {other}" in refusal(load_weights, other, path)
    rewrite(path, lambda tensors, header: header.pop("task"))
    assert "something else" in refusal(load_weights, name, path)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_truncated_file(name, path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "not a whole safetensors file" in refusal(load_weights, name, path)


def test_a_file_that_its_card_does_not_describe(name, path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "checksums differ" in refusal(load_weights, name, path)


@pytest.mark.parametrize("config, said", [
    ("[]", "does not say how"), ("[" * 200_000, "does not say how"), ('{"width": "x"}', "whose “width” cannot be"),
    ('{"width": -3}', "No network can be built"), ('{"width": 1000000}', "whose “width” cannot be"),
    ('{"width": 40000}', "does not fit"), ('{"walls": 3}', "no setting “walls”"),
])  # fmt: skip
def test_a_configuration_that_makes_no_network(saved, tmp_path, config, said):
    path = Path(shutil.copy(saved("rotation"), tmp_path))
    rewrite(path, lambda tensors, header: header.update(config=config))
    assert said in refusal(load_weights, "rotation", path)


def test_numbers_that_no_network_has(saved, tmp_path):
    path = Path(shutil.copy(saved("rotation"), tmp_path))
    rewrite(path, lambda tensors, header: tensors.update({"head.bias": torch.full((4,), 1e300, dtype=torch.float64)}))
    assert "of a kind (float64)" in refusal(load_weights, "rotation", path)
    rewrite(path, lambda tensors, header: tensors.update({"head.bias": torch.full((4,), torch.inf)}))
    assert "numbers that are none" in refusal(load_weights, "rotation", path)


@pytest.mark.parametrize("text", ["[1]", "nothing", "[" * 200_000])
def test_what_lies_beside_weights_and_is_no_card(saved, tmp_path, text):
    path = Path(shutil.copy(saved("rotation"), tmp_path))
    path.with_suffix(".json").write_text(text)
    assert "rotation-test.json, which lies beside the weights, is not their card" in refusal(load_weights, "rotation", path)


def test_a_seed_may_be_large(tmp_path):
    task = create("jigsaw", size=48, tile=16, width=8, depths=[1, 1], permutations=2, permutation_seed=123_456)
    save_weights(tmp_path / "a.safetensors", task, task.build(), {})
    assert load_weights(*checkpoints.accept(tmp_path / "a.safetensors"))[0].config == task.config


def test_weights_that_went_astray_are_not_kept(tmp_path):
    task = create("rotation", size=32, width=8, depths=[1])
    model = task.build()
    torch.nn.init.constant_(model.head.bias, 1e6)
    assert "lower learning rate" in refusal(save_weights, tmp_path / "a.safetensors", task, model, {})
    assert not list(tmp_path.iterdir())


def test_where_a_missing_file_lies_is_not_told(tmp_path):
    for function in (functools.partial(load_weights, "rotation"), checkpoints.task_of, checkpoints.accept):
        assert refusal(function, tmp_path / "gone.safetensors") == "There is no file gone.safetensors."
        assert refusal(function, "runs/gone.safetensors") == "There is no file runs/gone.safetensors."  # as it was typed


def test_names_that_are_not_there(name, path, tmp_path):
    assert f"{name}-huge" in refusal(find, name, f"{name}-huge")
    assert "untrained" in refusal(find, name, "best")
    assert "There is no file" in refusal(find, name, tmp_path / "gone.safetensors")
    for weights in (None, "untrained", str(path)):
        assert "There is no task “nothing”" in refusal(load_weights, "nothing", weights)


# Never in silence


def test_without_weights_nothing_falls_back_to_random_ones(name, no_weights):
    assert bundled(name) == {}
    assert "There are no weights" in refusal(load_weights, name)
    assert "There are no weights" in refusal(inference.load, name)


def test_untrained_is_asked_for_by_name_and_seeded(name, no_weights):
    networks = {seed: load_weights(name, "untrained", seed=seed)[1].state_dict() for seed in (0, 1)}
    torch.manual_seed(77)
    again = load_weights(name, "untrained")[1]
    assert not again.training
    assert all(torch.equal(value, networks[0][key]) for key, value in again.state_dict().items())
    assert any(not torch.equal(networks[1][key], networks[0][key]) for key in networks[0])


def test_untrained_is_the_network_of_the_best_weights(no_weights):
    """The contrast is fair: same size, same shape, only nothing learned."""
    task = create("rotation", width=16)
    save_weights(no_weights / "rotation-a.safetensors", task, task.build(), {"heldout": {"score": 0.9}})
    assert load_weights("rotation", "untrained")[0].config["width"] == 16
    (no_weights / "rotation-a.json").unlink()
    assert load_weights("rotation", "untrained")[0].config == create("rotation").config


def test_the_best_weights_come_first(name, no_weights, model):
    scores, higher = {"a": 0.2, "b": 0.4, "c": None}, all_tasks()[name].card.higher_is_better
    for letter, score in scores.items():
        card = {} if score is None else {"heldout": {"score": score}}
        save_weights(no_weights / f"{name}-{letter}.safetensors", create(name), model, card)
    assert list(bundled(name)) == [f"{name}-{letter}" for letter in ("bac" if higher else "abc")]
    assert find(name, None).stem == f"{name}-{'b' if higher else 'a'}"


# What ships


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem if path else "none")
class TestBundled:
    def test_card(self, path):
        card, task = read_card(path), path.stem.split("-")[0]
        assert card["file"] == path.name and card["task"] == task and task in all_tasks()
        assert card["sha256"] == sha256(path) and card["bytes"] == path.stat().st_size < 9_000_000
        assert card["config"].keys() <= all_tasks()[task].defaults.keys()  # what is younger than the weights has its default
        assert card["steps"] > 0 and card["images_seen"] > 0 and card["minutes"] > 0 and isinstance(card["seed"], int)
        assert card["data"] and card["machine"] and card["command"].startswith("python -m ssl_demo train ")
        assert not [text for text in (card["command"], str(card["data"])) if "/root" in text or "/home" in text]

    def test_score_beats_chance_and_untrained(self, path):
        card = read_card(path)
        heldout, higher = card["heldout"], all_tasks()[card["task"]].card.higher_is_better
        assert heldout["images"] > 0 and heldout["command"].startswith("python -m ssl_demo evaluate ")
        assert all(math.isfinite(heldout[key]) for key in ("score", "chance", "untrained"))
        task = all_tasks()[card["task"]].card
        if not task.untrained_note:  # who always says the same always agrees
            assert heldout["score"] > heldout["untrained"] if higher else heldout["score"] < heldout["untrained"]
        score, chance = heldout["score"], heldout["chance"]
        if task.also:  # all grey is hard to beat where every pixel counts alike; where rare colours count more it is not
            score, chance = (heldout["metrics"][name] for name in task.also[:2])
        assert score > chance if higher else score < chance

    def test_loads(self, path):
        task, model = load_weights(path.stem.split("-")[0], path.stem)
        assert sum(p.numel() for p in model.parameters()) == read_card(path)["params"]
        assert all(value.isfinite().all() for value in model.state_dict().values())


def test_no_card_without_weights():
    """And nothing else lies in the folder, which ships whole."""
    names = {path.name for path in WEIGHTS.glob("*")} if WEIGHTS.is_dir() else set()
    weights = {name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")}
    cards = {name.removesuffix(".json") for name in names if name.endswith(".json")}
    others = {"__init__.py", "README.md", ".gitkeep", "__pycache__", "features", "learned"}
    assert weights == cards and len(names - others) == 2 * len(weights)


def test_an_untrained_network_is_the_same_while_others_are_built_beside_it():
    from concurrent.futures import ThreadPoolExecutor

    names = [*all_tasks()][:3] * 4
    alone = {name: load_weights(name, checkpoints.UNTRAINED)[1].state_dict() for name in names}
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(lambda name: load_weights(name, checkpoints.UNTRAINED)[1].state_dict(), names))
    for name, state in zip(names, beside, strict=True):
        assert all(torch.equal(value, alone[name][key]) for key, value in state.items())

"""Features that ship without their photos: of the weights that ship, as the page computes a visitor's, and small."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from safetensors import safe_open

from ssl_demo import checkpoints, probes, shipped_features
from ssl_demo.embedding import bundled_encoders
from ssl_demo.labelled import Labelled, drawn
from ssl_demo.shipped_features import Shipped

sys.path.insert(0, str(ROOT / "benchmarks"))
KEPT = shipped_features.kept()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder for features; weights stay where they are."""
    monkeypatch.setattr(shipped_features, "folder", lambda: tmp_path / "features")
    shipped_features.load.cache_clear()
    yield tmp_path / "features"
    shipped_features.load.cache_clear()


def synthetic(encoder="pixels", n=6, classes=3, width=8, **about):
    random = np.random.default_rng(0)
    labels = np.arange(classes).repeat(n)
    part = torch.from_numpy(random.normal(size=(classes * n, width))).float()
    places = random.uniform(-1, 1, (2 * classes * n, 2))
    return Shipped(encoder, tuple("abc"[:classes]), part, labels, part + 1, labels, places, about)


def test_features_are_of_the_weights_that_ship():
    assert shipped_features.missing() == [], "weights were replaced: run benchmarks/transfer_features.py"
    assert set(bundled_encoders()) <= set(KEPT) and "pixels" in KEPT and shipped_features.available() == KEPT
    untrained = [name for name in KEPT if name.endswith(f":{checkpoints.UNTRAINED}")]
    kinds = {any("attn" in key for key in checkpoints.load_weights(name.partition(":")[0], checkpoints.UNTRAINED)[1].state_dict())
             for name in untrained}  # fmt: skip
    assert kinds == {True, False}, "an untrained transformer and an untrained convolutional network"


def test_all_of_them_together_are_small():
    assert 0 < sum(path.stat().st_size for path in shipped_features.folder().iterdir()) < 15e6


@pytest.mark.parametrize("encoder", KEPT)
def test_a_file_holds_numbers_and_classes_and_nothing_of_a_photo(encoder):
    with safe_open(shipped_features.file_of(encoder), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        about = file.metadata()
    width = int(about["D"])
    assert {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()} == {
        "train": ((1000, width), torch.float16), "train_labels": ((1000,), torch.uint8), "test": ((600, width), torch.float16),
        "test_labels": ((600,), torch.uint8), "map": ((1600, 2), torch.float16)}
    assert set(about) == {"encoder", "task", "D", "classes", "command", "data", "seed", "train", "test",
                          *shipped_features.identity(encoder)}
    assert about["command"].startswith("python benchmarks/transfer_features.py --data ")
    assert len(json.loads(about["classes"])) == 10
    assert np.bincount(tensors["train_labels"]).tolist() == [100] * 10
    assert np.bincount(tensors["test_labels"]).tolist() == [60] * 10
    assert all(tensors[name].isfinite().all() for name in ("train", "test", "map"))
    assert tensors["map"].abs().max() <= 1
    told = probes.accuracy(probes.knn(tensors["train"], tensors["train_labels"].long().numpy(), tensors["test"], 10),
                           tensors["test_labels"].numpy())
    assert told > 0.15, "labels and features belong together: chance is 0.1"


def test_all_files_are_of_the_same_photos():
    loaded = [shipped_features.load(encoder) for encoder in KEPT]
    for other in loaded[1:]:
        assert np.array_equal(other.train_labels, loaded[0].train_labels)
        assert np.array_equal(other.test_labels, loaded[0].test_labels)
        assert all(other.about[key] == loaded[0].about[key] for key in ("data", "seed", "classes"))


def test_a_file_gives_back_what_was_saved(elsewhere):
    saved = synthetic(**shipped_features.identity("pixels"))
    assert shipped_features.available() == [] and "pixels" in shipped_features.missing()
    path = shipped_features.save(saved)
    assert path.parent == elsewhere and [entry.name for entry in elsewhere.iterdir()] == [path.name]
    loaded = shipped_features.load("pixels")
    assert torch.allclose(loaded.train, saved.train, atol=2e-3) and np.allclose(loaded.map, saved.map, atol=1e-3)
    assert loaded.classes == saved.classes and np.array_equal(loaded.test_labels, saved.test_labels)


def test_features_of_other_weights_are_not_used(elsewhere):
    name = bundled_encoders()[0]
    about = shipped_features.identity(name)
    shipped_features.save(synthetic(name, **about))
    assert shipped_features.is_current(name)
    shipped_features.save(synthetic(name, **{**about, "sha256": "0" * 64}))
    assert not shipped_features.is_current(name) and name in shipped_features.missing() and shipped_features.available() == []
    with pytest.raises(ValueError, match="no features"):
        shipped_features.load(name)


def test_a_damaged_file_counts_as_none(elsewhere):
    path = shipped_features.save(synthetic(**shipped_features.identity("pixels")))
    path.write_bytes(path.read_bytes()[:50])
    assert shipped_features.header("pixels") == {} and shipped_features.available() == []


def test_numbers_that_do_not_fit_are_refused(elsewhere):
    huge = dataclasses.replace(synthetic(), train=torch.full((18, 8), 1e6))
    with pytest.raises(AssertionError, match="do not fit float16"):
        shipped_features.save(huge)
    assert not list(elsewhere.glob("*"))


def test_the_command_writes_what_is_missing_and_leaves_the_rest(elsewhere, photos, monkeypatch, capsys):
    import transfer_features

    labels = np.arange(32) % 4
    shuffled = photos.take(np.random.default_rng(0).permutation(32))  # views in another order than the array's
    names = [name.rpartition("-")[0] for name in shuffled.names]
    classes = sorted(set(names))
    labels = np.array([classes.index(name) for name in names])
    data = Labelled(classes, shuffled, labels, shuffled, labels)
    monkeypatch.setattr(transfer_features, "load_labelled", lambda *_: data)
    monkeypatch.setattr(transfer_features, "places_by_tsne", lambda features, seed: np.zeros((len(features), 2)))  # seconds
    arguments = ["--data", "somewhere/photos", "--encoders", "pixels", "--train", "5", "--test", "3", "--seed", "1"]
    transfer_features.main(arguments)
    first = shipped_features.file_of("pixels").read_bytes()
    kept = shipped_features.load("pixels")
    places = drawn(labels, classes, 5, 1)
    expected = shipped_features.embed([Image.fromarray(shuffled.array[shuffled.index[place]]) for place in places], "pixels")
    assert torch.allclose(kept.train, expected, atol=2e-3) and np.array_equal(kept.train_labels, labels[places])
    assert kept.about["data"] == "photos" and kept.about["train"] == "5"
    monkeypatch.setattr(transfer_features, "write", lambda *_: pytest.fail("it was there already"))
    transfer_features.main(arguments)
    assert shipped_features.file_of("pixels").read_bytes() == first and "192 features" in capsys.readouterr().out


def test_tsne_puts_like_beside_like():
    random = np.random.default_rng(0)
    groups = torch.from_numpy(np.repeat(np.eye(3, 16) * 5, 40, axis=0) + random.normal(size=(120, 16)) * 0.3)
    places = shipped_features.places_by_tsne(groups, seed=0)
    assert places.shape == (120, 2) and np.abs(places).max() == pytest.approx(1)
    near = np.linalg.norm(places[:, None] - places[None], axis=2) + 9 * np.eye(120)
    assert (near.argmin(axis=1) // 40 == np.arange(120) // 40).mean() > 0.95


def test_drawn_is_what_the_command_line_draws(photos):
    labels = np.arange(32) % 4
    data = Labelled(list("abcd"), photos, labels, photos, labels)
    assert np.array_equal(drawn(labels, data.classes, 3, 7), data.draw(3, 7))
    assert set(drawn(labels, data.classes, 2, 7)) < set(drawn(labels, data.classes, 3, 7)), "more labels hold the fewer"

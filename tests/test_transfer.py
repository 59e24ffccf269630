"""What encoders are good for: the probes against plain loops, every kind of encoder, every kind of data, every mistake."""

import csv
import io
import json
import math
import sys
import tarfile

import numpy as np
import pytest
import skimage.data
import torch
from conftest import ROOT, shared
from PIL import Image

from ssl_demo import cli, finetuning, labelled, probes, transfer
from ssl_demo.checkpoints import load_weights, save_weights
from ssl_demo.data import Batches
from ssl_demo.labelled import load_labelled
from ssl_demo.pretext import all_tasks, create

CLASSES = ("astronaut", "coffee", "rocket")
SMALL = {"size": 32, "width": 8, "depths": [1, 1]}


def crop(name, number):
    """One of many square crops of a photo of scikit-image, 48 pixels a side."""
    photo, random = Image.fromarray(getattr(skimage.data, name)()), np.random.default_rng([number, len(name)])
    side = int(random.integers(180, min(photo.size) + 1))
    left, top = (int(random.integers(0, length - side + 1)) for length in photo.size)
    return photo.crop((left, top, left + side, top + side)).resize((48, 48))


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A folder of three classes, each the crops of one photo: 12 to learn from, 6 to be judged by."""
    path = tmp_path_factory.mktemp("classes")
    for part, numbers in (("train", range(12)), ("val", range(12, 18))):
        for name in CLASSES:
            (path / part / name).mkdir(parents=True)
            for number in numbers:
                crop(name, number).save(path / part / name / f"{number}.jpg", quality=95)
    return path


@pytest.fixture
def copy(classes, tmp_path):
    """A copy of that folder, to be spoilt."""
    import shutil

    return shutil.copytree(classes, tmp_path / "copy")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small network in a file."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    task = create("rotation", **SMALL)
    save_weights(path, task, task.build(), {})
    return path


@pytest.fixture
def call(capsys):
    def call(*arguments):
        status = cli.main(["transfer", *map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        assert status == 0, err
        assert out.count("\n") == 1
        return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return call


@pytest.fixture
def refused(capsys):
    """refused(arguments): the last line of a command that ends with exit status 2, and no traceback."""

    def refused(*arguments):
        assert cli.main(["transfer", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and "Traceback" not in err
        line = err.rstrip("\n").splitlines()[-1]
        assert line.startswith("ssl_demo: ")
        return line

    return refused


def blobs(count, classes=3, width=5, seed=0, apart=1.5):
    """Points around a centre for each class: (count, width), their classes."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width)) * apart
    labels = np.arange(count) % classes
    return torch.from_numpy(centres[labels] + random.normal(size=(count, width))).float(), labels


# The probes


def test_knn_equals_a_double_loop():
    (train, labels), (test, _) = blobs(40), blobs(11, seed=1)
    shares = probes.knn(train, labels, test, classes=3, k=7, temperature=0.2)
    for row, x in zip(shares, test):
        cosines = [float(x @ y / x.norm() / y.norm()) for y in train]
        votes = [0.0] * 3
        for place in sorted(range(40), key=lambda i: -cosines[i])[:7]:
            votes[labels[place]] += math.exp(cosines[place] / 0.2)
        assert row.tolist() == pytest.approx([vote / sum(votes) for vote in votes], abs=1e-5)


def test_knn_takes_no_more_neighbours_than_there_are_and_does_not_overflow():
    train, labels = blobs(6)
    shares = probes.knn(train * 1e4, labels, train * 1e-4, classes=4)
    assert shares.shape == (6, 4) and shares.isfinite().all() and torch.allclose(shares.sum(dim=1), torch.ones(6))
    assert (shares[:, 3] == 0).all(), "a class that nobody has gets no vote"


def test_knn_asks_in_parts():
    (train, labels), (test, _) = blobs(30), blobs(2100, seed=1)
    whole = probes.knn(train, labels, test, classes=3)
    assert torch.allclose(whole[1990:2010], probes.knn(train, labels, test[1990:2010], classes=3), atol=1e-6)


def test_linear_is_logistic_regression_on_standardised_features():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    (train, labels), (test, _) = blobs(60), blobs(21, seed=1)
    scale = StandardScaler().fit(train)
    theirs = LogisticRegression(C=0.1).fit(scale.transform(train), labels).predict_proba(scale.transform(test))
    ours, strength = probes.linear(train, labels, test, classes=3, strength=0.1)
    assert strength == 0.1 and np.abs(ours.numpy() - theirs).max() < 0.01
    scaled, _ = probes.linear(train * 1000 + 7, labels, test * 1000 + 7, classes=3, strength=0.1)
    assert torch.allclose(ours, scaled, atol=0.01), "no matter in which units"


def test_linear_chooses_its_strength_on_training_photos_alone():
    (train, labels), (test, _) = blobs(90, width=40, apart=0.3), blobs(30, width=40, seed=1)
    _, strength = probes.linear(train, labels, test, classes=3)
    _, other = probes.linear(train, labels, -test, classes=3)
    assert strength == other and strength in probes.STRENGTHS


@pytest.mark.parametrize("count", [3, 6])
def test_linear_with_a_photo_or_two_a_class(count):
    train, labels = blobs(count)
    shares, strength = probes.linear(train, labels, train, classes=5)
    assert shares.shape == (count, 5) and torch.allclose(shares.sum(dim=1), torch.ones(count), atol=1e-5)
    assert probes.accuracy(shares, labels) == 1 and (strength == probes.UNCHOSEN or count > 3)


def test_linear_needs_one_thread(monkeypatch):
    """With two it took fifteen times as long on two cores."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_info, threadpool_limits

    plain, threads = LogisticRegression.fit, []

    def fit(self, *args):
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return plain(self, *args)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    rng = np.random.default_rng(0)
    with threadpool_limits(2, "blas"):
        probes.linear(torch.from_numpy(rng.normal(size=(40, 8))), np.arange(40) % 2, torch.zeros(3, 8), 2)
    assert threads and set(threads) == {1}


def test_linear_bears_features_that_never_vary():
    train, labels = blobs(30)
    train[:, 0] = 3.0
    shares, _ = probes.linear(train, labels, train + torch.eye(5)[0] * 1e-3, classes=3)
    assert shares.isfinite().all() and probes.accuracy(shares, labels) > 0.8


def test_guessing_has_the_accuracy_of_guessing():
    random = np.random.default_rng(0)
    noise, labels = torch.from_numpy(random.normal(size=(900, 8))).float(), np.arange(900) % 3
    asked = noise[:600], labels[:600], noise[600:], 3
    for shares in (probes.knn(*asked), probes.linear(*asked)[0]):
        assert probes.accuracy(shares, labels[600:]) == pytest.approx(1 / 3, abs=0.1)


# Labelled photos


def test_class_folders(classes):
    data = load_labelled(classes, 48)
    assert data.classes == sorted(CLASSES) and len(data.train) == 36 and len(data.test) == 18
    for photos, labels, part in ((data.train, data.train_labels, "train"), (data.test, data.test_labels, "val")):
        assert all(name.startswith(f"{part}/{data.classes[label]}/") for name, label in zip(photos.names, labels))


def test_deeper_folders_and_test_in_place_of_val(copy):
    (copy / "val").rename(copy / "test")
    (copy / "train/rocket/more").mkdir()
    (copy / "train/rocket/0.jpg").rename(copy / "train/rocket/more/0.jpg")
    crop("rocket", 3).save(copy / "train/stray.jpg")  # of no class
    data = load_labelled(copy, 48)
    assert len(data.train) == 36 and len(data.test) == 18 and (np.bincount(data.train_labels) == 12).all()


def test_draws(classes):
    data = load_labelled(classes, 48)
    draws = [data.draw(4, seed) for seed in range(3)]
    assert all((np.bincount(data.train_labels[places]) == 4).all() for places in draws)
    assert not np.array_equal(draws[0], draws[1]) and np.array_equal(draws[0], data.draw(4, 0))
    assert np.array_equal(data.draw(None, 5), np.arange(36))
    with pytest.raises(ValueError, match="12 training photos of “astronaut”, fewer than 13 a class"):
        data.draw(13, 0)


def test_what_is_tried_is_tried_on_training_photos(classes):
    data = load_labelled(classes, 48)
    inner = data.inside(0.25)
    assert len(inner.test) == 9 and len(inner.train) == 27
    assert {*inner.train.names, *inner.test.names} == set(data.train.names)


def pack(folder, photos=None):
    """What the photo pack looks like: tars, and an index that says which photos are for what."""
    folder.mkdir()
    rows = []
    for tar, part, numbers in (("train-00.tar", "train", range(4)), ("heldout-00.tar", "test", range(4, 7))):
        with tarfile.open(folder / tar, "w") as file:
            for name in CLASSES:
                for number in numbers:
                    crop(name, number).save(stream := io.BytesIO(), "PNG")
                    for benchmark, path in ((part, f"set/{name}/{number}.png"), ("", f"other/{name}/{number}.png")):
                        member = tarfile.TarInfo(path)
                        member.size = len(stream.getvalue())
                        file.addfile(member, io.BytesIO(stream.getvalue()))
                        rows.append({"path": path, "tar": tar, "class": name, "benchmark": benchmark})
    with open(folder / "index.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_photo_pack(tmp_path):
    data = load_labelled(pack(tmp_path / "pack"), 48)
    assert data.classes == sorted(CLASSES) and len(data.train) == 12 and len(data.test) == 9
    assert all(name == f"set/{data.classes[label]}/{name.rpartition('/')[2]}" for name, label in
               zip(data.train.names + data.test.names, [*data.train_labels, *data.test_labels]))  # fmt: skip


class FakeSet:
    """CIFAR-10 as torchvision has it, of six photos, once it was downloaded; without its files where there is no network."""

    network = True

    def __init__(self, root, train, download):
        from pathlib import Path

        file = Path(root) / "fake.bin"
        if not file.exists():
            if not download:
                raise RuntimeError("Dataset not found. You can use download=True to download it")
            if not self.network:
                raise OSError("<urlopen error no route to host>")
            print("Downloading ...")
            file.write_bytes(b"photos")
        self.classes = ["plane", "car", "bird"]
        self.train, self.targets = train, [2, 0, 2, 0, 0, 2] if train else [0, 2, 2, 0]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return crop(CLASSES[self.targets[i]], i if self.train else 12 + i), self.targets[i]


@pytest.fixture
def fake_set(monkeypatch, tmp_path):
    pytest.importorskip("ssl_demo.torchvision_ops")
    import torchvision

    monkeypatch.setenv("SSL_DEMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeSet)
    monkeypatch.setattr(FakeSet, "network", True)


@pytest.mark.parametrize("name", ["CIFAR10", "cifar-10"])
def test_torchvision_set_by_name(fake_set, name, capsys):
    data = load_labelled(f"torchvision:{name}", 48)
    assert data.classes == ["bird", "plane"] and data.train_labels.tolist() == [0, 1, 0, 1, 1, 0]
    assert data.test_labels.tolist() == [1, 0, 0, 1] and data.test.names[0] == "CIFAR10/train=False/000000"
    assert np.abs(data.test.array[data.test.index[1]].astype(int) - np.asarray(crop("rocket", 13))).max() == 0
    assert capsys.readouterr().out == "", "what a set prints must not stand among the JSON"


def test_torchvision_set_without_a_network(fake_set, monkeypatch, refused):
    monkeypatch.setattr(FakeSet, "network", False)
    line = refused("--data", "torchvision:CIFAR10", "--protocol", "knn")
    assert "CIFAR10 cannot be downloaded" in line and "needs a network" in line


def test_the_four_sets_are_torchvisions():
    pytest.importorskip("ssl_demo.torchvision_ops")
    import inspect

    import torchvision

    for name, parts in labelled.SETS.items():
        known = inspect.signature(getattr(torchvision.datasets, name)).parameters
        settings = [setting.split("=")[0] for part in parts for split in part for setting in split.split("/")]
        assert {*settings, "root", "download"} <= set(known)


# The command


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_command(call, classes, weights, protocol):
    report = call("--data", classes, "--encoders", weights, "--protocol", protocol)
    assert report["protocol"] == protocol and report["classes"] == 3 and report["class_names"] == sorted(CLASSES)
    assert report["labels_per_class"] is None and report["train"] == 36 and report["test"] == 18 and report["skipped"] == 0
    assert [result["encoder"] for result in report["results"]] == [str(weights), "untrained", "pixels"]
    for result in report["results"]:
        assert 0.5 < result["accuracy"] <= 1, "three photos told apart by their colours"
        assert result["seconds"] > 0 and result["spread"] is None and result["accuracies"] == [result["accuracy"]]
    assert report["results"][1]["architecture"] == str(weights) and report["results"][0]["features"] == 16


def test_few_labels_and_their_spread(call, classes, weights):
    arguments = "--data", classes, "--encoders", f"pixels,{weights}", "--protocol", "knn", "--labels-per-class", 2
    report = call(*arguments, "--seeds", 4)
    assert [result["encoder"] for result in report["results"]] == ["pixels", str(weights), "untrained"]
    for result in report["results"]:
        assert len(result["accuracies"]) == 4 and result["accuracy"] == pytest.approx(np.mean(result["accuracies"]))
        assert result["spread"] == pytest.approx(np.std(result["accuracies"], ddof=1))
    again = call(*arguments, "--seed", 1)
    for one, result in zip(again["results"], report["results"]):
        assert one["accuracies"] == result["accuracies"][1:2], "the seed says which draw"


def test_all_labels_need_one_draw_except_of_untrained_networks(call, classes, weights):
    results = call("--data", classes, "--encoders", weights, "--protocol", "knn", "--seeds", 2)["results"]
    assert [len(result["accuracies"]) for result in results] == [1, 2, 1]


def test_finetune_and_supervised(call, classes, weights):
    report = call("--data", classes, "--encoders", f"{weights},supervised", "--protocol", "finetune", "--epochs", 30)
    assert [result["encoder"] for result in report["results"]] == [str(weights), "supervised", "untrained", "pixels"]
    assert all(result["accuracy"] > 0.5 for result in report["results"]), report


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_supervised_features(call, classes, weights, protocol):
    report = call("--data", classes, "--encoders", f"{weights}:supervised", "--protocol", protocol, "--epochs", 30)
    name, untrained, pixels = (result["encoder"] for result in report["results"])
    assert (name, untrained, pixels) == (f"{weights}:supervised", "untrained", "pixels")
    assert report["results"][0]["architecture"] == str(weights) and report["results"][0]["accuracy"] > 0.5


def test_every_task_has_features_to_ask(call, classes, no_weights):
    names = [f"{name}:untrained" for name in all_tasks()]
    report = call("--data", classes, "--encoders", ",".join(names), "--protocol", "knn", "--labels-per-class", 2)
    assert [result["encoder"] for result in report["results"]] == [*names, "untrained", "pixels"]
    assert report["results"][-2]["accuracy"] == report["results"][0]["accuracy"], "the first's is the untrained one"
    assert all(result["accuracy"] > 1 / 3 for result in report["results"])


def test_bundled_weights_are_chosen_when_none_are_named(no_weights, weights):
    for name in ("rotation-a", "rotation-b"):
        task, network = load_weights("rotation", weights)
        save_weights(no_weights / f"{name}.safetensors", task, network, {"heldout": {"score": 0.9 if name[-1] == "b" else 0.1}})
    assert [encoder.name for encoder in transfer.choose()] == ["rotation", "untrained", "pixels"]
    by_name = transfer.choose(["rotation-a", "rotation", "rotation-a"])
    assert [encoder.name for encoder in by_name] == ["rotation-a", "rotation", "untrained", "pixels"]
    assert by_name[2].task.config == create("rotation", **SMALL).config, "untrained has the same architecture"
    twice = transfer.choose(["rotation", "rotation:untrained"])
    assert [encoder.name for encoder in twice] == ["rotation", "rotation:untrained", "untrained", "pixels"]
    assert twice[1].frozen(3) is twice[2].frozen(3), "one network under two names is asked once"


def test_untrained_networks_are_drawn_by_the_seed(weights):
    encoder = transfer.choose([f"{weights}:untrained"])[0]
    first, again, other = (encoder.fresh(seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(first["head.weight"], again["head.weight"]) and not torch.equal(first["head.weight"], other["head.weight"])


def test_features_are_computed_once(classes, weights):
    data, encoder = load_labelled(classes, 48), transfer.choose([str(weights)])[0]
    frozen, asked = encoder.frozen(0), []
    compute = frozen._compute
    frozen._compute = lambda photos: asked.append(len(photos)) or compute(photos)
    some = frozen.features(data.train, data.draw(2, 0))
    every = frozen.features(data.train)
    assert frozen.features(data.test).shape == (18, 16) and asked == [6, 30, 18]
    assert torch.equal(every[data.draw(2, 0)], some) and frozen.features(data.train, np.arange(3)).shape == (3, 16)
    task, network = load_weights("rotation", weights)
    with torch.inference_mode():
        expected = torch.cat([task.features(network, images)[0] for images in transfer.centre(data.train, 32, 8)])
    assert torch.allclose(every, expected, atol=0.05 * float(expected.abs().max()))  # perhaps in bfloat16


def test_the_weights_that_were_chosen_stay_as_they_are(classes, weights):
    data, encoder = load_labelled(classes, 48), transfer.choose([str(weights)])[0]
    before = {name: value.clone() for name, value in encoder.network.state_dict().items()}
    encoder.score(data, "finetune", data.draw(None, 0), 0, epochs=2)
    assert all(torch.equal(value, before[name]) for name, value in encoder.network.state_dict().items())


# Fine-tuning


def test_a_batch_brings_its_own_labels(photos):
    """The loop's batches are those of all training, and each photo keeps its label through epochs of any length."""
    batches = Batches(photos, 5, 144, crop=(1.0, 1.0), flip=False)
    for step in (0, 3, 6, 20):
        places = batches.places(step)
        assert len(places) == 5 and torch.allclose(batches(step), photos.tensor(np.array(places)), atol=1e-5)


def test_fine_tuning_learns_what_it_is_told_and_starts_from_the_weights(classes, weights):
    data = load_labelled(classes, 48)
    task, network = load_weights("rotation", weights)
    classifier = finetuning.Classify(task, 16, 3)
    first, *_, last = finetuning.lessons(classifier, network, data.train, data.train_labels, steps=40)
    assert first.loss == pytest.approx(math.log(3), abs=1e-4), "the head begins by guessing"
    assert last.metric > 0.8 and last.step == 40
    _, one = finetuning.teach(task, network, 16, data.train, data.train_labels, 3, steps=1)
    begun, known = one.network.state_dict(), network.state_dict()
    assert all((begun[name] - known[name]).abs().max() < 0.05 for name in known if name.endswith("conv1.weight"))


def test_what_its_method_never_trains_is_trained_too(photos):
    """Such as a teacher, which only follows: as an encoder it learns like any other."""
    task = create("rotation", **SMALL)
    network = task.build().requires_grad_(False)
    net = finetuning.ClassifierNet(network, 16, 3)
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_how_long_it_takes():
    assert finetuning.steps_for("finetune", 64, epochs=3) == 3 and finetuning.steps_for("finetune", 10, epochs=0.1) == 1
    assert finetuning.steps_for("finetune", 10) == finetuning.LEAST["finetune"] // 64
    for photos in (10, 1000, 10_000, 50_000):
        assert finetuning.steps_for("supervised", photos) > 2 * finetuning.steps_for("finetune", photos)


# Mistakes


def test_files_that_cannot_be_read_are_skipped_and_counted(copy, call, weights):
    (copy / "train/rocket/3.jpg").write_text("no photo")
    report = call("--data", copy, "--encoders", weights, "--protocol", "knn")
    assert report["skipped"] == 1 and report["train"] == 35


def test_mistakes_in_the_data(copy, refused, tmp_path, weights):
    import shutil

    arguments = ("--encoders", weights, "--protocol", "knn")
    assert "no folder" in refused("--data", tmp_path / "nowhere", *arguments)
    assert "12 training photos of “astronaut”" in refused("--data", copy, *arguments, "--labels-per-class", 13)
    shutil.rmtree(copy / "val/rocket")
    assert "no photo of “rocket” to be judged by" in refused("--data", copy, *arguments)
    shutil.rmtree(copy / "train/rocket")
    shutil.rmtree(copy / "train/coffee")
    assert "no photo of “coffee” to learn from" in refused("--data", copy, *arguments)
    shutil.rmtree(copy / "val/coffee")
    assert "at least two classes" in refused("--data", copy, *arguments)
    shutil.rmtree(copy / "val")
    assert "no val/" in refused("--data", copy, *arguments)
    shutil.rmtree(copy / "train")
    assert "neither train/CLASS/* and val/CLASS/* nor an index.csv" in refused("--data", copy, *arguments)
    (copy / "index.csv").write_text("path,tar,class\n")
    assert "no column “path”" in refused("--data", copy, *arguments)
    (copy / "index.csv").write_text("path,tar,class,benchmark\na.png,a.tar,a,\n")
    assert "no photo for the benchmark" in refused("--data", copy, *arguments)
    (copy / "index.csv").write_text("path,tar,class,benchmark\na.png,a.tar,a,train\n")
    assert "a.tar" in refused("--data", copy, *arguments)
    (copy / "train").mkdir()
    (copy / "val").mkdir()
    assert "no pictures" in refused("--data", copy, *arguments)
    assert "there are CIFAR10, STL10" in refused("--data", "torchvision:MNIST", *arguments)


def test_mistakes_in_the_choice(classes, refused, tmp_path, no_weights):
    (tmp_path / "broken.safetensors").write_text("nothing")
    for encoders, expected in (("nonsense", "no encoder “nonsense”; there are rotation"), ("nonsense:untrained", "“nonsense”"),
                               ("rotation", "no weights for rotation"), (tmp_path / "none.safetensors", "no file"),
                               (tmp_path / "broken.safetensors", "not a whole safetensors file"),
                               ("untrained:untrained", "no encoder “untrained”")):  # fmt: skip
        assert expected.replace("there are rotation", "there are ") in refused("--data", classes, "--encoders", encoders,
                                                                               "--protocol", "knn")  # fmt: skip
    assert "invalid choice" in refused("--data", classes, "--protocol", "guess")
    for option in ("--labels-per-class", "--seeds"):
        assert "at least 1" in refused("--data", classes, "--protocol", "knn", option, "0")


# The table


def test_the_table_goes_on_where_it_stopped(classes, weights, tmp_path, capsys, monkeypatch):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import transfer_table

    out = tmp_path / "table.json"
    arguments = ["--data", str(classes), "--out", str(out), "--labels", "2,all"]
    arguments += ["--encoders", f"pixels,{weights},{weights}:untrained"]

    def measured(*more):
        transfer_table.main([*arguments, *more])
        return [line.split(":")[0] for line in capsys.readouterr().err.split("\n") if " a class: " in line]

    assert len(measured("--protocol", "knn", "--seeds", "2")) == 10, "two draws of six rows, one where nothing is by chance"
    assert measured("--protocol", "knn", "--seeds", "2") == []
    assert len(measured("--protocol", "knn,linear", "--seeds", "2")) == 10, "what was added, and nothing else"
    before, calls = json.loads(out.read_text()), []
    measure = transfer.measure
    with monkeypatch.context() as patched:  # killed in the middle of the second of four rows
        patched.setattr(transfer, "measure", lambda *of: measure(*of) if not calls.append(of) and len(calls) < 2 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            measured("--protocol", "knn", "--seeds", "3")
    assert sum(len(row["accuracies"]) for row in json.loads(out.read_text())["rows"]) == 21
    assert sum(row not in json.loads(out.read_text())["rows"] for row in before["rows"]) == 1, "all others are as they were"
    capsys.readouterr()
    assert len(measured("--protocol", "knn", "--seeds", "3")) == 3, "more draws, where these differ, and none again"
    table = json.loads(out.read_text())
    assert len(table["rows"]) == 12 and table["train"] == 36 and "transfer_table.py" in table["command"]
    row = table["rows"][0]
    assert row["protocol"] == "knn" and row["labels_per_class"] == 2 and len(row["accuracies"]) == 3
    again = transfer.measure(transfer.choose([row["encoder"]])[0], load_labelled(classes), "knn", 2, 3)
    assert row["accuracies"] == pytest.approx(again["accuracies"], abs=1e-3), "draw by draw is the same as all at once"
    assert row["spread"] == pytest.approx(again["spread"], abs=1e-3)
    task = create("rotation", **SMALL)
    torch.manual_seed(5)
    save_weights(weights, task, task.build(), {})
    assert len(measured("--protocol", "linear", "--seeds", "1")) == 2, "other weights under the same name are measured anew"


@pytest.mark.skipif(not (ROOT / "ssl_demo/transfer_table.json").is_file(), reason="no table was made yet")
def test_the_table_that_ships():
    table = json.loads((ROOT / "ssl_demo/transfer_table.json").read_text())
    assert len(table["classes"]) == 10 and table["train"] == 9156 and table["test"] == 1500
    for row in table["rows"]:
        assert 0 < row["accuracy"] < 1 and row["accuracy"] == pytest.approx(np.mean(row["accuracies"]), abs=1e-3)
        assert row["kind"] in ("trained", "untrained", "supervised", "pixels") and row["protocol"] in transfer.PROTOCOLS
    trained = {row["encoder"] for row in table["rows"] if row["kind"] == "trained"}
    assert trained <= set(all_tasks())


@pytest.mark.slow
def test_trained_encoders_beat_untrained_ones_on_the_benchmark(call):
    if not transfer.bundled("rotation"):
        pytest.skip("needs the bundled weights")
    report = call("--data", shared("photos"), "--encoders", "rotation", "--protocol", "knn")
    rotation, untrained, pixels = (result["accuracy"] for result in report["results"])
    assert rotation > untrained + 0.1 and untrained > 0.2 and pixels > 0.2

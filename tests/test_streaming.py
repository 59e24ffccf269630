"""Photos that are streamed: some kept from training, the rest shared by processes, bad ones skipped. Mostly on a stand-in for the
library `datasets`; where that is installed (README says how), on itself too."""

import io
import itertools
import json
import sys
import tarfile
import types

import numpy as np
import pytest
import torch
from conftest import SMALL
from PIL import Image

from ssl_demo import cli, streaming
from ssl_demo.pretext import create
from ssl_demo.streaming import StreamBatches, open_stream
from ssl_demo.training import batches_of


def png(number):
    """A picture that says its number in every pixel: its red is the number, its blue 255."""
    Image.new("RGB", (24, 16), (number, 0, 255)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


class Picture:
    """datasets.Image"""

    def __init__(self, decode=True):
        self.decode = decode


class Source:
    """As much of datasets.IterableDataset as is used."""

    def __init__(self, rows, features, start=0, every=1, seed=None, epoch=0):
        self.rows, self.features, self.start, self.every, self.seed, self.epoch = rows, features, start, every, seed, epoch

    def select_columns(self, names):
        return Source([{name: row[name] for name in names} for row in self.rows], self.features)

    def cast_column(self, name, kind):
        assert name in self.features and not kind.decode
        return self

    def shuffle(self, seed=None, generator=None, buffer_size=0):
        drawn = seed if generator is None else int(generator.integers(1 << 30))
        return Source(self.rows, self.features, seed=drawn)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.rows))
        yield from (self.rows[number] for number in order[self.start :: self.every])


@pytest.fixture
def library(monkeypatch):
    """library(pictures): from now on each source holds these; the arguments it was asked for with are kept in a list."""
    asked = []

    def install(pictures):
        rows = [{"label": 0, "image": {"bytes": data, "path": None}} for data in pictures]

        def load_dataset(path, data_files=None, split=None, streaming=False):
            if path == "gone":
                raise FileNotFoundError("nothing there\nand more about it")
            asked.append((path, data_files, split, streaming))
            return Source(rows, {"label": None, "image": Picture()})

        def split_dataset_by_node(source, rank, world):
            return Source(source.rows, source.features, rank, world, source.seed, source.epoch)

        module, distributed = types.ModuleType("datasets"), types.ModuleType("datasets.distributed")
        module.load_dataset, module.Image, module.distributed = load_dataset, Picture, distributed
        distributed.split_dataset_by_node = split_dataset_by_node
        monkeypatch.setitem(sys.modules, "datasets", module)
        monkeypatch.setitem(sys.modules, "datasets.distributed", distributed)
        return asked

    return install


def numbers(batch):
    """Which pictures a batch (B, 3, H, W) is made of."""
    assert torch.allclose(batch[:, 2], torch.ones(()))
    return [round(red * 255) for red in batch[:, 0].mean(dim=(1, 2)).tolist()]


@pytest.fixture
def few_kept(monkeypatch):
    monkeypatch.setattr(streaming, "KEPT", 20)


def test_what_is_kept_is_never_trained_on(library, few_kept):
    library([png(number) for number in range(100)])
    stream, kept = open_stream("hf:some/set", side=16).apart()
    watched = set(numbers(kept.tensor(np.arange(len(kept)))))
    batches = StreamBatches(stream, 8, 16)
    epochs = [[number for step in range(first, first + 10) for number in numbers(batches(step))] for first in (0, 10)]
    assert len(watched) == 20 and all(sorted(epoch) == sorted(set(range(100)) - watched) for epoch in epochs)
    assert epochs[0] != epochs[1], "each epoch has its own order"
    assert set(numbers(open_stream("hf:some/set", 16).apart()[1].tensor(np.arange(20)))) == watched


@pytest.mark.parametrize("count, both", [(10, True), (60, False)])
def test_of_short_streams_some_are_kept_or_all_are_both(library, count, both):
    library([png(number) for number in range(count)])
    stream, kept = open_stream("hf:x", side=16).apart()
    files = set(itertools.islice(stream.files((0, 0)), count if both else count - len(kept)))
    assert len(kept) == (count if both else 2) and len(files) == (count if both else count - 2)


@pytest.mark.parametrize("count, kept", [(60, 2), (119, 2), (120, 60)])
def test_no_more_are_kept_than_are_left(library, monkeypatch, count, kept):
    """Of exactly as many photos as may be kept, none would be left to train on."""
    monkeypatch.setattr(streaming, "KEPT", 60)
    library([png(number) for number in range(count)])
    stream = open_stream("hf:x", side=16)
    assert len(stream.watched) == kept
    assert len(set(itertools.islice(stream.files((0, 0)), count - kept))) == count - kept


def test_processes_share_a_stream(library, few_kept):
    library([png(number) for number in range(100)])
    stream = open_stream("hf:x", side=16)
    parts = [[n for step in range(10) for n in numbers(StreamBatches(stream, 8, 16, 0, (0.5, 1.0), True, 0.0, rank, 2)(step))]
             for rank in range(2)]  # fmt: skip
    shares = [list(itertools.islice(stream.files((0, 0), rank, 2), 30)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 40 and not set(shares[0]) & set(shares[1])


def test_a_run_that_goes_on_has_an_order_of_its_own(library, few_kept):
    library([png(number) for number in range(100)])
    stream = open_stream("hf:x", side=16)
    whole, again, other = StreamBatches(stream, 8, 16), StreamBatches(stream, 8, 16), StreamBatches(stream, 8, 16)
    first = [numbers(whole(step)) for step in range(4)]
    assert [numbers(again(step)) for step in range(4)] == first and numbers(other(3)) != first[3]


def test_bad_photos_are_skipped_and_counted(library, few_kept):
    library([png(number) for number in range(50)] + [b"no picture"] * 10)
    stream = open_stream("hf:x", side=16)
    before, batches = stream.skipped, StreamBatches(stream, 10, 16)
    assert len(stream) + before == 20
    seen = [number for step in range(4) for number in numbers(batches(step))]
    assert len(seen) == 40 and stream.skipped > before


def test_a_stream_that_goes_bad_is_given_up(library, few_kept, monkeypatch):
    monkeypatch.setattr(streaming, "HOPELESS", 50)
    library([png(number) for number in range(60)])
    stream = open_stream("hf:x", side=16)
    stream.source.rows = [{"image": {"bytes": b"no picture", "path": None}}] * 60
    with pytest.raises(ValueError, match="50 photos of hf:x in a row cannot be read; the last: The file is"):
        StreamBatches(stream, 8, 16)(0)
    known = [row for row in map(png, range(60)) if streaming._checksum(row) in stream.kept]
    for rows in ([], [{"image": {"bytes": data, "path": None}} for data in known]):
        stream.source.rows = rows
        with pytest.raises(ValueError, match="There are no photos to train on in hf:x for process 1 of 1."):
            StreamBatches(stream, 8, 16)(0)


def test_names(library):
    asked = library([png(number) for number in range(3)])
    for spec in ("hf:org/name", "hf:name:test", "hf:name::image", "hf:shards/*.tar:train:image", "hf:hf://buckets/x/*.parquet"):
        open_stream(spec, side=16)
    assert asked == [("org/name", None, "train", True), ("name", None, "test", True), ("name", None, "train", True),
                     ("webdataset", "shards/*.tar", "train", True), ("parquet", "hf://buckets/x/*.parquet", "train", True)]


@pytest.mark.parametrize("spec, sentence", [
    ("hf:", "A stream is named hf:NAME"),
    ("hf:gone", r"hf:gone cannot be streamed \(FileNotFoundError: nothing there\)"),
    ("hf:name:train:picture", "hf:name:train:picture has no column of pictures “picture”; it has label, image."),
])  # fmt: skip
def test_what_is_no_stream(library, spec, sentence):
    library([png(0)])
    with pytest.raises(ValueError, match=sentence):
        open_stream(spec)


def test_nothing_that_can_be_read(library):
    library([b"no picture"] * 3)
    with pytest.raises(ValueError, match="None of the first 3 photos of hf:x can be read; the first: The file is"):
        open_stream("hf:x")
    library([])
    with pytest.raises(ValueError, match="There are no photos in hf:x."):
        open_stream("hf:x")


def test_the_library_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install datasets"):
        open_stream("hf:x")


def test_train_on_a_stream(library, few_kept, photos, tmp_path, capsys):
    """A task that counts colours beforehand, from the command line; and what a stream cannot be."""
    Image.fromarray(photos.array[0]).save(one := io.BytesIO(), "JPEG")
    library([one.getvalue() + bytes([number]) for number in range(40)])  # bytes after the end of a JPEG harm nobody
    out = tmp_path / "w.safetensors"
    arguments = ["train", "colorization", "--steps", "2", "--data", "hf:x", "--out", str(out), "--json"]
    assert cli.main([*arguments, "--config", *SMALL["colorization"], "batch=4"]) == 0
    report, card = json.loads(capsys.readouterr().out), json.loads(out.with_suffix(".json").read_text())
    assert report["images_seen"] == 8 and card["validation"]["images"] == 20 and card["photos"] is None
    assert card["data"] == ["hf:x"]
    for wrong in (["--limit", "3"], ["--data", "hf:x", "hf:y"]):
        assert cli.main([*arguments, *wrong]) == 2 and "streams photos" in capsys.readouterr().err
    assert cli.main(["train", "video_color", *arguments[2:]]) == 2 and "not clips" in capsys.readouterr().err


def test_the_library_itself(few_kept, tmp_path, monkeypatch):
    """Tars, a Parquet file and a folder, streamed by `datasets`."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets", reason="datasets, which streams photos, is not installed: pip install datasets")
    pictures = [png(number) for number in range(60)]
    (tmp_path / "folder").mkdir()
    for shard in range(3):
        with tarfile.open(tmp_path / f"shard-{shard}.tar", "w") as tar:
            for number in range(shard * 20, shard * 20 + 20):
                (tmp_path / "folder" / f"{number}.png").write_bytes(pictures[number])
                tar.add(tmp_path / "folder" / f"{number}.png", f"{number:05d}.png")
    rows = {"image": [{"bytes": data, "path": None} for data in pictures], "label": list(range(60))}
    features = datasets.Features({"label": datasets.Value("int64"), "image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    task = create("rotation", size=16, width=8, depths=[1, 1])
    for source in ("shard-*.tar", "rows.parquet", "folder"):
        stream, kept = open_stream(f"hf:{tmp_path / source}", side=16).apart()
        watched = set(numbers(kept.tensor(np.arange(20))))
        batches = batches_of(task, stream, task.recipe, rank=0, world=1)
        assert isinstance(batches, StreamBatches) and len(batches(0)) == task.recipe.batch
        shares = [list(itertools.islice(stream.files((0, 0), rank, 2), 20)) for rank in range(2)]
        seen = {number for number in range(60) if pictures[number] in shares[0] + shares[1]}
        assert len(watched) == 20 and seen == set(range(60)) - watched, source

"""Photos are read once, in a fixed order, whatever they come in; a batch is a function of (seed, step) and nothing else."""

import csv
import gzip
import io
import itertools
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_demo import data
from ssl_demo.data import Batches, Photos, centre, load_photos, prefetch, sources

PACK = Path(__file__).resolve().parents[1] / "../shared/data/photos"
COLORS = {"a/red.png": (255, 0, 0), "a/deep/green.png": (0, 255, 0), "a-b/blue.png": (0, 0, 255), "grey.png": (90, 90, 90)}
SORTED = ["a-b/blue.png", "a/deep/green.png", "a/red.png", "grey.png"]  # as text; Path sorts "a" before "a-b" in some Pythons


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_DEMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def save(path, color, size=(20, 14)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def folder(tmp_path):
    for name, color in COLORS.items():
        save(tmp_path / "photos" / name, color)
    (tmp_path / "photos/index.csv").write_text("not a photo")
    (tmp_path / "photos/a/._red.png").write_text("macOS leaves these beside photos")
    return tmp_path / "photos"


def pack(path, folder, names, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name in names:
            tar.add(folder / name, arcname=name)
    return path


def numbered(count, side=16):
    """Photos whose only colour tells which one it is."""
    array = np.zeros((count, side, side, 3), np.uint8)
    array[:] = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return Photos(array, [str(i) for i in range(count)])


def noise(count=12, side=24):
    array = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return Photos(array, [str(i) for i in range(count)])


def who(batch):
    return (batch[:, 0].mean((1, 2)) * 255).round().int().tolist()


# ---- reading -------------------------------------------------------------------------------------------------------


def test_folder_of_any_depth(folder):
    photos = load_photos(folder, side=8)
    assert photos.names == SORTED and len(photos) == 4 and photos.skipped == 0
    assert photos.array.shape == (4, 8, 8, 3) and photos.array.dtype == np.uint8
    assert [tuple(photo[3, 3]) for photo in photos.array] == [COLORS[name] for name in SORTED]
    tensor = photos.tensor([2, 0])
    assert tensor.shape == (2, 3, 8, 8) and tensor.dtype == torch.float32
    assert tensor[0, :, 0, 0].tolist() == [1, 0, 0] and tensor[1, :, 0, 0].tolist() == [0, 0, 1]


def test_photo_is_the_centre_square(tmp_path):
    picture = np.zeros((10, 30, 3), np.uint8)
    picture[:, 10:20] = 255  # black, white, black
    Image.fromarray(picture).save(tmp_path / "wide.png")
    assert load_photos([tmp_path / "wide.png"], side=10).array.min() == 255


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar_equals_folder_whatever_its_order(folder, tmp_path, mode):
    tar = pack(tmp_path / "photos.tar", folder, ["index.csv", *reversed(SORTED)], mode)
    photos = load_photos(str(tar), side=8)
    assert photos.names == SORTED
    assert np.array_equal(photos.array, load_photos(folder, side=8).array)


def test_several_sources_are_sorted_by_path(folder, tmp_path):
    tar = pack(tmp_path / "x.tar", folder, ["grey.png"])
    save(tmp_path / "single.png", (1, 2, 3))
    paths = [tar, tmp_path / "single.png", folder]
    photos = load_photos(paths, side=8)
    assert photos.names == [*SORTED, "single.png", "grey.png"]
    assert photos.array[4, 0, 0].tolist() == [1, 2, 3]
    assert load_photos(paths[::-1], side=8).names == photos.names


@pytest.mark.parametrize("suffix, words", [("none", "no file or folder"), ("none.jpg", "no file or folder"),
                                           ("none.tar", "no file or folder")])
def test_missing_path(tmp_path, suffix, words):
    with pytest.raises(ValueError, match=words):
        load_photos([tmp_path / suffix])


def test_nothing_to_read(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", pack(tmp_path / "csv.tar", folder, ["index.csv"])):
        with pytest.raises(ValueError, match=f"no pictures in .*{path.name}"):
            load_photos(path)
    with pytest.raises(ValueError, match="no path"):
        load_photos([])


@pytest.mark.parametrize("damage", ["text", "truncated", "truncated gzip", "damaged gzip"])
def test_unreadable_tar(folder, tmp_path, damage):
    whole = pack(tmp_path / "whole.tar", folder, SORTED).read_bytes()
    last = whole.rindex(b"grey.png\0")  # cut inside the last photo: its header is there, its content is not
    content = {
        "text": b"This is no archive.\n" * 100,
        "truncated": whole[:last + 512 + 10],
        "truncated gzip": gzip.compress(whole)[:-40],
        "damaged gzip": gzip.compress(whole)[:60] + b"\xff" * 40 + gzip.compress(whole)[100:],
    }[damage]
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.tar is nothing that photos can be read from"):
        load_photos(tmp_path / "bad.tar", side=8)


def test_broken_photo_is_skipped_and_counted(folder, capsys):
    (folder / "a/aaa.jpg").write_bytes(b"\xff\xd8\xff but no more")
    (folder / "a/zzz.jpg").write_text("")
    for _ in range(2):  # decoded, then from the cache
        photos = load_photos(folder, side=8, progress=False)
        assert photos.names == SORTED and photos.skipped == 2 and photos.array.shape == (4, 8, 8, 3)
        assert [tuple(photo[3, 3]) for photo in photos.array] == [COLORS[name] for name in SORTED]
    message = capsys.readouterr().err.strip().splitlines()
    assert len(message) == 1 and "2 of 6" in message[0] and "aaa.jpg" in message[0]


def test_only_broken_photos(tmp_path, cache):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff but no more")
    with pytest.raises(ValueError, match="none of the 1 photos can be read"):
        load_photos(tmp_path / "bad.jpg")
    assert not any(cache.iterdir())


def test_limit_is_a_prefix_of_one_permutation(tmp_path):
    for i in range(20):
        save(tmp_path / f"photos/{i:02d}.png", (i, i, i))
    every, ten, five = (load_photos(tmp_path / "photos", side=8, limit=n, seed=1) for n in (None, 10, 5))
    assert len(ten) == 10 and ten.names[:5] == five.names and five.names != every.names[:5]
    assert [int(value) for value in ten.tensor(range(10))[:, 0, 0, 0] * 255 + 0.5] == [int(name[:2]) for name in ten.names]
    assert load_photos(tmp_path / "photos", side=8, limit=5, seed=2).names != five.names
    assert len(load_photos(tmp_path / "photos", side=8, limit=99)) == 20
    with pytest.raises(ValueError, match="limit"):
        load_photos(tmp_path / "photos", side=8, limit=0)


def test_split_is_disjoint_and_complete():
    photos = numbered(40)
    train, validation = photos.split(0.25, seed=3)
    assert (len(train), len(validation)) == (30, 10) and train.array is photos.array
    assert sorted(train.names + validation.names, key=int) == photos.names
    assert who(validation.tensor(range(10))) == [int(name) for name in validation.names]
    assert validation.names == photos.split(0.25, seed=3)[1].names != photos.split(0.25, seed=4)[1].names
    again, _ = validation.split(0.5)  # a view of a view
    assert len(again) == 5 and who(again.tensor(range(5))) == [int(name) for name in again.names]
    assert [len(part) for part in numbered(3).split()] == [2, 1]
    with pytest.raises(ValueError, match="too few"):
        numbered(1).split()


# ---- the cache -----------------------------------------------------------------------------------------------------


def refuse(*_, **__):
    raise AssertionError("decoded although cached")


def test_second_load_decodes_nothing(folder, tmp_path, monkeypatch):
    first = load_photos(folder, side=8)
    folder.rename(tmp_path / "moved")  # the content is the key, not the place
    monkeypatch.setattr(data, "load_photo", refuse)
    second = load_photos(tmp_path / "moved", side=8)
    assert isinstance(second.array, np.memmap) and not second.array.flags.writeable
    assert np.array_equal(first.array, second.array) and first.names == second.names
    with pytest.raises(AssertionError, match="decoded although cached"):
        load_photos(tmp_path / "moved", side=9)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_cache_follows_the_content(folder, tmp_path, kind):
    def load():
        return load_photos(pack(tmp_path / "p.tar", folder, SORTED) if kind == "tar" else folder, side=8)

    load()
    before = (folder / "grey.png").stat()
    size = len((folder / "grey.png").read_bytes())
    save(folder / "grey.png", (91, 91, 91))
    os.utime(folder / "grey.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len((folder / "grey.png").read_bytes()) == size  # the same name, size and time: only the content tells
    assert load().array[3, 0, 0].tolist() == [91, 91, 91]
    if kind == "folder":  # names count too
        (folder / "a-b").rename(folder / "a-c")
        assert load().names[0] == "a-c/blue.png"


def test_killed_writer_leaves_nothing_wrong(folder, cache):
    program = f"""
import os
from ssl_demo import data
real, seen = data.load_photo, []
def load_photo(*args, **kwargs):
    seen.append(1)
    if len(seen) == 4:
        os.write(1, b"half way")
        os.kill(os.getpid(), 9)
    return real(*args, **kwargs)
data.load_photo = load_photo
data.load_photos({str(folder)!r}, side=8, progress=False)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, cwd=Path(data.__file__).parents[1])
    assert run.returncode == -9 and run.stdout == b"half way", run.stderr
    left = list(cache.iterdir())
    assert left and not list(cache.glob("*.npy"))  # what it began is there, under no name that is ever read
    assert [tuple(photo[3, 3]) for photo in load_photos(folder, side=8).array] == [COLORS[name] for name in SORTED]


def test_two_writers_at_once_both_succeed(folder, cache, monkeypatch):
    together, real = threading.Barrier(2, timeout=10), data._decode

    def decode(*args):
        together.wait()  # both have looked for the cache and found none
        real(*args)

    monkeypatch.setattr(data, "_decode", decode)
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_photos(folder, side=8, progress=False))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and np.array_equal(found[0].array, found[1].array) and found[0].names == SORTED
    assert sorted(file.suffix for file in cache.iterdir()) == [".json", ".npy"]


def test_cache_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="SSL_DEMO_CACHE"):
        load_photos(folder, side=8, cache=tmp_path / "file")


def test_torchvision_set(tmp_path, cache, monkeypatch):
    pytest.importorskip("ssl_demo.torchvision_ops")
    datasets = pytest.importorskip("torchvision").datasets

    class Tiny:
        def __init__(self, root, download):
            self.file = Path(root) / "tiny.bin"
            if not download and not self.file.exists():
                raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
            self.file.write_bytes(b"\x07\x08\x09")

        def __len__(self):
            return 3

        def __getitem__(self, i):
            return Image.new("RGB", (8, 8), (self.file.read_bytes()[i],) * 3), 0

    monkeypatch.setattr(datasets, "Tiny", Tiny, raising=False)
    photos = load_photos("torchvision:Tiny", side=8)
    assert photos.names == ["Tiny/000000", "Tiny/000001", "Tiny/000002"] and photos.array[:, 0, 0, 0].tolist() == [7, 8, 9]
    with pytest.raises(ValueError, match="torchvision:Nothing"):
        load_photos("torchvision:Nothing")


@pytest.mark.skipif(not (PACK / "train-04.tar").exists(), reason="the photo pack is not beside this checkout")
def test_photo_pack():
    with open(PACK / "index.csv") as index:
        expected = sorted(row["path"] for row in csv.DictReader(index) if row["tar"] == "train-04.tar")
    photos = load_photos(PACK / "train-04.tar", side=144, progress=False)
    assert photos.names == expected and photos.skipped == 0
    with tarfile.open(PACK / "train-04.tar") as tar:
        picture = Image.open(io.BytesIO(tar.extractfile(photos.names[100]).read()))
        assert np.array_equal(photos.array[100], np.asarray(picture.convert("RGB")))  # 144 x 144 already: untouched


# ---- batches -------------------------------------------------------------------------------------------------------


def test_batch_is_a_function_of_seed_and_step():
    photos = noise()
    batches = Batches(photos, 5, 16, seed=1, color=0.4)
    straight = [batches(step) for step in range(6)]
    assert all(batch.shape == (5, 3, 16, 16) and batch.dtype == torch.float32 for batch in straight)
    resumed = Batches(photos, 5, 16, seed=1, color=0.4)
    for step in (5, 3, 4, 0):  # any order, from any step
        assert torch.equal(resumed(step), straight[step])
    assert not torch.equal(Batches(photos, 5, 16, seed=2, color=0.4)(0), straight[0])
    assert not torch.equal(straight[0], straight[1])


def test_crops_differ_between_epochs_and_images():
    batches = Batches(Photos(noise(1).array, ["0"]), 4, 16, flip=False)
    views = torch.cat([batches(0), batches(1)])
    assert len({view.numpy().tobytes() for view in views}) == 8


def test_seed_draws_the_order_and_the_crops():
    assert who(Batches(numbered(20), 20, 8, seed=1)(0)) != who(Batches(numbered(20), 20, 8, seed=2)(0))
    assert not torch.equal(Batches(noise(1), 1, 16, seed=1)(0), Batches(noise(1), 1, 16, seed=2)(0))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_partition_the_global_batch(world):
    photos = noise()
    whole = Batches(photos, 24, 16, seed=1, color=0.4)(7)
    joined = torch.empty_like(whole)
    for rank in range(world):
        part = Batches(photos, 24, 16, seed=1, color=0.4, rank=rank, world=world)(7)
        assert len(part) == 24 // world
        joined[rank::world] = part
    assert torch.equal(joined, whole)


def test_batch_size_is_a_multiple_of_world():
    with pytest.raises(ValueError, match="multiple of 3"):
        Batches(noise(), 16, 8, world=3)


@pytest.mark.parametrize("batch_size", [1, 5, 8, 20, 50])
def test_every_photo_once_per_epoch(batch_size):
    count = 20
    batches = Batches(numbered(count), batch_size, 8, seed=4)
    seen = list(itertools.chain.from_iterable(who(batches(step)) for step in range(200 // batch_size)))
    epochs = [seen[first:first + count] for first in range(0, 200, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 10  # a new permutation each time


def test_views_give_only_their_own_photos():
    train, validation = numbered(20).split(0.25)
    assert sorted(who(Batches(validation, 5, 8)(0))) == [int(name) for name in validation.names]
    assert sorted(who(Batches(train, 15, 8)(3))) == [int(name) for name in train.names]


def test_single_photo():
    batch = Batches(noise(1), 32, 16)(5)
    assert batch.shape == (32, 3, 16, 16) and batch.std(0).max() > 0


def test_both_ways_are_flipped():
    ramp = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[None, None, :, None], (1, 24, 24, 3)).copy()
    slope = [Batches(Photos(ramp, ["0"]), 400, 12, flip=flip)(0).diff(dim=-1).mean((1, 2, 3)) for flip in (True, False)]
    assert 150 < (slope[0] < 0).sum() < 250 and (slope[0] > 0).sum() + (slope[0] < 0).sum() == 400
    assert (slope[1] > 0).all()


@pytest.mark.parametrize("size, crop", [(24, (0.5, 1.0)), (7, (0.1, 0.3)), (40, (0.5, 1.0)), (5, (0.2, 1.0)), (5, (1.0, 1.0))])
def test_crops_stay_inside_the_photo(size, crop):
    inside = Photos(np.full((1, 24, 24, 3), 200, np.uint8), ["0"])
    assert torch.allclose(Batches(inside, 64, size, crop=crop)(0), torch.tensor(200 / 255), atol=1e-5)  # nothing from outside
    ramps = np.zeros((1, 24, 24, 3), np.uint8)  # colour tells the place: red across, green down
    ramps[..., 0], ramps[..., 1] = np.arange(24) * 10, np.arange(24)[:, None] * 10
    batch = Batches(Photos(ramps, ["0"]), 256, size, crop=crop, flip=False)(0) * 25.5
    across, down = batch[:, 0, 0, -1] - batch[:, 0, 0, 0], batch[:, 1, -1, 0] - batch[:, 1, 0, 0]
    if size <= 24 * crop[0] ** 0.5:  # otherwise outputs look at the outer half of border pixels, where the ramp stops
        assert torch.allclose(across, down, atol=1e-2)  # square
        area = (across * size / (size - 1) / 24) ** 2  # between pixel centres -> between edges
        assert area.min() > crop[0] - 0.02 and area.max() < crop[1] + 0.02
        assert area.max() - area.min() >= 0.7 * (crop[1] - crop[0])
    if crop[0] < 0.5:  # they reach both sides
        assert batch[:, 0].min() < 3 and batch[:, 0].max() > 20


def test_whole_photo_at_its_own_size_is_untouched():
    photos = noise(6)
    batch = Batches(photos, 6, 24, crop=(1.0, 1.0), flip=False)(0)
    order = [int((photos.tensor(range(6)) - view).abs().amax((1, 2, 3)).argmin()) for view in batch]
    assert sorted(order) == list(range(6)) and torch.allclose(batch, photos.tensor(order), atol=1e-4)


def test_reduction_does_not_alias():
    stripes = np.zeros((1, 96, 96, 3), np.uint8)
    stripes[:, :, ::2] = 255  # finer than 32 pixels can show: only the mean is left
    batch = Batches(Photos(stripes, ["0"]), 16, 32, crop=(0.9, 1.0))(0)
    assert (batch - 0.5).abs().max() < 0.2  # sampling without averaging gives 0 and 1


def test_values_stay_in_range_and_color_changes_them():
    photos = noise()
    plain, same, colored = (Batches(photos, 64, 16, seed=1, color=color)(0) for color in (0.0, 1e-6, 0.8))
    assert torch.allclose(plain, same, atol=1e-4) and (plain - colored).abs().mean() > 0.05
    for batch in (plain, colored):
        assert batch.min() >= 0 and batch.max() <= 1


def test_no_color_leaves_colors():
    flat = np.empty((3, 8, 8, 3), np.uint8)
    flat[:] = np.array([[200, 30, 60], [0, 255, 0], [7, 7, 7]], np.uint8)[:, None, None]
    batch = Batches(Photos(flat, ["a", "b", "c"]), 30, 6, color=0.0)(0)
    found = {tuple((view[:, 0, 0] * 255).round().int().tolist()) for view in batch}
    assert found == {(200, 30, 60), (0, 255, 0), (7, 7, 7)} and (batch - batch[:, :, :1, :1]).abs().max() < 1e-5


def test_color_is_brightness_contrast_and_saturation():
    photos = Photos(noise(1).array // 3 + 80, ["0"])  # far from where the result would be clamped
    batches = Batches(photos, 8, 24, seed=1, crop=(1.0, 1.0), flip=False, color=0.2)
    image = photos.tensor([0])[0]
    chance = np.random.default_rng([1, 1, 2]).random((8, 7), dtype=np.float32)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    for view, (brightness, contrast, saturation) in zip(batches(2), 0.8 + 0.4 * chance[:, 4:].astype(float), strict=True):
        expected = image * brightness
        expected = contrast * expected + (1 - contrast) * (weights * expected).sum(0).mean()
        expected = saturation * expected + (1 - saturation) * (weights * expected).sum(0)
        assert torch.allclose(view, expected, atol=1e-4)


def test_prefetch_gives_the_same_batches():
    batches = Batches(noise(), 4, 16)
    ahead = list(prefetch(batches, 3, 8))
    assert len(ahead) == 5 and all(torch.equal(batch, batches(step)) for step, batch in enumerate(ahead, start=3))
    assert list(prefetch(batches, 3, 3)) == []


def test_prefetch_computes_the_next_batch_meanwhile():
    started = [threading.Event() for _ in range(3)]

    def batches(step):
        started[step].set()
        return step

    stream = prefetch(batches, 0, 3)
    assert next(stream) == 0 and started[1].wait(5) and not started[2].wait(0.05)  # one ahead, no more
    stream.close()


def test_prefetch_ends_its_thread_and_passes_errors_on():
    def threads():
        return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]

    def batches(step):
        if step == 2:
            raise ValueError("the disk is gone")
        return step

    stream = prefetch(batches, 0, 9)
    assert next(stream) == 0 and threads()
    stream.close()
    assert not threads()
    with pytest.raises(ValueError, match="the disk is gone"):
        list(prefetch(batches, 0, 9))
    deadline = time.monotonic() + 5
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads()


# ---- for evaluation ------------------------------------------------------------------------------------------------


def test_centre_gives_exact_pixels_in_order():
    photos = noise(7).take([3, 1, 6, 0, 2])
    batches = list(centre(photos, 24, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat(batches), photos.tensor(range(5)))


@pytest.mark.parametrize("size", [8, 40])
def test_centre_resizes_without_aliasing(size):
    photos = Photos(noise(5).array // 2 + 64, list("abcde"))  # Pillow clips between its two passes, so leave it no reason
    first, second = (torch.cat(list(centre(photos, size, batch))) for batch in (2, 5))
    assert first.shape == (5, 3, size, size) and torch.allclose(first, second, atol=1e-6)
    assert torch.equal(second, torch.cat(list(centre(photos, size, 5))))
    picture = Image.fromarray(photos.array[2]).resize((size, size), Image.Resampling.BICUBIC)
    assert np.abs(first[2].permute(1, 2, 0).numpy() * 255 - np.asarray(picture)).max() < 2


def test_centre_is_clamped():
    stripes = np.zeros((1, 24, 24, 3), np.uint8)
    stripes[:, :, 8:16] = 255  # bicubic overshoots beside an edge
    image, = centre(Photos(stripes, ["0"]), 40, 1)
    assert image.min() == 0 and image.max() == 1


def test_sources_are_the_sets_that_photos_come_from():
    assert sources(["b/cat/1.webp", "a/2.png", "b/dog/3.webp", "alone.png"]) == {"b": 2, "a": 1}
    assert list(sources(["a/1.png", "b/1.png", "b/2.png"])) == ["b", "a"] and sources([]) == {}

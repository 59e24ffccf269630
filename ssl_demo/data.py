"""Photos for training and measuring: folders, tars, torchvision sets -> one cached uint8 array -> batches with augmentation.

A batch is a pure function of (seed, step): a run that was resumed, or is spread over processes, sees the same pixels.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from ssl_demo.images import load_photo, square

try:
    import fcntl
except ImportError:  # on Windows only threads are kept apart, not processes
    fcntl = None

DECODE_VERSION = 1  # raise it when the same file would decode to other pixels: old caches are then left alone
IS_PHOTO = re.compile(r"(^|/)[^./][^/]*\.(jpe?g|png|webp|avif|hei[cf]|bmp|gif|tiff?)$", re.IGNORECASE).search  # not "._1.jpg"
GREY = (0.299, 0.587, 0.114)  # ITU-R 601 luma
PACKED = (".tgz", ".gz", ".tar", ".zip", ".mat")  # what sets are downloaded as
CLASSES = {"Imagenette": 10}  # of sets that torchvision takes for whole as soon as their folder is there


@dataclass
class Photos:
    """N square photos: ``names[i]`` (such as "imagenette/church/1.webp") belongs to row ``index[i]`` of ``array``.

    ``array`` is (M, side, side, 3) uint8, mapped from disk and shared by all views; ``index`` is (N,), and 0..M-1 for what
    `load_photos` returns without a limit. ``skipped`` counts the files that could not be read.
    """
    array: np.ndarray
    names: list[str]
    skipped: int = 0
    index: np.ndarray | None = None

    def __post_init__(self):
        self.index = np.arange(len(self.array)) if self.index is None else np.asarray(self.index)
        assert len(self.index) == len(self.names) and self.array.dtype == np.uint8

    def __len__(self) -> int:
        return len(self.index)

    def tensor(self, indices) -> torch.Tensor:
        """The photos at these places (ints below N): (B, 3, side, side) float32 in [0, 1]."""
        return torch.from_numpy(self.array[self.index[indices]]).permute(0, 3, 1, 2).float().div_(255)

    def take(self, indices) -> "Photos":
        """A view of these places, in this order; no pixel is copied."""
        return Photos(self.array, [self.names[i] for i in indices], self.skipped, self.index[indices])

    def apart(self) -> tuple["Photos", "Photos"]:
        """(to learn from, to watch the training by): of few photos all are both."""
        learned, kept = self.split(0.04, seed=0) if len(self) >= 50 else (self, self)
        return learned, kept.take(range(min(len(kept), 1000)))

    def split(self, fraction: float = 0.05, seed: int = 0) -> tuple["Photos", "Photos"]:
        """(train, validation), the latter a random ``fraction``, at least one. Raises ValueError where none would be left."""
        held = max(1, round(len(self) * fraction))
        if held >= len(self):
            raise ValueError(f"{len(self)} photos are too few to hold out {held}")
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(np.sort(order[held:])), self.take(np.sort(order[:held]))


def sources(names: Iterable[str]) -> dict[str, int]:
    """How many photos each set gave, the largest first: a set is the first folder of names such as "imagenette/church/1.webp"."""
    return dict(Counter(name.split("/")[0] for name in names if "/" in name).most_common())


def load_photos(paths, side: int = 144, cache=None, limit: int | None = None, seed: int = 0, progress: bool = True,
                wanted: Callable[[str], object] | None = None) -> Photos:
    """Photos from folders (any depth), tars (plain or gzip), image files or "torchvision:CIFAR10", as one uint8 array.

    What else a torchvision set wants to be told follows its name: "torchvision:STL10/split=unlabeled".

    Each photo is the centre square, resized to ``side`` pixels; their order is that of paths, then names, sorted. The array
    is kept under ``cache``, else $SSL_DEMO_CACHE, else ~/.cache/ssl_demo, by the content of the files, so a second call
    decodes nothing. ``limit`` takes the first photos of a permutation drawn from ``seed``: not only the first classes.
    ``wanted`` says by its name whether a photo is; then there may be none, and paths without any are as if not given.
    Raises ValueError, in one sentence, for a path that is missing or unreadable, and where no photo can be read.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not paths or (limit is not None and limit < 1):
        raise ValueError("no path to photos was given" if not paths else f"limit must be at least 1, not {limit}")
    cache = cache_folder(cache)
    sources = [_source(text, cache) for text in sorted(map(str, paths))]
    if wanted is not None:
        sources = [(content, [item for item in items if wanted(item[0])]) for content, items in sources]
        sources = [(content, items) for content, items in sources if items]
    items = [item for _, items in sources for item in items]
    if not items:
        return Photos(np.empty((0, side, side, 3), dtype=np.uint8), [])
    key = json.dumps([DECODE_VERSION, side, [content for content, _ in sources], [name for name, _ in items]])
    array_file = cache / f"photos-{side}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    names_file = array_file.with_suffix(".json")
    if not (array_file.exists() and names_file.exists()):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            _decode(items, side, array_file, names_file, progress)
        except OSError as error:
            raise ValueError(f"{cache} cannot hold the photos ({error}): set SSL_DEMO_CACHE to a folder with room") from error
    about = json.loads(names_file.read_text())  # names, skipped
    photos = Photos(np.load(array_file, mmap_mode="r")[:len(about["names"])], **about)
    return photos if limit is None else photos.take(np.random.default_rng(seed).permutation(len(photos))[:limit])


def load_some(paths, side: int, most: int, wanted: Callable[[str], object] = lambda name: True, seed: int = 0) -> Photos:
    """About so many of the photos that `load_photos` would load, drawn by the seed; no other is decoded.

    As many are drawn of each kind, which is what `wanted` says of a name.
    """
    kinds: dict[object, list[str]] = {}
    load_photos(paths, side, wanted=lambda name: (kind := wanted(name)) and kinds.setdefault(kind, []).append(name))
    random, drawn = np.random.default_rng([seed, 6]), set()
    for names in kinds.values():
        drawn.update(names[place] for place in random.permutation(len(names))[: max(1, most // len(kinds))])
    return load_photos(paths, side, progress=False, wanted=drawn.__contains__)


def cache_folder(cache=None) -> Path:
    """Where decoded photos and downloaded sets are kept."""
    return Path(cache or os.environ.get("SSL_DEMO_CACHE") or "~/.cache/ssl_demo").expanduser()


def files(paths, wanted: Callable[[str], object]) -> dict[str, Callable[[], bytes]]:
    """The pictures in folders and tars whose names are wanted, by name: functions that read their bytes."""
    return {name: read for text in sorted(map(str, paths)) for name, read in _source(text, Path("."))[1] if wanted(name)}


def _source(text: str, cache: Path) -> tuple[list, list]:
    """What identifies the content; and for every photo in it, in order, its name and a function that reads its bytes."""
    path = Path(text).expanduser()
    try:
        if text.startswith("torchvision:"):
            files, items = _torchvision(text.removeprefix("torchvision:"), cache)
        elif not path.exists():
            raise ValueError(f"there is no file or folder {text}")
        elif path.is_dir() or IS_PHOTO(path.name):
            files, root = (path.rglob("*"), path) if path.is_dir() else ([path], path.parent)
            files = sorted((file for file in files if IS_PHOTO(file.name) and file.is_file()), key=Path.as_posix)
            items = [(file.relative_to(root).as_posix(), file.read_bytes) for file in files]
        else:
            files, items = [path], _tar(path)
        content = [(file.name, *_content(file)) for file in files]
    except (OSError, EOFError, tarfile.TarError, zlib.error, RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(f"{text} is nothing that photos can be read from ({error})") from error
    if not items:
        raise ValueError(f"there are no pictures in {text} (a tar file is only read when it is named itself)")
    return content, items


def _tar(path: Path) -> list:
    file = open(path, "rb")  # noqa: SIM115  stays open for the functions returned
    if file.read(2) == b"\x1f\x8b":  # gzip: unpacked first, because reading in sorted order seeks back and forth
        with gzip.open(path) as packed:
            shutil.copyfileobj(packed, file := tempfile.TemporaryFile())  # noqa: SIM115
    file.seek(0)
    tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115
    members = sorted((member for member in tar if member.isfile() and IS_PHOTO(member.name)), key=lambda member: member.name)
    return [(member.name, lambda member=member: tar.extractfile(member).read()) for member in members]


def _torchvision(name: str, cache: Path) -> tuple[list, list]:
    root, photos = torchvision_set(name, cache)

    def read(i):
        photos[i][0].save(file := io.BytesIO(), "PNG", compress_level=0)
        return file.getvalue()

    files = sorted(file for file in root.rglob("*") if file.is_file())
    return files, [(f"{name}/{i:06d}", functools.partial(read, i)) for i in range(len(photos))]


def torchvision_set(name: str, cache: Path):
    """(its folder, the data set) of a name such as "CIFAR10" or "STL10/split=test", downloaded where it is not there yet.

    A download goes to a folder beside it first, by one thread of one process, while others wait: what lies in its own is whole.
    Raises ValueError where it cannot be downloaded.
    """
    from ssl_demo import torchvision_ops  # noqa: F401, I001  beside CPU-only torch, torchvision does not load without it
    import torchvision

    name, *settings = name.split("/")
    settings = {key: {"True": True, "False": False}.get(value, value) for key, _, value in (s.partition("=") for s in settings)}
    root, make = cache / "torchvision" / name, getattr(torchvision.datasets, name)
    if (found := _whole(make, root, settings)) is not None:
        return root, found
    part = root.with_name(f"{name}.part")
    with _alone(root):
        if (found := _whole(make, root, settings)) is not None:  # somebody else was faster
            return root, found
        shutil.rmtree(part, ignore_errors=True)  # of a download that was killed
        part.mkdir()
        try:
            for file in root.rglob("*"):  # what is packed is checked by its sum, and need not be fetched again
                if file.name.endswith(PACKED) and file.is_file():
                    copy = part / file.relative_to(root)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, copy)
            with contextlib.redirect_stdout(sys.stderr):  # some sets print what they do
                make(root=str(part), **settings, download=True)
            if _whole(make, part, settings) is None:
                raise ValueError(f"{name} was downloaded, but not all of it is there.")
            _move_over(part, root)
        except OSError as error:
            raise ValueError(f"{name} cannot be downloaded ({error}): it needs a network, or its files in {root}.") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return root, make(root=str(root), **settings, download=False)


def _whole(make: Callable, root: Path, settings: dict):
    """The torchvision set in a folder; None where it is not there, or in part, as a broken-off download leaves it."""
    try:
        found = make(root=str(root), **settings, download=False)
    except (RuntimeError, FileNotFoundError):
        return None
    known = CLASSES.get(root.name.removesuffix(".part"))
    lacks = known and len(found.classes) != known or not all(map(os.path.exists, getattr(found, "_image_files", [])))
    return None if lacks else found


_fetching: dict[Path, threading.Lock] = defaultdict(threading.Lock)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Whoever else wants to write this folder waits until the block is over: threads, and processes on the same disk."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _fetching[folder], open(folder.with_name(f"{folder.name}.lock"), "w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, even by a kill
        yield


def _move_over(source: Path, target: Path) -> None:
    """Moves a folder's content into another, where other parts of a set may lie; at once where there is no such folder yet."""
    if not target.is_dir():
        os.replace(source, target)
        return
    for entry in list(source.iterdir()):
        _move_over(entry, target / entry.name)


def _content(file: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
        return stream.tell(), digest.hexdigest()


def _decode(items: list, side: int, array_file: Path, names_file: Path, progress: bool) -> None:
    """Writes the two files under temporary names and moves them, the array last: a kill never leaves half of it."""
    def photo(data, name):
        try:
            return np.asarray(square(load_photo(io.BytesIO(data), name=name), side)).tobytes()
        except ValueError as error:
            return error

    names, errors = [], []
    with (tempfile.TemporaryDirectory(dir=array_file.parent, prefix="writing-") as folder,
          open(Path(folder, "array"), "wb") as stream,
          ThreadPoolExecutor(os.cpu_count()) as pool):  # as fast as processes: decoding and resizing release the GIL
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(items), side, side, 3)}
        np.lib.format.write_array_header_1_0(stream, header)
        # Chunks bound the memory; the pool is idle only at their ends.
        for first in tqdm(range(0, len(items), 512), "decoding photos", disable=not progress, unit="x512", leave=False):
            chunk = items[first:first + 512]
            results = pool.map(photo, (read() for _, read in chunk), (name for name, _ in chunk))
            for (name, _), result in zip(chunk, results, strict=True):
                if isinstance(result, ValueError):
                    errors.append(result)
                else:
                    names.append(name)
                    stream.write(result)
        if not names:
            raise ValueError(f"none of the {len(items)} photos can be read; the first: {errors[0]}")
        stream.truncate(stream.tell() + len(errors) * side * side * 3)  # an empty tail that no name points at
        stream.close()
        Path(folder, "names").write_text(json.dumps({"names": names, "skipped": len(errors)}))
        os.replace(Path(folder, "names"), names_file)
        os.replace(Path(folder, "array"), array_file)
    if errors:
        print(f"skipped {len(errors)} of {len(items)} photos that cannot be read; the first: {errors[0]}", file=sys.stderr)


class Batches:
    """Augmented batches: ``batches(step)`` is (batch_size / world, 3, size, size) float32 in [0, 1], a function of (seed, step).

    Each epoch goes once through a permutation of the photos; batches run on from one epoch into the next. Every photo is
    cropped to a random square of an area fraction in ``crop`` (a crop that stretched would not commute with rotation),
    mirrored half of the time if ``flip``, and its brightness, contrast and saturation multiplied by factors in
    1 - color ... 1 + color. Rank r of ``world`` computes rows r::world of the same batch, whose size ``world`` must divide,
    else ValueError.
    """

    def __init__(self, photos: Photos, batch_size: int, size: int, seed: int = 0, crop: tuple[float, float] = (0.5, 1.0),
                 flip: bool = True, color: float = 0.0, rank: int = 0, world: int = 1):
        if batch_size < 1 or batch_size % world:
            raise ValueError(f"the batch size must be a positive multiple of {world}, the number of processes, not {batch_size}")
        assert 0 < crop[0] <= crop[1] <= 1 and 0 <= color <= 1 and size > 0 and 0 <= rank < world and len(photos)
        self.photos, self.batch_size, self.size, self.seed = photos, batch_size, size, seed
        self.crop, self.flip, self.color, self.rank, self.world = crop, flip, color, rank, world
        # Bilinear sampling of a crop much larger than the output would alias: whole factors are averaged away first, as
        # long as even the smallest crop still has size x size pixels. The rest, below 2x for crops of similar areas, is left.
        self.shrink = max(1, int(photos.array.shape[1] * crop[0] ** 0.5 / size))

    def places(self, step: int) -> list[int]:
        """Which of the photos this process's share of a batch is made of."""
        count, numbers = len(self.photos), range(step * self.batch_size, (step + 1) * self.batch_size)[self.rank::self.world]
        return [_permutation(count, self.seed, number // count)[number % count] for number in numbers]

    def pixels(self, step: int) -> np.ndarray:
        """The photos of this process's share of a batch, (batch_size / world, side, side, 3) uint8."""
        return self.photos.array[self.photos.index[self.places(step)]]

    def __call__(self, step: int) -> torch.Tensor:
        pixels = self.pixels(step)
        chance = np.random.default_rng([self.seed, 1, step]).random((self.batch_size, 7), dtype=np.float32)
        chance = torch.from_numpy(chance[self.rank::self.world])
        out = torch.empty(len(pixels), 3, self.size, self.size)
        for first in range(0, len(pixels), 8):  # 8 photos and what is made of them fit into the processor's cache
            part = slice(first, first + 8)
            out[part] = self._augment(pixels[part], chance[part])
        return out

    def _augment(self, pixels: np.ndarray, chance: torch.Tensor) -> torch.Tensor:
        """(B, side, side, 3) uint8 and (B, 7) in [0, 1) -> (B, 3, size, size) float32 in [0, 1]."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        if self.shrink > 1:
            images = F.avg_pool2d(images, self.shrink)
        area, left, top, mirror, *color = chance.unsqueeze(-1).unbind(1)  # (B, 1) each
        width = (self.crop[0] + area * (self.crop[1] - self.crop[0])).sqrt() * 2  # photos span -1 ... 1
        across = (torch.arange(self.size) + 0.5) / self.size  # pixel centres, 0 ... 1
        across_x = torch.where(mirror < 0.5, across.flip(0), across) if self.flip else across
        x, y = left * (2 - width) - 1 + across_x * width, top * (2 - width) - 1 + across * width  # (B, size)
        # The crop is upright, so its grid is an outer product: F.affine_grid computes the same, slower than the sampling.
        grid = torch.empty(len(images), self.size, self.size, 2)
        grid[..., 0], grid[..., 1] = x[:, None, :], y[:, :, None]
        # Positions inside the photo need padding by half a pixel at most, where "border" and "reflection" are the same.
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False).div_(255)
        if not self.color:
            return images
        brightness, contrast, saturation = (1 + self.color * (2 * c.unsqueeze(-1) - 1) for c in color)  # (B, 1, 1)
        # b (c (s x + (1 - s) grey) + (1 - c) mean grey) is linear in the colours: one 3 x 3 matrix and a constant per image
        grey = torch.tensor(GREY).expand(3, 3)
        matrix = brightness * contrast * (saturation * torch.eye(3) + (1 - saturation) * grey)  # (B, 3, 3)
        mean = (images.mean((2, 3)) @ torch.tensor(GREY))[:, None, None]
        return torch.baddbmm(brightness * (1 - contrast) * mean, matrix, images.flatten(2)).view_as(images).clamp_(0, 1)


@functools.lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(count)


def prefetch(batches, first_step: int, last_step: int) -> Iterator[torch.Tensor]:
    """``batches(step)`` for first_step <= step < last_step, the next one computed in a thread while this one is used.

    An error in the thread is raised here; closing or dropping the generator ends the thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        ahead = None
        for step in range(first_step, last_step):
            batch = (ahead or pool.submit(batches, step)).result()
            ahead = pool.submit(batches, step + 1) if step + 1 < last_step else None
            yield batch


def centre(photos: Photos, size: int, batch_size: int) -> Iterator[torch.Tensor]:
    """All photos in order, without augmentation: (B, 3, size, size) float32 in [0, 1]; the exact pixels where side == size."""
    for first in range(0, len(photos), batch_size):
        images = photos.tensor(np.arange(first, min(first + batch_size, len(photos))))
        if images.shape[-1] != size:
            images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True, align_corners=False).clamp_(0, 1)
        yield images

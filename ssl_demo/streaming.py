"""Photos that are read as they come and kept nowhere: for data sets that fit on no disk, by Hugging Face's library `datasets`.

A source is named `hf:NAME[:split[:column]]`: a set on the Hub, a folder, or tars (webdataset) and Parquet files by pattern, such
as `hf:shards/*.tar`. Each process reads its own shards; a buffer of `BUFFER` photos, filled from several shards at once, is what
shuffles. The photos of a step are therefore not a function of (seed, step) as elsewhere: a run that goes on after a stop goes on
with an order of its own, in which some photos come again before others have come at all.
"""

import hashlib
import io
import itertools
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .data import Batches, Photos
from .images import load_photo, square

BUFFER = 1000  # photos that wait, undecoded, to be drawn from
KEPT = 500  # photos that are read first and, where as many others follow, never trained on: to watch the training by
HOPELESS = 1000  # so many photos in a row that cannot be read are no accident
SCHEME = "hf:"
_SPEC = re.compile(rf"{SCHEME}((?:\w+://)?[^:]+)(?::([^:]*))?(?::([^:]+))?$")
_BUILDERS = {".tar": "webdataset", ".parquet": "parquet"}  # of files by pattern; of folders and names the library finds out


@dataclass
class Stream(Photos):
    """A source of photos and, as `Photos` named by their checksums, the first of them: colours are counted in these."""

    spec: str = ""
    source: Any = None  # a datasets.IterableDataset of one column, of pictures not decoded
    watched: Photos | None = None  # of the first, those to watch the training by
    kept: set[str] = field(default_factory=set)  # checksums of what is not trained on

    def apart(self) -> tuple["Stream", Photos]:
        """(to learn from, to watch the training by)."""
        return self, self.watched

    def files(self, seed: tuple[int, ...], rank: int = 0, world: int = 1) -> Iterator[bytes]:
        """The files of all photos to train on, one epoch after another without end, as rank `rank` of `world` gets them."""
        from datasets.distributed import split_dataset_by_node

        shuffled = self.source.shuffle(generator=np.random.default_rng(seed), buffer_size=BUFFER)
        part = split_dataset_by_node(shuffled, rank, world)
        for epoch in itertools.count():
            part.set_epoch(epoch)
            some = False
            for data in _files(self.spec, part):
                if _checksum(data) not in self.kept:
                    some = True
                    yield data
            if not some:  # or it would be read over and over for ever
                raise ValueError(f"There are no photos to train on in {self.spec} for process {rank + 1} of {world}.")


class StreamBatches(Batches):
    """`Batches` of the photos that come next in a stream, each rank from its own part of it."""

    def __init__(self, photos: Stream, *arguments):
        super().__init__(photos, *arguments)
        self.pool, self.next, self.coming = ThreadPoolExecutor(os.cpu_count()), None, iter(())
        self.hopeless = 0  # photos in a row that could not be read

    def pixels(self, step: int) -> np.ndarray:
        if step != self.next:  # the first, perhaps of a run that goes on
            self.coming = self.photos.files((self.seed, step), self.rank, self.world)
        self.next, count, good = step + 1, self.batch_size // self.world, []
        while len(good) < count:
            decoded = _decode(self.pool, itertools.islice(self.coming, count - len(good)), self.photos.array.shape[1])
            whole = [pixels for pixels in decoded if not isinstance(pixels, ValueError)]
            self.photos.skipped += len(decoded) - len(whole)
            self.hopeless = 0 if whole else self.hopeless + len(decoded)
            if self.hopeless >= HOPELESS:
                raise ValueError(f"{HOPELESS} photos of {self.photos.spec} in a row cannot be read; the last: {decoded[-1]}")
            good += whole
        return np.stack(good)


def open_stream(spec: str, side: int = 144) -> Stream:
    """A source of photos, opened, and the first of them decoded: `KEPT` are kept from training where as many others follow,
    else some.

    Photos are centre squares of `side` pixels. Raises ValueError, in one sentence, where there is no such source, where it holds
    no column of pictures that can be read, and where the library is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise ValueError("Photos are streamed by the library “datasets”, which is not installed: pip install datasets") from None
    match = _SPEC.match(spec)
    if match is None:
        raise ValueError(f"A stream is named {SCHEME}NAME[:split[:column]], not {spec}.")
    name, split, column = match.groups()
    builder = _BUILDERS.get(os.path.splitext(name)[1])
    try:
        what = {"path": builder, "data_files": name} if builder else {"path": name}
        source = datasets.load_dataset(**what, split=split or "train", streaming=True)
        features = source.features or source._resolve_features().features
    except Exception as error:  # of the Hub, of networks, of files: there are many kinds
        raise ValueError(f"{spec} cannot be streamed ({type(error).__name__}: {_first_line(error)})") from None
    pictures = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    column = column or next(iter(pictures), None)
    if column not in features:
        raise ValueError(f"{spec} has no column of pictures{f' “{column}”' if column else ''}; it has {', '.join(features)}.")
    source = source.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        shuffled = source.shuffle(seed=0, buffer_size=BUFFER)  # the same are kept whatever the run's seed
        coming = _files(spec, shuffled)
        files = list(itertools.islice(coming, KEPT))
        decoded = _decode(pool, files, side)
        known = {_checksum(data) for data in files}
        others = sum(_checksum(data) not in known for data in itertools.islice(coming, KEPT))
    good = {_checksum(data): pixels for data, pixels in zip(files, decoded) if not isinstance(pixels, ValueError)}
    if not good:
        raise ValueError(f"None of the first {len(files)} photos of {spec} can be read; the first: {decoded[0]}" if files else
                         f"There are no photos in {spec}.")
    first = Photos(np.stack(list(good.values())), list(good))
    learned, kept = (first.take([]), first) if others >= KEPT else first.apart()
    out = set(kept.names) - set(learned.names)
    return Stream(first.array, first.names, len(files) - len(good), None, spec, source, kept, out)


def _files(spec: str, source) -> Iterator[bytes]:
    """What is in the files of one pass over a source."""
    try:
        for item in source:
            (picture,) = item.values()
            if picture and picture["bytes"] is None:  # of a folder only the path is told
                import fsspec

                with fsspec.open(picture["path"], "rb") as file:
                    yield file.read()
            elif picture:
                yield picture["bytes"]
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{spec} cannot be read ({type(error).__name__}: {_first_line(error)})") from error


def _decode(pool: ThreadPoolExecutor, files, side: int) -> list:
    """Of each file the central square as (side, side, 3) uint8, or the ValueError that says why there is none."""
    def decode(data: bytes):
        try:
            return np.asarray(square(load_photo(io.BytesIO(data)), side))
        except ValueError as error:
            return error

    return list(pool.map(decode, files))


def _checksum(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]

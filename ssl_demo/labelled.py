"""Photos with classes, in two parts: one to learn from, one to be judged by. From folders, the photo pack, or torchvision.

Labels are used by nothing that trains a pretext task: only to ask, afterwards, what its encoder is good for.
"""

import csv
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .data import Photos, cache_folder, load_photos, load_some, torchvision_set

# The sets known by name: what torchvision wants to be told, for the part to learn from and for the one to be judged by.
SETS = {
    "CIFAR10": (["train=True"], ["train=False"]),
    "STL10": (["split=train"], ["split=test"]),
    "Imagenette": (["split=train/size=160px"], ["split=val/size=160px"]),
    "Flowers102": (["split=train", "split=val"], ["split=test"]),  # as others count it: 20 photos a class to learn from
}
Kind = Callable[[str], tuple[str, str] | None]  # of a photo's name: its part and its class, or None


@dataclass(frozen=True)
class Labelled:
    """`train_labels[i]` is the class of the photo `train[i]`, as its number in `classes`; `test` likewise."""

    classes: list[str]
    train: Photos
    train_labels: np.ndarray  # (N,)
    test: Photos
    test_labels: np.ndarray

    def draw(self, per_class: int | None, seed: int) -> np.ndarray:
        """Places of `per_class` training photos of each class, drawn by the seed; of all photos where None.

        Raises ValueError where a class has fewer.
        """
        if per_class is None:
            return np.arange(len(self.train))
        return drawn(self.train_labels, self.classes, per_class, seed)

    def inside(self, share: float = 0.15, seed: int = 0) -> "Labelled":
        """The training part alone, parted again: what is chosen by trying is chosen on this, so that `test` chooses nothing."""
        order = np.random.default_rng([seed, 3]).permutation(len(self.train))
        test, train = np.sort(order[: round(share * len(order))]), np.sort(order[round(share * len(order)) :])
        return replace(self, train=self.train.take(train), train_labels=self.train_labels[train],
                       test=self.train.take(test), test_labels=self.train_labels[test])


def drawn(labels: np.ndarray, classes: Sequence[str], per_class: int, seed: int) -> np.ndarray:
    """Places of `per_class` photos of each class, drawn by the seed, in ascending order. More of the same seed hold the fewer.

    labels: the class of each photo, as its number in `classes`. Raises ValueError where a class has fewer.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < per_class:
        raise ValueError(f"There are {counts.min()} training photos of “{classes[counts.argmin()]}”, "
                         f"fewer than {per_class} a class.")
    random = np.random.default_rng([seed, 2])
    of_class = [np.flatnonzero(labels == label) for label in range(len(classes))]
    return np.sort(np.concatenate([random.permutation(places)[:per_class] for places in of_class]))


def load_labelled(data, side: int = 144, most: int | None = None) -> Labelled:
    """From a folder of `train/CLASS/*` and `val/CLASS/*`, one with an `index.csv` as the photo pack's, or "torchvision:CIFAR10".

    most: only about so many photos, as many of each class. Photos that cannot be read are skipped, and counted in
    `train.skipped`. Raises ValueError with one sentence for anything else.
    """
    if str(data).startswith("torchvision:"):
        return _torchvision(str(data).removeprefix("torchvision:"), side, most)
    paths, kind = _folder(data)
    return _parted(_load(paths, side, most, kind), kind)


def load_drawn(data, side: int, train: int, test: int, seed: int, most_classes: int = 100) -> Labelled:
    """So many photos a class of each part of a folder, those that `drawn` draws of all by the seed; no other one is decoded.

    Raises ValueError as `load_labelled` does, and where a class has fewer, or there are more classes.
    """
    paths, kind = _folder(data)
    kinds: dict[str, tuple[str, str]] = {}
    load_photos(paths, side, wanted=lambda name: (of := kind(name)) and kinds.update({name: of}))  # asks for none
    chosen, classes = set(), sorted({label for _, label in kinds.values()})
    if len(classes) > most_classes:
        raise ValueError(f"{data} has {len(classes)} classes, more than {most_classes}.")
    for part, count in (("train", train), ("test", test)):
        names = [name for name, of in kinds.items() if of[0] == part]
        labels = np.array([classes.index(kinds[name][1]) for name in names], dtype=np.int64)
        chosen |= {names[place] for place in drawn(labels, classes, count, seed)}
    return _parted(load_photos(paths, side, progress=False, wanted=lambda name: name in chosen and kind(name)), kind)


def _folder(data) -> tuple[list[Path], Kind]:
    """Where the photos of a folder lie, and what says of each, by its name, its part ("train", "test") and its class."""
    path = Path(data).expanduser()
    if not path.is_dir():
        raise ValueError(f"There is no folder {data}.")
    if (path / "train").is_dir():
        return _class_folders(path)
    if (path / "index.csv").is_file():
        return _pack(path)
    raise ValueError(f"{data} holds neither train/CLASS/* and val/CLASS/* nor an index.csv with a column “benchmark”.")


def _load(paths: list, side: int, most: int | None, wanted=lambda name: True) -> Photos:
    return load_photos(paths, side, wanted=wanted) if most is None else load_some(paths, side, most, wanted)


def _class_folders(path: Path) -> tuple[list[Path], Kind]:
    judge = next((name for name in ("val", "test") if (path / name).is_dir()), None)
    if judge is None:
        raise ValueError(f"{path} has train/ but no val/: the photos to be judged by.")

    def kind(name: str) -> tuple[str, str] | None:
        part, *rest = name.split("/")
        return ("train" if part == "train" else "test", rest[0]) if part in ("train", judge) and len(rest) > 1 else None

    return [path], kind


def _pack(path: Path) -> tuple[list[Path], Kind]:
    with open(path / "index.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = [name for name in ("path", "tar", "class", "benchmark") if not rows or name not in rows[0]]
    if missing:
        raise ValueError(f"{path / 'index.csv'} has no column “{missing[0]}”.")
    wanted = {posixpath.normpath(row["path"]): row for row in rows if row["benchmark"]}

    def kind(name: str) -> tuple[str, str] | None:
        row = wanted.get(posixpath.normpath(name))
        return row and ("train" if row["benchmark"] == "train" else "test", row["class"])

    tars = sorted({row["tar"] for row in wanted.values()})
    if not tars:
        raise ValueError(f"{path / 'index.csv'} names no photo for the benchmark.")
    return [path / tar for tar in tars], kind


def _torchvision(name: str, side: int, most: int | None) -> Labelled:
    known = {key.lower(): key for key in SETS}
    if (short := name.lower().replace("-", "")) not in known:
        raise ValueError(f"There is no set “{name}” with known classes; there are {', '.join(SETS)}.")
    name, photos, labels, parts = known[short], [], [], []
    for part, splits in zip(("train", "test"), SETS[known[short]]):
        for split in splits:
            photos.append(_load([f"torchvision:{name}/{split}"], side, most and most // 2))
            every = _labels(torchvision_set(f"{name}/{split}", cache_folder())[1])
            labels += [every[int(photo.rpartition("/")[2])] for photo in photos[-1].names]
            parts += [part] * len(photos[-1])
    array = np.concatenate([part.array for part in photos])
    names = sum((part.names for part in photos), [])
    return _parted(Photos(array, names, sum(part.skipped for part in photos)), dict(zip(names, zip(parts, labels))).get)


def _labels(dataset) -> list[str]:
    """The class of each photo, without decoding one where the set keeps them apart; each keeps them under a name of its own."""
    for name in ("targets", "labels", "_labels"):
        if hasattr(dataset, name):
            numbers = [int(label) for label in getattr(dataset, name)]
            break
    else:
        numbers = [label for _, label in getattr(dataset, "_samples", dataset)]
    names = [name if isinstance(name, str) else name[0] for name in getattr(dataset, "classes", [])]
    named = len(set(names)) == len(names) > max(numbers)
    return [names[number] if named else f"{number:03d}" for number in numbers]


def _parted(photos: Photos, kind: Kind) -> Labelled:
    """Raises ValueError where there are fewer than two classes, or a part has a class that the other has not."""
    parts, labels = zip(*map(kind, photos.names)) if len(photos) else ((), ())
    known = {part: {label for label, of in zip(labels, parts) if of == part} for part in ("train", "test")}
    for part, other, what in (("train", "test", "to be judged by"), ("test", "train", "to learn from")):
        if missing := sorted(known[part] - known[other]):
            raise ValueError(f"There is no photo of “{missing[0]}” {what}.")
    classes = sorted(known["train"])
    if len(classes) < 2:
        raise ValueError(f"It takes at least two classes with photos; there {'is one' if classes else 'is none'}.")
    numbers = np.array([classes.index(label) for label in labels])
    train, test = (np.flatnonzero(np.array(parts) == part) for part in ("train", "test"))
    return Labelled(classes, photos.take(train), numbers[train], photos.take(test), numbers[test])

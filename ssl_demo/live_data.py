"""What a visitor's training learns from: own photos and clips, the examples, or what the host offers.

A single photo is enough to learn the first things from: many crops of it, at every scale, stand for a set of photos, as in
A critical analysis of self-supervision, or what we can learn from a single image (Asano, Rupprecht, Vedaldi 2020).
"""

import csv
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .clips import Clips, load_clips
from .data import Photos, load_some
from .examples import EXAMPLES
from .images import square
from .labelled import SETS, Labelled, load_drawn, load_labelled
from .pretext import PretextTask
from .video import Clip, squares

CROPS = 192  # made of a visitor's photos, all together; whoever brings more photos gets one of each
SMALLEST = 0.3  # the side of a crop, as a share of the photo's shorter one
MOST = 4000  # photos taken of a large set: more than a training of minutes could see
PROBED = 400  # photos whose classes are asked for: those to learn from and those to be judged by
PROBE = 50, 25  # photos a class of the set that any training is probed on, those to learn from and those to be judged by
SIDE = 144  # pixels of these
TORCHVISION = "torchvision:"


def photos_of(pictures: Sequence[Image.Image], task: PretextTask | type[PretextTask], seed: int = 0) -> Photos:
    """A visitor's photos as data to train on: the square of each, and of few many random crops at their own resolution.

    Crops are squares, their sides spread evenly from all of the photo's shorter side to three tenths of it. Where a task says
    itself how it crops when time is short, it is given whole photos. Raises ValueError where there is no photo.
    """
    if not pictures:
        raise ValueError("There is no photo to learn from.")
    return _crops(pictures[:MOST], task.recipe.side, _count(task), seed)


def _count(task: PretextTask | type[PretextTask]) -> int:
    return 1 if "crop" in task.quick else CROPS


def _crops(pictures: Sequence[Image.Image], side: int, count: int, seed: int = 0) -> Photos:
    random, made, names = np.random.default_rng([seed, 5]), [], []
    for number, picture in enumerate(pictures):
        picture, shorter = picture.convert("RGB"), min(picture.size)
        for crop in range(max(1, count // len(pictures))):
            across = shorter if crop == 0 else max(1, round(shorter * random.uniform(SMALLEST, 1)))
            left, top = ((length - across) // 2 if crop == 0 else int(random.integers(0, length - across + 1))
                         for length in picture.size)
            made.append(np.asarray(square(picture.crop((left, top, left + across, top + across)), side)))
            names.append(f"{number}-{crop}")
    return Photos(np.stack(made), names)


def clips_of(moving: Sequence[Image.Image | Clip], task: PretextTask | type[PretextTask], seed: int = 0) -> Clips:
    """A visitor's clips as data to train on, and photos, over which the camera will move; pieces are cut out of each clip anew.

    Raises ValueError where there is neither a photo nor a clip of two frames.
    """
    side = task.recipe.side
    films = [clip for clip in moving if isinstance(clip, Clip) and len(clip.frames) > 1]
    stills = [Image.fromarray(thing.frames[0]) if isinstance(thing, Clip) else thing
              for thing in moving if not (isinstance(thing, Clip) and len(thing.frames) > 1)]
    if not films and not stills:
        raise ValueError("There is no clip to learn from.")
    empty = np.empty((0, side, side, 3), dtype=np.uint8)
    frames = np.concatenate([empty, *(squares(clip, side) for clip in films)])
    ends = np.cumsum([0, *(len(clip.frames) for clip in films)])
    rows = {f"clip {number}": np.arange(ends[number], ends[number + 1]) for number in range(len(films))}
    photos = photos_of(stills, task, seed) if stills else Photos(empty, [])
    return Clips(Photos(frames, [str(row) for row in range(len(frames))]), photos, rows, {})


def example_data(task: PretextTask | type[PretextTask]) -> Photos | Clips:
    """The credited example photos as data to train on; for tasks about clips a camera moves over them."""
    photos = _examples(task.recipe.side, _count(task))
    return Clips.moving(photos) if task.card.input == "video" else photos


@functools.lru_cache(maxsize=4)
def _examples(side: int, count: int) -> Photos:
    return _crops([example.image for example in EXAMPLES], side, count)


def load_named(name: str, task: PretextTask | type[PretextTask]) -> tuple[Photos | Clips, Labelled | None]:
    """A set of the host's (a folder, a tar, or "torchvision:NAME") as data to train on; and its classes, where it has some.

    Of a large set a part is taken, by chance; nothing is that the classes are judged by. Raises ValueError with one sentence
    where it cannot be read.
    """
    return _named(str(name), task.recipe.side, task.card.input == "video")


@functools.lru_cache(maxsize=8)
def _named(name: str, side: int, moving: bool) -> tuple[Photos | Clips, Labelled | None]:
    if moving and not name.startswith(TORCHVISION):
        return load_clips(_to_learn_from(name), side, limit=MOST).apart()[0], None
    photos = load_some(_to_learn_from(name), side, MOST)
    if moving:
        return Clips.moving(photos), None
    try:
        return photos, load_labelled(name, side, most=PROBED)
    except ValueError:  # no classes, or too many to be drawn evenly: nothing that a training would need
        return photos, None


@functools.lru_cache(maxsize=2)
def probe_set(names: tuple[str, ...]) -> Labelled | None:
    """A small set with classes from the first of a host's folders that has some, whatever a training learns from; or None.

    750 photos of ten classes take an encoder a second or two; how often they are asked for is the business of `live_watch`.
    """
    for name in names:
        try:
            if not name.startswith(TORCHVISION):  # which might be fetched from far away
                return load_drawn(name, SIDE, *PROBE, seed=0, most_classes=20)
        except ValueError:  # no classes, too few photos of one, or nothing that can be read: the next one may do
            continue
    return None


def _to_learn_from(name: str) -> list[str]:
    """The part of a set that is meant to be trained on."""
    if name.startswith(TORCHVISION):
        known = name.removeprefix(TORCHVISION)
        return [f"{name}/{split}" for split in SETS[known][0]] if known in SETS else [name]
    path = Path(name).expanduser()
    if (path / "index.csv").is_file():
        with open(path / "index.csv", encoding="utf-8", newline="") as file:
            tars = {row.get("tar") for row in csv.DictReader(file) if row.get("split", "train") == "train"}
        if found := sorted(str(path / tar) for tar in tars if tar and (path / tar).is_file()):
            return found
    return [str(path / "train")] if (path / "train").is_dir() else [str(path)]

"""Teach it yourself: a handful of pictures in two to five named classes, and what every frozen encoder makes of them.

No network learns anything here. A linear layer hears the labels of all pictures but one and is asked about that one, each in turn
(leave-one-out); then it hears all of them and is asked about another photo. Few pictures prove little, so every accuracy comes
with Wilson's 95 % interval, and encoders whose intervals overlap are not told apart.

The probe is `probes.least_squares`, chosen by `benchmarks/teach_probe.py --draws 10` on the benchmark's training photos,
five a class: over all encoders it is right on 56.3 % of other photos (log loss 0.99), logistic regression on 56.1 % (1.00),
nearest centroid on 52.9 % (1.42) and kNN on 52.8 % (1.05). Leave-one-out says 52.2 % there, since one picture is missing,
and its 95 % interval held the accuracy on other photos in 84 of 100 cases: few pictures prove even less than it says. One
trained encoder is right on 57.4 %, the mean of their shares on 64.9 %.

Pictures, small, and their features stay in memory for as long as a `Lesson` lives; nothing is written anywhere.
"""

import copy
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import embedding, own_networks, probes
from .checkpoints import UNTRAINED
from .examples import EXAMPLES
from .images import square
from .texts import say
from .transfer import PIXELS

MOST_CLASSES, MOST_PICTURES, LONGEST_NAME = 5, 30, 40
LEAST = 2  # pictures that a class takes: one that is left out must have another to be recognised by
SIDE = 192  # pixels; no bundled encoder sees more
NAMES = tuple(say("Class {letter}", letter=letter) for letter in "ABCDE")
Z = 1.96  # standard deviations on either side that hold 95 % of a normal distribution
_numbers = itertools.count()


def encoders() -> list[str]:
    """Every bundled encoder, and the two rivals that learned nothing: the network of the first, untrained, and bare pixels."""
    trained = embedding.bundled_encoders()
    return [*trained, *(f"{name}:{UNTRAINED}" for name in trained[:1]), PIXELS]


class Picture:
    """The central square of an RGB picture, at most `SIDE` pixels, with what encoders made of it: by name, (D,).

    own: what visitors' own networks made of it, by their keys.
    """

    def __init__(self, image: Image.Image):
        self.number = next(_numbers)  # tells pictures of a process apart, however alike they look
        self.image = square(image.convert("RGB"), min(*image.size, SIDE))
        self.features: dict[str, Tensor] = {}
        self.own: dict[str, Tensor] = {}

    def lend(self) -> "Picture":
        """The same picture for one visit: what the encoders that ship make of it is shared, what own networks make is not."""
        lent = copy.copy(self)
        lent.own = {}
        return lent

    def seen(self, encoder: str) -> dict[str, Tensor]:
        """Where what this encoder makes of the picture is kept, by its name."""
        return self.own if own_networks.is_own(encoder) else self.features


def embed(pictures: Sequence[Picture], encoder: str) -> None:
    """Lets an encoder see the pictures that it has not seen yet."""
    new = [picture for picture in pictures if encoder not in picture.seen(encoder)]
    if new:
        for picture, features in zip(new, embedding.embed([picture.image for picture in new], encoder), strict=True):
            picture.seen(encoder)[encoder] = features


class Group:
    """A class of pictures, with its name."""

    def __init__(self, name: str, pictures: Sequence[Picture] = ()):
        self.name, self.pictures = name, list(pictures)


class Lesson:
    """One visit's classes. It changes in place, so that what comes while an answer is on its way is not lost.

    version: grows with every change; asked: the photo to classify, as given, and as a `Picture`; scores: see `score`; own: the
    visit's own networks, by their keys; lost: why some of them were dropped; left: the version that the visitor no longer waits
    for.
    """

    def __init__(self):
        self.groups, self.version, self.is_busy = [Group(name) for name in NAMES[:2]], 0, False
        self.asked: tuple[Image.Image, Picture] | None = None
        self.scores: dict[str, tuple] = {}
        self.own: list[str] = []
        self.lost: list[str] = []
        self.left: int | None = None

    def add(self, place: int, images: Sequence[Image.Image]) -> None:
        """More pictures of a class. Raises ValueError where some are too many; those that fit have joined."""
        group = self.groups[place]
        room = MOST_PICTURES - len(group.pictures)
        group.pictures += [Picture(image) for image in images[:room]]
        self.version += 1
        if len(images) > room:
            raise ValueError(f"A class takes at most {MOST_PICTURES} pictures; {len(images) - room} more of “{group.name}” "
                             f"{'was' if len(images) - room == 1 else 'were'} left out.")

    def remove(self, number: int) -> None:
        """Forgets the picture of this number, wherever it is."""
        for group in self.groups:
            group.pictures = [picture for picture in group.pictures if picture.number != number]
        self.version += 1

    def open(self) -> None:
        """One class more, empty. Raises ValueError where there are as many as there may be."""
        if len(self.groups) >= MOST_CLASSES:
            raise ValueError(f"There are at most {MOST_CLASSES} classes.")
        self.groups.append(Group(self._letter(self.groups)))

    def begin(self, classes: Sequence[Group] = ()) -> None:
        """Starts over, with these classes and at least two."""
        self.groups = [Group(group.name, group.pictures) for group in classes]
        while len(self.groups) < 2:
            self.open()
        self.version += 1

    def rename(self, place: int, name: str) -> None:
        """Raises ValueError for a name that another class has; an empty one is a letter again."""
        others = self.groups[:place] + self.groups[place + 1 :]
        name = " ".join(str(name or "").split())[:LONGEST_NAME] or self._letter(others)
        if name in (group.name for group in others):
            raise ValueError(f"Another class is called “{name}” already; give each a name of its own.")
        self.groups[place].name = name
        self.version += 1

    @staticmethod
    def _letter(others: Sequence[Group]) -> str:
        taken = {group.name for group in others}
        return next(name for name in NAMES if name not in taken)

    def invite(self, own: Sequence[str]) -> None:
        """These are the visit's own networks from now on; they look at everything too."""
        self.own = list(own)
        self.version += 1

    def ask(self, photo: Image.Image | None) -> None:
        """The photo to classify from now on."""
        if photo is not None and (self.asked is None or self.asked[0] is not photo):
            self.asked = photo, Picture(photo)

    def ready(self) -> list[Group]:
        """The classes that take part, those with pictures enough, as they are now."""
        return [Group(group.name, group.pictures) for group in self.groups if len(group.pictures) >= LEAST]

    def pictures(self) -> list[Picture]:
        """All that encoders must have seen before `report` can be made at once."""
        seen = [picture for group in self.ready() for picture in group.pictures]
        return seen + ([self.asked[1]] if self.asked else [])

    def see(self, encoder: str) -> None:
        """Lets an encoder see all pictures. An own network that cannot is dropped, and `lost` says why."""
        try:
            embedding.title(encoder)  # of a network that is gone nothing can be told, though it has seen all
            embed(self.pictures(), encoder)
        except ValueError as mistake:
            if not own_networks.is_own(encoder):
                raise
            self.own = [key for key in self.own if key != encoder]
            self.lost.append(str(mistake))

    def is_example(self) -> bool:
        """Whether all pictures are the app's own."""
        known = {picture.number for group in _example() for picture in group.pictures}
        return all(picture.number in known for group in self.groups for picture in group.pictures)

    def look(self) -> Iterator[tuple[int, int]]:
        """(encoders that have seen all pictures, all encoders), while they look. Ends early when the lesson changes."""
        names, version = [*encoders(), *self.own], self.version
        for done, name in enumerate(names):
            yield done, len(names)
            if self.version != version:
                return
            self.see(name)
            if name in (*encoders(), *self.own):
                score(self.ready(), name, self.scores)


@dataclass(frozen=True)
class Score:
    """How many of the pictures an encoder told rightly, each after hearing the labels of the others."""

    encoder: str
    right: int
    of: int

    @property
    def accuracy(self) -> float:
        return self.right / self.of

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.of)


def wilson(right: int, of: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927), which stays inside [0, 1] and is honest about few."""
    assert 0 <= right <= of and of > 0
    share, width = right / of, Z * Z / of
    middle = (share + width / 2) / (1 + width)
    half = Z / (1 + width) * (share * (1 - share) / of + width / (4 * of)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def tally(features: Tensor, labels: np.ndarray, classes: int) -> tuple[int, int]:
    """(pictures told rightly by leave-one-out, all pictures)."""
    answers = probes.left_out(features, labels, classes).argmax(dim=1).numpy()
    return int((answers == labels).sum()), len(labels)


def learned(groups: Sequence[Group], encoder: str) -> tuple[Tensor, np.ndarray]:
    """Features (N, D) and labels (N,) of all pictures."""
    labels = np.repeat(np.arange(len(groups)), [len(group.pictures) for group in groups])
    return torch.stack([picture.seen(encoder)[encoder] for group in groups for picture in group.pictures]), labels


def score(groups: Sequence[Group], encoder: str, known: dict[str, tuple]) -> Score:
    """By leave-one-out of pictures that the encoder has seen. known: what it was last, for another photo needs no other."""
    which = tuple(tuple(picture.number for picture in group.pictures) for group in groups)
    if known.get(encoder, ((), None))[0] != which:
        known[encoder] = which, Score(encoder, *tally(*learned(groups, encoder), len(groups)))
    return known[encoder][1]


def report(groups: Sequence[Group], photo: Picture | None = None, known: dict[str, tuple] | None = None,
           own: Sequence[str] = ()) -> dict:
    """What every encoder makes of at least two classes of at least two pictures each, as plain values.

    encoders: the best first, with `accuracy` and its interval `low` to `high` by leave-one-out, `title`, `trained` and `own`; of
    `photo`, `class` and `probability`. together: class and probability by the mean of the shares of the trained encoders that
    ship, how far `ahead` of the next class it is, and how many of them `agree`. chance: the share of the largest class. known: as
    in `score`. own: a visitor's networks, which do not vote: one that learned nothing would spoil it. Raises ValueError where
    there is too little to learn from.
    """
    if len(groups) < 2 or any(len(group.pictures) < LEAST for group in groups):
        raise ValueError(f"It takes at least two classes with at least {LEAST} pictures each.")
    pictures = [picture for group in groups for picture in group.pictures]
    known, rows, votes = {} if known is None else known, [], []
    for name in [*encoders(), *own]:
        embed([*pictures, *([photo] if photo else [])], name)
        scored = score(groups, name, known)
        low, high = scored.interval
        row = {"encoder": name, "title": embedding.title(name), "trained": embedding.is_trained(name), "own": name in own,
               "right": scored.right, "of": scored.of, "accuracy": scored.accuracy, "low": low, "high": high}
        if photo:
            shares = probes.least_squares(*learned(groups, name), photo.seen(name)[name][None], len(groups))[0]
            row |= {"class": groups[int(shares.argmax())].name, "probability": float(shares.max())}
            votes += [shares] if row["trained"] and not row["own"] or name == encoders()[0] else []
        rows.append(row)
    rows.sort(key=lambda row: -row["accuracy"])  # equals stay in the order of the tabs
    told = {"classes": [{"name": group.name, "pictures": len(group.pictures)} for group in groups],
            "chance": max(len(group.pictures) for group in groups) / len(pictures), "encoders": rows, "together": None}
    if votes:
        shares = torch.stack(votes).mean(dim=0)
        name, (first, second) = groups[int(shares.argmax())].name, shares.topk(2).values.tolist()
        told["together"] = {"class": name, "probability": first, "ahead": first - second, "encoders": len(votes),
                            "agree": sum(row["trained"] and not row["own"] and row["class"] == name for row in rows)}
    return told


def conclusion(told: dict) -> str:
    """What a report's accuracies allow to be said, and no more."""
    rows = told["encoders"]
    best, above = rows[0], sum(row["low"] > told["chance"] for row in rows)
    text = say("On {of} pictures, no interval lies wholly above chance." if not above else
               "On {of} pictures, all {all} intervals lie wholly above chance." if above == len(rows) else
               "On {of} pictures, {above} of {all} intervals lie wholly above chance.",
               of=best["of"], above=above, all=len(rows)) + " "
    worse = sum(row["high"] < best["low"] for row in rows)
    if not worse:
        return text + say("All overlap with the best one's: none can be said to be better yet.")
    alike = sum(row["right"] == best["right"] for row in rows)
    who = say("{title} is" if alike == 1 else "The best {alike} are", title=say(best["title"]), alike=alike)
    return text + say("{who} better than the last {worse}; of the others, whose intervals overlap, it cannot be said.", who=who,
                      worse=worse)


def example() -> tuple[Group, ...]:
    """Classes to begin with, from what the app has: six parts each of three example photos, lent to one lesson."""
    return tuple(Group(group.name, [picture.lend() for picture in group.pictures]) for group in _example())


@functools.cache
def _example() -> tuple[Group, ...]:
    """The same for all lessons: made, and looked at, once."""
    classes = []
    for photo in (EXAMPLES[0], *EXAMPLES[2:]):
        side, parts = min(photo.image.size) * 11 // 20, []
        for place in range(6):
            row, column = divmod(place, 3)
            left, top = (photo.image.width - side) * column // 2, (photo.image.height - side) * row
            parts.append(Picture(photo.image.crop((left, top, left + side, top + side))))
        classes.append(Group(photo.name.capitalize(), parts))
    return tuple(classes)


def grouped(images: Sequence[Image.Image], labels: Sequence[str]) -> list[Group]:
    """Classes from pictures and the name of each one's class. Raises ValueError for too many, or names that do not fit."""
    if not isinstance(labels, list) or len(labels) != len(images) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"`labels` must be a JSON list with the name of a class for each of the {len(images)} files.")
    names = list(dict.fromkeys(labels))
    if len(names) > MOST_CLASSES:
        raise ValueError(f"There are at most {MOST_CLASSES} classes, not {len(names)}.")
    groups = [Group(name, [Picture(image) for image, label in zip(images, labels) if label == name]) for name in names]
    if most := next((group for group in groups if len(group.pictures) > MOST_PICTURES), None):
        raise ValueError(f"A class takes at most {MOST_PICTURES} pictures; “{most.name}” has {len(most.pictures)}.")
    return groups

"""How a network learned to answer: what it said of the example photos after 1, 2, 4, 8, ... steps, in a file that ships.

One ZIP a task in `weights/learned/`, written by `benchmarks/how_it_learned.py`: `learned.json`, with the fields of `Learned`, and
the pictures as WebP by their numbers, each one once, however many steps show it. Bars are kept as values, so they stay sharp.
"""

import io
import json
import math
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from . import checkpoints
from .examples import EXAMPLES
from .figures import panel_picture, pick
from .images import limit
from .inference import Result
from .pretext import STAGES, Bar, Card, Number, Panel
from .training import write_atomically

LIMIT = 300_000  # bytes of a file
LONGEST = 240  # pixels of a picture's longer side; the page draws it hardly larger
TABLE = "learned.json"


@dataclass(frozen=True)
class Kept:
    """A panel as it is kept: a WebP picture, or bars."""

    name: str
    title: str
    caption: str
    stage: str
    picture: bytes = b""
    bars: tuple[Bar, ...] = ()

    def __post_init__(self):
        texts = (self.name, self.title, self.caption)
        _check(all(isinstance(text, str) for text in texts) and self.name and self.stage in STAGES, "a panel's texts")
        _check(bool(self.picture) != bool(self.bars), f"panel {self.name}, which needs a picture or bars")
        _check(all(isinstance(bar.label, str) and 0 <= bar.value <= 1 for bar in self.bars), f"the bars of {self.name}")
        _check(not self.picture or max(self.size) <= LONGEST, f"the picture of {self.name}")

    @property
    def size(self) -> tuple[int, int]:
        """The picture's width and height. Raises ValueError where it is no WebP."""
        try:
            return Image.open(io.BytesIO(self.picture), formats=["WEBP"]).size
        except (UnidentifiedImageError, OSError):
            raise ValueError(f"the picture of {self.name}") from None


@dataclass(frozen=True)
class Answer:
    """What one network said of one photo."""

    panels: tuple[Kept, ...]
    figures: tuple[Number, ...]

    def __post_init__(self):
        _check(self.panels and self.figures, "an answer without panels or figures")
        _check(all(isinstance(text, str) for n in self.figures for text in (n.label, n.text, n.help)), "the figures' texts")


@dataclass(frozen=True)
class Learned:
    """The answers of the networks of one training, with its curve.

    weights, sha256: of the last one. curve: (step, images seen, loss, metric) of the training. guessing: the loss of who guesses,
    chance: the metric of who does, where these are known. answers: by the example photo's name, one for each of `steps`.
    Raises ValueError where these do not fit each other.
    """

    task: str
    weights: str
    sha256: str
    command: str
    steps: tuple[int, ...]
    curve: tuple[tuple[int, int, float, float], ...]
    guessing: float | None
    chance: float | None
    answers: dict[str, tuple[Answer, ...]]

    def __post_init__(self):
        texts = (self.task, self.weights, self.sha256, self.command)
        _check(all(isinstance(text, str) for text in texts), "its texts")
        for what, steps in (("its steps", self.steps), ("its curve", [point[0] for point in self.curve])):
            rising = all(a < b for a, b in zip(steps, steps[1:]))
            _check(len(steps) > 1 and all(type(step) is int for step in steps) and 0 < steps[0] and rising, what)
        _check(all(len(point) == 4 and all(map(math.isfinite, point)) for point in self.curve), "its curve")
        _check(all(level is None or math.isfinite(level) for level in (self.guessing, self.chance)), "its levels")
        _check(list(self.answers) == [example.name for example in EXAMPLES], "its photos")
        for answers in self.answers.values():
            names = {tuple(panel.name for panel in answer.panels) for answer in answers}
            _check(len(answers) == len(self.steps) and len(names) == 1, "its answers, one a step")

    def images_after(self, step: int) -> int:
        """How many photos or clips had been seen after a step."""
        last = self.curve[-1]
        return round(last[1] / last[0] * step)

    def level_at(self, step: int) -> tuple[float, float]:
        """Loss and metric of the curve around a step; its ends reach on."""
        at, *_ = zip(*self.curve)
        return tuple(float(np.interp(np.log(step), np.log(at), [point[place] for point in self.curve])) for place in (2, 3))


def _check(fits: object, what: str) -> None:
    if not fits:
        raise ValueError(what)


def file_of(task: str) -> Path:
    """Where a task's file lies, or would lie: among the weights."""
    return checkpoints.WEIGHTS / "learned" / f"{task}.zip"


def chosen(result: Result, card: Card) -> tuple[list[Panel], list[Number]]:
    """What of a run is worth playing: the panels and figures in the card's `learned`; else those that stand for the method on the
    overview, with the bars if there are any."""
    by_name = {panel.name: panel for panel in result.panels}
    named = [name for name in card.learned or card.overview if name in result.figures]
    figures = [result.figures[name] for name in named] or [next(n for n in result.figures.values() if n.text)]
    panels = [by_name[name] for name in card.learned if name in by_name]
    if not panels:
        bars = [panel for panel in result.panels if panel.bars]
        panels = [*(pick(result.panels, stage, card.overview) for stage in ("sees", "answers")), *bars[:1]]
    return panels, figures


def keep(panel: Panel, quality: int) -> Kept:
    """A panel with its picture as WebP of a quality from 0 to 100, its longer side at most `LONGEST` pixels. Of a clip the frame
    in the middle."""
    told = (panel.name, panel.title, panel.caption, panel.stage)
    if panel.bars:
        return Kept(*told, bars=tuple(Bar(bar.label, round(float(bar.value), 4), bar.true, bar.chosen) for bar in panel.bars))
    if panel.video is not None:
        told = (panel.name, panel.title, f"{panel.caption} Frame {len(panel.video) // 2 + 1} of {len(panel.video)}.", panel.stage)
    stream, drawn = io.BytesIO(), panel_picture(panel, 1)
    limit(Image.fromarray(np.ascontiguousarray(drawn)), LONGEST).save(stream, "WEBP", quality=quality, method=6)
    return Kept(*told, picture=stream.getvalue())


def packed(learned: Learned) -> bytes:
    """The file's bytes: the same answers give the same."""
    pictures: dict[bytes, int] = {}
    table = asdict(learned)
    for answers in table["answers"].values():
        for answer in answers:
            answer["figures"] = [[n["label"], n["text"], n["help"]] for n in answer["figures"]]
            for panel in answer["panels"]:
                picture, bars = panel.pop("picture"), panel.pop("bars")
                panel |= {"bars": [[*bar.values()] for bar in bars]} if bars else {
                    "picture": pictures.setdefault(picture, len(pictures))}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(zipfile.ZipInfo(TABLE), json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode(),
                         zipfile.ZIP_DEFLATED)
        for picture, number in pictures.items():
            archive.writestr(zipfile.ZipInfo(f"{number}.webp"), picture, zipfile.ZIP_STORED)
    return stream.getvalue()


def save(learned: Learned) -> Path:
    """Writes a task's file and returns its path. Raises ValueError where it would be too large to ship."""
    content, path = packed(learned), file_of(learned.task)
    if len(content) > LIMIT:
        raise ValueError(f"{path.name} would have {len(content):,} bytes, but the limit is {LIMIT:,}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return path


def load(task: str) -> Learned:
    """What a task's file holds. Raises ValueError with one sentence where there is none, or it is not whole."""
    path = file_of(task)
    if not path.is_file():
        raise ValueError(f"How {task} learned was not kept.")
    try:
        learned = _unpacked(path.read_bytes())
        _check(learned.task == task, f"its task, {learned.task}")
        return learned
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
        raise ValueError(f"{path.name} is not a whole file.") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"{path.name} holds something else than how {task} learned ({error}).") from None


def _unpacked(content: bytes) -> Learned:
    _check(len(content) <= LIMIT, f"{len(content):,} bytes")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        _check(sum(entry.file_size for entry in entries) <= 8 * LIMIT, "too much to unpack")
        parts = {entry.filename: archive.read(entry) for entry in entries}  # checks each one's sum
    table = json.loads(parts.pop(TABLE))

    def panel(told: dict) -> Kept:
        bars, number = told.pop("bars", ()), told.pop("picture", None)
        picture = b"" if number is None else parts[f"{number}.webp"]
        return Kept(**told, picture=picture, bars=tuple(Bar(*bar) for bar in bars))

    def answer(told: dict) -> Answer:
        figures = tuple(Number(label, None, *texts) for label, *texts in told["figures"])
        return Answer(tuple(map(panel, told["panels"])), figures)

    table["answers"] = {name: tuple(map(answer, answers)) for name, answers in table["answers"].items()}
    table["steps"], table["curve"] = tuple(table["steps"]), tuple(map(tuple, table["curve"]))
    return Learned(**table)

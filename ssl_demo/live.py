"""Training that is watched: one training in a thread of its own, and the limits of the host for all visitors."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from .clips import Clips
from .data import Photos
from .labelled import Labelled
from .pretext import Control, Panel, PretextTask, Recipe
from .video import Clip

STATES = ("waiting", "running", "paused", "finished", "stopped", "failed")


@dataclass(frozen=True)
class Plan:
    """What a visitor asks for; make it with `plan`, which checks it."""

    task: PretextTask
    recipe: Recipe
    data: Photos | Clips
    data_name: str
    seconds: float
    name: str
    photo: Image.Image | Clip
    company: list[Image.Image]
    seed: int
    start: str
    labelled: Labelled | None = None


def plan(task_name: str, data: Photos | Clips, data_name: str, *, seconds: float, photo: Image.Image | Clip, lab: "Lab",
         size: str = "small", knobs: dict[str, Any] | None = None, start: str = "scratch", company=(), seed: int = 0,
         name: str = "", labelled: Labelled | None = None) -> Plan:
    raise NotImplementedError


def sizes(task_name: str) -> dict[str, dict[str, str]]:
    raise NotImplementedError


def knobs(task_name: str) -> tuple[Control, ...]:
    raise NotImplementedError


def accept(path) -> tuple[str, Path]:
    raise NotImplementedError


@dataclass(frozen=True)
class Point:
    """Where a run was after a step."""

    step: int
    seconds: float
    images: int
    loss: float
    metric: float


@dataclass(frozen=True)
class View:
    """Everything a page shows of a run."""

    id: str
    name: str
    task_name: str
    data_name: str
    state: str
    place: int = 0
    points: list[Point] = field(default_factory=list)
    step: int = 0
    images_per_second: float = 0.0
    seconds_left: float = 0.0
    seconds: float = 0.0
    budget: float = 0.0
    loss_level: tuple[str, float] | None = None
    metric_label: str = ""
    metric_chance: float | None = None
    panels: list[Panel] = field(default_factory=list)
    panels_step: int = 0
    probe: list[tuple[int, float]] = field(default_factory=list)
    alarm: str = ""
    error: str = ""
    weights: Path | None = None


class Run:
    """One training in a thread of its own."""

    id: str
    plan: Plan

    def pause(self) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError

    def one_step(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def view(self) -> View:
        raise NotImplementedError


class Lab:
    """The host's limits, and the runs of all visitors."""

    def __init__(self, at_once: int | None = None, waiting: int | None = None, most_seconds: float | None = None,
                 folder: Path | None = None, data: list[str] | None = None):
        self.at_once, self.waiting, self.most_seconds = at_once or 2, waiting or 8, most_seconds or 300.0

    def start(self, owner: str, plan: Plan) -> Run:
        raise NotImplementedError

    def runs(self, owner: str) -> list[Run]:
        return []

    def run(self, owner: str, id: str) -> Run | None:
        return None

    def leave(self, owner: str) -> None:
        pass

    def host_data(self) -> list[str]:
        return []

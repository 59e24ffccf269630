"""What is looked at between the steps of one training: its curve, the method's panels on a fixed photo, and its neighbours."""

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from . import probes
from .data import centre
from .inference import Runner
from .live_plan import Plan
from .pretext import Panel
from .texts import later
from .training import Snapshot

PANELS, PROBE = 0.9, 4.0  # seconds between two sets of panels, two probes; less often where that took over a tenth of the time
SHARE = 9  # so many times as long as it took is left to the training before it is done again
PROBED = 32  # photos whose features are computed between two steps
POINTS = 240


@dataclass(frozen=True)
class Point:
    """Where a run was after a step. seconds: of training; loss: the mean since the point before; metric: of that step's batch."""

    step: int
    seconds: float
    images: int
    loss: float
    metric: float


@dataclass(frozen=True)
class View:
    """All that is shown of a run, at one moment.

    place: how many wait before it. seconds: spent on training, of `budget`. loss_level: a level to compare the loss with and what
    it is. metric_chance: the metric of who guesses. probe: the share of photos told rightly by their neighbours, after so many
    steps; classes: how many there are. weights: the file, once there is one; saving: it is over, and they are on their way there.
    """

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
    classes: int = 0
    saving: bool = False


class Watcher:
    """What is looked at between the steps of one training, in its thread: the curve, the panels, the classes."""

    def __init__(self, plan: Plan):
        self.plan, self._recent, self._guesses = plan, [], []
        self._points, self._pending, self._stride = [], [], 1
        self._panels_at, self._probe_at, self._probing = 0.0, time.monotonic() + PROBE / 2, None
        self._probe_spent, self._all_spent = 0.0, 0.0  # seconds, on the last probe and on all

    def look(self, snapshot: Snapshot, view: View, calm: bool, hurried) -> dict:
        """Changes to the view after a step. calm: it goes step by step; hurried: tells that there is no time left."""
        changes, p, now = {**self._curve(snapshot, view), "alarm": snapshot.alarm}, self.plan, time.monotonic()
        if not hurried() and (snapshot.done or calm or now >= self._panels_at):
            drawn = Runner(p.task, snapshot.model).run(p.photo, p.seed, p.company)
            changes |= {"panels": drawn.panels, "panels_step": snapshot.step}
            self._panels_at = time.monotonic() + max(PANELS, SHARE * (time.monotonic() - now))
        if self.plan.labelled is not None and not hurried():
            changes |= self._probe(snapshot, view, hurried)
        return changes

    def _curve(self, snapshot: Snapshot, view: View) -> dict:
        point = Point(snapshot.step, snapshot.seconds, snapshot.images, snapshot.loss, snapshot.metric)
        self._recent = [*self._recent[-12:], point]
        first = self._recent[0]
        spent = snapshot.seconds - first.seconds
        rate = (snapshot.images - first.images) / spent if spent > 0 else snapshot.images_per_second
        if self.plan.steps is None:
            left = max(0.0, self.plan.seconds - snapshot.seconds)
        else:
            left = (self.plan.steps - snapshot.step) * self.plan.recipe.batch / max(rate, 1e-9)
        if snapshot.guess is not None:
            self._guesses.append(snapshot.guess)
        return {"points": self._thinned(point), "step": snapshot.step, "seconds": snapshot.seconds, "seconds_left": left,
                "images_per_second": rate, "loss_level": view.loss_level or (later("at the start"), snapshot.loss),
                "metric_chance": sum(self._guesses) / len(self._guesses) if self._guesses else view.metric_chance}

    def _thinned(self, point: Point) -> list[Point]:
        """The curve, evenly thinned: each of its points is the mean of so many looks, but the first, of the untrained network."""
        if not self._points:
            self._points = [point]
            return self._points
        self._pending.append(point)
        latest = replace(point, **{name: sum(getattr(one, name) for one in self._pending) / len(self._pending)
                                   for name in ("loss", "metric")})
        if len(self._pending) < self._stride:
            return [*self._points, latest]
        self._points, self._pending = [*self._points, latest], []
        if len(self._points) == POINTS - 1:  # and so there is an even number beside the first
            first, *rest = self._points
            pairs = zip(rest[::2], rest[1::2])
            halved = [replace(b, loss=(a.loss + b.loss) / 2, metric=(a.metric + b.metric) / 2) for a, b in pairs]
            self._points, self._stride = [first, *halved], 2 * self._stride
        return self._points

    def _probe(self, snapshot: Snapshot, view: View, hurried) -> dict:
        """A part of the photos at a time, all of them by one and the same copy of the network, so that no step waits long.

        One more is begun only where it and the last one, at the end, leave nine tenths of the time to the training.
        """
        now = time.monotonic()
        fits = self._all_spent + 2 * self._probe_spent <= self.plan.seconds / SHARE
        if snapshot.done or (self._probing is None and now >= self._probe_at and fits):
            self._probing, self._probe_spent = self._features(snapshot), 0.0
        if self._probing is None:
            return {}
        found = next(self._probing)
        while found is None and snapshot.done and not hurried():
            found = next(self._probing)
        self._probe_spent += time.monotonic() - now
        if found is None:
            return {}
        self._probing, self._all_spent = None, self._all_spent + self._probe_spent
        self._probe_at = time.monotonic() + max(PROBE, SHARE * self._probe_spent)
        return {"probe": [*view.probe, found]}

    def _features(self, snapshot: Snapshot) -> Iterator[tuple[int, float] | None]:
        """None after each part, at last the step and the accuracy of 20 neighbours."""
        labelled, task, model = self.plan.labelled, self.plan.task, copy.deepcopy(snapshot.model)
        device, parts = next(model.parameters()).device, []
        for photos in (labelled.train, labelled.test):
            features = []
            for images in centre(photos, task.size, PROBED):
                with torch.no_grad():
                    features.append(task.features(model, images.to(device))[0].flatten(1).float().cpu())
                yield None
            parts.append(torch.cat(features))
        shares = probes.knn(parts[0], labelled.train_labels, parts[1], len(labelled.classes))
        yield snapshot.step, probes.accuracy(shares, labelled.test_labels)

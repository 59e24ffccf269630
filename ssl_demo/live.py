"""Training that is watched: each run in a thread of its own, paused and stopped between steps, and a host's limits for all.

`Run` is one training: `training.train` does the work, and between its steps the averaged network draws the method's panels on
one fixed photo and is asked for classes where there are some. `Lab` holds the runs of all visitors: so many at once, so many
waiting, and nobody sees another's.
"""

import atexit
import hashlib
import logging
import os
import re
import shutil
import tempfile
import threading
import time
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from . import checkpoints
from .checkpoints import accept as accept
from .data import Photos
from .live_plan import SCRATCH, Plan, knobs, plan, sizes
from .live_watch import SHARE, Point, View, Watcher
from .texts import later
from .training import Snapshot, precision, processes, train

__all__ = ["STATES", "Lab", "Plan", "Point", "Run", "View", "accept", "knobs", "plan", "sizes"]

STATES = ("waiting", "running", "paused", "finished", "stopped", "failed")
LOOK, SELDOM = 0.25, 0.45  # seconds between two points of the curve, and where the metric is slow
PATIENCE = 600.0  # seconds that a paused run keeps its place while others wait
KEPT = 5  # runs of a visitor
NOTHING = Photos(np.empty((0, 1, 1, 3), dtype=np.uint8), [])


class Run:
    """One training. Its methods return at once and may be called from any thread."""

    def __init__(self, plan: Plan, lab: "Lab", folder: Path):
        self.id, self.plan, self._lab, self._folder = uuid.uuid4().hex[:12], plan, lab, folder
        self.asked = time.monotonic()
        self._change = threading.Condition()  # guards all below
        self._held, self._ending, self._forgotten, self._credit = False, False, False, 0
        self._steps, self._looked, self._next_look = 0, 0.0, 0.0
        self._thread: threading.Thread | None = None
        card, task = plan.task.card, plan.task
        level = task.guessing(plan.recipe.batch)
        chance = card.in_training[1]
        self._view = View(
            self.id, plan.name, card.name, plan.data_name, "waiting", budget=plan.seconds, seconds_left=plan.seconds,
            loss_level=level and (later("guessing"), level), metric_chance=chance if isinstance(chance, float) else None,
            metric_label=card.watched[1] if card.watched else card.metric_label,
            classes=len(plan.labelled.classes) if plan.labelled is not None else 0)  # fmt: skip

    @property
    def going(self) -> bool:
        """Whether it waits, runs, or is paused."""
        return self._view.state in ("waiting", "running", "paused")

    def pause(self) -> None:
        """Holds it after the step that it is at."""
        with self._change:
            self._held = True

    def resume(self) -> None:
        """Lets a paused run go on."""
        with self._change:
            self._held, self._credit = False, 0
            self._change.notify_all()

    def one_step(self) -> None:
        """Exactly one step of a paused run, which then is paused again; a running one is paused after the step it is at."""
        with self._change:
            if self._held or self._thread is None:
                self._credit += 1
            self._held = True
            self._change.notify_all()

    def stop(self) -> None:
        """Ends it after the step that it is at; what it learned is kept."""
        if not self._lab._withdraw(self):
            with self._change:
                self._ending = True
                self._change.notify_all()

    def view(self) -> View:
        """What there is to show now."""
        place = self._lab._place(self)
        with self._change:
            return replace(self._view, place=place, step=max(self._steps, self._view.step), points=list(self._view.points),
                           panels=list(self._view.panels), probe=list(self._view.probe))

    def wait(self, seconds: float) -> bool:
        """Waits until it has ended, though its weights may still be on their way; whether it has."""
        with self._change:
            return self._change.wait_for(lambda: not self.going, seconds)

    def join(self, seconds: float | None = None) -> bool:
        """Waits until its thread is over; whether it is."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._work, name=f"training-{self.id}", daemon=True)
        self._set(state="paused" if self._held else "running")
        self._thread.start()

    def _set(self, **changes) -> None:
        with self._change:
            self._view = replace(self._view, **changes)
            self._change.notify_all()

    def _forget(self) -> None:
        with self._change:
            self._forgotten = True

    def _work(self) -> None:
        state, error, last = "failed", "", None
        try:
            last = self._train()
            state = "finished" if last is not None and last.done else "stopped"
            if last is not None and not self._forgotten:
                self._set(weights=self._save(last))
        except (FloatingPointError, ValueError) as problem:
            state, error = "failed", sentence(problem)
        except Exception as problem:  # nobody would ever see it in a thread
            logging.getLogger(__name__).exception("a training broke off")
            state, error = "failed", later(f"The training broke off ({type(problem).__name__}).")
        finally:
            if self._forgotten:  # perhaps while its weights were being written
                shutil.rmtree(self._folder / self.id, ignore_errors=True)
            self.plan = replace(self.plan, data=NOTHING, labelled=None)  # the rest is small
            self._set(state=state, error=error, seconds_left=0.0, saving=False)
            self._lab._ended(self)

    def _train(self) -> Snapshot | None:
        """The training itself, watched; its last snapshot, or None where not a step was made."""
        p, last, start = self.plan, None, None
        if p.start != SCRATCH:
            start = checkpoints.load_weights(p.task.card.name, p.start)[1]
        length = {"minutes": p.seconds / 60} if p.steps is None else {"steps": p.steps}
        watcher, snapshots = Watcher(p), train(p.task, p.data, p.recipe, **length, seed=p.seed, start_from=start, due=self._due)
        try:
            while (last is None or not last.done) and self._may_go_on():
                last = next(snapshots)
                self._set(**watcher.look(last, self._view, self._held, lambda: self._ending))
                self._next_look = time.monotonic() + min(max(LOOK, SHARE * (time.monotonic() - self._looked)), SELDOM)
            if last is not None:  # said at once: the batch that is being made, and the weights, may take a moment
                self._set(state="finished" if last.done else "stopped", seconds_left=0.0, saving=True)
        finally:
            snapshots.close()
        return last

    def _due(self) -> bool:
        """Asked after each step, in the training's thread: whether to look at it now."""
        self._looked = time.monotonic()
        with self._change:
            self._steps += 1
            return self._held or self._ending or self._looked >= self._next_look

    def _may_go_on(self) -> bool:
        """Waits while it is paused; False once it is to end."""
        with self._change:
            if self._held and not self._credit and not self._ending:
                self._view = replace(self._view, state="paused")
                while not self._change.wait_for(lambda: not self._held or self._credit or self._ending, PATIENCE):
                    self._ending = bool(self._lab._queue)  # others would wait for ever
            self._credit = max(0, self._credit - 1)
            if not self._held and not self._ending:
                self._view = replace(self._view, state="running")
            return not self._ending

    def _save(self, last: Snapshot) -> Path:
        p, name = self.plan, re.sub(r"[^a-z0-9]+", "-", self.plan.name.lower()).strip("-") or "training"
        path = self._folder / self.id / f"{name}.safetensors"
        points = self._view.points
        thinned = [points[round(i * (len(points) - 1) / 23)] for i in range(24)] if len(points) > 24 else points
        checkpoints.save_weights(path, p.task, last.model, {
            "metric": p.task.card.in_training[0], "data": [p.data_name], "photos": len(p.data), "steps": last.step,
            "images_seen": last.images, "minutes": round(last.seconds / 60, 2), "machine": checkpoints.machine(), "seed": p.seed,
            "recipe": asdict(p.recipe), "start": p.start if p.start == SCRATCH else Path(p.start).stem,
            "date": time.strftime("%Y-%m-%d"), "made": "in the training lab", "loss_last": last.loss, "metric_last": last.metric,
            "curve": [{"step": point.step, "images": point.images, "loss": round(point.loss, 5), "metric": round(point.metric, 5)}
                      for point in thinned]})  # fmt: skip
        return path


def sentence(problem: Exception) -> str:
    """What went wrong, as a sentence."""
    text = " ".join(str(problem).split())
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


def _from_environment(name: str, default: float) -> float:
    try:
        return max(0.0, float(os.environ.get(name) or default))
    except ValueError:
        raise ValueError(f"{name} must be a number, not {os.environ[name]!r}.") from None


class Lab:
    """The host's limits, and the runs of all visitors. One for an app.

    at_once: trainings that run side by side; waiting: that wait for one of them to end; most_seconds: of one training; folder:
    where weights are kept until their owner leaves; data: sets that the host offers, as `live_data.load_named` takes them. What
    is not given is taken from SSL_DEMO_LAB_RUNS, SSL_DEMO_LAB_WAITING, SSL_DEMO_LAB_SECONDS and SSL_DEMO_LAB_DATA.
    """

    def __init__(self, at_once: int | None = None, waiting: int | None = None, most_seconds: float | None = None,
                 folder: Path | None = None, data: list[str] | None = None):
        self.at_once = max(1, int(_from_environment("SSL_DEMO_LAB_RUNS", 2) if at_once is None else at_once))
        self.waiting = int(_from_environment("SSL_DEMO_LAB_WAITING", 8) if waiting is None else waiting)
        self.most_seconds = _from_environment("SSL_DEMO_LAB_SECONDS", 300) if most_seconds is None else most_seconds
        listed = re.split(f"(?<!torchvision){re.escape(os.pathsep)}", os.environ.get("SSL_DEMO_LAB_DATA", ""))
        self._data = [name for name in (listed if data is None else data) if name]
        self._folder, self._own = folder, folder is None
        self._lock = threading.RLock()
        self._runs: dict[str, list[Run]] = {}
        self._queue: list[Run] = []
        self._going: set[Run] = set()
        atexit.register(self.close)

    def host_data(self) -> list[str]:
        """The sets that the host offers."""
        return list(self._data)

    def start(self, owner: str, plan: Plan) -> Run:
        """A run of this plan, which begins at once or waits for its turn.

        Raises ValueError where this owner has one going already, or too many wait.
        """
        precision("auto", processes().device)  # timed once and alone, not by two trainings at a time
        with self._lock:
            mine = self._runs.setdefault(owner, [])
            if any(run.going and not run._ending for run in mine):
                raise ValueError("One training of yours is going already; stop it, or wait for its end.")
            if len(self._going) >= self.at_once and len(self._queue) >= self.waiting:
                raise ValueError("Too many trainings wait here already; try again in a few minutes.")
            run = Run(plan, self, self._folder_of(owner))
            mine.append(run)
            for old in mine[:-KEPT]:
                shutil.rmtree(old._folder / old.id, ignore_errors=True)
            del mine[:-KEPT]
            self._queue.append(run)
            self._next()
            return run

    def runs(self, owner: str) -> list[Run]:
        """An owner's newest runs, the oldest first."""
        with self._lock:
            return list(self._runs.get(owner, []))

    def run(self, owner: str, id: str) -> Run | None:
        """The run of that id, if it is this owner's."""
        return next((run for run in self.runs(owner) if run.id == id), None)

    def owners(self) -> dict[str, float]:
        """Who has runs, and when each asked for the newest, by `time.monotonic`."""
        with self._lock:
            return {owner: runs[-1].asked for owner, runs in self._runs.items() if runs}

    def leave(self, owner: str) -> None:
        """Stops what an owner has going, and forgets all of it, files too."""
        with self._lock:
            gone = self._runs.pop(owner, [])
        for run in gone:
            run._forget()
            run.stop()
        for run in gone:
            run.join(2.0)
        if gone:
            shutil.rmtree(self._folder_of(owner), ignore_errors=True)

    def close(self) -> None:
        """Everybody leaves."""
        with self._lock:
            owners = list(self._runs)
            going = [run for run in (*self._queue, *self._going)]
        for run in going:
            run._forget()
            run.stop()
        for owner in owners:
            self.leave(owner)
        if self._own and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        atexit.unregister(self.close)

    def _folder_of(self, owner: str) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="ssl_demo_lab_"))
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:24]

    def _next(self) -> None:
        with self._lock:
            while self._queue and len(self._going) < self.at_once:
                run = self._queue.pop(0)
                self._going.add(run)
                run._begin()

    def _ended(self, run: Run) -> None:
        with self._lock:
            self._going.discard(run)
            self._next()

    def _withdraw(self, run: Run) -> bool:
        """Takes a run that waits out of the queue; whether it did wait."""
        with self._lock:
            if run not in self._queue:
                return False
            self._queue.remove(run)
            run._set(state="stopped", seconds_left=0.0)
            return True

    def _place(self, run: Run) -> int:
        with self._lock:
            return self._queue.index(run) if run in self._queue else 0

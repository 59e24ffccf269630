"""What visitors train with and keep, by their visit: the data that they mean, their runs, the weights that join their networks.

No components. One `Lab` and one `Shelf` serve the whole app; `owner` is a visit's session hash.
"""

import atexit
import functools
import hashlib
import io
import itertools
import math
import shutil
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from pathlib import Path
from typing import Any

from PIL import Image

from .. import live, live_data, own_networks
from ..checkpoints import bundled
from ..examples import EXAMPLES
from ..labelled import SETS, Labelled
from ..live_plan import SCRATCH
from ..pretext import FAMILIES, Card, PretextTask, all_tasks, create
from ..texts import later, say
from ..video import Clip

EXAMPLE, PHOTO, PHOTOS, CLIP = "examples", "photo", "photos", "clip"
HOST, PUBLIC = "host:", live_data.TORCHVISION
BUNDLED = "bundled"  # to start from the weights that ship
MOST_PHOTOS = 60  # that a visitor adds
_preparing: dict[str, str] = {}  # visits whose data are being fetched, which may take longer than the visit
OVER = ("finished", "stopped", "failed")


@functools.cache
def lab() -> live.Lab:
    """The app's one lab, with the limits of its host."""
    return live.Lab()


@functools.cache
def shelf() -> "Shelf":
    """The app's one shelf."""
    return Shelf()


@functools.cache
def _probed() -> Future:
    """The host's labelled photos, on their way: decoding them takes some seconds, once."""
    return ThreadPoolExecutor(1, "probe").submit(live_data.probe_set, tuple(lab().host_data()))


def probed(patience: float = 20.0) -> Labelled | None:
    """Photos with classes that any encoder is asked about while it learns, where the host has some; else, or not yet, None."""
    try:
        return _probed().result(patience)
    except TimeoutError:
        return None


def prepare() -> None:
    """What takes a while is begun before somebody waits for it."""
    if lab().host_data():
        _probed()


class Shelf:
    """Weights that visitors keep for as long as they stay, each file in a folder of its own."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ssl_demo_shelf_"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self._owners: dict[str, float] = {}

    def keep(self, owner: str, path: Path) -> Path:
        """A copy of weights, with their card where they have one."""
        place = self._place(owner) / uuid.uuid4().hex[:12]
        place.mkdir(parents=True)
        for file in (path.with_suffix(".json"), path):
            if file.is_file():
                shutil.copyfile(file, place / file.name)
        self._owners[owner] = time.monotonic()  # now that the files lie there: who left meanwhile is found at the next look
        return place / path.name

    def owners(self) -> dict[str, float]:
        """Who keeps weights here, and when each brought the newest, by `time.monotonic`."""
        return dict(self._owners)

    def leave(self, owner: str) -> None:
        """All of a visit's weights are gone."""
        self._owners.pop(owner, None)
        shutil.rmtree(self._place(owner), ignore_errors=True)
        own_networks.forget(self._place(owner))  # last: what is asked for meanwhile finds no file, and is not remembered

    def _place(self, owner: str) -> Path:
        return self.folder / hashlib.sha256(owner.encode()).hexdigest()[:24]


def owners() -> dict[str, float]:
    """The visits that have runs or keep weights, and when each last asked for one, by `time.monotonic`."""
    runs, kept = lab().owners(), shelf().owners()
    return {owner: max(runs.get(owner, 0.0), kept.get(owner, 0.0)) for owner in {*runs, *kept}}


def stop(owner: str) -> None:
    """A visitor's page is gone: the training ends and its place is free. What there is stays, for who comes back soon."""
    _preparing.pop(owner, None)
    for run in lab().runs(owner):
        run.stop()


def leave(owner: str) -> None:
    """A visit is over: the training ends, its place is free, and what was kept is deleted."""
    _preparing.pop(owner, None)
    lab().leave(owner)
    shelf().leave(owner)


def join(own: dict, task: str, name: str, path: Path) -> tuple[dict, str]:
    """A visit's own networks with one more, and the name it has there, which none of the task's others bears."""
    name = unused(name, own.get(task, {}))
    own_networks.keys({task: {name: str(path)}})  # known before it is first asked, so that what it makes goes with it
    return {**own, task: {**own.get(task, {}), name: str(path)}}, name


def unused(name: str, taken: Iterable[str]) -> str:
    """The name, with a number behind it where it is taken."""
    taken, numbers, given = set(taken), itertools.count(2), name
    while given in taken:
        given = f"{name} {next(numbers)}"
    return given


def first_method() -> str:
    """The method a visitor finds chosen: the newest that tells transformations apart, which learn fastest."""
    return max((name for name, task in all_tasks().items() if task.card.family == FAMILIES[0]),
               key=lambda name: all_tasks()[name].card.year)


def sources(card: Card) -> list[tuple[str, str]]:
    """What a method can learn from: what a person reads, and the key."""
    own = [(say("Example photos"), EXAMPLE), (say("Your photo"), PHOTO), (say("Photos you add"), PHOTOS)]
    clip = [(say("Your clip"), CLIP)] if card.input == "video" else []
    host = [(label, HOST + label) for label in hosted()]
    return [*own, *clip, *host, *((f"{name} (torchvision)", PUBLIC + name) for name in SETS)]


def hosted() -> dict[str, str]:
    """The sets of the host by the names that visitors read: the last part of each path, never the path."""
    found = {}
    for path in lab().host_data():
        found[unused(path.removeprefix(PUBLIC) if path.startswith(PUBLIC) else Path(path).name or "folder", found)] = path
    return found


def told(key: str, brought: Sequence[Image.Image]) -> str:
    """Data in a few words."""
    if key == PHOTOS:
        return {0: later("photos you add"), 1: later("the photo you added")}.get(len(brought)) or later(
            f"the {len(brought)} photos you added")
    words = {EXAMPLE: later(f"the {len(EXAMPLES)} example photos"), PHOTO: later("your photo"), CLIP: later("your clip")}
    name = key.removeprefix(HOST).removeprefix(PUBLIC)
    return words.get(key) or later(f"the set “{name}”")


def gather(key: str, task: type[PretextTask], photo: Image.Image, moving: Image.Image | Clip,
           brought: Sequence[Image.Image]) -> tuple[Any, Any]:
    """The data of a key, and its classes or None. Raises ValueError with one sentence where there is none."""
    if key == EXAMPLE:
        return live_data.example_data(task), None
    if key == PHOTOS and not brought:
        raise ValueError("Add some photos first, or learn from the example photos.")
    if key == CLIP and not isinstance(moving, Clip):
        raise ValueError("Bring a clip first, or learn from the example photos.")
    if key in (PHOTO, PHOTOS, CLIP):
        things = {PHOTO: [photo], PHOTOS: list(brought), CLIP: [moving]}[key]
        make = live_data.clips_of if task.card.input == "video" else live_data.photos_of
        return make(things, task), None
    known = {HOST + label: path for label, path in hosted().items()} | {PUBLIC + name: PUBLIC + name for name in SETS}
    if key not in known:  # a path of the server's is none of them
        keys = ", ".join(key for _, key in sources(task.card))
        raise ValueError(f"There is no data called “{key}”; there are {keys}.")
    return live_data.load_named(known[key], task)


def start(owner: str, name: str, key: str, *, seconds: float, size: str, start_from: str, knobs: dict, called: str, seed: int,
          photo: Image.Image, moving: Image.Image | Clip, brought: Sequence[Image.Image],
          company: Sequence[Image.Image]) -> live.Run:
    """A training begins, or waits for its turn. Raises ValueError with one sentence for what cannot be."""
    task, ours = type(create(name)), uuid.uuid4().hex
    _preparing[owner] = ours
    data, labelled = gather(key, task, photo, moving, brought)
    if start_from == BUNDLED:
        start_from = next(iter(bundled(name)), SCRATCH)
        if start_from == SCRATCH:
            raise ValueError(f"No weights ship for {task.card.title}; start from scratch.")
    elif start_from != SCRATCH:
        raise ValueError(f"A training starts from {SCRATCH} or from {BUNDLED} weights, not from {start_from!r}.")
    taken = [run.view().name for run in lab().runs(owner)]
    called = unused(" ".join(str(called).split())[:36] or task.card.title, taken)
    watched = moving if task.card.input == "video" else photo
    labelled = labelled if labelled is not None else probed()
    plan = live.plan(name, data, told(key, brought), seconds=seconds, photo=watched, lab=lab(), size=size, knobs=knobs,
                     start=start_from, company=company, seed=seed, name=called, labelled=labelled)
    if _preparing.get(owner) != ours:
        raise ValueError("This visit is over, or another training of it has been asked for.")
    run = lab().start(owner, plan)
    _preparing.pop(owner, None)
    return run


def find(owner: str, which: str | None) -> live.Run | None:
    """A visit's run by its id, or its newest, or None."""
    runs = lab().runs(owner)
    return next((run for run in runs if run.id == which), None if which or not runs else runs[-1])


def known(owner: str, which: str | None) -> live.Run:
    """The same. Raises ValueError with one sentence where there is none."""
    run = find(owner, which)
    if run is None:
        raise ValueError(f"There is no training “{which}” of yours." if which else "No training of yours has begun yet.")
    return run


def sentence(name: str, key: str, seconds: float, start_from: str, size: str, brought: Sequence[Image.Image]) -> str:
    """What Start will do."""
    card = all_tasks()[name].card
    begun = say("from the bundled weights") if start_from == BUNDLED else say(
        "from scratch ({size} network)", size=SIZES.get(size, size).lower())
    return say("{method}, {begun}, on {data}, for {seconds:g} s.", method=say(card.title), begun=begun,
               data=say(told(key, brought)), seconds=min(seconds, lab().most_seconds))


SIZES = {"tiny": say("Tiny"), "small": say("Small"), "bundled": say("As it ships")}


def status(view: live.View) -> dict:
    """A run as JSON, for programs, to whom it is over once its weights are there.

    place: 1 for who is next; 0 for who does not wait.
    """
    last = view.points[-1] if view.points else None
    level, probe = view.loss_level, view.probe[-1][1] if view.probe else None
    found = {
        "id": view.id, "name": view.name, "task": view.task_name, "data": view.data_name,
        "state": "running" if view.saving else view.state,
        "place": view.place + 1 if view.state == "waiting" else 0, "step": view.step, "loss": last and last.loss,
        "loss_level": level and level[1], "metric": last and last.metric, "metric_label": view.metric_label,
        "metric_chance": view.metric_chance, "images_per_second": view.images_per_second, "seconds": view.seconds,
        "seconds_left": view.seconds_left, "budget": view.budget, "panels_step": view.panels_step, "probe": probe,
        "probe_chance": 1 / view.classes if view.classes else None,
        "alarm": view.alarm, "error": view.error, "weights": view.weights is not None}  # fmt: skip
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in found.items()}


def packed(view: live.View) -> tuple[str, bytes]:
    """The weights of a run with their card, as a zip: its name and its bytes. Raises ValueError where it has none."""
    if view.weights is None or not view.weights.is_file():
        raise ValueError(f"{view.name} has no weights: not a step was made.")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:  # weights do not get smaller
        for file in (view.weights, view.weights.with_suffix(".json")):
            made.write(file, file.name)
    return f"{view.weights.stem}.zip", stream.getvalue()

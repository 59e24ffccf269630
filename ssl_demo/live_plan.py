"""What a visitor may ask a training for, checked: the size of the network, the knobs, the data, and how long."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from .checkpoints import load_weights
from .clips import Clips
from .data import Photos
from .inference import parse_seed
from .labelled import Labelled
from .pretext import Control, PretextTask, Recipe, create
from .training import with_settings
from .video import Clip, camera_move

SCRATCH = "scratch"
AUTO = "auto"
SHARES = {"tiny": 0.34, "small": 0.5}  # of the widths and depths that ship
RATES = (2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
BATCHES = (4, 8, 16, 32)  # larger ones would take seconds a step here, and nobody watches that
MOST_CLIPS = 8  # a clip is many frames: with more a step would take longer than a stop may
FRAMES = 10  # of a clip that is watched: more would take longer to draw than to learn from
# An average over some thirty steps: there are hundreds, not ten thousands. What a minute comes to was measured with AdamW.
LIVE = {"ema": 0.97, "warmup": 0.05, "optimizer": "adamw"}
FASTEST = 2e-3  # the learning rate of AdamW; Muon's recipes have higher ones


@dataclass(frozen=True)
class Plan:
    """A training that can start; make it with `plan`, which checks it.

    photo: on which the panels are drawn, a clip where the task is about them; company: what it is compared with, where the task
    compares photos. start: "scratch", or the weights to begin with. labelled: photos with classes, to ask the encoder about on
    the way. steps: a length in steps instead of seconds.
    """

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
    steps: int | None = None


def sizes(task_name: str) -> dict[str, dict[str, str]]:
    """The sizes a network can be trained in, smallest first: settings by name, as `train --config` takes them.

    "bundled" is the architecture that ships; the others have shares of its widths, depths and heads. Batches are small, so that
    a step takes less than half a second on one thread of a processor.
    """
    task = type(create(task_name))
    live = {**LIVE, "batch": max(2, task.recipe.batch // 4), "lr": _rate(task), **task.quick}
    found = {}
    for name, share in SHARES.items():
        found[name] = {**_smaller(task.defaults, share), **live}
    as_shipped = {key: value for key, value in live.items() if key not in task.defaults}
    found["bundled"] = {**as_shipped, "batch": max(1, live["batch"] // 2)}
    return {name: {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
            for name, settings in found.items()}


def _rate(task: type[PretextTask]) -> float:
    return task.quick.get("lr", min(task.recipe.lr, FASTEST))


def _smaller(defaults: dict[str, Any], share: float) -> dict[str, Any]:
    """Widths, depths and heads at a share. Where there are heads, each stays as wide as it is."""
    made = {}
    for name, value in defaults.items():
        if name.endswith("depths"):
            made[name] = [max(1, int(depth * share)) for depth in value]
        elif name.endswith("depth") or name == "heads":
            made[name] = max(1, math.ceil(value * share))
        elif name == "width" and "heads" in defaults:
            made[name] = value // defaults["heads"] * max(1, math.ceil(defaults["heads"] * share))
        elif name.endswith("width"):
            made[name] = max(16, round(value * share / 8) * 8)
    return made


def knobs(task_name: str) -> tuple[Control, ...]:
    """What can be turned in a training: its pace, and the method's own settings."""
    task = type(create(task_name))
    rates = sorted({*RATES, _rate(task)})
    return (
        Control("lr", "Learning rate", "choice", f"{_rate(task):g}", "Too high: it never settles.",
                choices=tuple(f"{rate:g}" for rate in rates)),
        Control("batch", "Batch", "choice", AUTO, "Photos a step; auto: what suits the size.",
                choices=(AUTO, *(str(batch) for batch in BATCHES if batch <= MOST_CLIPS or task.card.input != "video"))),
        *task.knobs,
    )  # fmt: skip


def plan(task_name: str, data: Photos | Clips, data_name: str, *, seconds: float, photo: Image.Image | Clip, lab,
         size: str = "small", knobs: dict[str, Any] | None = None, start: str = SCRATCH, company: Sequence[Image.Image] = (),
         seed: int = 0, name: str = "", labelled: Labelled | None = None, steps: int | None = None) -> Plan:
    """A plan for a training. More seconds than the lab allows become as many as it allows; where it starts from weights, the
    size is theirs.

    Raises ValueError with one sentence for what does not exist, does not fit, or is out of range.
    """
    task_type, presets = type(create(task_name)), sizes(task_name)
    if size not in presets:
        raise ValueError(f"The size must be one of {', '.join(presets)}, not {size!r}.")
    turned = _turned(task_name, knobs or {})
    settings = presets[size if start == SCRATCH else "bundled"]
    settings |= {key: value for key, value in turned.items() if value != AUTO}
    task, recipe = with_settings(task_type, {key: str(value).lower() if isinstance(value, bool) else str(value)
                                             for key, value in settings.items()})
    if start != SCRATCH:
        trained, _ = load_weights(task_name, start)
        task = task_type(**{**trained.config, **{key: task.config[key] for key in turned if key in task.config}})
        if _shapes(task) != _shapes(trained):
            odd = next(control.label for control in task.knobs if task.config[control.name] != trained.config[control.name])
            raise ValueError(f"“{odd}” asks for another network than these weights are of: leave it, or start from nothing.")
    if (task.card.input == "video") != isinstance(data, Clips):
        raise ValueError(f"{task.card.title} learns from {'clips' if task.card.input == 'video' else 'photos'}.")
    if not len(data):
        raise ValueError("There is nothing to learn from.")
    if photo is None:
        raise ValueError("Choose a photo to watch first.")
    if task.card.input == "video" and isinstance(photo, Clip) and len(photo.frames) == 1:
        photo = Image.fromarray(photo.frames[0])
    if task.card.input == "video" and not isinstance(photo, Clip):
        photo = camera_move(photo)
    if task.card.input == "video":
        photo = Clip(photo.frames[:FRAMES], photo.fps)
    elif task.card.input != "video" and isinstance(photo, Clip):
        photo = Image.fromarray(photo.frames[0])
    return Plan(task, recipe, data, data_name, _seconds(seconds, lab.most_seconds), _named(name, task, size, start), photo,
                list(company), parse_seed(seed), start, labelled, steps)


def _shapes(task: PretextTask) -> dict[str, torch.Size]:
    with torch.device("meta"):  # no memory, no time
        return {name: tensor.shape for name, tensor in task.build().state_dict().items()}


def _turned(task_name: str, values: dict[str, Any]) -> dict[str, Any]:
    """The knobs a person gave, parsed."""
    known = {control.name: control for control in knobs(task_name)}
    for name in values:
        if name not in known:
            raise ValueError(f"There is no knob “{name}”; there are {', '.join(known)}.")
    return {name: known[name].parse(value) for name, value in values.items()}


def _seconds(seconds: Any, most: float) -> float:
    try:
        number = float(seconds)
    except (TypeError, ValueError):
        number = math.nan
    if not number > 0:  # nor a number that is none
        raise ValueError(f"The length of a training is a number of seconds above 0, not {seconds!r}.")
    return min(number, most)


def _named(name: str, task: PretextTask, size: str, start: str) -> str:
    name = " ".join(str(name).split())[:40]
    return name or f"{task.card.title}, {size if start == SCRATCH else 'from weights'}"

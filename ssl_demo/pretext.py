"""What every method here has in common: hide or disturb something in the data, predict it back, keep the encoder.

Shapes, everywhere in this package:
    B images, C channels, H W pixels, h w cells of a feature map, N patches, D width, K classes.
Images are float32 in [0, 1], (B, 3, H, W). Masks are named `hidden` (1 = hidden). All chance comes from a `torch.Generator`.
"""

import importlib
import pkgutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .questions import Question
from .texts import later

FAMILIES = ("Predict a transformation", "Fill in what is missing", "Bring views together")
STAGES = ("photo", "sees", "answers", "judged")  # the four steps of every tab, in this order

Example = dict[str, Tensor]  # holds at least "inputs" and "targets"
Prediction = dict[str, Tensor]


@dataclass(frozen=True)
class Card:
    """What a person reads about a method. Data only."""

    name: str
    title: str
    family: str
    paper: str
    authors: str
    year: int
    link: str
    idea: str  # one sentence
    shortcut: str  # what could cheat, and what guards against it
    metric: str  # the key of `metrics` that is the score
    metric_label: str
    chance: float | str  # a level, or the name of the metric that measures the guess without looking
    higher_is_better: bool = True
    unit: str = ""  # of the score, such as dB
    digits: int = 4  # decimals of the score where it is shown, unless it is a share
    input: str = "image"  # or "video": then `images` are clips (B, T, 3, H, W)
    watch: str = ""  # the metric logged in training, where the score needs more than a batch; empty: the score
    watched: tuple[str, str] = ()  # of `watch`: that of a guess without learning, what people call it
    own_resolution: bool = False  # whether `render` wants the photo's square at its own resolution, as example["photo"]
    baselines: tuple[tuple[str, str], ...] = ()  # metrics that guesses without learning reach, and what people call them
    company: int = 0  # how many other photos join the visitor's in a run: methods that compare photos need some
    untrained_note: str = ""  # what to know of an untrained network's score, where it is no lower end
    overview: tuple[str, ...] = ()  # panels and a figure that stand for the method among others; else the first of each stage
    learned: tuple[str, ...] = ()  # panels and figures to watch over a training; else the overview's, and the bars
    also: tuple[str, ...] = ()  # a second figure worth showing: its metric, that of a guess without learning, what it is
    paper_score: str = ""  # what the paper reports by the same measure, and on which data; empty where it has no such figure

    @property
    def percent(self) -> bool:
        """Whether the score is a share, shown as per cent."""
        return self.metric == "accuracy"

    @property
    def in_training(self) -> tuple[str, float | str]:
        """The metric watched in training, and its chance: a level, or the metric that measures it."""
        return (self.watch, self.watched[0] if self.watched else "") if self.watch else (self.metric, self.chance)

    def show(self, score: float) -> str:
        """A score as a person reads it."""
        return f"{score:.1%}" if self.percent else f"{score:.{self.digits}f} {self.unit}".rstrip()


@dataclass(frozen=True)
class Control:
    """One knob. Its default is the setting of training.

    kind: "slider" (minimum, maximum, step), "choice" (choices), "toggle", "patches" (numbers of cells, chosen by clicking),
    "order" (whole numbers whose order counts, set by clicking), "point" (two numbers from 0 to 100: per cent from the left and
    from the top, chosen by clicking; empty: none), or "brush" (strokes painted on a panel, separated by semicolons: each a radius
    in per cent of the width, then points in per cent such as "5 20 30 25 30"; empty: none).
    """

    name: str
    label: str
    kind: str
    default: Any
    help: str
    minimum: float = 0
    maximum: float = 1
    step: float = 1
    choices: tuple[str, ...] = ()
    fixes: bool = False  # whether any value but the default says the answer to the task's `question`

    def parse(self, value: Any) -> Any:
        """The value in its own type, from what a slider, an API call or a command line gave.

        Raises ValueError with one sentence when it is not of the kind or out of range.
        """
        if self.kind == "slider":
            whole = float(self.step).is_integer() and float(self.minimum).is_integer()
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise ValueError(f"“{self.name}” must be a number, not {value!r}.") from None
            if not self.minimum <= number <= self.maximum:
                raise ValueError(f"“{self.name}” must be between {self.minimum:g} and {self.maximum:g}, not {number:g}.")
            return round(number) if whole else number
        if self.kind == "choice":
            if str(value) not in self.choices:
                raise ValueError(f"“{self.name}” must be one of {', '.join(self.choices)}, not {value!r}.")
            return str(value)
        if self.kind == "toggle":
            text = str(value).lower()
            if text not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
                raise ValueError(f"“{self.name}” must be true or false, not {value!r}.")
            return text in ("true", "1", "yes", "on")
        if self.kind == "point":
            return self._parse_point(str("" if value is None else value))
        if self.kind == "brush":
            return self._parse_strokes(str("" if value is None else value))
        assert self.kind in ("patches", "order"), f"unknown kind of control: {self.kind}"
        parts = str("" if value is None else value).replace(",", " ").split()
        if not all(part.isdecimal() and len(part) < 6 for part in parts):
            what = later("numbers of patches such as “0 5 17”" if self.kind == "patches" else "whole numbers such as “4 0 8”")
            raise ValueError(f"“{self.name}” must be {what}, not {value!r}.")
        if self.kind == "order":
            return " ".join(str(int(part)) for part in parts)
        return " ".join(str(number) for number in sorted({int(part) for part in parts}))

    def _parse_point(self, text: str) -> str:
        try:
            x_y = [float(part) for part in text.replace(",", " ").split()]
        except ValueError:
            x_y = [-1.0]
        if text.strip() and not (len(x_y) == 2 and all(0 <= share <= 100 for share in x_y)):
            raise ValueError(f"“{self.name}” must be two numbers from 0 to 100 such as “50 30”, not {text!r}.")
        return " ".join(f"{share:g}" for share in x_y)

    def _parse_strokes(self, text: str) -> str:
        try:
            strokes = [[float(part) for part in stroke.replace(",", " ").split()] for stroke in text.split(";") if stroke.strip()]
        except ValueError:
            strokes = [[]]
        for stroke in strokes:
            points = stroke[1:]
            whole = len(stroke) >= 3 and len(stroke) % 2 == 1 and 0 < stroke[0] <= 50
            if not (whole and all(-50 <= share <= 150 for share in points)):  # a hand may slip over the picture's edge
                raise ValueError(f"“{self.name}” must be strokes such as “5 20 30 25 30”: a radius, then points, all in per "
                                 f"cent; not {text[:60]!r}.")
        if sum(map(len, strokes)) > 20_000:
            raise ValueError(f"“{self.name}” has too many points; clear it and paint with fewer strokes.")
        return "; ".join(" ".join(f"{number:g}" for number in stroke) for stroke in strokes)


@dataclass(frozen=True)
class Bar:
    """One line of a bar chart: a share in [0, 1]."""

    label: str
    value: float
    true: bool = False  # the right answer
    chosen: bool = False  # the network's answer


@dataclass(frozen=True)
class Matrix:
    """A table of numbers drawn as coloured cells that say their value under the pointer.

    values: (rows, columns); `low` and `high` are the ends of the colours. pictures: small (h, w, 3) uint8 ones at the left of the
    rows, and on top of the columns (or none). marked: cells (row, column) framed as the right ones. empty: cells left out.
    """

    values: np.ndarray
    low: float
    high: float
    row_pictures: tuple[np.ndarray, ...] = ()
    column_pictures: tuple[np.ndarray, ...] = ()
    marked: tuple[tuple[int, int], ...] = ()
    empty: tuple[tuple[int, int], ...] = ()
    what: str = "similarity"  # of what the values are, said under the pointer


@dataclass(frozen=True)
class Line:
    """One curve of a chart: its name, and a y for each x of the chart."""

    label: str
    y: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """Curves over one x, with what the axes are. `now` marks where the controls stand; `level` is a line to compare with."""

    x: tuple[float, ...]
    lines: tuple[Line, ...]
    x_label: str
    y_label: str
    log_x: bool = False
    now: float | None = None
    level: tuple[str, float] | None = None  # such as ("guessing", 2.77)


@dataclass(frozen=True)
class Panel:
    """One picture of a tab; `stage` says in which of the four steps it stands.

    It holds exactly one of: an image (H, W, 3) uint8; bars; a video (T, H, W, 3) uint8, H and W even, played at `fps`; a matrix;
    a chart.
    """

    name: str
    title: str
    caption: str
    stage: str
    image: np.ndarray | None = None
    bars: tuple[Bar, ...] = ()
    click: str = ""  # what a click on it does, in a few words; empty: nothing
    brush: str = ""  # what painting on it does, in a few words; empty: nothing. The strokes go to the task's brush control
    video: np.ndarray | None = None
    fps: float = 12.0
    matrix: Matrix | None = None
    chart: Chart | None = None

    def __post_init__(self):
        assert self.stage in STAGES, self.stage
        held = [self.image is not None, bool(self.bars), self.video is not None, self.matrix is not None, self.chart is not None]
        assert sum(held) == 1, f"panel {self.name} needs an image, bars, a video, a matrix or a chart"
        assert self.image is not None or not (self.click or self.brush), "only images can be clicked or painted on"
        if self.video is not None:
            assert self.video.dtype == np.uint8 and self.video.ndim == 4 and self.video.shape[3] == 3, self.video.shape
            assert self.video.shape[1] % 2 == 0 and self.video.shape[2] % 2 == 0, "H.264 halves the colours' resolution"
        if self.image is not None:
            assert self.image.dtype == np.uint8 and self.image.ndim == 3 and self.image.shape[2] == 3, self.image.shape


@dataclass(frozen=True)
class Number:
    """A figure of a run: its value, how a person reads it (no text: it is for programs only), and what it compares with."""

    label: str
    value: float | int | None
    text: str = ""
    help: str = ""


@dataclass(frozen=True)
class Recipe:
    """How a task is trained by default. Every field can be set by `train --config name=value`."""

    batch: int = 64  # photos in a step, over all processes
    optimizer: str = "adamw"  # or "muon", for matrices and filters; the rest is AdamW's
    lr: float = 1e-3  # peak learning rate
    weight_decay: float = 0.05
    beta2: float = 0.95
    warmup: float = 0.05  # share of the run in which the learning rate rises
    ema: float = 0.999  # decay of the averaged weights, which are the ones kept
    clip: float = 1.0  # largest norm of the gradient
    crop: tuple[float, float] = (0.5, 1.0)  # share of the photo's area that a random crop keeps
    flip: bool = True
    color: float = 0.0  # strength of changes of brightness, contrast and saturation
    precision: str = "auto"  # float32, bfloat16, or auto: bfloat16 where it is measured to be faster
    side: int = 144  # photos are cached at this size, in pixels

    def __post_init__(self):
        """Raises ValueError where a value makes no sense, since people set them on the command line."""
        sensible = {
            "batch": self.batch >= 1, "lr": self.lr > 0, "weight_decay": self.weight_decay >= 0, "beta2": 0 <= self.beta2 < 1,
            "warmup": 0 <= self.warmup < 1, "ema": 0 <= self.ema < 1, "clip": self.clip > 0, "side": 8 <= self.side <= 1024,
            "crop": len(self.crop) == 2 and 0 < self.crop[0] <= self.crop[1] <= 1, "color": 0 <= self.color <= 1,
            "optimizer": self.optimizer in ("adamw", "muon"), "precision": self.precision in ("auto", "float32", "bfloat16"),
        }
        for name, is_sensible in sensible.items():
            if not is_sensible:
                raise ValueError(f"“{name}” cannot be {getattr(self, name)}.")


class PretextTask:
    """One paper. A subclass fills in the members below, in this order; nothing else in the package knows it by name.

    An instance holds its configuration (`task.config`): what is needed to build the network again, saved with the weights.
    """

    card: ClassVar[Card]
    controls: ClassVar[tuple[Control, ...]] = ()
    defaults: ClassVar[dict[str, Any]] = {}
    recipe: ClassVar[Recipe] = Recipe()
    knobs: ClassVar[tuple[Control, ...]] = ()  # settings of `defaults`, with their values there, worth turning in a training
    quick: ClassVar[dict[str, Any]] = {}  # settings of `defaults` or `recipe` that a training of a minute wants otherwise

    def __init__(self, **config):
        unknown = sorted(set(config) - set(self.defaults))
        if unknown:
            raise ValueError(f"{self.card.name} has no setting “{unknown[0]}”; it has {', '.join(self.defaults)}.")
        self.config = {**self.defaults, **config}

    @property
    def size(self) -> int:
        """The side, in pixels, of the pictures the network was trained on."""
        return self.config["size"]

    def input_size(self, **controls) -> int:
        """The side of the square that `example` expects under these controls."""
        return self.size

    def build(self) -> nn.Module:
        """A fresh network, encoder + head, from `self.config`. No I/O."""
        raise NotImplementedError

    def prepare(self, model: nn.Module, photos: Any) -> None:
        """Lets a fresh network take from the training photos (`data.Photos`) what it has to know of them before the first step.

        `train` calls it once, before the weights are averaged or shared among processes, and not where it goes on from other
        weights: what is taken is kept in the network, in parameters or buffers, and so in its weights. The same photos give the
        same; no chance but from fixed seeds.
        """

    def example(self, images: Tensor, rng: torch.Generator, **controls) -> Example:
        """The signal: images (B, 3, H, W) to `inputs` and `targets`. No network, no gradients."""
        raise NotImplementedError

    def training_example(self, images: Tensor, rng: torch.Generator) -> Example:
        """What one step of training sees. A task may make several examples of one photo."""
        return self.example(images, rng)

    def evaluation_example(self, images: Tensor, rng: torch.Generator) -> Example:
        """What `evaluate` sees: as in training, unless the score is defined on something narrower."""
        return self.training_example(images, rng)

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        """The only forward pass of the task: named tensors, the intermediate ones too."""
        raise NotImplementedError

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        """The paper's equation: a scalar, and numbers worth logging."""
        raise NotImplementedError

    gathered: ClassVar[tuple[str, ...]] = ()  # predictions (B, ...) that the loss wants of all processes, not of this one alone

    def after_step(self, model: nn.Module, example: Example, prediction: Prediction, progress: float) -> None:
        """What follows each step of training besides the gradient's, such as a teacher that follows its student.

        `prediction` is what the loss got, `progress` the share of the training that is over, 0 to 1. Changes `model` in place.
        """

    def alarm(self, numbers: dict[str, float]) -> str:
        """A sentence for the training's log where the numbers of `loss` show that something goes wrong; else nothing."""
        return ""

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        """Named figures per example, each (B,); `card.metric` is among them."""
        raise NotImplementedError

    def aggregate(self, per_example: dict[str, Tensor]) -> dict[str, float | str]:
        """Figures of a whole set from those of its examples: means, unless a task says otherwise. A text names something."""
        return {name: values.double().mean().item() for name, values in per_example.items()}

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        """The pictures of the first example."""
        raise NotImplementedError

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        """The figures of the first example, shown beside the panels."""
        return {}

    def question(self, example: Example, prediction: Prediction) -> Question | None:
        """What a person may be asked of the first example before the network answers; None where there is nothing to guess.

        The choices do not depend on the network, only what it says of them.
        """
        return None

    def click(self, panel: str, x: float, y: float, example: Example) -> dict[str, Any]:
        """New values of controls after a click at (x, y), each in [0, 1), on a clickable panel."""
        return {}

    def paint(self, strokes: str) -> dict[str, Any]:
        """New values of controls after strokes were painted on a panel that takes them, or cleared (no strokes)."""
        return {control.name: strokes for control in self.controls if control.kind == "brush"}

    def guessing(self, batch: int) -> float | None:
        """The loss of who guesses, in a batch of so many photos; None where that is no number known beforehand."""
        return None

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is kept when the head is thrown away: (B, D), and a map (B, D, h, w) where there is one."""
        raise NotImplementedError


_building = threading.Lock()  # PyTorch draws first weights from one source for the whole process


@contextmanager
def drawn_by(seed: int):
    """Within this block first weights are drawn by the seed: always the same ones, whatever other threads draw."""
    with _building, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def fresh(task: PretextTask, seed: int) -> nn.Module:
    """A task's network as the seed draws it."""
    with drawn_by(seed):
        return task.build()


def parse_controls(task: PretextTask | type[PretextTask], values: dict[str, Any]) -> dict[str, Any]:
    """All controls of a task, the given ones parsed, the others at their defaults. Raises ValueError on an unknown name."""
    known = {control.name: control for control in task.controls}
    for name in values:
        if name not in known:
            raise ValueError(f"{task.card.name} has no control “{name}”; it has {', '.join(known) or 'none'}.")
    shared = [knob.name for knob in task.knobs if knob in task.controls] if isinstance(task, PretextTask) else []
    taught = {name: task.config[name] for name in shared}  # at another temperature than in its training a loss is not its own
    return {name: control.parse(values.get(name, taught.get(name, control.default))) for name, control in known.items()}


@dataclass
class _Registry:
    tasks: dict[str, type[PretextTask]] = field(default_factory=dict)


_registry = _Registry()


def all_tasks() -> dict[str, type[PretextTask]]:
    """Every task found in `ssl_demo/tasks/`, by name, in the order of the tabs. A file there is all it takes to be found."""
    if not _registry.tasks:
        package = importlib.import_module("ssl_demo.tasks")
        found = {}
        for module_info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{module_info.name}")
            for value in vars(module).values():
                if isinstance(value, type) and issubclass(value, PretextTask) and value.__module__ == module.__name__:
                    if value.card.name in found:
                        raise KeyError(f"two tasks are named {value.card.name}")
                    found[value.card.name] = value
        order = sorted(found.values(), key=lambda task: (FAMILIES.index(task.card.family), task.card.year, task.card.name))
        _registry.tasks = {task.card.name: task for task in order}
    return _registry.tasks


def create(name: str, **config) -> PretextTask:
    """A task by name, with its configuration. Raises ValueError for a name that is not there."""
    tasks = all_tasks()
    if name not in tasks:
        raise ValueError(f"There is no task “{name}”; there are {', '.join(tasks)}.")
    return tasks[name](**config)

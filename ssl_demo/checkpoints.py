"""Weights and their cards: what a network learned, as float16 safetensors, and what a person should know about it, as JSON."""

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .nets import multiply_adds
from .pretext import PretextTask, all_tasks, create, fresh
from .texts import later
from .training import write_atomically

MOST_PARAMETERS = 60_000_000  # of weights that somebody brings
MOST_WORK = 20_000_000_000  # multiply-adds that their encoder takes for a photo
FLOATS = (torch.float16, torch.bfloat16, torch.float32)  # what a file may hold where the network has float32
UNTRAINED = "untrained"  # a choice a person makes; nothing here falls back to it
_HERE = Path(__file__).parent
WEIGHTS = next((folder for folder in (_HERE.parent / "weights", _HERE / "weights") if folder.is_dir()), _HERE.parent / "weights")


def save_weights(path: Path, task: PretextTask, model: nn.Module, card: dict) -> dict:
    """Writes `path` (float16 safetensors with the task and its configuration inside) and the card beside it; returns the card.

    Both go to a temporary name first. Raises ValueError where the path does not end in .safetensors, and where
    the weights have outgrown float16, as those of a training do that went astray.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"Weights are kept in a .safetensors file; {path.name} is none.")
    tensors = {}
    for name, value in model.state_dict().items():
        tensors[name] = value.cpu().contiguous()
        if value.is_floating_point():
            tensors[name] = tensors[name].half()
            if not tensors[name].isfinite().all():
                raise ValueError(later("Some weights grew too large to be kept; try a lower learning rate."))
    header = {"task": task.card.name, "config": json.dumps(task.config)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    full = {"file": path.name, "sha256": sha256(path), "bytes": path.stat().st_size, "task": task.card.name,
            "config": task.config, "params": sum(p.numel() for p in model.parameters()), **card}
    write_card(path, full)
    return full


def write_card(path: Path, card: dict) -> None:
    """Writes the card of the weights at `path`."""
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path.with_suffix(".json"), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_card(path: Path) -> dict:
    """The card of the weights at `path`; empty where there is none. Raises ValueError where what lies there is no card."""
    file = Path(path).with_suffix(".json")
    if not file.is_file():
        return {}
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise ValueError(f"{file.name}, which lies beside the weights, is not their card.")
    return card


def bundled(task: str) -> dict[str, dict]:
    """The cards of a task's weights that ship in `weights/`, by name, the best-scored first."""
    higher = all_tasks()[task].card.higher_is_better
    cards = {path.stem: read_card(path) for path in WEIGHTS.glob(f"{task}-*.safetensors")}
    return dict(sorted(cards.items(), key=lambda item: heldout_score(item[1], higher), reverse=higher))


def heldout_score(card: dict, higher_is_better: bool = True) -> float:
    """The score on held-out photos, or the worst there is where none was measured."""
    worst = float("-inf") if higher_is_better else float("inf")
    return card.get("heldout", {}).get("score", worst)


def find(task: str, weights: str | os.PathLike | None) -> Path:
    """The file meant by a name of bundled weights, by a path, or (None) by nothing: the best bundled ones.

    Raises ValueError where there is none.
    """
    names = bundled(task)
    if weights is None:
        if not names:
            raise ValueError(f"There are no weights for {task}: train some, or choose “{UNTRAINED}”.")
        weights = next(iter(names))
    if str(weights) in names:
        return WEIGHTS / f"{weights}.safetensors"
    path = Path(weights)
    if path.suffix != ".safetensors":
        raise ValueError(f"There are no weights “{weights}” for {task}; there are {', '.join([*names, UNTRAINED])}.")
    _must_be_there(path)
    return path


def task_of(path: str | os.PathLike) -> str:
    """The name of the task that the weights in a file are of. Raises ValueError where it holds none."""
    path = Path(path)
    _must_be_there(path)
    with _opened(path) as file:
        name = (file.metadata() or {}).get("task")
    if name is None:
        raise ValueError(f"{path.name} does not say which task its weights are of.")
    return name


def load_weights(name: str, weights: str | os.PathLike | None = None, seed: int = 0) -> tuple[PretextTask, nn.Module]:
    """A task and its network in evaluation mode, float32. `weights` as in `find`, or "untrained": drawn from the seed.

    Raises ValueError where the file is no safetensors, is of another task, does not fit its configuration to the last tensor,
    holds numbers that are none, or is not the one its card describes.
    """
    create(name)  # an unknown task is said first
    if weights == UNTRAINED:
        best = next(iter(bundled(name).values()), {})
        task = create(name, **best.get("config", {}))
        return task, fresh(task, seed).eval()
    path = find(name, weights)
    with _opened(path) as file:
        header, tensors = file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}
    if header.get("task") != name:
        raise ValueError(f"{path.name} holds weights of {header.get('task', 'something else')}, not of {name}.")
    card = read_card(path)
    if card and card.get("sha256") != sha256(path):
        raise ValueError(f"{path.name} is not the file its card describes: their checksums differ.")
    task = create(name, **_sensible(path.name, all_tasks()[name].defaults, header.get("config", "{}")))
    if task.config != task.defaults:  # sizes that nobody has tried may be any: first without memory
        with _without_memory(path.name):
            wanted = task.build().state_dict()
        _must_fit(path.name, tensors, wanted)
    model = fresh(task, 0)
    _must_fit(path.name, tensors, model.state_dict())
    model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in tensors.items()})
    return task, model.eval()


def accept(path: str | os.PathLike) -> tuple[str, Path]:
    """Checks weights that somebody brought, before a network is made of them: the task they are of, and the file.

    Raises ValueError with one sentence unless it is a whole safetensors file of a known task, of a sensible size, with finite
    tensors that fit its own configuration to the last.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"Weights are taken as .safetensors files only, not {path.suffix or 'a file without an ending'}.")
    _must_be_there(path)
    megabytes, most = path.stat().st_size / 1e6, 5 * MOST_PARAMETERS / 1e6  # four bytes each, and what is not learned
    if megabytes > most:
        raise ValueError(f"{path.name} has {megabytes:.0f} MB, but the limit is {most:.0f} MB.")
    with _opened(path) as file:
        header = file.metadata() or {}
    name = header.get("task")
    if name not in all_tasks():
        raise ValueError(f"{path.name} does not say which task its weights are of.")
    task = create(name, **_sensible(path.name, all_tasks()[name].defaults, header.get("config", "{}"), 16))
    with _without_memory(path.name):
        model = task.build()
        work = multiply_adds(task.features, model.eval(), torch.empty(1, 3, task.size, task.size))
    if sum(p.numel() for p in model.parameters()) > MOST_PARAMETERS or work > MOST_WORK:
        raise ValueError(f"The network of {path.name} is too large: at most {MOST_PARAMETERS / 1e6:.0f} million parameters.")
    load_weights(name, path)
    return name, path


def _must_be_there(path: Path) -> None:
    """Of a whole path only the name is told: on the page it is a visitor's file, and where it lies is nobody's business."""
    if not path.is_file():
        raise ValueError(f"There is no file {path.name if path.is_absolute() else path}.")


def _sensible(file: str, defaults: dict, text: str, times: int = 1000) -> dict:
    """A configuration from a file, each value of its default's kind and at most so many times as large, but for seeds."""
    def fits(name, value, default) -> bool:
        if isinstance(default, bool) or isinstance(default, str):
            return type(value) is type(default) and (not isinstance(value, str) or len(value) < 100)
        if isinstance(default, (int, float)):
            kinds = (int,) if isinstance(default, int) else (int, float)
            most = 2**31 if name.endswith("seed") else times * max(abs(default), 1)
            return type(value) in kinds and abs(value) <= most  # and so no infinity, nor what is no number
        return isinstance(value, list) and 1 <= len(value) <= 8 and all(type(one) is int and 1 <= one <= 64 for one in value)

    try:
        config = json.loads(text)
    except (ValueError, RecursionError):  # brackets in brackets in brackets ...
        config = None
    if not isinstance(config, dict):
        raise ValueError(f"{file} does not say how its network is built.")
    for name, value in config.items():
        if name in defaults and not fits(name, value, defaults[name]):
            raise ValueError(f"{file} asks for a network whose “{name}” cannot be.")
    return config


@contextlib.contextmanager
def _without_memory(file: str) -> Iterator[None]:
    """What is built in this block takes neither memory nor time, whatever its sizes; ValueError where these do not fit."""
    try:
        with torch.device("meta"):
            yield
    except Exception as error:  # networks complain about sizes in many ways
        raise ValueError(f"No network can be built as {file} asks ({type(error).__name__}).") from None


def _must_fit(file: str, tensors: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Raises ValueError unless a file's tensors are those that its network wants, and finite."""
    if {key: value.shape for key, value in tensors.items()} != {key: value.shape for key, value in wanted.items()}:
        raise ValueError(f"{file} does not fit the network of its own configuration.")
    for key, value in tensors.items():
        if value.dtype not in (FLOATS if wanted[key].is_floating_point() else (wanted[key].dtype,)):
            kind = str(value.dtype).removeprefix("torch.")
            raise ValueError(f"{file} holds numbers of a kind ({kind}) that its network cannot take.")
        if not value.float().sum().isfinite():  # as no sum is with one such number, and sooner told than of each
            raise ValueError(f"{file} holds numbers that are none.")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """A file to read the header and the tensors of. Raises ValueError where it is no safetensors, or not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, RuntimeError, AttributeError):  # the last: of a kind of number that PyTorch has not
        raise ValueError(f"{path.name} is not a whole safetensors file.") from None


def sha256(path: Path) -> str:
    """The file's checksum, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def machine() -> str:
    """What this runs on, in a few words, for a card."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{processor}, {torch.get_num_threads()} thread(s)"
    return f"{device}, PyTorch {torch.__version__}"

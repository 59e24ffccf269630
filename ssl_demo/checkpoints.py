"""Weights and their cards: what a network learned, as float16 safetensors, and what a person should know about it, as JSON."""

import hashlib
import json
import os
import platform
import threading
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .pretext import PretextTask, all_tasks, create
from .training import write_atomically

UNTRAINED = "untrained"  # a choice a person makes; nothing here falls back to it
_HERE = Path(__file__).parent
_building = threading.Lock()  # all threads draw from the same chance: a network built beside another would take some of its
WEIGHTS = next((folder for folder in (_HERE.parent / "weights", _HERE / "weights") if folder.is_dir()), _HERE.parent / "weights")


def save_weights(path: Path, task: PretextTask, model: nn.Module, card: dict) -> dict:
    """Writes `path` (float16 safetensors with the task and its configuration inside) and the card beside it; returns the card.

    Both go to a temporary name first. Raises ValueError where the path does not end in .safetensors.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"Weights are kept in a .safetensors file; {path.name} is none.")
    tensors = {}
    for name, value in model.state_dict().items():
        tensors[name] = value.cpu().contiguous()
        if value.is_floating_point():
            tensors[name] = tensors[name].half()
            assert tensors[name].isfinite().all(), f"{name} does not fit float16"
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
    """The card of the weights at `path`; empty where there is none."""
    card = Path(path).with_suffix(".json")
    return json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}


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
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    return path


def task_of(path: str | os.PathLike) -> str:
    """The name of the task that the weights in a file are of. Raises ValueError where it holds none."""
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path}.")
    name = _read(Path(path))[0].get("task")
    if name is None:
        raise ValueError(f"{Path(path).name} does not say which task its weights are of.")
    return name


def load_weights(name: str, weights: str | os.PathLike | None = None, seed: int = 0) -> tuple[PretextTask, nn.Module]:
    """A task and its network in evaluation mode, float32. `weights` as in `find`, or "untrained": drawn from the seed.

    Raises ValueError where the file is no safetensors, is of another task, does not fit its configuration to the last tensor,
    or is not the one its card describes.
    """
    create(name)  # an unknown task is said first
    if weights == UNTRAINED:
        best = next(iter(bundled(name).values()), {})
        task = create(name, **best.get("config", {}))
        with _building, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return task, task.build().eval()
    path = find(name, weights)
    header, tensors = _read(path)
    if header.get("task") != name:
        raise ValueError(f"{path.name} holds weights of {header.get('task', 'something else')}, not of {name}.")
    card = read_card(path)
    if card and card.get("sha256") != sha256(path):
        raise ValueError(f"{path.name} is not the file its card describes: their checksums differ.")
    task = create(name, **json.loads(header.get("config", "{}")))
    with _building:
        model = task.build()
    try:
        model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in tensors.items()})
    except RuntimeError:
        raise ValueError(f"{path.name} does not fit the network of its own configuration.") from None
    return task, model.eval()


def _read(path: Path) -> tuple[dict, dict]:
    """The header and the tensors of a file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError):
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

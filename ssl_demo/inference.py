"""A task with its network: loaded once, run on a photo or a clip, on whatever device there is."""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from . import examples, own_networks
from .checkpoints import load_weights
from .drawing import seed_all
from .images import load_photo, square, to_tensor
from .pretext import Example, Number, Panel, PretextTask, parse_controls
from .questions import Question
from .video import Clip, camera_move, load_clip, load_frames, squares

LARGE = 50_000_000  # parameters; below, a processor answers a photo in a fraction of a second


@dataclass(frozen=True)
class Result:
    """What a run gives: panels (pictures and bars), figures, and what a person may be asked before seeing them; and what the
    tensors' shapes and the network's settings were."""

    panels: list[Panel]
    figures: dict[str, Number]
    controls: dict[str, Any]
    milliseconds: float
    question: Question | None = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, Any]:
        """The plain values of the figures."""
        return {name: number.value for name, number in self.figures.items()}


class Runner:
    """One task and one network. `run` may be called from several threads."""

    def __init__(self, task: PretextTask, model: torch.nn.Module):
        self.task, self.model, self.lock = task, model, threading.Lock()
        self.is_large = sum(parameter.numel() for parameter in model.parameters()) > LARGE

    def run(self, image: Image.Image | Clip | str | os.PathLike, seed: int = 0,
            company: Sequence[Image.Image | str | os.PathLike] = (), **controls) -> Result:
        """One photo or clip through the task. Same photo, seed and controls: the same pixels.

        image: an RGB picture of any size, or the path of a file; its central square is used. Where the task is about clips:
        a clip, the path of one or of a folder of frames, or a picture, over which a camera then moves. company: photos to compare
        it with, where the task compares photos; too few are filled up with the examples. Raises ValueError with one sentence for
        a file that cannot be read, or a control that does not exist or is out of range.
        """
        values, seed = parse_controls(self.task, controls), parse_seed(seed)  # refused before anything is decoded
        image, company = self._load(image), [self._load(photo) for photo in company]
        start = time.perf_counter()
        with self.lock, torch.inference_mode():
            # ZeroGPU lends a GPU to a call that is worth the seconds it takes (see app.py): those of large networks.
            on_cpu = os.environ.get("SPACES_ZERO_GPU") and not self.is_large
            device = torch.device("cpu") if on_cpu else pick_device()
            self.model.to(device)
            example = {name: value.to(device) for name, value in self.example(image, seed, values, company).items()}
            prediction = self.task.predict(self.model, example)
            panels = self.task.render(example, prediction)
            figures = self.task.numbers(self.model, example, prediction)
            question = self.task.question(example, prediction)
        shapes = {name: tuple(tensor.shape) for name, tensor in {**example, **prediction}.items()}
        return Result(panels, figures, values, (time.perf_counter() - start) * 1000, question, shapes, self.task.config)

    def _load(self, path: Image.Image | Clip | str | os.PathLike) -> Image.Image | Clip:
        if isinstance(path, (Image.Image, Clip)):
            return path
        if self.task.card.input != "video":
            return load_photo(path)
        return load_frames(path) if os.path.isdir(path) else load_clip(path)

    def example(self, image: Image.Image | Clip, seed: int, values: dict[str, Any],
                company: Sequence[Image.Image] = ()) -> Example:
        """What the task makes of a photo or clip under all its controls, on the processor: no network takes part."""
        if self.task.card.input == "video":
            clip = image if isinstance(image, Clip) else camera_move(image)
            frames = torch.from_numpy(squares(clip, self.task.input_size(**values))).permute(0, 3, 1, 2)
            example = self.task.example(frames[None].float() / 255, seed_all(parse_seed(seed)), **values)
            return {**example, "fps": torch.tensor([clip.fps])}
        image = image.convert("RGB")
        size = self.task.input_size(**values)
        others = examples.company(image, company, self.task.card.company, size) if self.task.card.company else []
        photos = torch.stack([to_tensor(picture) for picture in (square(image, size), *others)])  # the visitor's first
        example = self.task.example(photos, seed_all(parse_seed(seed)), **values)
        if self.task.card.own_resolution:
            example["photo"] = to_tensor(square(image, min(image.size)))[None]
        return example

    def click(self, image: Image.Image | Clip, seed: int, controls: dict[str, Any], panel: str, x: float,
              y: float, company: Sequence[Image.Image] = ()) -> dict[str, Any]:
        """The new values of controls after a click at (x, y), each in [0, 1], on a panel of that run."""
        return self.task.click(panel, x, y, self.example(image, seed, parse_controls(self.task, controls), company))


def _own(task: str, weights: str | None = None) -> own_networks.Own | None:
    """The visitor's own network whose file this is, or None."""
    return own_networks.get(own_networks.key_of(task, weights)) if weights else None


@own_networks.remembered(64, _own)
def load(task: str, weights: str | None = None) -> Runner:
    """A task by name with bundled weights (a name), a file's, the best bundled ones (None), or "untrained" ones. Cached.

    Raises ValueError for what does not exist or does not fit.
    """
    return Runner(*load_weights(task, weights))


def parse_seed(seed: Any) -> int:
    """A seed from 0 to 2**31 - 1. Raises ValueError for anything else."""
    try:
        number = int(str(seed if seed is not None else 0).removesuffix(".0"))
    except ValueError:
        number = -1
    if not 0 <= number < 2**31:
        raise ValueError(f"The seed must be a whole number from 0 to {2**31 - 1}, not {seed!r}.")
    return number


def limit_threads() -> None:
    """Half of the processors' threads for PyTorch, at least one: for those who answer single photos, not for training.

    A small network on one photo gains nothing from many threads, waits long for one that is held up elsewhere, and visitors of
    the page would wait for each other.
    """
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))


def pick_device() -> torch.device:
    """CUDA where there is any, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

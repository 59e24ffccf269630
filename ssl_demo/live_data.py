"""What a visitor's training learns from: own photos and clips, the examples, or what the host offers."""

from collections.abc import Sequence

from PIL import Image

from .clips import Clips
from .data import Photos
from .labelled import Labelled
from .video import Clip


def photos_of(pictures: Sequence[Image.Image], task, seed: int = 0) -> Photos:
    raise NotImplementedError


def clips_of(moving: Sequence[Image.Image | Clip], task, seed: int = 0) -> Clips:
    raise NotImplementedError


def example_data(task) -> Photos | Clips:
    raise NotImplementedError


def load_named(name: str, task) -> tuple[Photos | Clips, Labelled | None]:
    """What `Lab.host_data` or "torchvision:NAME" names, and its classes where it has some. ValueError in one sentence."""
    raise NotImplementedError

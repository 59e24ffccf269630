"""What each encoder makes of a picture once its head is thrown away: frozen features of the bundled networks, loaded once.

Encoders go by the names that `transfer` gives them: a task's, for its best bundled weights; NAME:untrained, for its network drawn
by chance; and pixels, for the photo itself at 8 x 8. A visitor's own networks have keys, see `own_networks`.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from . import own_networks
from .checkpoints import UNTRAINED, bundled
from .images import square, to_tensor
from .inference import load, pick_device
from .pretext import all_tasks
from .texts import later
from .transfer import PIXELS, Pixels


def bundled_encoders() -> list[str]:
    """The tasks whose trained weights ship, in the order of the tabs."""
    return [name for name in all_tasks() if bundled(name)]


def title(encoder: str) -> str:
    """How a person reads an encoder's name."""
    if encoder == PIXELS:
        return later("Bare pixels")
    if own_networks.is_own(encoder):
        name = own_networks.find(encoder).name
        return later(f"Yours: {name}")
    name, _, untrained = encoder.partition(":")
    name = all_tasks()[name].card.title
    return later(f"{name}, untrained") if untrained else name


def is_trained(encoder: str) -> bool:
    """Whether its weights were learned, by us or by a visitor."""
    return encoder != PIXELS and not encoder.endswith(f":{UNTRAINED}")


@torch.inference_mode()
def embed(pictures: Sequence[Image.Image], encoder: str) -> Tensor:
    """(N, D) float32 on the processor, of the central squares of RGB pictures of any size, in batches of 64.

    Raises ValueError for an encoder that is not there.
    """
    if encoder == PIXELS:
        size, features = Pixels.size, lambda images: Pixels().features(None, images)[0]
        return torch.cat([features(stack(pictures[i : i + 64], size)) for i in range(0, len(pictures), 64)])
    if own_networks.is_own(encoder):
        own = own_networks.find(encoder)
        runner = load(own.task, own.path)
    else:
        name, _, untrained = encoder.partition(":")
        runner = load(name, UNTRAINED if untrained else None)
    parts = []
    for start in range(0, len(pictures), 64):
        images = stack(pictures[start : start + 64], runner.task.size)
        with runner.lock:
            device = pick_device()
            runner.model.to(device)
            parts.append(runner.task.features(runner.model, images.to(device))[0].flatten(1).float().cpu())
    return torch.cat(parts)


def stack(pictures: Sequence[Image.Image], size: int) -> Tensor:
    """Their central squares, (N, 3, size, size)."""
    return torch.stack([to_tensor(square(picture.convert("RGB"), size)) for picture in pictures])

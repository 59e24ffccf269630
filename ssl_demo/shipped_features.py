"""What each encoder makes of a thousand and some benchmark photos, as numbers that ship: the photos themselves do not.

One file an encoder in `weights/features/`, written by `benchmarks/transfer_features.py` with the network as `embedding` knows it:
float16 features of training and test photos, their classes, and places on a map by t-SNE. A file names the weights that its
features are of, since a visitor's photo must be seen by the same network.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import checkpoints, embedding, own_networks
from .checkpoints import UNTRAINED, load_weights
from .images import square
from .training import write_atomically
from .transfer import PIXELS, Pixels

SIDE = 144  # pixels: all photos, a visitor's too, are brought to it before a network's own size, so that they are as sharp
PARTS = ("train", "train_labels", "test", "test_labels", "map")


@dataclass(frozen=True)
class Shipped:
    """The features of one encoder. `train_labels[i]` is the class of the photo `train[i]`, as its number in `classes`.

    about: the file's header (encoder, weights, sha256, D, command, data, seed, ...).
    """

    encoder: str
    classes: tuple[str, ...]
    train: Tensor  # (N, D) float32
    train_labels: np.ndarray  # (N,)
    test: Tensor  # (M, D)
    test_labels: np.ndarray  # (M,)
    map: np.ndarray  # (N + M, 2), by t-SNE; the training photos first
    about: dict = field(repr=False, default_factory=dict)

    @property
    def labels_per_class(self) -> int:
        """How many training photos of every class there are."""
        return int(np.bincount(self.train_labels, minlength=len(self.classes)).min())


def folder() -> Path:
    """Where the files lie: among the weights."""
    return checkpoints.WEIGHTS / "features"


def file_of(encoder: str) -> Path:
    return folder() / f"{encoder.replace(':', '-')}.safetensors"


def identity(encoder: str) -> dict[str, str]:
    """What features are of: the weights by name and checksum, or where nothing was trained, the configuration."""
    if encoder == PIXELS:
        return {"config": json.dumps({"size": Pixels.size})}
    name, _, untrained = encoder.partition(":")
    if untrained:
        return {"config": json.dumps(load_weights(name, UNTRAINED)[0].config)}
    weights, card = next(iter(checkpoints.bundled(name).items()))
    return {"weights": weights, "sha256": card["sha256"]}


def embed(pictures: list[Image.Image], encoder: str) -> Tensor:
    """(N, D) float32: features of RGB pictures of any size, as those that ship were made."""
    return embedding.embed([square(picture, SIDE) for picture in pictures], encoder)


def places_by_tsne(features: Tensor, seed: int) -> np.ndarray:
    """A map of features (N, D): (N, 2) in [-1, 1], on which photos lie near those that they are most similar to.

    t-SNE (van der Maaten & Hinton 2008) as scikit-learn has it, on features of length one: nearness is by cosine, as in kNN.
    """
    from sklearn.manifold import TSNE

    places = TSNE(random_state=seed, init="pca").fit_transform(F.normalize(features.float(), dim=1).numpy())
    places = places - (places.max(axis=0) + places.min(axis=0)) / 2
    return places / np.abs(places).max()


def save(shipped: Shipped) -> Path:
    """Writes the file of an encoder; returns its path."""
    tensors = {"train": shipped.train, "test": shipped.test, "map": torch.from_numpy(shipped.map)}
    tensors = {name: value.half().contiguous() for name, value in tensors.items()}
    assert all(value.isfinite().all() for value in tensors.values()), f"features of {shipped.encoder} do not fit float16"
    for name in ("train_labels", "test_labels"):
        tensors[name] = torch.from_numpy(getattr(shipped, name).astype(np.uint8))
    header = {"encoder": shipped.encoder, "task": shipped.encoder.partition(":")[0], "D": str(shipped.train.shape[1]),
              "classes": json.dumps(shipped.classes), **shipped.about}
    path = file_of(shipped.encoder)
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    return path


def header(encoder: str) -> dict[str, str]:
    """What a file says of its features; empty where there is no whole one."""
    try:
        with safe_open(file_of(encoder), framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def is_current(encoder: str) -> bool:
    """Whether there are features, and of the weights that ship now."""
    return identity(encoder).items() <= header(encoder).items()


def kept() -> list[str]:
    """The encoders that a file is there for, current or not: trained ones in the order of the tabs, untrained ones, pixels."""
    untrained = sorted(path.stem.replace("-", ":") for path in folder().glob(f"*-{UNTRAINED}.safetensors"))
    return [name for name in (*embedding.bundled_encoders(), *untrained, PIXELS) if file_of(name).is_file()]


def missing() -> list[str]:
    """What ought to have features and has none of its current weights: for whoever replaced weights."""
    return [name for name in dict.fromkeys([*embedding.bundled_encoders(), *kept(), PIXELS]) if not is_current(name)]


def available() -> list[str]:
    """The encoders whose features can be asked about: those of other weights than the bundled ones are left out."""
    return [name for name in kept() if is_current(name)]


@own_networks.remembered(64)
def load(encoder: str) -> Shipped:
    """The features of an encoder. Cached.

    Raises ValueError where there are none of the weights that ship, or a visitor's own network has not looked yet.
    """
    if own_networks.is_own(encoder) and (looked := own_networks.find(encoder).looked):
        return looked
    if encoder not in kept() or not is_current(encoder):
        raise ValueError(f"There are no features of “{encoder}”; there are those of {', '.join(available()) or 'none'}.")
    with safe_open(file_of(encoder), framework="pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in PARTS}
    labels = {name: tensors[name].numpy().astype(np.int64) for name in ("train_labels", "test_labels")}
    return Shipped(encoder, tuple(json.loads(about["classes"])), tensors["train"].float(), labels["train_labels"],
                   tensors["test"].float(), labels["test_labels"], tensors["map"].float().numpy(), about)

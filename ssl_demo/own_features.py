"""What a visitor's own network makes of the photos whose features ship: computed on the spot, where the host has these photos.

The photos do not ship, and neither do their names. They are found again by the draw that chose them, and known by their features
as bare pixels, which ship: so no figure is ever of other photos than those of the encoders beside it.
"""

import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import own_networks, shipped_features
from .data import Photos
from .embedding import embed
from .labelled import load_drawn, load_labelled
from .shipped_features import SIDE, places_by_tsne
from .transfer import PIXELS

CHUNK = 32  # photos that are looked at before somebody is told
ALIKE = 0.012  # the mean difference of 8 x 8 pixels that are of one photo, perhaps saved once more
_busy = threading.Lock()


def known(encoder: str) -> bool:
    """Whether an own network's features are there already."""
    own = own_networks.get(encoder)
    return own is not None and own.looked is not None


def look(encoder: str, photos: Sequence[Image.Image]) -> Iterator[tuple[int, int]]:
    """(photos seen, all photos) while an own network looks at them, in the order of those whose features ship.

    At the end its features are among those that `shipped_features.load` knows, with a map. Raises ValueError where it is gone.
    """
    own, model, parts = own_networks.find(encoder), shipped_features.load(PIXELS), []
    for start in range(0, len(photos), CHUNK):
        yield start, len(photos)
        parts.append(embed(photos[start : start + CHUNK], encoder))
    yield len(photos), len(photos)  # the map takes some seconds more
    features = torch.cat(parts).half().float()  # as those that ship
    if not features.isfinite().all():
        raise ValueError("The features of that network are no numbers any more; train it again with a lower learning rate.")
    split = len(model.train)
    place = places_by_tsne(features, int(model.about.get("seed", 0)))
    about = {"encoder": encoder, "D": str(features.shape[1])}
    own.looked = replace(model, encoder=encoder, train=features[:split], test=features[split:], map=place, about=about)


def photos_of(sets: Sequence[str]) -> list[Image.Image] | None:
    """The photos whose features ship, training ones first, from the first of a host's sets that holds them all, or None."""
    if PIXELS not in shipped_features.available():
        return None
    with _busy:  # who comes second waits for what the first one decodes
        return next((found for name in sets if (found := _found(str(name))) is not None), None)


@functools.lru_cache(maxsize=4)
def _found(name: str) -> list[Image.Image] | None:
    """They are 100 MB; a folder is searched once."""
    shipped = shipped_features.load(PIXELS)
    wanted = torch.cat([shipped.train, shipped.test])
    counts = [len(part) // len(shipped.classes) for part in (shipped.train, shipped.test)]
    seed = int(shipped.about.get("seed", 0))
    try:
        drawn = load_drawn(name, SIDE, *counts, seed, most_classes=len(shipped.classes))
    except ValueError:
        return None
    pictures = [*_pictures(drawn.train), *_pictures(drawn.test)]
    if _alike(pictures, wanted):
        return pictures
    every = load_labelled(name, SIDE)  # another order of the same photos draws others of them
    pictures = [*_pictures(every.train), *_pictures(every.test)]
    nearest = torch.cat([torch.cdist(some, embed(pictures, PIXELS), p=1).argmin(dim=1) for some in wanted.split(200)])
    chosen = [pictures[place] for place in nearest.tolist()]
    return chosen if len(set(nearest.tolist())) == len(chosen) and _alike(chosen, wanted) else None


def _pictures(photos: Photos) -> list[Image.Image]:
    return [Image.fromarray(np.asarray(pixels)) for pixels in photos.array[photos.index]]


def _alike(pictures: list[Image.Image], wanted: Tensor) -> bool:
    """Whether pictures are those of these pixel features (N, 192)."""
    return len(pictures) == len(wanted) and bool(((embed(pictures, PIXELS) - wanted).abs().mean(dim=1) < ALIKE).all())

"""A visitor's own networks among the encoders: trained in the lab, or brought.

Each goes by a key such as "rotation:own-5d0c…", which says its task, is nobody's to guess, and leads to nothing once its visitor
has left. Keys go to the browser; paths do not. What one made, and the network itself once loaded, is held by its `Own` alone.
"""

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MARK = ":own-"
MOST_MADE = 64  # networks that answers are remembered of; those that were asked longest ago answer anew


@dataclass(eq=False)
class Own:
    """The task of a network, what its visitor calls it, and its file of weights.

    made: what `remembered` functions answered about it, a cache for each. looked: what it made of the photos whose features
    ship, a `shipped_features.Shipped`, once it has looked at them (see `own_features`).
    """

    task: str
    name: str
    path: str
    made: dict[Callable, Callable] = field(default_factory=dict, repr=False)
    looked: Any = field(default=None, repr=False)


_known: OrderedDict[str, Own] = OrderedDict()  # the last asked stands last
_door = threading.Lock()  # visitors come and ask while others leave


def is_own(encoder: str) -> bool:
    return MARK in str(encoder)


def key_of(task: str, path: str) -> str:
    """A file lies in a folder that nobody else knows of, and so does its key tell nobody anything."""
    return f"{task}{MARK}{hashlib.sha256(str(path).encode()).hexdigest()[:20]}"


def keys(own: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The keys of a visit's networks (by task, files by the names that a person gave), in order; they are known from now on.

    Those whose files are gone, as after the visit, are left out.
    """
    found = []
    with _door:  # before the files are looked for: they go before `forget` is called, and no key comes back after it
        for task, files in own.items():
            for name, path in files.items():
                if Path(path).is_file():
                    found.append(key_of(task, path))
                    _known.setdefault(found[-1], Own(task, name, str(path)))
    return found


def get(encoder: str) -> Own | None:
    """The network of a key, or None where there is none, or no more."""
    with _door:
        if encoder not in _known:
            return None
        _known.move_to_end(encoder)
        for one in list(_known.values())[:-MOST_MADE]:
            one.made.clear()
        return _known[encoder]


def find(encoder: str) -> Own:
    """The same. Raises ValueError where there is none, or no more."""
    if (own := get(encoder)) is None:
        raise ValueError("That network of yours is not here any more; train it again, or bring its weights.")
    return own


def forget(folder: Path) -> None:
    """The networks whose files lie in a folder, at any depth, are gone, and so is all that they made."""
    with _door:
        for key in [key for key, own in _known.items() if Path(own.path).is_relative_to(folder)]:
            del _known[key]


def remembered(maxsize: int, whose: Callable[..., Own | None] = lambda encoder, *_: find(encoder) if is_own(encoder) else None):
    """`functools.lru_cache`, apart for each visitor's own network, whose results go with it.

    whose: the own network that a call asks, by its arguments, or None; by default the first argument is an encoder's name, and
    ValueError is raised for a network that is gone.
    """
    def remember(make):
        shipped = functools.lru_cache(maxsize)(make)

        @functools.wraps(make)
        def asked(*values, **named):
            own = whose(*values, **named)
            cached = shipped if own is None else own.made.setdefault(make, functools.lru_cache(maxsize)(make))
            return cached(*values, **named)

        asked.cache_clear = shipped.cache_clear
        return asked

    return remember

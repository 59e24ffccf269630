"""A visitor's own networks among the encoders: trained in the lab, or brought.

Each goes by a key such as "rotation:own-5d0c…", which says its task, is nobody's to guess, and leads to nothing once its visitor
has left. Keys go to the browser; paths do not.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MARK = ":own-"


@dataclass(frozen=True)
class Own:
    """The task of a network, what its visitor calls it, and its file of weights."""

    task: str
    name: str
    path: str


_known: dict[str, Own] = {}


def is_own(encoder: str) -> bool:
    return MARK in encoder


def keys(own: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The keys of a visit's networks (by task, files by the names that a person gave), in order; they are known from now on.

    A file lies in a folder that nobody else knows of, and so does its key tell nobody anything.
    """
    found = {}
    for task, files in own.items():
        for name, path in files.items():
            found[f"{task}{MARK}{hashlib.sha256(str(path).encode()).hexdigest()[:20]}"] = Own(task, name, str(path))
    _known.update(found)
    return list(found)


def everyone() -> list[str]:
    """The keys of all visitors."""
    return list(_known)


def find(encoder: str) -> Own:
    """The network of a key. Raises ValueError where there is none, or no more."""
    if encoder not in _known:
        raise ValueError("That network of yours is not here any more; train it again, or bring its weights.")
    return _known[encoder]


def forget(folder: Path) -> list[str]:
    """The networks whose files lie in a folder, at any depth, are gone; returns their keys."""
    gone = [key for key, own in list(_known.items()) if Path(own.path).is_relative_to(folder)]
    for key in gone:
        _known.pop(key, None)
    return gone

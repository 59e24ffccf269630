"""Transfer while one looks on: a few labels, the features that ship, and a visitor's own photo among them. No network is trained.

The labels of the test photos are used to count right answers, never by a probe.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from . import embedding, own_networks, probes, shipped_features
from .checkpoints import UNTRAINED
from .labelled import drawn
from .pretext import Control
from .progress import steps
from .texts import later
from .transfer import PIXELS

MAPS, MOST_NEIGHBOURS = ("t-SNE", "PCA"), 50
AROUND = 20  # photos that lie around a place on a map
DRAWS = 5  # other draws of labels that an accuracy is compared with


@dataclass(frozen=True)
class Score:
    """The shares of test photos that two probes tell rightly. linear: None where it was not asked. kind: as in `transfer`.

    margin, linear_margin: half the widths of their intervals, see `margin`; None where it was not asked.
    """

    encoder: str
    kind: str
    knn: float
    linear: float | None = None
    margin: float | None = None
    linear_margin: float | None = None


@dataclass(frozen=True)
class Map:
    """Places of all photos (N + M, 2) in about [-1, 1], the training photos first; of the visitor's, (2,).

    labelled: the places in the training part whose labels are known. voters: those of them that vote on the visitor's photo, the
    most similar first, and how much of the vote each has. explained: of PCA, the share of the variance that is seen.
    """

    points: np.ndarray
    classes: np.ndarray  # (N + M,)
    labelled: np.ndarray
    own: np.ndarray | None = None
    voters: np.ndarray | None = None
    weights: np.ndarray | None = None
    explained: float | None = None


def controls() -> tuple[Control, ...]:
    """What one may set, as it stands in a link."""
    encoders = tuple(shipped_features.available())
    most = shipped_features.load(encoders[0]).labels_per_class if encoders else 1
    return (Control("encoder", "Encoder", "choice", "", "Who is asked.", choices=encoders),
            Control("neighbours", "Neighbours", "slider", probes.NEIGHBOURS, "How many vote.", 1, MOST_NEIGHBOURS),
            Control("labels", "Labels per class", "slider", most, "What the probes hear.", 1, most),
            Control("map", "Map", "choice", MAPS[0], "From many numbers to two.", choices=MAPS),
            Control("seed", "Seed", "slider", 0, "Which labels.", 0, 2**31 - 1))


def kind_of(encoder: str) -> str:
    """ "trained", "untrained" or "pixels"."""
    return "trained" if embedding.is_trained(encoder) else PIXELS if encoder == PIXELS else UNTRAINED


def draw(encoder: str, per_class: int, seed: int) -> np.ndarray:
    """Places of the training photos whose labels are known. Raises ValueError where there are not so many a class."""
    features = shipped_features.load(encoder)
    if not 1 <= per_class <= features.labels_per_class:
        raise ValueError(f"Labels per class must be from 1 to {features.labels_per_class}, not {per_class}.")
    return drawn(features.train_labels, features.classes, per_class, seed)


@own_networks.remembered(4096)
def knn(encoder: str, k: int, per_class: int, seed: int) -> float:
    """The accuracy by k nearest neighbours among the drawn labels. Cached."""
    features, places = shipped_features.load(encoder), draw(encoder, per_class, seed)
    shares = probes.knn(features.train[places], features.train_labels[places], features.test, len(features.classes), k)
    return probes.accuracy(shares, features.test_labels)


@own_networks.remembered(1024)
def linear(encoder: str, per_class: int, seed: int) -> float:
    """The accuracy of a linear layer on the drawn labels; its strength is chosen on these alone. Cached."""
    features, places = shipped_features.load(encoder), draw(encoder, per_class, seed)
    labels = features.train_labels[places]
    shares, _ = probes.linear(features.train[places], labels, features.test, len(features.classes), seed)
    return probes.accuracy(shares, features.test_labels)


def scores(names: Iterable[str], chosen: str, k: int, per_class: int, seed: int) -> list[Score]:
    """Each encoder by its neighbours, the chosen one by a linear layer too; the best by its neighbours first.

    Margins are those of the chosen one, and where all labels are known, so that there is one draw only, of all encoders: other
    draws for all of them would keep who moves a slider waiting.
    """
    found = []
    for name in names:
        score = Score(name, kind_of(name), knn(name, k, per_class, seed))
        if name == chosen or not is_drawn(name, per_class):
            score = replace(score, margin=margin(score.knn, name, k, per_class, seed))
        if name == chosen:
            told = linear(name, per_class, seed)
            score = replace(score, linear=told, linear_margin=margin(told, name, k, per_class, seed))
        found.append(score)
    return sorted(found, key=lambda score: -score.knn)


def is_drawn(encoder: str, per_class: int) -> bool:
    """Whether there are other labels than those that are heard."""
    features = shipped_features.load(encoder)
    return per_class * len(features.classes) < len(features.train_labels)


def spread(encoder: str, k: int, per_class: int, seed: int) -> float:
    """The standard deviation of `knn` over this draw of labels and `DRAWS` others; 0 where all labels are heard."""
    if not is_drawn(encoder, per_class):
        return 0.0
    others = [other for other in range(DRAWS + 1) if other != seed][:DRAWS]
    return statistics.stdev(knn(encoder, k, per_class, one) for one in (seed, *others))


def margin(accuracy: float, encoder: str, k: int, per_class: int, seed: int) -> float:
    """Half the width of the interval of 95 % of an accuracy: how far it may be off with other test photos and other labels.

    The variances of both are added: the binomial's for the photos, that of `spread` for the draw of labels. A linear layer's
    would take seconds for other draws; it gets the neighbours' spread, from which its own was less than a half off (DINO, SimCLR
    and the masked autoencoder with 1 to 70 labels a class).
    """
    photos = accuracy * (1 - accuracy) / len(shipped_features.load(encoder).test_labels)
    return probes.half_interval([(photos, math.inf), (spread(encoder, k, per_class, seed) ** 2, DRAWS)])


def see(photo: Image.Image, names: Iterable[str]) -> dict[str, Tensor]:
    """What each encoder makes of a photo: features (1, D) by its name. Tells a listener which one is asked."""
    asked = steps(list(names), lambda name: later(f"Asking {embedding.title(name)}; encoders asked"))
    return {name: shipped_features.embed([photo], name) for name in asked}


def votes(own: Mapping[str, Tensor], k: int, per_class: int, seed: int) -> dict[str, np.ndarray]:
    """The share of the neighbours' vote for each class (K,), by every encoder."""
    shares = {}
    for name, features in own.items():
        known, places = shipped_features.load(name), draw(name, per_class, seed)
        shares[name] = probes.knn(known.train[places], known.train_labels[places], features, len(known.classes), k)[0].numpy()
    return shares


@own_networks.remembered(64)
def _pca(encoder: str):
    """PCA of an encoder's features of all photos, of length one as kNN sees them, and their places."""
    from sklearn.decomposition import PCA  # late: the page starts a second sooner without it

    features = _directions(encoder)
    pca = PCA(2, svd_solver="covariance_eigh").fit(features)
    return pca, pca.transform(features)


@own_networks.remembered(64)
def _directions(encoder: str) -> np.ndarray:
    """(N + M, D), of length one."""
    features = shipped_features.load(encoder)
    return F.normalize(torch.cat([features.train, features.test]), dim=1).numpy()


@own_networks.remembered(128)
def laid_out(encoder: str, kind: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Places of all photos on an encoder's map (N + M, 2) in [-1, 1], the training photos first; what was taken off, divided by.

    Cached. Raises ValueError for a kind of map that there is not.
    """
    if kind not in MAPS:
        raise ValueError(f"The map must be by {' or '.join(MAPS)}, not “{kind}”.")
    points = _pca(encoder)[1] if kind == "PCA" else shipped_features.load(encoder).map
    centre, scale = (points.max(axis=0) + points.min(axis=0)) / 2, float(np.ptp(points, axis=0).max() / 2)
    return (points - centre) / scale, centre, scale


def classes_of(encoder: str) -> np.ndarray:
    """(N + M,): the classes of all photos, in the order of a map."""
    features = shipped_features.load(encoder)
    return np.concatenate([features.train_labels, features.test_labels])


def place(encoder: str, kind: str, k: int, own: Tensor) -> np.ndarray:
    """Where a visitor's photo (1, D) falls on an encoder's map (2,).

    By PCA it is projected as all are; t-SNE has no place for a new photo, so it gets the mean of the places of the k photos most
    similar to it, weighted as in their vote.
    """
    points, centre, scale = laid_out(encoder, kind)
    direction = F.normalize(own.float(), dim=1).numpy()[0]
    if kind == "PCA":
        pca, _ = _pca(encoder)
        return ((direction - pca.mean_) @ pca.components_.T - centre) / scale  # as its `transform`, which is slower for one
    near, share = _nearest(_directions(encoder) @ direction, k)
    return share @ points[near]


def around(encoder: str, kind: str, place: np.ndarray) -> tuple[int, int]:
    """The class of most of the `AROUND` photos nearest to a place (2,) on an encoder's map, and how many are of it."""
    away = np.linalg.norm(laid_out(encoder, kind)[0] - place, axis=1)
    counts = np.bincount(classes_of(encoder)[np.argsort(away, kind="stable")[:AROUND]])
    return int(counts.argmax()), int(counts.max())


def map_of(encoder: str, kind: str, k: int, per_class: int, seed: int, own: Tensor | None = None) -> Map:
    """The photos as one encoder sees them, and where a visitor's photo (1, D) falls among them, see `place`.

    Raises ValueError for a kind of map that there is not.
    """
    points, labelled = laid_out(encoder, kind)[0], draw(encoder, per_class, seed)
    explained = float(_pca(encoder)[0].explained_variance_ratio_.sum()) if kind == "PCA" else None
    shown = Map(points, classes_of(encoder), labelled, explained=explained)
    if own is None:
        return shown
    direction = F.normalize(own.float(), dim=1).numpy()[0]
    voters, weights = _nearest(_directions(encoder)[labelled] @ direction, k)
    return replace(shown, own=place(encoder, kind, k, own), voters=labelled[voters], weights=weights)


def _nearest(similarity: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar, the most similar first, and their shares of a vote, as in `probes.knn`."""
    best = np.argsort(-similarity, kind="stable")[:k]
    weights = np.exp((similarity[best] - 1) / probes.TEMPERATURE)
    return best, weights / weights.sum()

"""Ways to ask what frozen features (N, D) know of classes: their neighbours, and two linear layers. No network takes part.

All answer with the share of each class for every photo asked about, (M, K).
"""

import math
import warnings
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from torch import Tensor

NEIGHBOURS, TEMPERATURE = 20, 0.07  # Wu et al. 2018 take the temperature 0.07, Caron et al. 2021 (DINO) 20 neighbours with it
STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # of the linear probe: the larger, the less it is held back
UNCHOSEN = 1e-2  # where a class has a single photo, none is left to choose by
# Of the least-squares probe, chosen for five photos a class by benchmarks/teach_probe.py: how much it is held back, and what its
# scores are divided by to be shares that mean what they say.
HELD_BACK, SOFTNESS = 1.0, 0.4


def knn(train: Tensor, labels: np.ndarray, test: Tensor, classes: int, k: int = NEIGHBOURS,
        temperature: float = TEMPERATURE) -> Tensor:
    """Each of the k most similar training photos votes for its class with the weight exp(cosine / temperature).

    Section 3.4 of Unsupervised Feature Learning via Non-Parametric Instance Discrimination (Wu et al. 2018).
    """
    train, labels, answers = F.normalize(train.float(), dim=1), torch.from_numpy(np.asarray(labels)), []
    for some in F.normalize(test.float(), dim=1).split(1000):  # all similarities at once would not fit the memory for large sets
        similarity, nearest = (some @ train.T).topk(min(k, len(train)), dim=1)  # (B, k)
        weight = ((similarity - 1) / temperature).exp()  # a common factor, which keeps the numbers small
        votes = torch.zeros(len(some), classes).scatter_add_(1, labels[nearest], weight)
        answers.append(votes / votes.sum(dim=1, keepdim=True))
    return torch.cat(answers)


@threadpool_limits.wrap(limits=1, user_api="blas")  # on matrices so small, several threads spend their time waiting
def linear(train: Tensor, labels: np.ndarray, test: Tensor, classes: int, seed: int = 0,
           strength: float | None = None) -> tuple[Tensor, float]:
    """Logistic regression on standardised features, and the strength (scikit-learn's C) it was made with.

    Where none is given, the strength is the one with the least loss on training photos left out: a fifth, or of few photos each
    fifth in turn.
    """
    labels = np.asarray(labels)
    train, test = (part.numpy() for part in _standardised(train, test))
    if strength is None:
        strength = _choose(train, labels, seed)
    model = _fit(train, labels, strength)
    shares = np.zeros((len(test), classes), dtype=np.float32)
    shares[:, model.classes_] = model.predict_proba(test)
    return torch.from_numpy(shares), strength


def least_squares(train: Tensor, labels: np.ndarray, test: Tensor, classes: int) -> Tensor:
    """A linear layer with a closed form, as good as logistic regression where a class has a handful of photos.

    Regularised least-squares classification (Rifkin, Yeo and Poggio 2003, section 3), on standardised features: each class is
    1 for its own photos and 0 for others. All classes weigh the same, however many photos they have.
    """
    labels = torch.from_numpy(np.asarray(labels)).long()
    counts = labels.bincount(minlength=classes)
    weight = len(labels) / (counts > 0).sum() / counts[labels]  # (N,), 1 on average
    train, test = _standardised(train, test, weight=weight)
    sought = F.one_hot(labels, classes).float() - 1 / classes
    similar = train @ train.T / train.shape[1]
    layer = torch.linalg.solve(similar + HELD_BACK * (1 / weight).diag(), sought)  # (N, K)
    return (test @ train.T / train.shape[1] @ layer / SOFTNESS).softmax(dim=1)


def left_out(features: Tensor, labels: np.ndarray, classes: int) -> Tensor:
    """(N, K): what `least_squares` says of each photo after hearing of all others.

    N fits, although they have a closed form: that takes the mean of all N features, and where classes are equally large, the
    others' mean and labels together would betray the label of the one left out (4 of 100 photos too many were told rightly).
    """
    labels, places = np.asarray(labels), np.arange(len(labels))
    return torch.cat([least_squares(features[places != place], labels[places != place], features[place : place + 1], classes)
                      for place in places])


def accuracy(shares: Tensor, labels: np.ndarray) -> float:
    """The share of photos whose likeliest class is the right one."""
    return float((shares.argmax(dim=1).numpy() == labels).mean())


def half_interval(parts: Iterable[tuple[float, float]]) -> float:
    """Half the width of the 95 % interval of something whose variance has several parts that are independent of each other.

    parts: of each its variance, and from how many degrees of freedom that is known (infinity: exactly). Student's t for the sum,
    with the degrees of freedom of Welch (1947): where few values tell a variance, the interval is wider.
    """
    from scipy.special import stdtrit  # late: it takes a quarter of a second

    parts = [(variance, freedom) for variance, freedom in parts if variance > 0]
    total = sum(variance for variance, _ in parts)
    unsure = sum(variance**2 / freedom for variance, freedom in parts)
    return float(stdtrit(total**2 / unsure if unsure else math.inf, 0.975)) * math.sqrt(total)


def _standardised(train: Tensor, *others: Tensor, weight: Tensor | None = None) -> list[Tensor]:
    """All of them less the mean of the first, divided by its spread. weight: (N,), 1 on average, of its rows."""
    weight = torch.ones(len(train)) if weight is None else weight
    mean = (weight[:, None] * train.float()).mean(dim=0)
    spread = (weight[:, None] * (train.float() - mean).square()).mean(dim=0).sqrt()
    spread[spread < 1e-6 * spread.max().clamp(min=1e-12)] = 1.0  # what never varies says nothing, and is not blown up
    return [(part.float() - mean).div(spread) for part in (train, *others)]


def _choose(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """By the loss on what is left out: where that is a handful of photos, how many of them are right is mostly luck."""
    from sklearn.model_selection import StratifiedKFold

    fewest = np.unique(labels, return_counts=True)[1].min()
    if fewest < 2:
        return UNCHOSEN
    folds = list(StratifiedKFold(min(5, int(fewest)), shuffle=True, random_state=seed).split(features, labels))
    folds = folds if len(labels) <= 2000 else folds[:1]
    models, losses = [None] * len(folds), []
    for strength in STRENGTHS:  # each begins where less strength ended, which is near
        losses.append(0.0)
        for number, (kept, left_out) in enumerate(folds):
            model = models[number] = _fit(features[kept], labels[kept], strength, models[number])
            shares = model.predict_proba(features[left_out])
            right = shares[np.arange(len(left_out)), np.searchsorted(model.classes_, labels[left_out])]
            losses[-1] -= np.log(np.maximum(right, 1e-12)).sum()
        if losses[-1] > min(losses):  # from here on it only learns by heart
            break
    return STRENGTHS[int(np.argmin(losses))]


def _fit(features: np.ndarray, labels: np.ndarray, strength: float, start=None):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=300, tol=1e-3, warm_start=start is not None)
    if start is not None:
        model.classes_, model.coef_, model.intercept_ = start.classes_, start.coef_, start.intercept_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # where classes can be told apart, it would go on for ever
        return model.fit(features, labels)

"""A question that a person can answer before the network does: the same choices for both. Data only."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Choice:
    """One possible answer: its text, the share in [0, 1] that the network gives it, and for colours a swatch (#rrggbb)."""

    label: str
    share: float
    color: str = ""


@dataclass(frozen=True)
class Question:
    """What is asked, what may be seen before it is answered, and what is right.

    picture: (H, W, 3) uint8, what the network is shown, with a title and a caption that tell nothing; click: as of a panel. The
    shares of all choices sum to 1: where a network knows more answers than can be chosen, they are those it gives to these.
    board: the choices are the cells of a board of three by three, in reading order; of eight, the middle is taken by `middle`,
    a picture (h, w, 3).
    """

    text: str
    choices: tuple[Choice, ...]
    truth: int
    picture: np.ndarray
    title: str
    caption: str
    click: str = ""
    board: bool = False
    middle: np.ndarray | None = None

    def __post_init__(self):
        labels = [choice.label for choice in self.choices]
        assert len(set(labels)) == len(labels) >= 2, f"choices must differ: {labels}"
        assert 0 <= self.truth < len(labels)
        assert not self.board or len(labels) == 9 or len(labels) == 8 and self.middle is not None

    @property
    def answer(self) -> int:
        """The network's choice: the first of the likeliest."""
        shares = [choice.share for choice in self.choices]
        return shares.index(max(shares))


def choices(labels, shares: Tensor, colors=None) -> tuple[Choice, ...]:
    """Choices by their labels and the shares (n,) that a network gives them, among others perhaps: they are made to sum to 1."""
    shares = shares.double().cpu()
    shares = (shares / shares.sum().clamp(min=1e-30)).tolist()
    return tuple(Choice(*each) for each in zip(labels, shares, colors or [""] * len(labels), strict=True))

"""Masks: in which order patches are hidden; and of objects in clips, booleans (T, H, W), how well they were followed.

That is J (region) and F (contour), as DAVIS defines them (Perazzi et al. 2016, section 4).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 0.008  # how far apart two contours may lie and still be the same, as a share of the picture's diagonal


def region(answer: Tensor, truth: Tensor) -> Tensor:
    """J of each frame, (T,): intersection over union; 1 where both are empty."""
    together, either = (answer & truth).sum(dim=(1, 2)), (answer | truth).sum(dim=(1, 2))
    return torch.where(either > 0, together / either.clamp(min=1), 1.0)


def contour(answer: Tensor, truth: Tensor) -> Tensor:
    """F of each frame, (T,): of the contours' precision and recall, each within the tolerance; 1 where both are empty."""
    height, width = truth.shape[1:]
    radius = math.ceil(TOLERANCE * math.hypot(height, width))
    ours, theirs = border(answer), border(truth)
    near_ours, near_theirs = grow(ours, radius), grow(theirs, radius)
    length, true_length = ours.sum(dim=(1, 2)), theirs.sum(dim=(1, 2))
    # A contour that is not there has nothing wrong in it (precision 1), and nothing of another that is (recall 0).
    precision = torch.where(length > 0, (ours & near_theirs).sum(dim=(1, 2)) / length.clamp(min=1), 1.0)
    recall = torch.where(true_length > 0, (theirs & near_ours).sum(dim=(1, 2)) / true_length.clamp(min=1), 1.0)
    precision = torch.where((length > 0) & (true_length == 0), 0.0, precision)
    recall = torch.where((length == 0) & (true_length > 0), 0.0, recall)
    both = precision + recall
    return torch.where(both > 0, 2 * precision * recall / both.clamp(min=1e-12), 0.0)


def border(masks: Tensor) -> Tensor:
    """Pixels that differ from the one to the right, below, or both: the contour, one pixel wide, as DAVIS draws it."""
    grown = F.pad(masks.float()[:, None], (0, 1, 0, 1), mode="replicate")[:, 0].bool()
    here, right, below, across = grown[:, :-1, :-1], grown[:, :-1, 1:], grown[:, 1:, :-1], grown[:, 1:, 1:]
    return (here ^ right) | (here ^ below) | (here ^ across)


def grow(masks: Tensor, radius: int) -> Tensor:
    """Masks dilated by a disk."""
    along = torch.arange(-radius, radius + 1, device=masks.device)
    disk = (along[:, None] ** 2 + along**2 <= radius**2).float()[None, None]
    return F.conv2d(masks.float()[:, None], disk, padding=radius)[:, 0] > 0.5


def widen(masks: Tensor, by: int) -> Tensor:
    """Masks dilated by a square that reaches so many pixels to each side, as 0 and 1."""
    rows = F.max_pool2d(masks.float(), (2 * by + 1, 1), stride=1, padding=(by, 0))
    return F.max_pool2d(rows, (1, 2 * by + 1), stride=1, padding=(0, by))


def j_and_f(answers: Tensor, truths: Tensor) -> tuple[Tensor, Tensor]:
    """J and F of clips, (B,) each, from the numbers of objects on every pixel, (B, T, H, W).

    Means over the objects (numbers above 0) on frame 1 of the truth and over all frames but the first, which is given, and the
    last, as DAVIS counts; clips of two frames are scored on their second. Not a number where frame 1 has no object.
    """
    inner = slice(1, -1) if truths.shape[1] > 2 else slice(1, None)
    scores = []
    for answer, truth in zip(answers, truths):
        objects = [number for number in truth[0].unique().tolist() if number > 0]
        pairs = [(answer[inner] == number, truth[inner] == number) for number in objects]
        each = [(region(*pair).mean(), contour(*pair).mean()) for pair in pairs]
        scores.append(torch.tensor(each or [(math.nan, math.nan)]).mean(dim=0))
    return tuple(torch.stack(scores).to(answers.device).T)


def rank_places(kind: str, count: int, images: int, side: int, rng: torch.Generator) -> Tensor:
    """An order (B, N) in which places are hidden: the `count` lowest first. All images get equally many."""
    chance = torch.rand(images, side * side, generator=rng)  # drawn always, so that one seed means one chance
    if kind == "random":
        return chance
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    if kind == "block":  # one square as nearly as the count allows, wherever it fits
        half = min(count**0.5, side) / 2
        centre = half + torch.rand(images, 2, 1, generator=rng) * (side - 2 * half) - 0.5
        distance = torch.maximum((row.flatten() - centre[:, 0]).abs(), (column.flatten() - centre[:, 1]).abs())
        return distance + 1e-3 * chance
    assert kind == "grid", kind  # Bayer's ordered pattern: at 75 % one of each 2 x 2 stays, at 50 % a chess-board
    order = torch.zeros(1, 1)
    for _ in range(3):
        order = torch.cat([torch.cat([4 * order, 4 * order + 2], 1), torch.cat([4 * order + 3, 4 * order + 1], 1)], 0)
    tiles = -(-side // 8)
    return -(order.repeat(tiles, tiles)[:side, :side].flatten() + 1e-3 * chance)

"""Copying labels from frame to frame by pointers between features, and the clusters that colours are told apart by.

T frames, each a map of h w places; a label is any C numbers: a colour, the shares of colours, the share of an object.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .progress import steps


def carry(features: Tensor, labels: Tensor, known: Tensor, radius: int, temperature: float, recent: int = 2,
          best: int = 0) -> Tensor:
    """Labels (B, T, C, h, w) copied from frame to frame by pointers between features (B, T, D, h, w) of length one.

    Each frame but the first gets its labels from the first and the `recent` ones before it: the labels given where a frame is
    known (B, T), else those it was given here. The map is cut into blocks of radius x radius places, which point at their own
    block and the eight around it. All of a place's pointers count (best = 0); or about the `best` strongest, by as much as they
    are stronger than the next: copied over and over, labels would blur away by the many weak ones.
    """
    (B, T, _, h, w), given = features.shape, F.pad(labels, (0, 0, 0, 0, 0, 1), value=1.0).unbind(1)  # a label of ones counts
    cut = blocks(features.flatten(0, 1), radius)
    queries = (cut / temperature).unflatten(0, (B, T)).unbind(1)  # T x (B, n, n', r r, D)
    keys = around(cut).transpose(3, 4).unflatten(0, (B, T)).unbind(1)  # T x (B, n, n', D, 9 r r)
    copied, values = [given[0]], {0: around(blocks(given[0], radius))}  # (B, n, n', 9 r r, C + 1)
    for t in steps(range(1, T), "frames coloured"):
        frames, total = sorted({0, *range(max(0, t - recent), t)}), 0
        similar = [queries[t] @ keys[f] for f in frames]  # R x (B, n, n', r r, 9 r r)
        next_best = torch.cat(similar, dim=4).topk(best + 1, dim=4).values[..., -1:].exp() if best else None
        for f, similarity in zip(frames, similar):
            weights = similarity.exp()  # at most e^(1 / temperature), so nothing overflows
            if best:  # and a little of all, for places that look like many others
                weights = (weights - next_best).clamp(min=0) + 1e-3 * weights
            total = total + weights @ values[f]  # places outside the map have no label to give, nor do they count
        copied.append(together(total / total[..., -1:], h, w))
        values[t] = around(blocks(torch.where(known[:, t, None, None, None], given[t], copied[t]), radius))
    return torch.stack(copied, dim=1)[:, :, :-1]


def blocks(maps: Tensor, side: int) -> Tensor:
    """Maps (B, C, h, w) cut into n x n' blocks of side x side places, (B, n, n', places, C), empty places added at the ends."""
    maps = F.pad(maps, (0, -maps.shape[3] % side, 0, -maps.shape[2] % side))
    return maps.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 3, 5, 1).flatten(3, 4).contiguous()


def around(cut: Tensor) -> Tensor:
    """Blocks (B, n, n', places, C), each with the eight around it: (B, n, n', 9 places, C), empty ones outside the map."""
    n, m = cut.shape[1:3]
    framed = F.pad(cut, (0, 0, 0, 0, 1, 1, 1, 1))
    return torch.cat([framed[:, i : i + n, j : j + m] for i in range(3) for j in range(3)], dim=3)


def together(cut: Tensor, h: int, w: int) -> Tensor:
    """Blocks (B, n, n', places, C) as maps (B, C, h, w) again."""
    side = round(cut.shape[3] ** 0.5)
    return cut.unflatten(3, (side, side)).permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)[:, :, :h, :w]


def k_means(points: Tensor, clusters: int, rounds: int = 30) -> Tensor:
    """Centres (K, 2) of points (N, 2): Lloyd's algorithm, begun with the points farthest from those already chosen."""
    centres = points.mean(dim=0, keepdim=True)
    while len(centres) < clusters:
        centres = torch.cat([centres, points[torch.cdist(points, centres).amin(dim=1).argmax()][None]])
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(dim=1)
        counts = torch.bincount(nearest, minlength=clusters).clamp(min=1)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(torch.bincount(nearest, minlength=clusters)[:, None] > 0, sums / counts, centres)
    return centres[centres[:, 0].argsort()]

"""What the contrastive family shares: InfoNCE, written once; how good a space of views is; and a watch for collapse.

Embeddings have length 1 (`F.normalize`), so that their products are cosines. Two views of each photo are (B, 2, D).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def info_nce(similarity: Tensor, positive: Tensor, temperature: float, left_out: Tensor | None = None) -> Tensor:
    """The loss of each query (Q,): - log [exp(s_qp / t) / sum_k exp(s_qk / t)] (van den Oord et al. 2018, equation 4).

    similarity: s, (Q, K), of each query to each candidate; positive: p, (Q,), which candidate is the right one; left_out:
    (Q, K), True where a candidate is none for that query, such as the query itself. Guessing costs log K.
    """
    logits = similarity.float() / temperature
    if left_out is not None:
        logits = logits.masked_fill(left_out, float("-inf"))
    return logits.logsumexp(dim=1) - logits.gather(1, positive[:, None])[:, 0]


def nt_xent_pairs(views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of two views each (B, 2, D): all similarities (2B, 2B), the other view of the same photo (2B,), and the diagonal.

    Every view asks which of all others is its photo's (SimCLR, Chen et al. 2020, section 2.1). Views 2i and 2i + 1 are a pair.
    """
    flat = views.flatten(0, 1)  # (2B, D)
    number = torch.arange(len(flat), device=flat.device)
    return flat @ flat.T, number ^ 1, torch.eye(len(flat), dtype=torch.bool, device=flat.device)


def found(similarity: Tensor, positive: Tensor, left_out: Tensor | None = None) -> Tensor:
    """Whether each query's positive is the most similar of its candidates, (Q,) as 0 and 1. Ties are not found.

    A network that says the same of every photo makes nothing but ties.
    """
    right = similarity.gather(1, positive[:, None])  # (Q, 1)
    rivals = similarity.scatter(1, positive[:, None], float("-inf"))
    if left_out is not None:
        rivals = rivals.masked_fill(left_out, float("-inf"))
    return (rivals < right).all(dim=1).float()


def alignment(views: Tensor) -> Tensor:
    """The squared distance of the two views of each photo, (B,), from (B, 2, D): 0 is best (Wang and Isola 2020, eq. 6)."""
    return (views[:, 0] - views[:, 1]).square().sum(dim=1)


def uniformity(embeddings: Tensor, t: float = 2.0) -> Tensor:
    """log of the mean of exp(- t distance^2) over all pairs of (N, D): 0 when all are one, -4 spread evenly (ibid., eq. 7)."""
    distances = torch.pdist(embeddings.float())  # (N (N - 1) / 2,)
    return distances.square().mul(-t).exp().mean().log() if len(embeddings) > 1 else distances.sum()


def feature_spread(embeddings: Tensor) -> Tensor:
    """The standard deviation along each axis of embeddings (N, D), averaged, times sqrt(D): 0 collapsed, 1 spread evenly.

    The measure of SimSiam (Chen and He 2021, section 4.1).
    """
    normal = F.normalize(embeddings.float(), dim=1)
    return normal.std(dim=0, correction=0).mean() * normal.shape[1] ** 0.5


COLLAPSED = 0.1  # a spread below: next to all photos have the same embedding


def collapse_alarm(spread: float) -> str:
    """The sentence for the log where the features have collapsed, else nothing."""
    return f"collapse: all photos get nearly the same features (spread {spread:.3f}, 1 is even)" if spread < COLLAPSED else ""


def entropy(shares: Tensor) -> Tensor:
    """Of distributions (..., K), in nats: 0 where one takes all, log K where all get the same."""
    return torch.special.entr(shares).sum(dim=-1)


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """What distributions (A, K) and (B, K) have in common, (A, B): 1 where two are the same (Bhattacharyya's coefficient)."""
    return (one.sqrt() @ other.sqrt().T).clamp(0, 1)


def shared_out(logits: Tensor, rounds: int) -> Tensor:
    """Distributions (..., K) from logits, like their softmax but such that over the batch every one of K gets about the same.

    Sinkhorn-Knopp's iteration, as SwAV (Caron et al. 2020, section 3.1) and DINOv2 (Oquab et al. 2023, section 4) have it.
    Without rounds it is the softmax.
    """
    shares = logits.double().softmax(dim=-1).flatten(0, -2)  # (N, K), of which what nobody wants may be very little
    for _ in range(rounds):
        shares = shares / shares.sum(dim=0)
        shares = shares / shares.sum(dim=1, keepdim=True)
    return shares.to(logits.dtype).view_as(logits)


@torch.no_grad()
def follow(follower: nn.Module, leader: nn.Module, momentum: float) -> None:
    """follower = momentum * follower + (1 - momentum) * leader: MoCo's key encoder (He et al. 2019, eq. 2), DINO's teacher.

    Batch norm's statistics are the follower's own.
    """
    mine, theirs = list(follower.parameters()), list(leader.parameters())
    torch._foreach_lerp_(mine, theirs, 1 - momentum)

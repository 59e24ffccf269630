"""What the momentum of an encoder that follows another does, measured in training on a sample of the weights."""

import math

import torch
from torch import Tensor, nn

MOMENTA = (0.0, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9997, 0.9999)  # M of them; of the followers that are watched
EVERY = 997  # every so many of the leader's weights is in the sample


def memory(momentum: float) -> float:
    """About how many steps a follower looks back: the mean age of what it is a mean of, plus one."""
    return 1 / (1 - momentum)


def distance(follower: nn.Module, leader: nn.Module) -> float:
    """How far the weights of two like networks are apart, as a share of their length."""
    mine, theirs = (torch.cat([p.detach().flatten() for p in module.parameters()]) for module in (follower, leader))
    return ((mine - theirs).norm() / theirs.norm()).item()


class Drift(nn.Module):
    """Followers of eight momenta, on every 997th weight of the leader's matrices and filters: how far behind, how fast.

    lag: their distance to the leader just after a step, as a share of the weights' length; change: how far they get themselves
    in a number of steps, likewise. Both are means over all of the training so far (M,), and 0 before it.
    """

    def __init__(self, leader: nn.Module):
        super().__init__()
        self.register_buffer("followers", self.sample(leader).repeat(len(MOMENTA), 1))  # (M, S)
        self.register_buffer("earlier", self.followers.clone())
        self.register_buffer("lag", torch.zeros(len(MOMENTA)))
        self.register_buffer("change", torch.zeros(len(MOMENTA)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @staticmethod
    def sample(leader: nn.Module) -> Tensor:
        """Weights of the leader, (S,)."""
        return torch.cat([p.detach().flatten()[::EVERY] for p in leader.parameters() if p.ndim > 1]).float()

    def step(self, leader: nn.Module, span: int) -> None:
        """All followers go a step towards the leader; what they do in `span` steps is measured after each such span."""
        now = self.sample(leader)
        momenta = torch.tensor(MOMENTA, device=now.device)[:, None]
        self.followers.mul_(momenta).add_((1 - momenta) * now)
        self.steps += 1
        steps = int(self.steps)
        self.lag.lerp_((self.followers - now).norm(dim=1) / now.norm(), 1 / steps)
        if steps % span == 0:
            self.change.lerp_((self.followers - self.earlier).norm(dim=1) / now.norm(), span / steps)
            self.earlier.copy_(self.followers)

    def ratio(self, momentum: float, other: float) -> float:
        """How many times as far as a follower of the other momentum one of this momentum lagged: 1 before any training."""
        one, two = (self._lag(m) for m in (momentum, other))
        return one / two if two > 0 else 1.0

    def _lag(self, momentum: float) -> float:
        """The lag at any momentum, from those measured beside it, in the logarithm of their memories."""
        places, lags = [math.log(memory(m)) for m in MOMENTA], self.lag.tolist()
        at = min(max(math.log(memory(momentum)), places[0]), places[-1])
        right = next(n for n, place in enumerate(places) if place >= at and n)
        share = (at - places[right - 1]) / (places[right] - places[right - 1])
        return lags[right - 1] + share * (lags[right] - lags[right - 1])

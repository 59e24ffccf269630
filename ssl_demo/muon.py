"""Muon: steepest descent for matrices, in which every direction of the update is as long as any other.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/: the mean gradient of a matrix, momentum included, is replaced by
the nearest matrix whose singular values are all alike. What few steps agree on is then learned as fast as what all agree on.
Filters (out, in, h, w) are taken as matrices (out, in * h * w), stacks (N, rows, columns) as N of them. Everything that is no
matrix is AdamW's.
"""

import torch
from torch import Tensor


def orthogonalized(matrices: Tensor, steps: int = 5) -> Tensor:
    """The matrices (N, rows, columns) with singular values brought near 1 (0.7 to 1.2), in bfloat16, by Newton-Schulz iteration.

    A quintic polynomial whose coefficients drive small singular values up quickly; it need not converge, and does not.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    X = (matrices.mT if tall else matrices).bfloat16()
    X = X / (X.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        A = X @ X.mT
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X.mT if tall else X


class Muon(torch.optim.Optimizer):
    """Muon for groups with `matrices=True`, AdamW for the others; `lr` means the same to both.

    An orthogonal update is scaled to a root mean square of 0.2, about that of AdamW's (Liu et al. 2025, "Muon is scalable for LLM
    training", section 2.2), so that one learning rate, one schedule and one weight decay serve all.
    """

    def __init__(self, groups: list[dict], lr: float, betas: tuple[float, float] = (0.9, 0.95), momentum: float = 0.95):
        super().__init__(groups, {"lr": lr, "betas": betas, "momentum": momentum, "weight_decay": 0.0, "matrices": False})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
            (self._orthogonal if group["matrices"] else self._adam)(group, moved)

    def _orthogonal(self, group: dict, moved: list[Tensor]) -> None:
        alike: dict[tuple, list[tuple[Tensor, Tensor]]] = {}
        for p in moved:
            mean = self.state[p].setdefault("mean", torch.zeros_like(p))
            mean.lerp_(p.grad, 1 - group["momentum"])
            ahead = p.grad.lerp(mean, group["momentum"])  # Nesterov's
            ahead = ahead if p.ndim == 3 else ahead.flatten(1)  # three: a stack of matrices, each by itself
            alike.setdefault(tuple(ahead.shape), []).append((p, ahead))
        for pairs in alike.values():  # one product for all matrices of a shape
            stack = torch.stack([ahead for _, ahead in pairs])
            (rows, columns), updates = stack.shape[-2:], orthogonalized(stack.flatten(0, -3)).view(stack.shape)
            for (p, _), update in zip(pairs, updates):
                p.add_(update.view(p.shape).to(p.dtype), alpha=-group["lr"] * 0.2 * max(rows, columns) ** 0.5)

    def _adam(self, group: dict, moved: list[Tensor]) -> None:
        (beta1, beta2), eps = group["betas"], 1e-8
        for p in moved:
            state = self.state[p]
            if not state:
                state.update(step=torch.zeros(()), mean=torch.zeros_like(p), square=torch.zeros_like(p))
            state["step"] += 1
            state["mean"].lerp_(p.grad, 1 - beta1)
            state["square"].lerp_(p.grad.square(), 1 - beta2)
            mean, square = state["mean"] / (1 - beta1 ** state["step"]), state["square"] / (1 - beta2 ** state["step"])
            p.addcdiv_(mean, square.sqrt().add_(eps), value=-group["lr"])

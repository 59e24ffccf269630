"""A network for grids of patches that are encoded one by one, and for what the rows above tell of those below."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .nets import MEAN, SPREAD, BasicBlock, downsample_conv


class PatchEncoder(nn.Module):
    """A small residual network for one patch, (M, 3, p, p) to (M, D): patches never meet in it."""

    def __init__(self, patch: int, width: int, depths: tuple[int, ...], out: int):
        super().__init__()
        layers, channels = [nn.Conv2d(3, width, 8, 4, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)], width
        for stage, depth in enumerate(depths):
            for block in range(depth):
                wider = stage > 0 and block == 0
                shortcut = downsample_conv(channels, 2 * channels, kernel_size=1, stride=2) if wider else None
                layers.append(BasicBlock(channels, width * 2**stage, 2 if wider else 1, downsample=shortcut))
                layers[-1].zero_init_last()  # every block starts as the identity
                channels = width * 2**stage
        cells = (-(-(patch // 4) // 2 ** (len(depths) - 1))) ** 2  # of the map, which is read whole, not averaged
        layers += [nn.Flatten(), nn.Linear(channels * cells, out, bias=False), nn.BatchNorm1d(out), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, patches: Tensor) -> Tensor:
        return self.layers((patches - MEAN) / SPREAD)


class LookUp(nn.Module):
    """A residual block on a grid (B, D, rows, columns): each place looks at its own row and the one above, at most one aside."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.look, self.add = nn.Conv2d(width, width // 2, (2, 3)), nn.Conv2d(width // 2, width, 1)

    def forward(self, grid: Tensor) -> Tensor:
        normal = self.norm(grid.movedim(1, 3)).movedim(3, 1)
        return grid + self.add(F.relu(self.look(F.pad(normal, (1, 1, 1, 0)))))  # padded left, right, above; never below


class CPCNet(nn.Module):
    """Encoder of patches, context of the rows above, a guess W_k for each number k of rows below, and what guesses are met by."""

    def __init__(self, side: int, patch: int, width: int, depths: tuple[int, ...], features: int, embedding: int):
        super().__init__()
        self.side, self.encoder = side, PatchEncoder(patch, width, tuple(depths), features)
        self.context = nn.Sequential(*[LookUp(features) for _ in range(side - 2)])
        self.norm = nn.LayerNorm(features)
        self.below = nn.ModuleList(nn.Linear(features, embedding, bias=False) for _ in range(side - 1))  # W_1, W_2, ...
        self.project = nn.Linear(features, embedding, bias=False)

    def encode(self, patches: Tensor) -> Tensor:
        """z: patches (B, N, 3, p, p), each by itself, to (B, N, D)."""
        return self.encoder(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])

    def sum_up(self, z: Tensor) -> Tensor:
        """c: (B, N, D) to (B, N, D), each place knowing nothing of the rows below its own."""
        grid = z.transpose(1, 2).unflatten(2, (self.side, self.side))
        return self.norm(self.context(grid).flatten(2).transpose(1, 2))

    def guess(self, z: Tensor, probes: int) -> Tensor:
        """W_k c for each k and each place that has a row k below it, (B, Q, E), the smallest k first.

        The first `probes` of the W_k learn from the context without changing it.
        """
        context, side = self.sum_up(z), self.side
        seen = [context[:, : (side - k) * side] for k in range(1, side)]
        return torch.cat([W(c.detach() if k < probes else c) for k, (W, c) in enumerate(zip(self.below, seen))], dim=1)

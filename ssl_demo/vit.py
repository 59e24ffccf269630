"""A small vision transformer that takes square photos of any size, and shows what its class token attends to."""

import functools
import math

import torch
from torch import Tensor, nn

from .nets import init_transformer, transformer


@functools.lru_cache(maxsize=16)
def sampled_positions(side: int, trained: int, width: int) -> Tensor:
    """Fixed 2-D sine-cosine positions (N, D) of a side x side grid laid over the trained x trained one.

    A finer or coarser grid over the same square gets the places in between, which is what interpolating a table would give.
    """
    assert width % 4 == 0, width
    place = (torch.arange(side, dtype=torch.float64) + 0.5) * trained / side - 0.5
    frequency = torch.exp(-math.log(100.0) * torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = place[:, None] * frequency  # (side, D/4)
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, D/2)
    rows, columns = axis[:, None].expand(side, side, -1), axis[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width).float()


class VisionTransformer(nn.Module):
    """Images (B, 3, H, H) to a class token and patches, (B, 1 + N, D), by way of transformer blocks.

    Patches come from strided convolutions, each halving, rather than from one large one: small transformers learn much faster
    on them (Xiao et al. 2021, Early convolutions help transformers see better).
    """

    def __init__(self, patch: int, width: int, depth: int, heads: int, trained: int, stem: int):
        super().__init__()
        self.trained = trained  # patches along a side of the views it is trained on
        layers, channels = [], 3
        if stem:
            steps = int(math.log2(patch))
            for step in range(steps):
                out = stem * 2**step
                layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.GELU()]
                channels = out
        self.stem = nn.Sequential(*layers, nn.Conv2d(channels, width, 1 if stem else patch, stride=1 if stem else patch))
        self.blocks = transformer(width, depth, heads)
        self.norm = nn.LayerNorm(width)
        self.apply(init_transformer)
        for module in self.stem:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if stem else "linear")
                nn.init.zeros_(module.bias)
        self.class_token = nn.Parameter(torch.randn(width) * 0.02)

    def embed(self, images: Tensor) -> Tensor:
        patches = self.stem((images - 0.45) / 0.27)
        side, width = patches.shape[-1], patches.shape[1]
        patches = patches.flatten(2).transpose(1, 2) + sampled_positions(side, self.trained, width).to(patches.device)
        return torch.cat([self.class_token.expand(len(images), 1, -1), patches], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(images)))

    def attention(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives, and the last block's attention of the class token to the patches, (B, heads, N)."""
        tokens = self.embed(images)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        last = self.blocks[-1]
        qkv = last.attn.qkv(last.norm1(tokens)).unflatten(2, (3, last.attn.num_heads, -1))  # (B, 1 + N, 3, heads, D / heads)
        query, key = qkv[:, 0, 0], qkv[:, :, 1]
        scores = torch.einsum("bhd,bnhd->bhn", query, key) * query.shape[-1] ** -0.5
        return self.norm(last(tokens)), scores.float().softmax(dim=2)[:, :, 1:]


def principal_colors(patches: Tensor) -> Tensor:
    """The first three principal components of one photo's patches (N, D) as red, green and blue in [0, 1], (N, 3).

    Each runs from its 2nd to its 98th percentile; its sign, which means nothing, is that of its largest weight.
    """
    centred = patches.double() - patches.double().mean(dim=0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -3:].flip(1)  # (D, 3), the strongest first
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    shares = centred @ axes
    low, high = shares.quantile(0.02, dim=0), shares.quantile(0.98, dim=0)
    return ((shares - low) / (high - low).clamp(min=1e-9)).clamp(0, 1).float()

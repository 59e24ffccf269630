"""A small vision transformer that takes square photos of any size, a head of prototypes, and pictures of what it attends to."""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import drawing
from .nets import ResidualEncoder, init_transformer, transformer


@functools.lru_cache(maxsize=16)
def sampled_positions(side: int, trained: int, width: int) -> Tensor:
    """Fixed 2-D sine-cosine positions (N, D) of a side x side grid laid over the trained x trained one.

    A finer or coarser grid over the same square gets the places in between, which is what interpolating a table would give.
    """
    assert width % 4 == 0, width
    # On the processor whatever the default is: what is kept here must not be of "meta", where networks are built to be measured.
    place = (torch.arange(side, dtype=torch.float64, device="cpu") + 0.5) * trained / side - 0.5
    frequency = torch.exp(-math.log(100.0) * torch.arange(width // 4, dtype=torch.float64, device="cpu") / (width // 4))
    angle = place[:, None] * frequency  # (side, D/4)
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, D/2)
    rows, columns = axis[:, None].expand(side, side, -1), axis[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width).float()


class VisionTransformer(nn.Module):
    """Images (B, 3, H, H) to a class token and patches, (B, 1 + N, D), by way of transformer blocks.

    Patches are what a small residual network makes of the photo, halved once more often than it has stages, rather than cut out
    at once: a short training goes much further on them (Xiao et al. 2021, Early convolutions help transformers see better).
    """

    def __init__(self, stem_width: int, stem_depths: tuple[int, ...], width: int, depth: int, heads: int, trained: int):
        super().__init__()
        self.trained = trained  # patches along a side of the views it is trained on
        self.stem = ResidualEncoder(stem_width, tuple(stem_depths))
        self.to_tokens = nn.Linear(self.stem.width, width)
        self.blocks = transformer(width, depth, heads)
        self.norm = nn.LayerNorm(width)
        for part in (self.to_tokens, self.blocks):
            part.apply(init_transformer)
        self.class_token = nn.Parameter(torch.randn(width) * 0.02)

    def embed(self, images: Tensor) -> Tensor:
        """The class token and the patches with their positions, (B, 1 + N, D)."""
        patches = self.stem(images)
        side, patches = patches.shape[-1], self.to_tokens(patches.flatten(2).transpose(1, 2))
        patches = patches + sampled_positions(side, self.trained, patches.shape[2]).to(patches.device)
        # The class token begins with what the patches have in common. Begun as the same for all, it would say next to nothing of
        # the photo until attention has learned to fetch it.
        return torch.cat([self.class_token + patches.mean(dim=1, keepdim=True), patches], dim=1)

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


class Prototypes(nn.Module):
    """The projection head: class tokens (..., D) to their cosines with K prototypes, (..., K).

    With batch norm, which takes off what all tokens have in common. By itself it gained nothing in five minutes; the weights that
    ship were trained with it.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, count: int):
        super().__init__()
        self.describe = nn.Sequential(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.GELU(),
                                      nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.GELU(),
                                      nn.Linear(hidden, bottleneck))
        self.prototypes = nn.Parameter(torch.randn(count, bottleneck))

    def forward(self, tokens: Tensor) -> Tensor:
        described = self.describe(tokens.flatten(0, -2)).unflatten(0, tokens.shape[:-1])
        described = F.normalize(described.float(), dim=-1)
        with torch.autocast(tokens.device.type, enabled=False):  # a low temperature makes much of a cosine's last digits
            return described @ F.normalize(self.prototypes, dim=1).T


def lit_by_heads(photo: np.ndarray, attention: Tensor) -> list[np.ndarray]:
    """A square picture for each head from attention (heads, N): lit where it attends to most, dark where it does least.

    From its 2nd to its 98th percentile: a single patch that has much would leave all others in the dark.
    """
    low, high = attention.quantile(0.02, dim=1, keepdim=True), attention.quantile(0.98, dim=1, keepdim=True)
    shares = ((attention - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    heads = shares.unflatten(1, (round(shares.shape[1] ** 0.5), -1))
    return [drawing.glow(photo, drawing.resize_map(head, len(photo)).cpu().numpy()) for head in heads]


def principal_colors(patches: Tensor, size: int) -> np.ndarray:
    """The first three principal components of one photo's patches (N, D) as red, green and blue, (size, size, 3) uint8.

    Each runs from its 2nd to its 98th percentile; its sign, which means nothing, is that of its largest weight.
    """
    centred = patches.double() - patches.double().mean(dim=0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -3:].flip(1)  # (D, 3), the strongest first
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    shares = centred @ axes
    low, high = shares.quantile(0.02, dim=0), shares.quantile(0.98, dim=0)
    colors = ((shares - low) / (high - low).clamp(min=1e-9)).T.unflatten(1, (round(len(patches) ** 0.5), -1))  # (3, h, w)
    return drawing.picture(F.interpolate(colors[None], size, mode="nearest")[0])

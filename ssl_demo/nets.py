"""Encoders, decoders and what they share, built on timm's blocks."""

import math
import statistics
import time

import torch
from torch import Tensor, nn

from . import torchvision_ops  # noqa: F401  before timm, which imports torchvision

# isort: split
from timm.layers import set_fused_attn
from timm.models.resnet import BasicBlock, downsample_conv
from timm.models.vision_transformer import Block

# PyTorch's fused attention has a bfloat16 backward pass on CPUs that is many times slower than plain matrix products.
if not torch.cuda.is_available():
    set_fused_attn(False)

MEAN, SPREAD = 0.45, 0.27  # of photos' pixels, roughly: networks work on standardised pixels


class ResidualEncoder(nn.Module):
    """A small residual network: two strided convolutions, then stages of basic blocks, each stage but the first halving.

    (B, 3, H, W) to (B, D, H/16, W/16) with three stages; D = width * 2 ** (stages - 1). Convolutions see every position alike
    and the output keeps its map, so a linear layer on the average of it has an exact class activation map.
    """

    def __init__(self, width: int = 48, depths: tuple[int, ...] = (2, 2, 2), in_channels: int = 3):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        stages, channels = [], width
        for stage, depth in enumerate(depths):
            out, stride = width * 2**stage, 1 if stage == 0 else 2
            for block in range(depth):
                first = block == 0 and (stride > 1 or channels != out)
                shortcut = downsample_conv(channels, out, kernel_size=1, stride=stride) if first else None
                stages.append(BasicBlock(channels, out, stride if block == 0 else 1, downsample=shortcut))
                channels = out
        self.stages = nn.Sequential(*stages)
        self.width = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, BasicBlock):
                module.zero_init_last()  # every block starts as the identity

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(self.stem((images - MEAN) / SPREAD))  # (B, D, h, w)


def transformer(width: int, depth: int, heads: int) -> nn.Sequential:
    """Pre-norm transformer blocks, (B, N, D) to (B, N, D)."""
    return nn.Sequential(*[Block(width, heads, mlp_ratio=4, qkv_bias=True) for _ in range(depth)])


def init_transformer(module: nn.Module) -> None:
    """MAE's initialisation: Xavier-uniform linear layers, zero biases. Use with `model.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return -ctx.scale * gradient, None


def reverse_gradient(values: Tensor, scale: float) -> Tensor:
    """The same values; whoever they came from gets the gradient times -scale (Ganin and Lempitsky 2015)."""
    return _Reversed.apply(values, scale)


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, 3, H, W) to (B, N, 3 * patch * patch), patches in reading order."""
    B, C, H, W = images.shape
    grid = images.reshape(B, C, H // patch, patch, W // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * patch * patch)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """The inverse of `patchify` for square images."""
    B, N, P = patches.shape
    side = round(N**0.5)
    grid = patches.reshape(B, side, side, P // patch**2, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(B, -1, side * patch, side * patch)


def sincos_positions(side: int, width: int) -> Tensor:
    """Fixed 2-D sine-cosine positions of a side x side grid, (N, D): half the width for rows, half for columns.

    As in Vaswani et al. 2017 along each axis; MAE (He et al. 2021, appendix A.1) uses the same. `width` is a multiple of 4.
    """
    assert width % 4 == 0, width
    frequency = torch.exp(-math.log(10000.0) * torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(side, dtype=torch.float64)[:, None] * frequency  # (side, D/4)
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, D/2)
    rows = axis[:, None, :].expand(side, side, -1)
    columns = axis[None, :, :].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width).float()


def multiply_adds(function, *arguments) -> int:
    """Multiply-adds of one call, a backward pass in it included, by PyTorch's own counter (which reports two operations each)."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        function(*arguments)
    return counter.get_total_flops() // 2


def milliseconds(function, *arguments) -> float:
    """The median time of three calls, without gradients."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with torch.no_grad():
            function(*arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)

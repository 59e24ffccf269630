"""Networks that say a distribution for every place of a photo."""

import torch
from torch import Tensor, nn

from .lab import resize
from .nets import ResidualEncoder


def conv(channels: int, out: int, kernel: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    layers = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    nn.init.kaiming_normal_(layers[0].weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(*layers)


class DenseClassifier(nn.Module):
    """A residual encoder, and a decoder that brings what it saw at each scale together at a quarter of the photo's size.

    (B, in_channels, H, W), standardised, to logits (B, K, H/4, W/4). The coarsest map knows what is seen, the finest where its
    edges are; each is brought to `decoder_width` channels, drawn out to the finest, and added.
    """

    def __init__(self, in_channels: int, width: int, depths: tuple[int, ...], decoder_width: int, classes: int):
        super().__init__()
        self.encoder = ResidualEncoder(width, tuple(depths), in_channels)
        self.ends = [sum(depths[: stage + 1]) for stage in range(len(depths))]  # the block after which each stage is done
        self.merge = nn.ModuleList([conv(width * 2**stage, decoder_width, 1) for stage in range(len(depths))])
        self.refine = conv(decoder_width, decoder_width, 3)
        self.head = nn.Conv2d(decoder_width, classes, 1)
        nn.init.normal_(self.head.weight, std=0.01)  # begins by guessing
        nn.init.zeros_(self.head.bias)

    def features(self, inputs: Tensor) -> Tensor:
        """What is kept when the decoder is thrown away: the coarsest map."""
        return self.encoder.stages(self.encoder.stem(inputs))

    def maps(self, inputs: Tensor) -> list[Tensor]:
        """What the encoder sees at each scale, the finest first: (B, width * 2 ** s, H / 2 ** (s + 2), ...)."""
        x, maps = self.encoder.stem(inputs), []
        for number, block in enumerate(self.encoder.stages, 1):
            x = block(x)
            if number in self.ends:
                maps.append(x)
        return maps

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.maps(inputs)
        merged, coarser = None, reversed(list(zip(self.merge, maps)))
        for layer, x in coarser:
            x = layer(x)
            merged = x if merged is None else x + resize(merged, x.shape[-1]).to(x.dtype)
        return self.head(self.refine(merged))


def set_base_rate(head: nn.Conv2d, shares: Tensor) -> None:
    """Lets a fresh head begin where it would end without looking: at how often each class is right, (K,)."""
    with torch.no_grad():
        head.bias.copy_((shares / shares.sum()).log())

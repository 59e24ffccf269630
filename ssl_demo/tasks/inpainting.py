"""Inpainting (Context Encoders): hide a part of the photo and paint it from what is around it.

The idea. A quarter of the photo is cut out of its middle. An encoder sums up the rest, a decoder paints the whole picture, and the
hole alone is judged. Edges can be carried on a little way; to fill so large a hole one must know what stands there.

"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import drawing
from ..baselines import telea
from ..nets import BasicBlock, ResidualEncoder
from ..pretext import Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe

MEAN, SPREAD = 0.45, 0.27  # of photos' pixels, roughly: the network works on standardised pixels
OVERLAP = 3  # px around a hole that are visible and painted all the same, and count more in the loss
TELLING = 0.1  # the weight of the discriminator's own loss: its gradient is clipped together with that of what it judges
MOST = 60.0  # dB: what rounding to 8 bits leaves; no guess counts as better, not even an exact one


class ChannelWise(nn.Module):
    """The paper's bottleneck (section 3.1): each channel's h * w cells fully connected to one another by a matrix of its own, so
    that what is known at one end of the photo reaches the other; then a 1 x 1 convolution mixes the channels."""

    def __init__(self, channels: int, cells: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, cells, cells))
        self.bias = nn.Parameter(torch.zeros(channels, 1, cells))
        self.mix = nn.Conv2d(channels, channels, 1)
        nn.init.normal_(self.weight, std=cells**-0.5)
        nn.init.kaiming_normal_(self.mix.weight, nonlinearity="relu")

    def forward(self, grid: Tensor) -> Tensor:
        each = grid.flatten(2).transpose(0, 1)  # (D, B, h w)
        joined = torch.baddbmm(self.bias.to(each.dtype), each, self.weight.to(each.dtype))
        return self.mix(F.relu(joined).transpose(0, 1).unflatten(2, grid.shape[2:]))


class ContextEncoder(nn.Module):
    """Encoder, channel-wise fully connected layer, decoder; and the discriminator, which works in training only."""

    def __init__(self, size: int, width: int, depths: tuple[int, ...]):
        super().__init__()
        stride = 2 ** (len(depths) + 1)
        if size % stride:
            raise ValueError(f"The size ({size}) must be a multiple of {stride}.")
        self.encoder = ResidualEncoder(width, tuple(depths), in_channels=4)
        self.ends = [sum(depths[: stage + 1]) for stage in range(len(depths))]  # blocks after which a stage is over
        widths = [width * 2**stage for stage in reversed(range(len(depths)))] + [width // 2]
        self.bottleneck = ChannelWise(widths[0], (size // stride) ** 2)
        self.up = nn.ModuleList(nn.Conv2d(wide, 4 * narrow, 1) for wide, narrow in zip(widths, widths[1:]))
        self.across = nn.ModuleList(nn.Conv2d(channels, channels, 1) for channels in widths)
        self.refine = nn.ModuleList(BasicBlock(channels, channels) for channels in widths[:-1])
        self.to_pixels = nn.Conv2d(widths[-1], 4 * 3, 3, padding=1)
        self.discriminator = nn.Sequential(
            nn.Conv2d(3, width // 2, 4, stride=4), nn.LeakyReLU(0.2),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 1),
        )
        for block in self.refine:
            block.zero_init_last()

    def encode(self, inputs: Tensor) -> list[Tensor]:
        """Photo and mask (B, 4, H, W) to maps from coarse to fine: the encoder's output, (B, D, h, w), first."""
        stem = self.encoder.stem
        maps = [stem[:3]((inputs - MEAN) / SPREAD)]
        grid = stem[3:](maps[0])
        for number, block in enumerate(self.encoder.stages, start=1):
            grid = block(grid)
            if number in self.ends:
                maps.append(grid)
        return maps[::-1]

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Maps of `encode` to a picture (B, 3, H, W) in [0, 1], roughly."""
        grid = self.bottleneck(maps[0])
        for level, seen in enumerate(maps):
            if level:
                grid = F.pixel_shuffle(self.up[level - 1](grid), 2)
            grid = grid + self.across[level](seen)
            if level < len(self.refine):
                grid = self.refine[level](grid)
        return F.pixel_shuffle(self.to_pixels(F.relu(grid)), 2).float() * SPREAD + MEAN


class Reversed(torch.autograd.Function):
    """The identity forwards; backwards the gradient times -scale (Ganin and Lempitsky 2015)."""

    @staticmethod
    def forward(ctx, values: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return -ctx.scale * gradient, None


def centre_hole(size: int) -> Tensor:
    """The middle quarter of the area, (H, W)."""
    hidden = torch.zeros(size, size, dtype=torch.bool)
    hidden[size // 4 : size // 4 + size // 2, size // 4 : size // 4 + size // 2] = True
    return hidden


def random_blocks(count: int, size: int, rng: torch.Generator) -> Tensor:
    """One to five rectangles in each of `count` photos, which may overlap, of about a quarter of the area in all, (B, H, W)."""
    chance = torch.rand(count, 6, 5, generator=rng)
    blocks = 1 + (chance[:, 5, :1] * 5).long()  # (B, 1)
    area, aspect = (0.7 + 0.6 * chance[:, 0]) / 4 / blocks, 4 ** (chance[:, 1] - 0.5)  # (B, 5)
    sides = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=2).clamp(max=1) * size
    starts = (chance[:, 2:4].transpose(1, 2) * (size - sides)).round()  # (B, 5, 2)
    along = torch.arange(size)
    inside = (along >= starts[..., None]) & (along < (starts + sides).round()[..., None])  # (B, 5, 2, size)
    inside[:, :, 0] &= (torch.arange(5) < blocks)[:, :, None]
    return (inside[:, :, 0, :, None] & inside[:, :, 1, None, :]).any(dim=1)


def random_strokes(rng: torch.Generator) -> str:
    """One to four strokes of a wandering brush, as a person would paint them."""
    chance, strokes = torch.rand(4, 17, generator=rng).tolist(), []
    for radius, x, y, count, *steps in chance[: 1 + int(4 * torch.rand((), generator=rng))]:
        x, y, stroke = 100 * x, 100 * y, [f"{3 + 9 * radius:.1f}"]
        for right, down in zip(steps[: 4 + 2 * int(4 * count) : 2], steps[1::2]):
            stroke.append(f"{x:.1f} {y:.1f}")
            x, y = x + 60 * (right - 0.5), y + 60 * (down - 0.5)
        strokes.append(" ".join(stroke))
    return "; ".join(strokes)


class Inpainting(PretextTask):
    card = Card(
        name="inpainting",
        title="Inpainting",
        family="Fill in what is missing",
        paper="Context Encoders: Feature Learning by Inpainting",
        authors="Pathak, Krähenbühl, Donahue, Darrell, Efros",
        year=2016,
        link="https://arxiv.org/abs/1604.07379",
        idea="Cut a quarter out of a photo and paint it from what is around: to fill a hole that large, one must know what is there.",
        shortcut="Small holes can be filled by carrying on what touches them, without knowing anything. The hole is a quarter of the "
        "photo, what classical inpainting makes of it stands beside ours, and hidden pixels never reach the network.",
        metric="psnr_hidden",
        metric_label="PSNR over the hole",
        chance="psnr_mean_color",
        baselines=(("psnr_classical", "classical (Telea)"), ("psnr_mean_color", "mean colour")),
    )
    controls = (
        Control("region", "What is hidden", "choice", "centre", "Painted: brush over the picture.", choices=("centre", "blocks", "painted")),
        Control("strokes", "Painted by hand", "brush", "", "Strokes of the brush, for “painted”."),
    )
    defaults = {"size": 96, "width": 48, "depths": [1, 2, 2], "adversarial": 0.001, "overlap_weight": 10.0}
    recipe = Recipe(batch=32, lr=2e-3, crop=(0.5, 1.0))

    def build(self) -> nn.Module:
        return ContextEncoder(self.size, self.config["width"], self.config["depths"])

    def example(self, images: Tensor, rng: torch.Generator, region: str = "centre", strokes: str = "") -> Example:
        B, size = len(images), images.shape[-1]
        if region == "blocks":
            hidden = random_blocks(B, size, rng)
        else:
            hidden = centre_hole(size) if region == "centre" else torch.tensor(drawing.painted(strokes, size))
            hidden = hidden.repeat(B, 1, 1)
        example = self._hide(images, hidden)
        return {**example, "classical": telea(images, example["hidden"], radius=size / 10)}

    def training_example(self, images: Tensor, rng: torch.Generator) -> Example:
        """Half centre holes, a quarter blocks, a quarter strokes. Without the classical guess, which costs more than a step."""
        B, size = len(images), images.shape[-1]
        kind, hidden = torch.rand(B, generator=rng), random_blocks(B, size, rng)
        hidden[kind < 0.5] = centre_hole(size)
        for number in torch.nonzero(kind >= 0.75).flatten().tolist():
            hidden[number] = torch.tensor(drawing.painted(random_strokes(rng), size))
        return self._hide(images, hidden)

    def evaluation_example(self, images: Tensor, rng: torch.Generator) -> Example:
        return self.example(images, rng)

    def _hide(self, images: Tensor, hidden: Tensor) -> Example:
        """The photo with its hidden pixels (B, H, W) in one colour, and the mask as a fourth channel: all the network gets."""
        hidden = hidden.to(images.device)
        inputs = torch.cat([images.masked_fill(hidden[:, None], MEAN), hidden[:, None].to(images.dtype)], dim=1)
        return {"inputs": inputs, "targets": images, "hidden": hidden}

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        maps = model.encode(example["inputs"])
        prediction = {"encoded": maps[0], "picture": model.decode(maps)}  # (B, D, h, w), (B, 3, H, W)
        if model.training:
            filled = torch.where(example["hidden"][:, None], prediction["picture"], example["targets"])
            both = torch.cat([example["targets"], Reversed.apply(filled, self.config["adversarial"] / TELLING)])
            real, fake = model.discriminator((both - MEAN) / SPREAD).float().flatten().chunk(2)
            prediction |= {"judged_real": real, "judged_filled": fake}
        return prediction

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        hidden = example["hidden"].float()
        near = F.max_pool2d(hidden, (2 * OVERLAP + 1, 1), stride=1, padding=(OVERLAP, 0))
        near = F.max_pool2d(near, (1, 2 * OVERLAP + 1), stride=1, padding=(0, OVERLAP))
        weight = hidden + self.config["overlap_weight"] * (near - hidden)
        error = ((prediction["picture"] - example["targets"]) / SPREAD).square().mean(dim=1)  # (B, H, W)
        painted = (error * weight).sum() / weight.sum().clamp(min=1)
        if "judged_real" not in prediction:
            return painted, {}
        told = F.softplus(-prediction["judged_real"]).mean() / 2 + F.softplus(prediction["judged_filled"]).mean() / 2
        return painted + TELLING * told, {"painted": round(painted.item(), 5), "told_apart": round(told.item(), 5)}

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        guesses = {"hidden": prediction["picture"].float().clamp(0, 1), "mean_color": mean_color(example)}
        if "classical" in example:
            guesses["classical"] = example["classical"]
        figures = {}
        for name, guess in guesses.items():
            error = (guess - example["targets"]).flatten(2).transpose(1, 2)  # (B, H W, 3)
            hidden = example["hidden"].flatten(1)
            count = 3 * hidden.sum(1).clamp(min=1)
            mse = (error.square().sum(2) * hidden).sum(1) / count
            figures[f"psnr_{name}"] = -10 * mse.clamp(min=10 ** (-MOST / 10)).log10()
            figures[f"l1_{name}"] = (error.abs().sum(2) * hidden).sum(1) / count
        return figures

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        nothing = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
        grid = model.encode(self._hide(images, nothing)["inputs"])[0]  # (B, D, h, w)
        return grid.mean(dim=(2, 3)), grid


def mean_color(example: Example) -> Tensor:
    """The visible pixels' mean colour, (B, 3, 1, 1); grey where nothing is visible."""
    seen = ~example["hidden"][:, None]  # (B, 1, H, W)
    count = seen.sum((2, 3), keepdim=True)
    return torch.where(count > 0, (example["targets"] * seen).sum((2, 3), keepdim=True) / count.clamp(min=1), 0.5)

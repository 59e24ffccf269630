r"""Inpainting (Context Encoders): hide a part of the photo and paint it from what is around it.

The idea. A quarter of the photo is cut out of its middle. An encoder sums up the rest, a decoder paints the whole picture, and
the hole is judged. Lines can be carried on a little way; to fill a hole this large one must know what kind of thing stands there.

The two losses. $$L = \frac{\sum_i w_i \lVert \hat x_i - x_i \rVert^2}{\sum_i w_i} + \lambda [\log D(x) + \log(1 - D(\tilde x))]$$
The squared error makes what is painted right on average, and therefore blurred; the pixels just around the hole are painted
too and count ten times, so that the seam closes. Beside it a discriminator learns to tell filled photos $\tilde x$ from whole
ones, and the painter to fool it: one minimax, in one backward pass. The discriminator follows its gradient down; on its way into
the painter that gradient changes its sign and is made small (gradient reversal, Ganin and Lempitsky 2015). It weighs the paper's
0.001, but of the mean of the critic's two errors, beside a squared error over the pixels' variance: a ninth of the formula's.

What could cheat. Small holes can be filled by carrying on what touches them, without knowing anything: the hole is a quarter of
the photo, and classical inpainting of it stands beside ours. Hidden pixels are one colour before the network gets them. The
classical guess is Telea's (2004) by OpenCV, radius a tenth of the side: on 100 held-out centre holes 14.9 dB, where OpenCV's
Navier-Stokes reaches 14.8, scikit-image's biharmonic 14.2, and the mean colour 12.2.

Where we differ from the paper. A residual encoder at 96 px instead of AlexNet's at 227, whose maps also cross to the decoder at
each scale: thin holes need the detail. A tiny discriminator, which sees the photo around the hole, where the paper shows it what
is painted alone: so it teaches the hole only. Half of the holes in training are central, the rest blocks, strokes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import drawing
from ..baselines import mean_color, telea
from ..masks import widen
from ..nets import MEAN, SPREAD, BasicBlock, ResidualEncoder, reverse_gradient
from ..pretext import Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe

OVERLAP = 3  # px around a hole that are visible and painted all the same, and count more in the loss
TELLING = 0.1  # the weight of the discriminator's own loss: its gradient is clipped together with that of what it judges
CLASSICAL = "Telea (2004) by OpenCV, radius a tenth of the side"
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
        tell, soft = [width // 2, width, 2 * width], nn.LeakyReLU(0.2)
        self.discriminator = nn.Sequential(
            nn.Conv2d(3, tell[0], 4, stride=4), soft, nn.Conv2d(tell[0], tell[1], 3, stride=2, padding=1), soft,
            nn.Conv2d(tell[1], tell[2], 3, stride=2, padding=1), soft,
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(tell[2], 1))
        for block in self.refine:
            block.zero_init_last()
        for mixer in (*self.up, *self.across):
            nn.init.kaiming_normal_(mixer.weight, nonlinearity="linear")

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


def centre_hole(size: int) -> Tensor:
    """The middle quarter of the area, (H, W)."""
    hidden = torch.zeros(size, size, dtype=torch.bool)
    hidden[size // 4 : size // 4 + size // 2, size // 4 : size // 4 + size // 2] = True
    return hidden


class Inpainting(PretextTask):
    card = Card(
        name="inpainting",
        title="Inpainting",
        family="Fill in what is missing",
        paper="Context Encoders: Feature Learning by Inpainting",
        authors="Pathak, Krähenbühl, Donahue, Darrell, Efros",
        year=2016,
        link="https://arxiv.org/abs/1604.07379",
        idea="Cut a quarter out of a photo and paint it from what is around: to fill so large a hole is to know what is there.",
        shortcut="Small holes can be filled by carrying on what touches them, without knowing anything. The hole is a quarter of "
        "the photo, classical inpainting of it stands beside ours, and hidden pixels never reach the network.",
        metric="psnr_hidden",
        metric_label="PSNR over the hole",
        chance="psnr_mean_color", paper_score="18.58 dB (Paris StreetView)",
        unit="dB",
        digits=2,
        baselines=(("psnr_classical", "Telea (classical)"), ("psnr_mean_color", "mean colour")),
    )
    controls = (
        Control("region", "What is hidden", "choice", "centre", "Painted: by brush.", choices=("centre", "blocks", "painted")),
        Control("strokes", "Painted by hand", "brush", "", "Strokes of the brush, for “painted”."),
    )
    defaults = {"size": 96, "width": 48, "depths": [1, 2, 2], "adversarial": 0.001, "overlap_weight": 10.0}
    recipe = Recipe(batch=32, optimizer="muon", lr=4e-3, crop=(0.5, 1.0))
    knobs = (Control("adversarial", "Weight of the critic", "slider", 0.001, "0: none.", maximum=0.01, step=0.001),)
    gathered = ("counted",)  # holes differ in size, and the loss is a mean over all hidden pixels of the batch

    def build(self) -> nn.Module:
        return ContextEncoder(self.size, self.config["width"], self.config["depths"])

    def example(self, images: Tensor, rng: torch.Generator, region: str = "centre", strokes: str = "") -> Example:
        B, size = len(images), images.shape[-1]
        hidden = centre_hole(size).repeat(B, 1, 1)
        if region != "centre":
            masks = [drawing.painted(strokes, size) if region == "painted" else drawing.random_blocks(size, rng) for _ in images]
            hidden = torch.tensor(np.stack(masks))
        example = self._hide(images, hidden)
        return {**example, "classical": telea(images, example["hidden"], radius=size / 10)}

    def training_example(self, images: Tensor, rng: torch.Generator) -> Example:
        """Half centre holes, a quarter blocks, a quarter strokes. Without the classical guess, which costs more than a step."""
        B, size = len(images), images.shape[-1]
        hidden = centre_hole(size).repeat(B, 1, 1)
        for mask, kind in zip(hidden.numpy(), torch.rand(B, generator=rng).tolist()):
            if kind >= 0.75:
                mask[:] = drawing.painted(drawing.random_strokes(rng), size)
            elif kind >= 0.5:
                mask[:] = drawing.random_blocks(size, rng)
        return self._hide(images, hidden)

    def evaluation_example(self, images: Tensor, rng: torch.Generator) -> Example:
        return self.example(images, rng)

    def _hide(self, images: Tensor, hidden: Tensor) -> Example:
        """The photo with its hidden pixels (B, H, W) in one colour, and the mask as a fourth channel: all the network gets."""
        hidden = hidden.to(images.device)
        inputs = torch.cat([images.masked_fill(hidden[:, None], MEAN), hidden[:, None].to(images.dtype)], dim=1)
        weight = torch.where(hidden, 1.0, self.config["overlap_weight"] * widen(hidden, OVERLAP))  # of pixels in the loss
        return {"inputs": inputs, "targets": images, "hidden": hidden, "weight": weight}

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        maps = model.encode(example["inputs"])
        prediction = {"encoded": maps[0], "picture": model.decode(maps)}  # (B, D, h, w), (B, 3, H, W)
        if model.training:
            filled = torch.where(example["hidden"][:, None], prediction["picture"], example["targets"])
            both = torch.cat([example["targets"], reverse_gradient(filled, self.config["adversarial"] / TELLING)])
            real, fake = model.discriminator((both - MEAN) / SPREAD).float().flatten().chunk(2)
            prediction |= {"judged_real": real, "judged_filled": fake, "counted": example["weight"].sum(dim=(1, 2))}
        return prediction

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        weight, error = example["weight"], ((prediction["picture"] - example["targets"]) / SPREAD).square().mean(dim=1)
        counted = prediction.get("counted", weight.sum(dim=(1, 2)))  # in training of the whole batch, else of these photos
        painted = (error * weight).sum() / (counted.sum() * len(weight) / len(counted)).clamp(min=1)
        if "judged_real" not in prediction:
            return painted, {}
        told = F.softplus(-prediction["judged_real"]).mean() / 2 + F.softplus(prediction["judged_filled"]).mean() / 2
        return painted + TELLING * told, {"painted": round(painted.item(), 5), "told_apart": round(told.item(), 5)}

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        targets, hidden = example["targets"], example["hidden"][:, None]  # (B, 3, H, W), (B, 1, H, W)
        guesses = {"hidden": prediction["picture"].float().clamp(0, 1), "mean_color": mean_color(targets, example["hidden"])}
        if "classical" in example:
            guesses["classical"] = example["classical"]
        figures, count = {}, 3 * hidden.sum((1, 2, 3)).clamp(min=1)
        for name, guess in guesses.items():
            error = (guess - targets) * hidden
            mse = error.square().sum((1, 2, 3)) / count
            figures[f"psnr_{name}"] = -10 * mse.clamp(min=10 ** (-MOST / 10)).log10()
            figures[f"l1_{name}"] = error.abs().sum((1, 2, 3)) / count
        return figures

    def aggregate(self, per_example: dict[str, Tensor]) -> dict[str, float | str]:
        return {**super().aggregate(per_example), "classical": CLASSICAL}

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        photo, hidden = example["targets"][0], example["hidden"][0]
        raw, original = prediction["picture"][0].float().clamp(0, 1), drawing.picture(photo)
        error = (raw - photo).square().mean(dim=0).sqrt() * hidden
        mask, share = hidden.cpu().numpy(), hidden.float().mean().item()
        said = {name: f"{values[0]:.1f} dB." for name, values in self.metrics(example, prediction).items()}
        if not share:
            said = dict.fromkeys(said, "nothing to judge.")
        return [
            Panel("photo", "Your photo", f"{len(mask)} × {len(mask)} pixels.", "photo", original),
            Panel("sees", "With a hole", f"{share:.0%} hidden." if share else "Nothing is hidden yet.", "sees",
                  drawing.cover(original, mask), brush="Paint over what to hide."),
            Panel("filled", "Painted into it", f"Over the hole: {said['psnr_hidden']}", "answers",
                  drawing.picture(torch.where(hidden, raw, photo))),
            Panel("raw", "All it paints", "Raw output, visible places too.", "answers", drawing.picture(raw)),
            Panel("error", "Where it is wrong", "Darker: further from the truth.", "judged",
                  drawing.heat((error / 0.4).clamp(0, 1).cpu().numpy())),
            Panel("classical", "Classical", f"Telea: {said['psnr_classical']}", "judged",
                  drawing.picture(example["classical"][0])),
            Panel("mean_color", "Mean colour", f"No skill: {said['psnr_mean_color']}", "judged",
                  drawing.picture(mean_color(photo[None], hidden[None])[0])),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        share, figures = example["hidden"][0].float().mean().item(), self.metrics(example, prediction)
        values = {name: value[0].item() if share else None for name, value in figures.items()}
        numbers = {name: Number(name.replace("_", " "), value) for name, value in values.items()}
        for kind, label, form in (("psnr", "PSNR over the hole", "{:.1f} dB"), ("l1", "Mean error (L1)", "{:.3f}")):
            names = [f"{kind}_{guess}" for guess in ("hidden", "classical", "mean_color")]
            ours, classical, color = (form.format(values[name]) if share else "–" for name in names)
            numbers[names[0]] = Number(label, values[names[0]], ours, f"classical: {classical}, mean colour: {color}")
        gain = values["psnr_hidden"] - values["psnr_classical"] if share else None
        numbers["gain"] = Number("Beside classical", gain, f"{gain:+.1f} dB" if share else "–", "above 0: closer to the truth")
        return {**numbers, "hidden": Number("Hidden", share, f"{share:.0%}", "of the pixels")}

    def paint(self, strokes: str) -> dict:
        return {"region": "painted", "strokes": strokes}

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        grid = model.encode(self._hide(images, torch.zeros_like(images[:, 0], dtype=torch.bool))["inputs"])[0]  # (B, D, h, w)
        return grid.mean(dim=(2, 3)), grid

"""Colorization: take the colours out of a photo and ask for them back.

"""

import torch
from torch import Tensor, nn

from .. import lab
from ..color_nets import DenseClassifier, set_base_rate
from ..pretext import Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe


class Colorizer(nn.Module):
    """Lightness (B, 1, H, W) to logits over the bins of colour (B, Q, H/4, W/4), and how often each is met in photos."""

    def __init__(self, width: int, depths: tuple[int, ...], decoder_width: int):
        super().__init__()
        count = len(lab.ab_bins())
        self.net = DenseClassifier(1, width, depths, decoder_width, count)
        self.register_buffer("frequencies", torch.ones(count))  # next to all being alike; `prepare` counts them

    def forward(self, lightness: Tensor) -> Tensor:
        return self.net((lightness - 50) / 25)


class Colorization(PretextTask):
    card = Card(
        name="colorization",
        title="Colorization",
        family="Fill in what is missing",
        paper="Colorful Image Colorization",
        authors="Zhang, Isola, Efros",
        year=2016,
        link="https://arxiv.org/abs/1603.08511",
        idea="Take the colours out of a photo and ask for them back: to know that grass is green is to know what grass looks like.",
        shortcut="Grey is never far wrong: most colours in photos are pale, and the mean of what something may be is paler still. "
        "Colours are therefore classes and rare ones count more; what all grey would score stands beside the score.",
        metric="auc",
        metric_label="Area under the colour error curve",
        chance="auc_gray",
        own_resolution=True,
        baselines=(("auc_gray", "all grey"),),
    )
    controls = (
        Control("temperature", "Temperature", "slider", lab.TEMPERATURE, "1: the mean of all it thinks possible; 0: the likeliest.",
                minimum=0, maximum=1, step=0.01),
        Control("rebalanced", "Rare colours count more", "toggle", True, "As trained. Off: the weights are divided out again."),
        Control("pixel", "Pixel", "point", "", "Click the photo to ask about another place."),
    )
    defaults = {"size": 96, "width": 48, "depths": [2, 2, 2], "decoder_width": 96, "rebalance": True, "uniform": 0.5}
    recipe = Recipe(batch=32, lr=2e-3, crop=(0.4, 1.0))

    def build(self) -> nn.Module:
        return Colorizer(self.config["width"], self.config["depths"], self.config["decoder_width"])

    def prepare(self, model: nn.Module, photos) -> None:
        lab.count_colors(photos, model.frequencies)
        set_base_rate(model.net.head, self._weights(model.frequencies) * model.frequencies)

    def example(self, images: Tensor, rng: torch.Generator, temperature: float = lab.TEMPERATURE, rebalanced: bool = True,
                pixel: str = "") -> Example:
        colors, B = lab.rgb_to_lab(images), len(images)
        drawn = torch.rand(B, 2, generator=rng)  # which pixel is asked about, where none was chosen
        if pixel:
            drawn = torch.tensor([float(share) / 100 for share in pixel.split()]).expand(B, 2)
        return {"inputs": colors[:, :1], "targets": colors[:, 1:], "pixel": drawn.to(images.device),
                "temperature": torch.full((B,), temperature, device=images.device),
                "rebalanced": torch.full((B,), rebalanced, device=images.device)}

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        logits = model(example["inputs"])  # (B, Q, h, w)
        return {"logits": logits, "frequencies": model.frequencies.expand(len(logits), -1)}

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        weights = self._weights(prediction["frequencies"][0])
        return lab.color_loss(prediction["logits"], example["targets"], weights), {}

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        frequencies, undone = prediction["frequencies"][0], {**example, "rebalanced": torch.zeros_like(example["rebalanced"])}
        other = lab.color_metrics(self._answer(undone, prediction), example["targets"], frequencies)
        return {**lab.color_metrics(self._answer(example, prediction), example["targets"], frequencies),
                "auc_undone": other["auc"], "auc_undone_rebalanced": other["auc_rebalanced"]}

    def aggregate(self, per_example: dict[str, Tensor]) -> dict[str, float]:
        return lab.pool(per_example)

    def _weights(self, frequencies: Tensor) -> Tensor:
        """The weight of each bin in training, (Q,)."""
        return lab.rebalancing(frequencies, self.config["uniform"]) if self.config["rebalance"] else torch.ones_like(frequencies)

    def _logits(self, example: Example, prediction: Prediction) -> Tensor:
        """Logits as trained, or with the weights of rare colours divided out again."""
        undo = self._weights(prediction["frequencies"][0]).log()[:, None, None]
        return prediction["logits"].float() - undo * (~example["rebalanced"])[:, None, None, None]

    def _answer(self, example: Example, prediction: Prediction) -> Tensor:
        """The colours (B, 2, h, w)."""
        return lab.annealed_mean(self._logits(example, prediction), example["temperature"][:, None, None, None])

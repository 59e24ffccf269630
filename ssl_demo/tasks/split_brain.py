"""Split-brain autoencoder: two networks that share nothing, each guessing what only the other one sees.

"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import lab
from ..color_nets import DenseClassifier, set_base_rate
from ..pretext import Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe


class SplitBrain(nn.Module):
    """Two halves side by side. Lab (B, 3, H, W) to logits over bins of colour (B, Q, H/4, W/4) and of lightness (B, K, H/4, W/4).

    `whole`: both halves get all of L, a and b, which makes them the autoencoder that the paper compares with.
    """

    def __init__(self, width: int, depths: tuple[int, ...], decoder_width: int, levels: int, whole: bool):
        super().__init__()
        count = len(lab.ab_bins())
        self.whole = whole
        self.to_colors = DenseClassifier(3 if whole else 1, width, depths, decoder_width, count)
        self.to_lightness = DenseClassifier(3 if whole else 2, width, depths, decoder_width, levels)
        self.register_buffer("frequencies", torch.ones(count))  # of colours, next to all being alike; `prepare` counts them

    def halves(self, colors: Tensor) -> tuple[Tensor, Tensor]:
        """What each half sees of Lab (B, 3, H, W), standardised: L and ab, or everything twice."""
        lightness, ab = (colors[:, :1] - 50) / 25, colors[:, 1:] / lab.SPREAD
        return (torch.cat([lightness, ab], dim=1),) * 2 if self.whole else (lightness, ab)

    def forward(self, colors: Tensor) -> tuple[Tensor, Tensor]:
        lightness, ab = self.halves(colors)
        return self.to_colors(lightness), self.to_lightness(ab)


class SplitBrainAutoencoder(PretextTask):
    card = Card(
        name="split_brain",
        title="Split-brain autoencoder",
        family="Fill in what is missing",
        paper="Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction",
        authors="Zhang, Isola, Efros",
        year=2017,
        link="https://arxiv.org/abs/1611.09842",
        idea="Split a photo into lightness and colour, and let each of two separate networks guess what only the other one sees.",
        shortcut="An autoencoder may copy its input through and understand nothing. No channel reaches the half that predicts it, "
        "and the halves share no weight; the paper's control, which sees everything, can be trained by one setting.",
        metric="auc",
        metric_label="Area under the colour error curve",
        chance="auc_gray",
        baselines=(("auc_gray", "all grey"),),
    )
    controls = (
        Control("temperature", "Temperature", "slider", lab.TEMPERATURE, "1: the mean of all it thinks possible; 0: the likeliest.",
                minimum=0, maximum=1, step=0.01),
        Control("pixel", "Pixel", "point", "", "Click a picture to ask about another place."),
    )
    defaults = {"size": 96, "width": 32, "depths": [2, 2, 2], "decoder_width": 64, "levels": 50, "uniform": 0.5,
                "autoencoder": False}
    recipe = Recipe(batch=32, lr=2e-3, crop=(0.4, 1.0))

    def build(self) -> nn.Module:
        names = ("width", "depths", "decoder_width", "levels")
        return SplitBrain(**{name: self.config[name] for name in names}, whole=self.config["autoencoder"])

    def prepare(self, model: nn.Module, photos) -> None:
        lab.count_colors(photos, model.frequencies)
        set_base_rate(model.to_colors.head, self._weights(model.frequencies) * model.frequencies)

    def example(self, images: Tensor, rng: torch.Generator, temperature: float = lab.TEMPERATURE, pixel: str = "") -> Example:
        colors, B = lab.rgb_to_lab(images), len(images)
        drawn = torch.rand(B, 2, generator=rng)  # which pixel is asked about, where none was chosen
        if pixel:
            drawn = torch.tensor([float(share) / 100 for share in pixel.split()]).expand(B, 2)
        return {"inputs": colors, "targets": colors, "pixel": drawn.to(images.device),
                "temperature": torch.full((B,), temperature, device=images.device)}

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        colors, lightness = model(example["inputs"])  # (B, Q, h, w), (B, K, h, w)
        return {"logits": colors, "lightness": lightness, "frequencies": model.frequencies.expand(len(colors), -1)}

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        truth, logits = example["targets"], prediction["lightness"]
        of_colors = lab.color_loss(prediction["logits"], truth[:, 1:], self._weights(prediction["frequencies"][0]))
        level = (lab.sample(truth[:, :1], logits.shape[-1])[:, 0] * (logits.shape[1] / 100)).long().clamp(0, logits.shape[1] - 1)
        of_lightness = F.cross_entropy(logits.permute(0, 2, 3, 1).flatten(0, 2).float(), level.flatten())
        return of_colors + of_lightness, {"loss_ab": of_colors.item(), "loss_l": of_lightness.item()}

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        colors, lightness = self._answers(example, prediction)
        truth = example["targets"]
        error = lab.resize(lightness, truth.shape[-1]) - truth[:, :1]
        flat = truth[:, :1] - truth[:, :1].mean(dim=(2, 3), keepdim=True)
        return {**lab.color_metrics(colors, truth[:, 1:], prediction["frequencies"][0]),
                "l_rmse": error.square().mean(dim=(1, 2, 3)).sqrt(), "l_rmse_mean": flat.square().mean(dim=(1, 2, 3)).sqrt()}

    def aggregate(self, per_example: dict[str, Tensor]) -> dict[str, float]:
        return lab.pool(per_example)

    def _weights(self, frequencies: Tensor) -> Tensor:
        """The weight of each bin of colour in training, (Q,)."""
        return lab.rebalancing(frequencies, self.config["uniform"])

    def _answers(self, example: Example, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """The colours (B, 2, h, w), and the lightness (B, 1, h, w), each the annealed mean of its half's distribution."""
        temperature, logits = example["temperature"][:, None, None, None], prediction["lightness"]
        levels = (torch.arange(logits.shape[1], device=logits.device) + 0.5) * (100 / logits.shape[1])
        return lab.annealed_mean(prediction["logits"], temperature), lab.annealed_mean(logits, temperature, levels[:, None])

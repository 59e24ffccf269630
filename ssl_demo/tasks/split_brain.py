r"""Split-brain autoencoder: two networks that share nothing, each guessing what only the other one sees.

The idea. An autoencoder has its answer before it: it learns to pack, not to understand. Split the photo instead, into lightness
(L of Lab) and colour (a and b), and the network with it: one half sees L and says the colours, the other sees the colours and
says L. Each has to know what is there, for nothing else links the two. Side by side, their features describe the whole photo.

What could cheat. A single weight or channel shared by the halves would let the answer through: they are two networks that only
stand in one file, and each is given its own channels alone. All grey is never far wrong, as in colorization, so rare colours
count more in the loss, and what grey scores stands beside the score. Its two figures, and how frequencies are counted, are
those of colorization.

The control. With `autoencoder=true` both halves get L, a and b, as in the Lab to Lab network that the paper compares with, and
all else stays: the same sizes, the same classes to be said. Its score is then high and means nothing, as the answer is in the
question; what its features are worth is seen in transfer.

The loss. One cross-entropy for each half: $$L = -\frac{1}{hw} \sum_i v_i \sum_q z_{iq} \log \hat z_{iq} - \frac{1}{hw} \sum_i
\log \hat y_i(L_i)$$ the first over colours guessed from lightness, the second over 50 classes of lightness guessed from colour.

Where we differ from the paper. Two small residual networks at 96 px, 1.5 million parameters together, instead of two halves of
an AlexNet; 50 classes of lightness instead of 100; answers for 24 x 24 places; some 27 thousand photos instead of ImageNet. The
paper's autoencoder reconstructs by regression, ours by the same classes, so that only what is seen differs. Rare colours count
more in training, as in the paper on colorization; a little of that is divided out of the answers (`answer_uniform`), whose mean
is annealed less (T = 0.6): both figures gain by it on training photos (`benchmarks/color_answers.py`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import lab, lab_drawing
from ..color_nets import DenseClassifier, set_base_rate
from ..pretext import Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe

TEMPERATURE = 0.6  # of the annealed mean
EVEN = 65.0  # the lightness at which colours alone are drawn


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
        title="Split-brain",
        family="Fill in what is missing",
        paper="Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction",
        authors="Zhang, Isola, Efros",
        year=2017,
        link="https://arxiv.org/abs/1611.09842",
        idea="Split a photo into lightness and colour, and let each of two separate networks guess what only the other one sees.",
        shortcut="An autoencoder may copy its input through and understand nothing. No channel reaches the half that says it, "
        "and the halves share no weight; the paper's control, which sees everything, can be trained by one setting.",
        metric="auc",
        metric_label="Colours close (AuC)",
        chance="auc_gray",
        baselines=(("auc_gray", "all grey"),),
        also=("auc_rebalanced", "auc_gray_rebalanced", "rare colours counted more"),
    )
    controls = (
        Control("temperature", "Temperature of colours", "slider", TEMPERATURE, "1: the mean; 0: the likeliest.",
                minimum=0, maximum=1, step=0.01),
        Control("pixel", "Pixel", "point", "", "Click a picture to ask about another place."),
    )
    defaults = {"size": 96, "width": 32, "depths": [2, 2, 2], "decoder_width": 64, "levels": 50, "uniform": 0.5,
                "answer_uniform": 0.8, "autoencoder": False}
    recipe = Recipe(batch=32, optimizer="muon", lr=4e-3, crop=(0.4, 1.0))
    knobs = (Control("autoencoder", "Both halves see all", "toggle", False, "On: it may copy."),)

    def build(self) -> nn.Module:
        names = ("width", "depths", "decoder_width", "levels")
        return SplitBrain(**{name: self.config[name] for name in names}, whole=self.config["autoencoder"])

    def prepare(self, model: nn.Module, photos) -> None:
        lab.count_colors(photos, model.frequencies)
        set_base_rate(model.to_colors.head, self._weights(model.frequencies) * model.frequencies)

    def example(self, images: Tensor, rng: torch.Generator, temperature: float = TEMPERATURE, pixel: str = "") -> Example:
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

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        lightness, ab, point = example["targets"][0, :1], example["targets"][0, 1:], example["pixel"][0]
        colors, light = (answer[0] for answer in self._answers(example, prediction))
        size, even, asked = lightness.shape[-1], torch.full_like(lightness, EVEN), self._asked(example, prediction)
        light, click = lab.resize(light[None], size)[0], "Click a place."
        blind = "It sees colour too." if self.config["autoencoder"] else "Blind to colour."
        return [
            Panel("photo", "Your photo", "Ring: asked about.", "photo",
                  lab_drawing.ringed(lab_drawing.in_color(lightness, ab), point), click=click),
            Panel("lightness", "One half sees L", blind, "sees", lab_drawing.in_grey(lightness), click=click),
            Panel("colors", "The other sees a and b", "All drawn equally light.", "sees",
                  lab_drawing.in_color(even, ab), click=click),
            Panel("guessed_colors", "Colour, guessed from L", "All drawn equally light.", "answers",
                  lab_drawing.ringed(lab_drawing.in_color(even, colors), point), click=click),
            Panel("guessed_lightness", "Lightness, from a and b", f"{colors.shape[-1]} × {colors.shape[-1]} places.", "answers",
                  lab_drawing.ringed(lab_drawing.in_grey(light), point), click=click),
            Panel("recombined", "Both guesses together", "Nothing else is in it.", "judged",
                  lab_drawing.in_color(light, colors), click=click),
            Panel("distribution", "Which colour it may have", "Ring: the truth; cross: its answer.", "judged",
                  lab_drawing.ab_plane(asked["shares"], asked["lightness"], asked["truth"], asked["answer"])),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        figures = {name: values[0].item() for name, values in self.metrics(example, prediction).items()}
        asked, bins = self._asked(example, prediction), lab.ab_bins()
        top = int(asked["shares"].argmax())
        share = asked["shares"][top].item()
        return {
            "auc": Number("Area under the error curve", figures["auc"], f"{figures['auc']:.3f}",
                          f"all grey: {figures['auc_gray']:.3f}"),
            "auc_rebalanced": Number("Rare colours counted more", figures["auc_rebalanced"], f"{figures['auc_rebalanced']:.3f}",
                                     f"all grey: {figures['auc_gray_rebalanced']:.3f}"),
            "ab_rmse": Number("Colour error", figures["ab_rmse"], f"{figures['ab_rmse']:.1f}", "root mean square of a and b"),
            "l_rmse": Number("Lightness error", figures["l_rmse"], f"{figures['l_rmse']:.1f}",
                             f"the photo's mean: {figures['l_rmse_mean']:.1f}; L runs from 0 to 100"),
            "top_share": Number("Likeliest colour there", share, f"{lab.hex_color(asked['lightness'], bins[top])}, {share:.0%}",
                                f"a = {bins[top, 0]:.0f}, b = {bins[top, 1]:.0f}"),
            "l_rmse_mean": Number("Lightness error of the photo's mean", figures["l_rmse_mean"]),
            "auc_gray": Number("Area of all grey", figures["auc_gray"]),
            "auc_gray_rebalanced": Number("Area of all grey, rebalanced", figures["auc_gray_rebalanced"]),
        }

    def click(self, panel: str, x: float, y: float, example: Example) -> dict:
        return {"pixel": f"{100 * x:.1f} {100 * y:.1f}"}

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        lightness, ab = model.halves(lab.rgb_to_lab(images))
        grid = torch.cat([model.to_colors.features(lightness), model.to_lightness.features(ab)], dim=1)  # (B, 2 D, h, w)
        return grid.mean(dim=(2, 3)), grid

    def _asked(self, example: Example, prediction: Prediction) -> dict:
        """Of the first photo's pixel in question: the distribution over bins, the lightness, the true colour and the answer."""
        return lab.at_place(self._logits(prediction)[0], example["targets"][0, :1], example["targets"][0, 1:],
                            self._answers(example, prediction)[0][0], example["pixel"][0])

    def _weights(self, frequencies: Tensor) -> Tensor:
        """The weight of each bin of colour in training, (Q,)."""
        return lab.rebalancing(frequencies, self.config["uniform"])

    def _logits(self, prediction: Prediction) -> Tensor:
        """Logits of colours (B, Q, h, w) as if trained for lambda = `answer_uniform`."""
        frequencies = prediction["frequencies"][0]
        shift = (lab.rebalancing(frequencies, self.config["answer_uniform"]) / self._weights(frequencies)).log()
        return prediction["logits"].float() + shift[:, None, None]

    def _answers(self, example: Example, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """The colours (B, 2, h, w), the annealed mean of their distribution, and the lightness (B, 1, h, w), the mean of its own.

        Colour leaves lightness so open that anything sharper than the mean would be further off than the photo's mean is.
        """
        temperature, logits = example["temperature"][:, None, None, None], prediction["lightness"]
        levels = (torch.arange(logits.shape[1], device=logits.device) + 0.5) * (100 / logits.shape[1])
        return lab.annealed_mean(self._logits(prediction), temperature), lab.annealed_mean(logits, 1.0, levels[:, None])

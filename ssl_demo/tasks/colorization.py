r"""Colorization: take the colours out of a photo and ask for them back.

The idea. From lightness alone (L of Lab), say the colour (a and b) of every place. Grass, skies, skin and foxes have their
colours for what they are, so whoever colours them right has recognised them. Any photo is its own answer sheet.

What could cheat. Grey. A shirt may be of any colour, and the mean of all colours is none: a network that minimises squared
error paints everything sepia, and scores well. Here colours are classes, the points of a grid over the plane of a and b that a
screen can show; a distribution over them may have many peaks. Most pixels in photos are pale, so each place is weighted by how
rare its colour is (half of the way, lambda = 0.5). The picture shows the annealed mean: the mean of the distribution,
sharpened by a temperature. The weights can be undone, whole or in part: the network's distribution is the true one times the
weights, up to a factor, so dividing them out again gives back how often each colour is met. That is exact for a network that
learned perfectly. What it is unsure of, so small a network would paint too boldly: its answers stand for lambda = 0.8
(`answer_uniform`), a little of the weights divided out (`benchmarks/color_answers.py` prints what each lambda scores).

The score. The share of pixels whose colour is less than so far off, averaged over thresholds from 0 to 150. All grey has 0.90
of it, for photos are pale; in the rebalanced figure each pixel counts by the inverse of its colour's frequency, and all grey
has 0.65. A frequency below a twentieth of an even share counts as that much, or else a handful of pixels would decide.

The loss. Cross-entropy over the grid of colours: $$L = -\frac{1}{hw} \sum_{i} v_i \sum_q z_{iq} \log \hat z_{iq}$$ where $z_i$ is
the true colour of place $i$ as shares of its five nearest grid points $q$, $\hat z_i$ the answer, and $v_i$ the weight.

Where we differ from the paper. A residual network of 1.7 million parameters at 96 px that answers for 24 x 24 places, instead
of 32 million at 224 px for 56 x 56; three scales are brought together before the answer; 306 colours in gamut by our count
instead of 313. The head begins at how often each colour is met, and about 27 thousand photos take ImageNet's place.
"""

import math

import torch
from torch import Tensor, nn

from .. import drawing, lab, lab_drawing
from ..color_nets import DenseClassifier, set_base_rate
from ..pretext import Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe
from ..questions import Question, choices

SWATCHES = 4  # colours to choose from where a person guesses


class Colorizer(nn.Module):
    """Lightness (B, 1, H, W) to logits over the bins of colour (B, Q, H/4, W/4), and how often each is met in photos."""

    def __init__(self, width: int, depths: tuple[int, ...], decoder_width: int):
        super().__init__()
        count = len(lab.ab_bins())
        self.net = DenseClassifier(1, width, depths, decoder_width, count)
        self.register_buffer("frequencies", torch.ones(count))  # next to all being alike; `prepare` counts them

    def forward(self, lightness: Tensor) -> Tensor:
        return self.net((lightness - 50) / 25)

    def features(self, lightness: Tensor) -> Tensor:
        """The encoder's coarsest map (B, D, H/16, W/16)."""
        return self.net.features((lightness - 50) / 25)


class Colorization(PretextTask):
    card = Card(
        name="colorization",
        title="Colorization",
        family="Fill in what is missing",
        paper="Colorful Image Colorization",
        authors="Zhang, Isola, Efros",
        year=2016,
        link="https://arxiv.org/abs/1603.08511",
        idea="Take the colours out of a photo and ask for them back: to say that grass is green is to know grass.",
        shortcut="Grey is never far wrong: most colours in photos are pale, and the mean of what something may be is paler. "
        "Colours are therefore classes and rare ones count more; what all grey would score stands beside the score.",
        metric="auc",
        metric_label="Colours close (AuC)",
        chance="auc_gray",
        paper_score="0.895; 0.673 (ImageNet)",
        own_resolution=True,
        baselines=(("auc_gray", "all grey"),),
        also=("auc_rebalanced", "auc_gray_rebalanced", "rare colours counted more"),
    )
    controls = (
        Control("temperature", "Temperature", "slider", lab.TEMPERATURE, "1: the mean; 0: the likeliest.",
                minimum=0, maximum=1, step=0.01),
        Control("rebalanced", "Rare colours count more", "toggle", True, "Off: as often as they are met."),
        Control("pixel", "Pixel", "point", "", "Click the photo to ask about another place."),
    )
    defaults = {"size": 96, "width": 48, "depths": [2, 2, 2], "decoder_width": 96, "rebalance": True, "uniform": 0.5,
                "answer_uniform": 0.8}
    recipe = Recipe(batch=32, optimizer="muon", lr=4e-3, crop=(0.4, 1.0))
    knobs = (Control("rebalance", "Rare colours count more", "toggle", True, "Off: paler."),)

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

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        lightness, truth, point = example["inputs"][0], example["targets"][0], example["pixel"][0]
        answer, asked = self._answer(example, prediction)[0], self._asked(example, prediction)
        photo = example["photo"][0] if "photo" in example else lab.lab_to_rgb(torch.cat([lightness, truth])[None])[0]
        size, click, is_grey = lightness.shape[-1], "Click: ask about a place.", bool(truth.abs().max() < 2)
        error = (lab.resize(answer[None], size)[0] - truth).square().sum(dim=0).sqrt()  # (H, W)
        entropy = drawing.resize_map(lab.entropy(self._logits(example, prediction))[0], size)
        return [
            Panel("photo", "Your photo", "Grey: its true colours are not known." if is_grey else "In its own colours.", "photo",
                  drawing.picture(photo)),
            Panel("grey", "What it sees", "Ring: asked about.", "sees",
                  lab_drawing.ringed(lab_drawing.in_grey(lightness), point), click=click),
            Panel("colored", "Its colours", f"At {photo.shape[-1]} × {photo.shape[-1]}.", "answers",
                  lab_drawing.recolored(photo, answer), click=click),
            Panel("distribution", "Which colour it may have", "Ring: the truth; cross: its answer.", "answers",
                  lab_drawing.ab_plane(asked["shares"], asked["lightness"], asked["truth"], asked["answer"])),
            Panel("entropy", "How sure it is", "Darker: more colours.", "judged",
                  drawing.heat((entropy.exp() / 100).clamp(0, 1).cpu().numpy()), click=click),
            Panel("error", "Where it is wrong", "Darker: further " + ("from grey." if is_grey else "off."), "judged",
                  drawing.heat((error / 60).clamp(0, 1).cpu().numpy()), click=click),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        figures = {name: values[0].item() for name, values in self.metrics(example, prediction).items()}
        asked, entropy = self._asked(example, prediction), lab.entropy(self._logits(example, prediction))[0].mean().item()
        top, bins = int(asked["shares"].argmax()), lab.ab_bins()
        share, share_true = asked["shares"][top].item(), asked["shares"][int(lab.nearest_bin(asked["truth"]))].item()
        a, b = (int(value) for value in bins[top])
        return {
            "auc": Number("Area under the error curve", figures["auc"], f"{figures['auc']:.3f}",
                          f"all grey: {figures['auc_gray']:.3f}"),
            "auc_rebalanced": Number("Rare colours counted more", figures["auc_rebalanced"], f"{figures['auc_rebalanced']:.3f}",
                                     f"all grey: {figures['auc_gray_rebalanced']:.3f}"),
            "ab_rmse": Number("Colour error", figures["ab_rmse"], f"{figures['ab_rmse']:.1f}", "root mean square of a and b"),
            "top_share": Number("Likeliest colour there", share, f"{lab.hex_color(asked['lightness'], bins[top])}, {share:.0%}",
                                f"a = {a}, b = {b}"),
            "true_share": Number("Given to the true one", share_true, f"{share_true:.1%}", f"chance: {1 / len(bins):.1%}"),
            "entropy": Number("Colours it wavers between", entropy, f"{math.exp(entropy):.0f}", "e to the mean entropy"),
            "top_a": Number("Likeliest colour's a", a),
            "top_b": Number("Likeliest colour's b", b),
            "auc_gray": Number("Area of all grey", figures["auc_gray"]),
            "auc_gray_rebalanced": Number("Area of all grey, rebalanced", figures["auc_gray_rebalanced"]),
        }

    def question(self, example: Example, prediction: Prediction) -> Question | None:
        """Which colour the ringed place has: its own, or one that the photo has elsewhere (`lab.rivals`), all equally light.

        Drawn by where the place is. None in a grey photo, and where it is too dark or too light for colours to differ.
        """
        asked, colors, place = self._asked(example, prediction), example["targets"][0].cpu(), example["pixel"][0].cpu()
        rng = torch.Generator().manual_seed(int(1e6 * (place[0].item() + 2 * place[1].item())))
        rivals = lab.rivals(asked["truth"], asked["lightness"], colors.flatten(1).T, SWATCHES - 1, rng)
        if colors.abs().max() < 2 or len(rivals) < SWATCHES - 1:
            return None
        mixed = torch.randperm(SWATCHES, generator=rng)
        shown = torch.cat([asked["truth"][None], rivals])[mixed]  # (n, 2)
        labels = [f"{letter}: {lab.color_name(ab)}" for letter, ab in zip("ABCD", shown)]
        swatches = [lab.hex_color(asked["lightness"], ab) for ab in shown]
        return Question("Which colour is the ringed place?", choices(labels, asked["shares"][lab.nearest_bin(shown)], swatches),
                        mixed.tolist().index(0), lab_drawing.ringed(lab_drawing.in_grey(example["inputs"][0]), place),
                        "A photo without its colours", "All that the network is shown.", click="Click: ask about a place.")

    def click(self, panel: str, x: float, y: float, example: Example) -> dict:
        return {"pixel": f"{100 * x:.1f} {100 * y:.1f}"}

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        grid = model.features(lab.rgb_to_lab(images)[:, :1])  # (B, D, h, w)
        return grid.mean(dim=(2, 3)), grid

    def _asked(self, example: Example, prediction: Prediction) -> dict:
        """Of the first photo's pixel in question: the distribution over bins, the lightness, the true colour and the answer."""
        return lab.at_place(self._logits(example, prediction)[0], example["inputs"][0], example["targets"][0],
                            self._answer(example, prediction)[0], example["pixel"][0])

    def _weights(self, frequencies: Tensor) -> Tensor:
        """The weight of each bin in training, (Q,)."""
        return lab.rebalancing(frequencies, self.config["uniform"]) if self.config["rebalance"] else torch.ones_like(frequencies)

    def _logits(self, example: Example, prediction: Prediction) -> Tensor:
        """Logits (B, Q, h, w) as if trained for lambda = `answer_uniform`, or with the weights of rare colours divided out."""
        trained, frequencies = self._weights(prediction["frequencies"][0]), prediction["frequencies"][0]
        wanted = lab.rebalancing(frequencies, self.config["answer_uniform"]) if self.config["rebalance"] else trained
        chosen = torch.where(example["rebalanced"][:, None], wanted, torch.ones_like(wanted))  # (B, Q)
        return prediction["logits"].float() + (chosen / trained).log()[:, :, None, None]

    def _answer(self, example: Example, prediction: Prediction) -> Tensor:
        """The colours (B, 2, h, w)."""
        return lab.annealed_mean(self._logits(example, prediction), example["temperature"][:, None, None, None])

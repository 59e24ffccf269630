r"""Rotation prediction: turn the photo by 0, 90, 180 or 270 degrees and ask which it was.

The idea. Nobody has to label a photo to know that it was turned: we turned it. To answer, a network has to know what is
upright in the world: that skies are above, that dogs stand on their legs, that faces have eyes over mouths.

What could cheat. Anything that turns with the pixels but says nothing of the content: black corners and blurred edges of an
inexact rotation, a resize that does not commute with turning, the 8 x 8 blocks of JPEG. So turns are exact (90 degrees, no
interpolation), the photo is cropped square and resized *before* it is turned, and crops start anywhere, so that no grid of
JPEG blocks keeps its place. To see what a network makes of such a hint, a mark, a dark line on the photo's upper edge, can be
switched on here and in the Training lab: who learned with it looks for the line, and for nothing else.

The loss. The cross-entropy of the true turn: $$L = -\frac{1}{4} \sum_{k=0}^{3} \log p_k(x_k)$$ where $x_k$ is the photo
turned by $k$ quarters, and $p_k$ the probability that the network gives to that turn, the marked bar at the right.

Where we differ from the paper. A residual network of 1.6 million parameters instead of AlexNet, at 96 px, trained on some
27 thousand photos instead of ImageNet. As in the paper (section 3.2) all four turns of a photo are in the same batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import drawing
from ..nets import ResidualEncoder
from ..pretext import Bar, Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe
from ..questions import Question, choices

ANGLES = ("0°", "90°", "180°", "270°")  # counter-clockwise
TOLD = ("0°, upright", "90°, to the left", "180°, upside down", "270°, to the right")


class RotationNet(nn.Module):
    """Encoder, global average pooling, one linear layer."""

    def __init__(self, width: int, depths: tuple[int, ...]):
        super().__init__()
        self.encoder = ResidualEncoder(width, tuple(depths))
        self.head = nn.Linear(self.encoder.width, len(ANGLES))


def with_mark(images: Tensor) -> Tensor:
    """Images (B, 3, H, H) with a dark line on their upper edge, H / 24 high: a hint that turns with them."""
    images = images.clone()
    images[:, :, : max(1, images.shape[-1] // 24)] = 0
    return images


class Rotation(PretextTask):
    card = Card(
        name="rotation",
        title="Rotation",
        family="Predict a transformation",
        paper="Unsupervised Representation Learning by Predicting Image Rotations",
        authors="Gidaris, Singh, Komodakis",
        year=2018,
        link="https://arxiv.org/abs/1803.07728",
        idea="Turn a photo by a multiple of 90° and ask by how much: only who knows what things look like can tell what is up.",
        shortcut="Borders and blur left by an inexact turn would give the angle away without a look at the content. Our turns "
        "move whole pixels, and the photo is cropped and resized before it is turned, wherever its JPEG blocks lie.",
        metric="accuracy",
        metric_label="Turned back correctly",
        chance=0.25,
        overview=("probability_true",),
    )
    controls = (
        Control("angle", "Turn the photo by", "choice", "random", "Degrees counter-clockwise, or random by the seed.",
                choices=("random", "0", "90", "180", "270"), fixes=True),
        Control("resolution", "Resolution", "slider", 96, "Trained at 96 pixels.",
                minimum=48, maximum=192, step=16),
        Control("mark", "A mark", "toggle", False, "On: a line on top."),
    )
    defaults = {"size": 96, "width": 48, "depths": [2, 2, 2], "mark": False}
    recipe = Recipe(batch=32, optimizer="muon", lr=6e-3, crop=(0.4, 1.0), color=0.2)
    quick = {"lr": 1e-3, "color": 0.7, "weight_decay": 0.5}  # a few photos' colours are soon learned by heart, and tell no others

    knobs = (Control("mark", "A mark", "toggle", False, "On: it may cheat."),)

    def input_size(self, resolution: int = 96, **_) -> int:
        return resolution

    def build(self) -> nn.Module:
        return RotationNet(self.config["width"], self.config["depths"])

    def example(self, images: Tensor, rng: torch.Generator, angle: str = "random", mark: bool = False, **_) -> Example:
        turns = (4 * torch.rand(len(images), generator=rng)).long()  # drawn always: one seed, one chance, whatever the knob
        if angle != "random":
            turns = torch.full_like(turns, int(angle) // 90)
        images = with_mark(images) if mark else images
        turned = torch.stack([torch.rot90(image, int(k), (1, 2)) for image, k in zip(images, turns)])
        return {"images": images, "inputs": turned, "targets": turns.to(images.device)}  # (B, 3, H, H), (B,)

    def training_example(self, images: Tensor, rng: torch.Generator) -> Example:
        images = with_mark(images) if self.config["mark"] else images
        turned = torch.cat([torch.rot90(images, k, (2, 3)) for k in range(4)])  # (4B, 3, H, H)
        return {"inputs": turned, "targets": torch.arange(4, device=images.device).repeat_interleave(len(images))}

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        features = model.encoder(example["inputs"])  # (B, D, h, w)
        logits = model.head(features.mean(dim=(2, 3)))  # (B, 4)
        # Pooling and head are linear, so they can change places: each cell's share of each logit, whose mean is the logit.
        evidence = torch.einsum("bdhw,kd->bkhw", features, model.head.weight) + model.head.bias[:, None, None]
        return {"logits": logits, "evidence": evidence}

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        return F.cross_entropy(prediction["logits"].float(), example["targets"]), {}

    def guessing(self, batch: int) -> float:
        return math.log(len(ANGLES))

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        correct = prediction["logits"].argmax(dim=1) == example["targets"]
        return {"accuracy": correct.float(), "classes": torch.full_like(correct, len(ANGLES), dtype=torch.float)}

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        turned, truth = example["inputs"][0], int(example["targets"][0])
        probabilities = prediction["logits"][0].float().softmax(dim=0).tolist()
        answer = max(range(4), key=probabilities.__getitem__)
        evidence = drawing.resize_map(prediction["evidence"][0, answer], turned.shape[-1])
        evidence = (evidence / evidence.max().clamp(min=1e-6)).clamp(0, 1).cpu().numpy()
        right = "which is right" if answer == truth else f"which is wrong: it was {ANGLES[truth]}"
        bars = tuple(Bar(ANGLES[k], probabilities[k], k == truth, k == answer) for k in range(4))
        return [
            Panel("photo", "Your photo", "Its central square.", "photo",
                  drawing.picture(example["images"][0])),
            Panel("turned", f"Turned by {ANGLES[truth]}", "All that the network is shown.", "sees", drawing.picture(turned)),
            Panel("turned_back", "Turned back by its answer", f"It says {ANGLES[answer]}, {right}.", "answers",
                  drawing.picture(torch.rot90(turned, -answer, (1, 2)))),
            Panel("evidence", "Where it looked", f"Lit: what speaks for {ANGLES[answer]} (class activation map).",
                  "answers", drawing.glow(drawing.picture(turned), evidence)),
            Panel("probabilities", "How sure it is", "Probability of each angle; the true one is marked.", "judged", bars=bars),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        logits, truth = prediction["logits"][0].float(), int(example["targets"][0])
        probability, answer = logits.softmax(dim=0)[truth].item(), int(logits.argmax())
        loss = F.cross_entropy(logits[None], example["targets"][:1]).item()
        return {
            "truth": Number("Turned by", truth * 90, ANGLES[truth]),
            "answer": Number("It answers", answer * 90, ANGLES[answer]),
            "correct": Number("Right", int(answer == truth), "yes" if answer == truth else "no"),
            "probability_true": Number("Given to the true angle", probability, f"{probability:.1%}", "Chance is 25 %."),
            "loss": Number("Loss", loss, f"{loss:.2f}", "Cross-entropy; guessing gives ln 4 = 1.39."),
        }

    def question(self, example: Example, prediction: Prediction) -> Question:
        shares = prediction["logits"][0].float().softmax(dim=0)
        return Question("How was the photo turned?", choices(TOLD, shares), int(example["targets"][0]),
                        drawing.picture(example["inputs"][0]), "A photo, turned or not", "All that the network is shown.")

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        grid = model.encoder(images)  # (B, D, h, w)
        return grid.mean(dim=(2, 3)), grid

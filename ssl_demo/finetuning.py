"""Training an encoder on labels, by the same loop as all else here: fine-tuning from what it knows, or supervised from nothing.

To that loop a classifier is one more task, whose batches bring their labels along. It is no pretext task: it stands in no tab.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import Batches, Photos
from .pretext import Card, Example, Prediction, PretextTask, Recipe, drawn_by
from .training import Snapshot, train

RECIPE = Recipe(batch=64, lr=1e-3, crop=(0.35, 1.0), color=0.2)
EPOCHS = {"finetune": 5, "supervised": 20}  # times that every photo is seen; who starts from nothing needs more
LEAST = {"finetune": 16_000, "supervised": 48_000}  # photos seen, where there are so few that this is more


@dataclass(frozen=True)
class Taught:
    """Images (B, 3, H, W) and their labels (B,), which go together where the loop sends its images."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Taught":
        return Taught(self.images.to(device), self.labels.to(device))


class ClassifierNet(nn.Module):
    """A network whose features go through one linear layer, standardised on the way: each encoder has a scale of its own."""

    def __init__(self, network: nn.Module, width: int, classes: int):
        super().__init__()
        self.network = network.requires_grad_(True)  # also what its own method never trains, such as a teacher
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.head = nn.Linear(width, classes)
        nn.init.zeros_(self.head.weight)  # begins by guessing
        nn.init.zeros_(self.head.bias)


class Classify(PretextTask):
    """The features of another task's network, and a linear layer on them, trained on labels."""

    card = Card(name="classify", title="Classification", family="", paper="", authors="", year=0, link="",
                idea="", shortcut="", metric="accuracy", metric_label="Classified correctly", chance=0.0)  # fmt: skip
    recipe = RECIPE

    def __init__(self, task, width: int, classes: int):
        super().__init__()
        self.task, self.width, self.classes = task, width, classes

    @property
    def size(self) -> int:
        return self.task.size

    def build(self) -> nn.Module:
        return ClassifierNet(self.task.build(), self.width, self.classes)

    def example(self, images: Taught, rng: torch.Generator, **_) -> Example:
        return {"inputs": images.images, "targets": images.labels}

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        features = self.task.features(model.network, example["inputs"])[0]  # (B, D)
        return {"logits": model.head(model.norm(features.float()))}

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        return F.cross_entropy(prediction["logits"].float(), example["targets"]), {}

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        return {"accuracy": (prediction["logits"].argmax(dim=1) == example["targets"]).float()}

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.task.features(model.network, images)


def steps_for(kind: str, photos: int, epochs: float | None = None) -> int:
    """How long to train on so many photos: `epochs` times through them, or as long as is usual."""
    seen = max(EPOCHS[kind] * photos, LEAST[kind]) if epochs is None else epochs * photos
    return max(1, math.ceil(seen / RECIPE.batch))


def teach(task, network: nn.Module, width: int, photos: Photos, labels: np.ndarray, classes: int, steps: int, seed: int = 0,
          recipe: Recipe = RECIPE, watch: Callable[[float], None] = lambda progress: None) -> tuple[Classify, nn.Module]:
    """A classifier and its network, from this network of a task, after so many steps on photos with labels (N,).

    `network` itself stays as it is. `watch` is told the progress, 0 to 1. Raises FloatingPointError where training fails.
    """
    classifier, last = Classify(task, width, classes), None
    for last in lessons(classifier, network, photos, labels, steps, seed, recipe):
        watch(last.progress)
    return classifier, last.model


def lessons(classifier: Classify, network: nn.Module, photos: Photos, labels: np.ndarray, steps: int, seed: int = 0,
            recipe: Recipe = RECIPE) -> Iterator[Snapshot]:
    """The snapshots of that training, about one a second."""
    with drawn_by(seed):
        start = ClassifierNet(classifier.task.build(), classifier.width, classifier.classes)
    start.network.load_state_dict(network.state_dict())
    batches = Batches(photos, recipe.batch, classifier.size, seed, recipe.crop, recipe.flip, recipe.color)
    known = torch.from_numpy(np.asarray(labels))
    yield from train(classifier, photos, recipe, steps=steps, seed=seed, start_from=start,
                     batches=lambda step: Taught(batches(step), known[batches.places(step)]))

"""Throw the head away: what is left of a pretext task, its encoder, is asked to tell classes that it never heard of.

Three protocols. knn and linear leave the encoder as it is and ask its features (`probes.py`); finetune trains it on, with a
linear layer, on the labels there are (`finetuning.py`). Who is good at the first two has classes lying apart already; who is good
at the third alone knows something that helps to learn them.

Encoders are chosen by name:
    rotation, mae-small, FILE.safetensors   weights of a task: the best bundled ones, bundled ones by name, a file's
    untrained, supervised                   the architecture of the first encoder chosen: drawn by chance; trained on the labels
    NAME:untrained, NAME:supervised         the same for the architecture of another one
    pixels                                  no encoder: the photo itself, at 8 x 8
`untrained` and `pixels` are always among the results. An untrained network is drawn anew for every draw of labels; the supervised
one is trained on the drawn labels alone, three to four times as long as fine-tuning takes, and is the ceiling. Where the test is
finetune, `untrained` is therefore supervised training as short as fine-tuning.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import probes
from .checkpoints import UNTRAINED, bundled, load_weights, task_of
from .data import Photos, centre
from .finetuning import Classify, steps_for, teach
from .inference import pick_device
from .labelled import Labelled, load_labelled
from .pretext import all_tasks, fresh
from .training import precision

PROTOCOLS = ("knn", "linear", "finetune")
PIXELS, SUPERVISED = "pixels", "supervised"
BATCH = 64


class Pixels:
    """What stands for a task where there is no network: the features of a photo are its pixels."""

    size = 8  # of 8, 16 and 32 the strongest rival, under both probes, on photos of the benchmark's training part

    def build(self) -> nn.Module:
        return nn.Identity()

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, None]:
        return images.flatten(1), None


class Frozen:
    """A network that stays as it is. The features of a photo are computed when first asked for, and kept in memory."""

    def __init__(self, name: str, task, network: nn.Module):
        self.name, self.task = name, task
        self.network = network.to(pick_device(), memory_format=torch.channels_last).eval()
        self._kept: dict[int, tuple[Photos, np.ndarray, Tensor]] = {}  # of each part: itself, which are known, (N, D)

    def features(self, photos: Photos, places: np.ndarray | None = None) -> Tensor:
        """(N, D), of the photos at these places, or of all."""
        places = np.arange(len(photos)) if places is None else places
        _, known, kept = self._kept.get(id(photos), (photos, np.zeros(len(photos), dtype=bool), torch.empty(len(photos), 0)))
        new = places[~known[places]]
        if len(new):
            computed = self._compute(photos.take(new))
            if not kept.shape[1]:
                kept = torch.zeros(len(photos), computed.shape[1])
            kept[new], known[new] = computed, True
            self._kept[id(photos)] = photos, known, kept
        return kept[places]

    def _compute(self, photos: Photos) -> Tensor:
        return over(photos, self.task.size, lambda images: self.task.features(self.network, images)[0].flatten(1), self.name)


@torch.inference_mode()
def over(photos: Photos, size: int, function: Callable[[Tensor], Tensor], name: str) -> Tensor:
    """What a function makes of all photos, (N, ...) float32, in whatever precision is fast, with a bar on standard error."""
    device, results = pick_device(), []
    dtype = precision("auto", device)
    with tqdm(total=len(photos), desc=name, unit=" photos", file=sys.stderr, leave=False) as bar:
        for images in centre(photos, size, BATCH):
            images = images.to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                results.append(function(images).float().cpu())
            bar.update(len(images))
    return torch.cat(results)


def answers(classifier: Classify, network: nn.Module, photos: Photos, name: str = "") -> Tensor:
    """What a trained classifier says of photos: logits (N, K)."""
    network = network.to(pick_device()).eval()
    return over(photos, classifier.size, lambda images: classifier.predict(network, {"inputs": images})["logits"], name)


@dataclass
class Encoder:
    """One line of the results: a network of a task as it was trained (`network`), or as it is for a seed.

    kind: "trained", "untrained", "supervised" or "pixels". kept: by the seed, the networks whose features were asked; two names
    for the same may share them.
    """

    name: str
    kind: str
    task: object  # a PretextTask, or Pixels
    architecture: str = ""  # the name it was chosen by, where it is not a trained one
    network: nn.Module | None = None
    kept: dict[int, Frozen] = field(default_factory=dict, repr=False)

    def is_by_chance(self, protocol: str, per_class: int | None) -> bool:
        """Whether another seed would give another result."""
        return protocol == "finetune" or per_class is not None or self.kind in (UNTRAINED, SUPERVISED)

    def fresh(self, seed: int) -> nn.Module:
        """The network to begin with: trained as it is, or drawn by the seed."""
        if self.network is not None:
            return self.network
        return fresh(self.task, seed).eval()

    def frozen(self, seed: int) -> Frozen:
        """The network whose features are asked, of those that need no labels."""
        assert self.kind != SUPERVISED
        key = seed if self.kind == UNTRAINED else 0
        if key not in self.kept:
            self.kept[key] = Frozen(self.name, self.task, self.fresh(seed))
        return self.kept[key]

    def width(self) -> int:
        """D, the number of features."""
        with torch.inference_mode():
            images = torch.zeros(1, 3, self.task.size, self.task.size, device=pick_device())
            return self.task.features(self.fresh(0).to(pick_device()).eval(), images)[0].flatten(1).shape[1]

    def taught(self, data: Labelled, places: np.ndarray, kind: str, seed: int, epochs: float | None):
        """A classifier and its network, trained from this network on the drawn labels."""
        photos, labels = data.train.take(places), data.train_labels[places]
        with tqdm(total=1.0, desc=f"{self.name}: {len(photos)} labels", file=sys.stderr, leave=False,
                  bar_format="{desc} {percentage:3.0f}% {elapsed} {postfix}") as bar:
            return teach(self.task, self.fresh(seed), self.width(), photos, labels, len(data.classes),
                         steps_for(kind, len(photos), epochs), seed, watch=lambda progress: bar.update(progress - bar.n))

    def score(self, data: Labelled, protocol: str, places: np.ndarray, seed: int, epochs: float | None = None) -> float:
        """The share of test photos told rightly after hearing the labels of the training photos at these places."""
        classes, labels = len(data.classes), data.train_labels[places]
        if protocol == "finetune" or self.kind == SUPERVISED:
            kind = SUPERVISED if self.kind == SUPERVISED else "finetune"
            classifier, network = self.taught(data, places, kind, seed, epochs)
            if protocol == "finetune":
                return probes.accuracy(answers(classifier, network, data.test, self.name), data.test_labels)
            frozen = Frozen(self.name, classifier, network)
        else:
            frozen = self.frozen(seed)
        train, test = frozen.features(data.train, places), frozen.features(data.test)
        if protocol == "knn":
            shares = probes.knn(train, labels, test, classes)
        else:
            shares, _ = probes.linear(train, labels, test, classes, seed)
        return probes.accuracy(shares, data.test_labels)


def choose(names: Sequence[str] = ()) -> list[Encoder]:
    """The encoders of these names, or (none) all bundled ones; `untrained` and `pixels` join them where they are missing.

    Raises ValueError for a name that stands for nothing.
    """
    tasks = all_tasks()
    names = names or [name for name in tasks if bundled(name)]
    bases = [name.removesuffix(f":{UNTRAINED}").removesuffix(f":{SUPERVISED}") for name in names]
    first = next((base for base in bases if base not in (UNTRAINED, SUPERVISED, PIXELS)), None)
    if first is None:
        first = next((name for name in tasks if bundled(name)), next(iter(tasks)))
    encoders = [_encoder(name, first) for name in dict.fromkeys([*names, UNTRAINED, PIXELS])]
    shared: dict[tuple, dict] = {}
    for encoder in encoders:
        encoder.kept = shared.setdefault((encoder.kind, encoder.architecture or encoder.name), encoder.kept)
    return encoders


def _encoder(name: str, first: str) -> Encoder:
    if name == PIXELS:
        return Encoder(name, PIXELS, Pixels(), network=nn.Identity())
    for kind in (UNTRAINED, SUPERVISED):
        if name == kind or name.endswith(f":{kind}"):
            base = first if name == kind else name.removesuffix(f":{kind}")
            return Encoder(name, kind, _trained(base, any_weights=False)[0], architecture=base)
    task, network = _trained(name)
    return Encoder(name, "trained", task, network=network)


def _trained(name: str, any_weights: bool = True) -> tuple[object, nn.Module]:
    """The task and the network that a name stands for; of a task without weights an untrained one, if that will do."""
    if name in all_tasks():
        return load_weights(name, None if any_weights or bundled(name) else UNTRAINED)
    if Path(name).suffix == ".safetensors":
        return load_weights(task_of(name), name)
    for task in all_tasks():
        if name in bundled(task):
            return load_weights(task, name)
    known = [*all_tasks(), UNTRAINED, PIXELS, SUPERVISED]
    raise ValueError(f"There is no encoder “{name}”; there are {', '.join(known)}, NAME:{UNTRAINED}, NAME:{SUPERVISED}, and "
                     "the .safetensors files that you have.")


def measure(encoder: Encoder, data: Labelled, protocol: str, per_class: int | None = None, seeds: int = 1, seed: int = 0,
            epochs: float | None = None) -> dict:
    """One result: the accuracy over so many draws of labels, and its standard deviation from draw to draw (None of one).

    Where nothing is left to chance, one draw is all there are.
    """
    start, accuracies = time.perf_counter(), []
    for number in range(seed, seed + (seeds if encoder.is_by_chance(protocol, per_class) else 1)):
        accuracies.append(encoder.score(data, protocol, data.draw(per_class, number), number, epochs))
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    result = {"encoder": encoder.name, "accuracy": statistics.fmean(accuracies), "seconds": time.perf_counter() - start,
              "spread": spread, "accuracies": accuracies, "features": encoder.width()}
    return result | ({"architecture": encoder.architecture} if encoder.architecture else {})


def transfer(data, names: Sequence[str] = (), protocol: str = "knn", per_class: int | None = None, seeds: int = 1, seed: int = 0,
             epochs: float | None = None) -> dict:
    """The report of the `transfer` command. Raises ValueError, in one sentence, for what a person did wrong."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"The protocol must be one of {', '.join(PROTOCOLS)}, not “{protocol}”.")
    encoders = choose(names)  # what is wrong with the names is said before the photos are read
    data = load_labelled(data, max(144, *(encoder.task.size for encoder in encoders)))
    data.draw(per_class, seed)
    try:
        results = [measure(encoder, data, protocol, per_class, seeds, seed, epochs) for encoder in encoders]
    except FloatingPointError as error:
        raise ValueError(str(error)) from None
    return {"protocol": protocol, "classes": len(data.classes), "class_names": data.classes, "labels_per_class": per_class,
            "seeds": seeds, "seed": seed, "train": len(data.train), "test": len(data.test), "skipped": data.train.skipped,
            "results": results}

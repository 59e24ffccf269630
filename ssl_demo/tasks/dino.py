"""DINO: two networks see different parts of a photo, and one learns to say of its part what the other says of the whole.

The idea. What a photo shows does not change with the part of it that is looked at. A student sees two large crops and some small
ones, a teacher the large ones only. Each spreads its answer over a thousand prototypes that nobody has named, and the student is
to give the teacher's answer to another crop: from a wheel, that of the car. The teacher is no other network: its weights are the
average of the student's over the last steps, which is a little better than the student at any time.

What could cheat. If both always gave the same answer they would agree, and know nothing: collapse. It has two forms, and a guard
against each. One prototype takes everything: so the teacher's mean answer, the centre, is taken off its answers. All prototypes
get the same: so the teacher's answers are made sharper than the student's by a lower temperature. Either guard alone leads to
what the other prevents. And crops of one photo have its colours in common, so colours are changed, dropped and blurred.

Where we differ from the paper. A transformer of 1.2 million parameters on crops of 48 and 24 px instead of 22 million on 224 and
96; patches of 8 px that come from small convolutions, since patches cut out at once take longer to learn (Xiao et al. 2021); 1024
prototypes instead of 65 536; a teacher that follows faster, as the training is short, and temperatures that do not change; no
solarised crops, and the last layer, whose prototypes all have length 1, learns from the first step.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import drawing, views
from ..contrastive import alignment, collapse_alarm, feature_spread, follow, uniformity
from ..pretext import Bar, Card, Chart, Control, Example, Line, Matrix, Number, Panel, Prediction, PretextTask, Recipe
from ..vit import VisionTransformer, principal_colors

TEACHER, STUDENT = 0.05, 0.1  # temperatures
GLOBAL, LOCAL = (0.4, 1.0), (0.1, 0.4)  # shares of a photo's area that large and small crops keep
FINE = 192  # pixels: the side at which the tab shows what is attended to


class Prototypes(nn.Module):
    """The projection head: class tokens (..., D) to their cosines with K prototypes, (..., K)."""

    def __init__(self, width: int, hidden: int, bottleneck: int, count: int):
        super().__init__()
        self.describe = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(),
                                      nn.Linear(hidden, bottleneck))
        self.prototypes = nn.Parameter(torch.randn(count, bottleneck))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(F.normalize(self.describe(tokens).float(), dim=-1), F.normalize(self.prototypes, dim=1)).float()


class SelfDistillation(nn.Module):
    """Two networks of one shape: the student learns by gradients, the teacher follows it. The centre is of the teacher's answers."""

    def __init__(self, encoder: VisionTransformer, head: Prototypes):
        super().__init__()
        self.student = nn.ModuleDict({"encoder": encoder, "head": head})
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(len(head.prototypes)))


def entropy(shares: Tensor) -> Tensor:
    """Of distributions (..., K), in nats: 0 where one takes all, log K where all get the same."""
    return torch.special.entr(shares).sum(dim=-1)


class DINO(PretextTask):
    card = Card(
        name="dino",
        title="Self-distillation",
        family="Bring views together",
        paper="Emerging Properties in Self-Supervised Vision Transformers",
        authors="Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin",
        year=2021,
        link="https://arxiv.org/abs/2104.14294",
        idea="A student sees parts of a photo and learns to answer as its own average of the last steps answers to the whole.",
        shortcut="Who always says the same always agrees. The teacher's mean answer is taken off its answers, so that no answer is "
        "everybody's, and a low temperature sharpens them, so that they are not all alike.",
        metric="accuracy",
        metric_label="Teacher and student agree",
        chance="agreement_shuffled",
        company=7,
        own_resolution=True,
    )
    controls = (
        Control("teacher_temperature", "Teacher's temperature", "slider", TEACHER, "Lower: sharper targets.",
                minimum=0.02, maximum=0.3, step=0.01),
        Control("student_temperature", "Student's temperature", "slider", STUDENT, "The paper's: 0.1.",
                minimum=0.02, maximum=0.3, step=0.01),
        Control("centring", "Centring", "toggle", True, "Off: what it prevents shows."),
    )
    defaults = {"size": 96, "view": 48, "local": 24, "locals": 4, "patch": 8, "width": 128, "depth": 6, "heads": 4, "stem": 24,
                "hidden": 512, "bottleneck": 64, "prototypes": 1024, "momentum": 0.98, "teacher_temperature": TEACHER,
                "student_temperature": STUDENT, "centring": True}
    recipe = Recipe(batch=64, lr=1e-3, crop=(1.0, 1.0), clip=3.0, warmup=0.1, ema=0.99)

    def __init__(self, **config):
        super().__init__(**config)
        for name in ("view", "local"):
            if self.config[name] % self.config["patch"] or not self.config[name]:
                raise ValueError(f"“{name}” ({self.config[name]}) must be a multiple of “patch” ({self.config['patch']}).")
        if self.config["locals"] < 0 or not 0 <= self.config["momentum"] <= 1:
            raise ValueError("“locals” cannot be negative, and “momentum” must be from 0 to 1.")

    def build(self) -> nn.Module:
        c = self.config
        encoder = VisionTransformer(c["patch"], c["width"], c["depth"], c["heads"], c["view"] // c["patch"], c["stem"])
        return SelfDistillation(encoder, Prototypes(c["width"], c["hidden"], c["bottleneck"], c["prototypes"]))

    def example(self, images: Tensor, rng: torch.Generator, teacher_temperature: float = TEACHER,
                student_temperature: float = STUDENT, centring: bool = True) -> Example:
        return {"images": images, **self._crops(images, rng, teacher_temperature, student_temperature, centring)}

    def training_example(self, images: Tensor, rng: torch.Generator) -> Example:
        return self._crops(images, rng, *(self.config[name] for name in ("teacher_temperature", "student_temperature", "centring")))

    def _crops(self, images: Tensor, rng: torch.Generator, *settings: float) -> Example:
        """Large crops (B, 2, 3, H, H) and small ones (B, L, 3, h, h), where they lie in the photo, and the settings, (B, 3)."""
        example = {"settings": torch.tensor(settings, dtype=torch.float32, device=images.device).repeat(len(images), 1)}
        for name, count, size, area in (("inputs", 2, self.config["view"], GLOBAL),
                                        ("locals", self.config["locals"], self.config["local"], LOCAL)):
            crops, boxes = zip(*(views.crop(images, rng, size, area) for _ in range(count))) if count else ((), ())
            if count:
                flat = torch.stack(crops, dim=1).flatten(0, 1)  # (B * count, 3, size, size)
                flat = views.drop_colors(views.change_colors(flat, rng), rng)
                flat = views.blur(flat, rng, sigma=(0.1, size / 48)) if name == "inputs" else flat
                example |= {name: flat.unflatten(0, (-1, count)), f"{name}_boxes": torch.stack(boxes, dim=1)}
        return {**example, "targets": example["inputs"]}  # what the teacher sees

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        tokens = [model.student["encoder"](example[name].flatten(0, 1))[:, 0].unflatten(0, example[name].shape[:2])
                  for name in ("inputs", "locals") if name in example]
        with torch.no_grad():
            features = model.teacher["encoder"](example["targets"].flatten(0, 1))[:, 0].unflatten(0, (-1, 2))  # (B, 2, D)
            answers = model.teacher["head"](features)
        prediction = {"student": model.student["head"](torch.cat(tokens, dim=1)), "teacher": answers,  # (B, V, K), (B, 2, K)
                      "features": features, "teacher_mean": answers.mean(dim=1), "centre": model.centre[None].clone()}
        if "images" in example:  # a tab looks at its photo closely
            photo = example.get("photo", example["images"][:1])
            photo = F.interpolate(photo, size=(FINE, FINE), mode="bilinear", antialias=True)
            prediction["patches"], prediction["attention"] = model.teacher["encoder"].attention(photo)
        return prediction

    def _answers(self, example: Example, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """The teacher's distributions (B, 2, K), centred and sharpened, and the logarithms of the student's, (B, V, K)."""
        sharp, soft, centring = example["settings"].T[:, :, None, None]
        teacher = ((prediction["teacher"] - centring * prediction["centre"]) / sharp).softmax(dim=2)
        return teacher, (prediction["student"] / soft).log_softmax(dim=2)

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        teacher, student = self._answers(example, prediction)
        cross = -torch.einsum("bik,bjk->bij", teacher, student)  # (B, 2, V): the cross-entropy of each pair of crops
        others = ~torch.eye(*cross.shape[1:], dtype=torch.bool, device=cross.device)  # a crop is no news to itself
        loss = cross[:, others].mean()
        with torch.no_grad():
            each = entropy(teacher).mean().item()
            numbers = {"feature_spread": feature_spread(prediction["features"][:, 0]).item(), "entropy_each": each,
                       "entropy_mean": entropy(teacher.mean(dim=(0, 1))).item(), "kl": loss.item() - each}
        return loss, numbers

    gathered = ("teacher_mean",)

    def after_step(self, model: nn.Module, example: Example, prediction: Prediction, progress: float) -> None:
        momentum = 1 - (1 - self.config["momentum"]) * (1 + math.cos(math.pi * progress)) / 2  # up to 1 along a cosine
        follow(model.teacher, model.student, momentum)
        model.centre.lerp_(prediction["teacher_mean"].mean(dim=0), 0.1)

    def alarm(self, numbers: dict[str, float]) -> str:
        """What answers tell of photos is the entropy of their mean less the mean of their entropies: 0 once they are all one."""
        mean, each = numbers["entropy_mean"], numbers["entropy_each"]
        if mean - each < 0.05:
            even = each > 0.9 * math.log(self.config["prototypes"])
            kind = "each prototype the same share" if even else "the same few prototypes"
            return f"collapse: the teacher gives all photos {kind} (entropy {each:.2f}, of their mean {mean:.2f})"
        return collapse_alarm(numbers["feature_spread"])

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        teacher, student = (shares.argmax(dim=2) for shares in self._answers(example, prediction))
        same = (teacher[:, None] == student[None, :, :2].flip(2)).float().mean(dim=2)  # (B, B): each to the other's other crop
        features, one = F.normalize(prediction["features"].float(), dim=2), torch.ones_like(same[0])
        return {
            "accuracy": same.diagonal(),
            "agreement_shuffled": (same.sum(dim=1) - same.diagonal()) / max(1, len(same) - 1),  # with other photos' student
            "candidates": one * teacher.new_tensor(self.config["prototypes"]),
            "alignment": alignment(features),
            "uniformity": one * uniformity(features[:, 0]),
            "feature_spread": one * feature_spread(features[:, 0]),
        }

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        tokens = model.teacher["encoder"](images)  # (B, 1 + N, D)
        side = round((tokens.shape[1] - 1) ** 0.5)
        return tokens[:, 0], tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))

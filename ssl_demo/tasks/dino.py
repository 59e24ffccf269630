r"""DINO: two networks see different parts of a photo, and one learns to say of its part what the other says of the whole.

The idea. What a photo shows does not change with the part of it that is looked at. A student sees two large crops and some small
ones, a teacher the large ones only. Each spreads its answer over a thousand prototypes without names, and the student is to give
the teacher's answer to another crop: from a wheel, that of the car. The teacher is the average of the student's last steps.

What could cheat. If both always gave the same answer they would agree, and know nothing: collapse. It has two forms, and a guard
against each. One prototype takes everything: so the teacher's mean answer, the centre, is taken off its answers (in training
something stronger takes the centre's place, see below). All prototypes
get the same: so a lower temperature makes the teacher's answers sharper. Crops also share a photo's colours: those are changed.

The loss. $$L = -\sum_{u \neq v} \mathrm{softmax}((t_u - c) / \tau_t) \cdot \log \mathrm{softmax}(s_v / \tau_s)$$ over large crops
$u$ and all crops $v$: $t$ and $s$ are the teacher's and student's answers, $c$ the centre.

Where we differ from the paper. One transformer block and crops of 64 and 32 px, not twelve and 224 and 96; its patches of 16 px
come from a small residual network (Xiao et al. 2021), and its class token begins as their mean; 1024 prototypes, not 65 536,
behind a head with batch norm; a teacher that follows much faster; constant temperatures. In training, Sinkhorn-Knopp's iteration
evens out the teacher's answers to a batch, as in SwAV and DINOv2; the centre, which one photo can have, runs along.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import drawing, views
from ..contrastive import alignment, collapse_alarm, entropy, feature_spread, follow, overlap, shared_out, uniformity
from ..pretext import Card, Chart, Control, Example, Line, Matrix, Number, Panel, Prediction, PretextTask, Recipe
from ..vit import Prototypes, VisionTransformer, lit_by_heads, principal_colors

TEACHER, STUDENT = 0.04, 0.1  # temperatures
GLOBAL, LOCAL = (0.4, 1.0), (0.1, 0.4)  # shares of a photo's area that large and small crops keep
LOOK, SHOW = 384, 192  # pixels: the side at which the tab looks at its photo, and at which it shows what it saw


class SelfDistillation(nn.Module):
    """Two networks of one shape: the student learns by gradients, the teacher follows it."""

    def __init__(self, encoder: VisionTransformer, head: Prototypes):
        super().__init__()
        self.student = nn.ModuleDict({"encoder": encoder, "head": head})
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(len(head.prototypes)))


class DINO(PretextTask):
    card = Card(
        name="dino",
        title="DINO",
        family="Bring views together",
        paper="Emerging Properties in Self-Supervised Vision Transformers",
        authors="Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin",
        year=2021,
        link="https://arxiv.org/abs/2104.14294",
        idea="A student sees parts of a photo and learns to answer as its own average of the last steps answers to the whole.",
        shortcut="Who always says the same always agrees. The teacher's mean answer is taken off its answers, so that none is "
        "everybody's, and a low temperature sharpens them, so that they do not all become the same mixture.",
        metric="accuracy", metric_label="Teacher and student agree", chance="agreement_shuffled",
        untrained_note="Untrained, it says the same of every photo, and so agrees.",
        also=("kappa", "kappa_shuffled", "beyond what shuffled photos agree"),
        company=7,
        overview=("attention", "recognised"),
        own_resolution=True,
    )
    controls = (
        Control("teacher_temperature", "Teacher", "slider", TEACHER, "Its temperature.", minimum=0.02, maximum=0.3, step=0.01),
        Control("student_temperature", "Student", "slider", STUDENT, "Its temperature.", minimum=0.02, maximum=0.3, step=0.01),
        Control("centring", "Centring", "toggle", True, "Off: shows what for."),
    )
    defaults = {"size": 96, "view": 64, "local": 32, "locals": 2, "stem_width": 44, "stem_depths": [2, 2, 2], "width": 176,
                "depth": 1, "heads": 4, "hidden": 256, "bottleneck": 128, "prototypes": 1024, "momentum": 0.95,
                "teacher_temperature": TEACHER, "student_temperature": STUDENT, "centring": True, "sinkhorn": 3}
    recipe = Recipe(batch=64, optimizer="muon", lr=4e-3, crop=(1.0, 1.0), clip=3.0, warmup=0.1, ema=0.99)
    knobs = (Control("momentum", "Momentum", "slider", 0.95, "Of the teacher.", 0.5, 0.999, 0.001), controls[0], controls[2])

    def __init__(self, **config):
        super().__init__(**config)
        for name in ("view", "local"):
            if self.config[name] % self.patch or not self.config[name]:
                raise ValueError(f"“{name}” ({self.config[name]}) must be a multiple of {self.patch}, the patches' side.")
        if self.config["locals"] < 1 or self.config["sinkhorn"] < 0 or not 0 <= self.config["momentum"] <= 1:
            raise ValueError("“locals” must be at least 1, “sinkhorn” at least 0, and “momentum” from 0 to 1.")

    @property
    def patch(self) -> int:
        """The side of a patch, in pixels: the stem halves twice, and once more with each stage but the first."""
        return 2 ** (len(self.config["stem_depths"]) + 1)

    def build(self) -> nn.Module:
        c = self.config
        shape = {name: c[name] for name in ("stem_width", "stem_depths", "width", "depth", "heads")}
        head = Prototypes(c["width"], c["hidden"], c["bottleneck"], c["prototypes"])
        return SelfDistillation(VisionTransformer(**shape, trained=c["view"] // self.patch), head)

    def example(self, images: Tensor, rng: torch.Generator, teacher_temperature: float = TEACHER,
                student_temperature: float = STUDENT, centring: bool = True) -> Example:
        return {"images": images, **self._crops(images, rng, teacher_temperature, student_temperature, centring)}

    def training_example(self, images: Tensor, rng: torch.Generator) -> Example:
        settings = (self.config[name] for name in ("teacher_temperature", "student_temperature", "centring"))
        return self._crops(images, rng, *settings)

    def _crops(self, images: Tensor, rng: torch.Generator, *settings: float) -> Example:
        """Large crops (B, 2, 3, H, H) and small ones (B, L, 3, h, h), where they lie in the photo, and the settings, (B, 3)."""
        example = {"settings": torch.tensor(settings, dtype=torch.float32, device=images.device).repeat(len(images), 1)}
        kinds = ("inputs", 2, self.config["view"], GLOBAL), ("locals", self.config["locals"], self.config["local"], LOCAL)
        for name, count, size, area in kinds:
            crops, boxes = zip(*(views.crop(images, rng, size, area) for _ in range(count)))
            flat = torch.stack(crops, dim=1).flatten(0, 1)  # (B * count, 3, size, size)
            flat = views.drop_colors(views.change_colors(flat, rng), rng)
            flat = views.blur(flat, rng, sigma=(0.1, size / 48)) if name == "inputs" else flat
            example |= {name: flat.unflatten(0, (-1, count)), f"{name}_boxes": torch.stack(boxes, dim=1)}
        return {**example, "targets": example["inputs"]}  # what the teacher sees

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        tokens = [model.student["encoder"](example[name].flatten(0, 1))[:, 0].unflatten(0, example[name].shape[:2])
                  for name in ("inputs", "locals")]
        with torch.no_grad():
            features = model.teacher["encoder"](example["targets"].flatten(0, 1))[:, 0].unflatten(0, (-1, 2))  # (B, 2, D)
            answers = model.teacher["head"](features)
        prediction = {"student": model.student["head"](torch.cat(tokens, dim=1)), "teacher": answers,  # (B, V, K), (B, 2, K)
                      "features": features, "centre": model.centre[None].clone()}
        if "images" in example:  # a tab looks at its photo closely
            prediction["patches"], prediction["attention"] = model.teacher["encoder"].attention(self._closely(example, LOOK))
        return prediction

    def _answers(self, example: Example, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """The teacher's distributions (B, 2, K), centred and sharpened, and the logarithms of the student's, (B, V, K)."""
        sharp, soft, centring = example["settings"][0]  # one for the whole batch, which may be all processes'
        teacher = ((prediction["teacher"] - centring * prediction["centre"]) / sharp).softmax(dim=2)
        return teacher, (prediction["student"] / soft).log_softmax(dim=2)

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        answers, student = self._answers(example, prediction)
        teacher, (sharp, _, centring) = answers, example["settings"][0]
        if self.config["sinkhorn"] and centring:  # in the centre's place where there is a batch, and off where it is off
            teacher = shared_out(prediction["teacher"] / sharp, self.config["sinkhorn"])
        cross = -(teacher[:, :, None] * student[:, None]).sum(dim=3)  # (B, 2, V): the cross-entropy of each pair of crops
        others = ~torch.eye(*cross.shape[1:], dtype=torch.bool, device=cross.device)  # a crop is no news to itself
        loss = cross[:, others].mean()
        each, mean, target = (entropy(shares).mean().item() for shares in (answers, answers.mean(dim=(0, 1)), teacher))
        spread = feature_spread(prediction["features"][:, 0]).item()
        return loss, {"feature_spread": spread, "entropy_each": each, "entropy_mean": mean, "kl": loss.item() - target}

    gathered = ("teacher", "student")  # prototypes are shared out over the whole batch, and the centre is its mean

    def after_step(self, model: nn.Module, example: Example, prediction: Prediction, progress: float) -> None:
        momentum = 1 - (1 - self.config["momentum"]) * (1 + math.cos(math.pi * progress)) / 2  # up to 1 along a cosine
        follow(model.teacher, model.student, momentum)
        model.centre.lerp_(prediction["teacher"].mean(dim=(0, 1)), 0.1)

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

    def aggregate(self, per_example: dict[str, Tensor]) -> dict[str, float]:
        """Means, and Cohen's kappa: what is agreed beyond what would be if photos were shuffled, 0 where all is said of all."""
        m = super().aggregate(per_example)
        return {**m, "kappa": 1 - (1 - m["accuracy"]) / max(1 - m["agreement_shuffled"], 1e-6), "kappa_shuffled": 0.0}

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        teacher, student = (shares.float().cpu() for shares in self._answers(example, prediction))
        answers = teacher[:, 0], student[:, 1].exp()  # (B, K) each: the teacher's to one large crop, the student's to the other
        used, raw = (shares.sort(descending=True).values.cpu() for shares in self._used(example, prediction))  # (K,)
        large = [tuple(drawing.picture(crop) for crop in example["inputs"][:, view]) for view in (0, 1)]
        seen = [crops[0] for crops in large], [drawing.picture(crop) for crop in example["locals"][0]]
        both, small = (drawing.side_by_side([crop.repeat(4, 0).repeat(4, 1) for crop in crops], 8) for crops in seen)
        photo, outlines = drawing.picture(self._closely(example, SHOW)[0]), []
        for name, color in (("locals_boxes", "#f0a500"), ("inputs_boxes", "#2f6fb7")):
            outlines += [(*(round(SHOW * box[n]) for n in (1, 0, 2)), color) for box in example[name][0].tolist()]
        lit = lit_by_heads(photo, prediction["attention"][0])
        order = answers[0][0].argsort(descending=True, stable=True)[:20]
        lines = tuple(Line(name, tuple(shares[0, order].tolist())) for name, shares in zip(("teacher", "student"), answers))
        ranks = sorted({round(len(used) ** (step / 40)) for step in range(41)})  # evenly along a logarithmic axis
        curves = tuple(Line(name, tuple(s[[n - 1 for n in ranks]].tolist())) for name, s in (("centred", used), ("raw", raw)))
        pairs = overlap(*answers).numpy()
        return [
            Panel("photo", "Your photo", "Blue: large crops. Amber: small ones.", "photo", drawing.boxes(photo, outlines, 2)),
            Panel("large", "Large crops", "The teacher sees these only.", "sees", both),
            Panel("small", "Small crops", "For the student, beside the large.", "sees", small),
            Panel("answers", "Their answers", "To one large crop each; the teacher's likeliest.", "answers",
                  chart=Chart(tuple(map(float, range(1, 1 + len(order)))), lines, "prototypes, by the teacher's share", "share")),
            Panel("attention", "Where it looks", f"{len(lit)} heads of the last block.", "answers",
                  drawing.tile_board(lit, zoom=1)),
            Panel("components", "What its patches say", "Like colours, like features (PCA).", "answers",
                  principal_colors(prediction["patches"][0, 1:], SHOW)),
            Panel("pairs", "Who answers alike", "Teacher down, student across.", "judged",
                  matrix=Matrix(pairs, 0.0, 1.0, *large, tuple((n, n) for n in range(len(pairs))), what="overlap")),
            Panel("collapse", "What centring does", f"Entropy {entropy(used):.1f} with, {entropy(raw):.1f} without.", "judged",
                  chart=Chart(tuple(map(float, ranks)), curves, "prototypes, by use", "share of all targets", log_x=True,
                              level=("even", 1 / len(used)))),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        teacher, student = self._answers(example, prediction)
        metrics, (used, raw) = self.metrics(example, prediction), self._used(example, prediction)
        mine, theirs = (entropy(shares[0]).mean().item() for shares in (teacher, student[:, :2].exp()))
        cross = -(teacher[0] * student[0, :2].flip(0)).sum(dim=1).mean().item()
        found = (overlap(teacher[:, 0], student[:, 1].exp()).argmax(dim=1).cpu() == torch.arange(len(teacher))).sum().item()
        own, spread = (metrics[name][0].item() for name in ("accuracy", "feature_spread"))
        most, most_raw, top = used.max().item(), raw.max().item(), math.log(len(used))
        return {
            "agreement": Number("Same favourite", own, f"{round(2 * own)} of 2", "your photo's large crops, each way"),
            "recognised": Number("Told by its answer", found / len(teacher), f"{found} of {len(teacher)}",
                                 f"photos here; by chance 1 of {len(teacher)}"),
            "entropy_teacher": Number("Teacher's entropy", mine, f"{mine:.2f}", f"from 0 (one) to {top:.2f} (all)"),
            "entropy_student": Number("Student's entropy", theirs, f"{theirs:.2f}", "the lower, the surer"),
            "kl": Number("KL divergence", cross - mine, f"{cross - mine:.2f}", "what the student has still to learn of these"),
            "most_used": Number("Most used prototype", most, f"{most:.1%}", f"of all targets; without centring {most_raw:.1%}"),
            "most_used_raw": Number("Most used, not centred", most_raw),
            "entropy_mean": Number("Entropy of the mean answer", entropy(used).item()),
            "entropy_mean_raw": Number("Entropy of the mean answer, not centred", entropy(raw).item()),
            "feature_spread": Number("Feature spread", spread, f"{spread:.2f}", "0: collapsed, 1: even"),
        }

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        tokens = model.teacher["encoder"](images)  # (B, 1 + N, D), finer than in training: whole photos of 96 px
        return tokens[:, 0], tokens[:, 1:].transpose(1, 2).unflatten(2, (round((tokens.shape[1] - 1) ** 0.5), -1))

    def _closely(self, example: Example, side: int) -> Tensor:
        """The visitor's photo closer than crops are, (1, 3, side, side)."""
        return F.interpolate(example.get("photo", example["images"][:1]), size=(side, side), mode="bilinear", antialias=True)

    def _used(self, example: Example, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Each prototype's share of all targets, (K,), with the centre taken off and without."""
        sharp, centre = example["settings"][0, 0], prediction["centre"]
        return tuple(((prediction["teacher"] - taken) / sharp).softmax(dim=2).mean(dim=(0, 1)) for taken in (centre, 0 * centre))

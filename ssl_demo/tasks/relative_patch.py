r"""Relative patch prediction: two patches of a photo, and the question which of eight places the second came from.

The idea. Given an ear, where is the other patch, the one with an eye? To answer, a network has to recognise the ear, the eye, and
the thing they belong to. Nobody labels anything: we know the places because we cut the patches out.

What could cheat. Lines and textures that run on across a common border: so a gap of half a patch lies between patches, and each
is moved by a random jitter. And lenses that focus colours a little differently towards a photo's edge (chromatic aberration),
which tells where in the photo a patch lies, content or not: so colours are projected to leave out the green-magenta axis, or
all but one channel are dropped. Each guard can be switched off here.

The loss. The cross-entropy of the true place: $$L = -\frac{1}{40} \sum_{(a, b)} \log p_{ab}(d_{ab})$$ over all ordered pairs of
neighbours $a, b$ among the nine patches, where $d_{ab}$ is the direction in which $b$ lies from $a$, one of eight.

Where we differ from the paper. A small residual network instead of an AlexNet-like one, patches of 32 px from photos of 144
instead of 96 from larger ones. Nine patches are encoded once, and in training every ordered pair of neighbours among them is
asked, 40 in all: a question more costs next to nothing. The score is that of the eight around the centre. Photos this small keep
hardly any aberration: the guard costs little and gains little.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import drawing
from ..nets import ResidualEncoder
from ..pretext import Bar, Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe
from ..questions import Question, choices

NAMES = ("above left", "above", "above right", "left", "right", "below left", "below", "below right")
STEPS = torch.tensor([(0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])  # the centre first
# Every ordered pair of neighbours in the grid and the place, among `NAMES`, of its second patch: the centre's eight pairs first.
PAIRS = torch.tensor([(a, b, (STEPS[1:] == STEPS[b] - STEPS[a]).all(dim=1).nonzero().item())
                      for a in range(9) for b in range(9) if a != b and (STEPS[b] - STEPS[a]).abs().max() == 1])  # (40, 3)


class PatchPairNet(nn.Module):
    """One encoder for every patch, then a classifier of two encoded patches, `layers` deep (the paper's fc6 to fc9).

    The classifier's first layer sees the two side by side, which is a layer for each and their sum.
    """

    def __init__(self, width: int, depths: tuple[int, ...], patch: int, hidden: int, layers: int):
        super().__init__()
        self.encoder = ResidualEncoder(width, tuple(depths))
        cells = (-(-patch // 16)) ** 2  # of the encoder's map
        self.describe = nn.Sequential(nn.Flatten(), nn.Linear(self.encoder.width * cells, hidden), nn.ReLU())
        self.first, self.second = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        deeper = [layer for _ in range(layers - 1) for layer in (nn.Linear(hidden, hidden), nn.ReLU())]
        self.compare = nn.Sequential(nn.ReLU(), *deeper, nn.Linear(hidden, len(NAMES)))


class RelativePatch(PretextTask):
    card = Card(
        name="relative_patch",
        title="Relative patch",
        family="Predict a transformation",
        paper="Unsupervised Visual Representation Learning by Context Prediction",
        authors="Doersch, Gupta, Efros",
        year=2015,
        link="https://arxiv.org/abs/1505.05192",
        idea="Show two patches of a photo and ask where the second lay: to place the eye beside the ear, one must know both.",
        shortcut="Lines that run on across a common border, and colour fringes that lenses leave towards a photo's edge. A gap "
        "of half a patch, jitter and projected colours take both away; switch them off to see the difference.",
        metric="accuracy",
        metric_label="Neighbours placed correctly",
        chance=0.125,
        paper_score="about 40% (ImageNet)",
        overview=("correct_of_eight",),
        learned=("pair", "places", "all", "correct_of_eight"),
    )
    controls = (
        Control("neighbour", "Neighbour", "choice", "random", "The one asked for.", choices=("random", *NAMES), fixes=True),
        Control("gap", "Gap (%)", "slider", 50, "Of a patch's side.", minimum=0, maximum=50, step=1),
        Control("colors", "Colours", "choice", "projected", "The guard against aberration.",
                choices=("projected", "dropped", "all")),
        Control("centre", "Centre", "point", "", "Where the centre lies, in per cent from the left and from the top."),
    )
    defaults = {"size": 144, "width": 48, "depths": [2, 2, 2], "patch": 32, "jitter": 2, "hidden": 512, "layers": 2}
    recipe = Recipe(batch=96, optimizer="muon", lr=6e-3, crop=(0.8, 1.0), color=0.2)
    quick = {"batch": 8}  # of a few photos: more steps in a minute, not more patches
    knobs = (Control("jitter", "Patches moved by", "slider", 2, "Pixels, so that no line runs on.", maximum=7),)

    def input_size(self, centre: str = "", **controls) -> int:
        """A chosen centre gets a photo a quarter larger, or the grid of nine, nearly as large as the photo, could hardly move."""
        return self.size * 5 // 4 if centre else self.size

    def build(self) -> nn.Module:
        return PatchPairNet(*(self.config[name] for name in ("width", "depths", "patch", "hidden", "layers")))

    def example(self, images: Tensor, rng: torch.Generator, neighbour: str = "random", gap: float = 50, colors: str = "projected",
                centre: str = "") -> Example:
        B, patch, jitter = len(images), self.config["patch"], self.config["jitter"]
        stride = patch + round(patch * gap / 100)
        room = images.shape[-1] - (2 * stride + patch + 2 * jitter)  # how far the grid of nine can move
        assert room >= 0, "the nine patches do not fit the photo"
        corner = torch.rand(B, 2, generator=rng) * room
        moved = torch.randint(-jitter, jitter + 1, (B, 9, 2), generator=rng)
        asked = torch.randint(8, (B,), generator=rng)
        if centre:
            x, y = (float(number) / 100 * images.shape[-1] for number in centre.split())
            corner = (torch.tensor([[y, x]]) - patch / 2 - stride - jitter).clamp(0, room).expand(B, 2)
        if neighbour != "random":
            asked = torch.full_like(asked, NAMES.index(neighbour))
        places = corner.round().long()[:, None] + jitter + (STEPS + 1) * stride + moved  # (B, 9, 2): rows and columns of corners
        inputs = guard(cut(images, places.to(images.device), patch), colors, rng)
        targets = PAIRS[:, 2].to(images.device).expand(B, -1)  # (B, 40)
        return {"images": images, "inputs": inputs, "places": places, "asked": asked, "targets": targets}

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        described = model.describe(model.encoder(example["inputs"].flatten(0, 1))).unflatten(0, (-1, 9))  # (B, 9, D)
        pairs = model.first(described)[:, PAIRS[:, 0]] + model.second(described)[:, PAIRS[:, 1]]  # (B, 40, D)
        return {"logits": model.compare(pairs)}  # (B, 40, 8)

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        return F.cross_entropy(prediction["logits"].float().flatten(0, 1), example["targets"].flatten()), {}

    def guessing(self, batch: int) -> float:
        return math.log(len(NAMES))

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        correct = (prediction["logits"].argmax(dim=2) == example["targets"])[:, :8].float().mean(dim=1)  # the centre's pairs
        return {"accuracy": correct, "classes": torch.full_like(correct, len(NAMES))}

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        patch, asked, places = self.config["patch"], int(example["asked"][0]), example["places"][0].tolist()
        probabilities = prediction["logits"][0, asked].float().softmax(dim=0)
        answer, photo = int(probabilities.argmax()), drawing.picture(example["images"][0])
        outlined = drawing.boxes(photo, [(*places[0], patch, "#4aa3ff"), (*places[1 + asked], patch, "#ff9d2e")])
        two = [drawing.picture(example["inputs"][0, number]) for number in (0, 1 + asked)]
        grid = torch.cat([probabilities[:4], torch.zeros(1), probabilities[4:]]).reshape(3, 3)
        middle = [(row + patch / 2, column + patch / 2) for row, column in places]
        answers = prediction["logits"][0, :8].argmax(dim=1).tolist()
        right = sum(k == a for k, a in enumerate(answers))
        return [
            Panel("photo", "Your photo", "Blue: centre.", "photo", outlined,
                  click="Click to move it."),
            Panel("pair", "The two patches", "In the colours the network is left.", "sees", drawing.side_by_side(two)),
            Panel("places", "Where it puts it", f"Framed: where it was, {NAMES[asked]}.", "answers",
                  drawing.board(grid, framed=asked + (asked > 3))),
            Panel("all", "All eight neighbours", f"{right} of 8 right; arrows: its answers.", "answers",
                  drawing.moves(photo, [(middle[1 + k], middle[1 + a]) for k, a in enumerate(answers)])),
            Panel("probabilities", "How sure it is", "The true place is marked.", "judged",
                  bars=tuple(Bar(NAMES[k], probabilities[k].item(), k == asked, k == answer) for k in range(8))),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        logits, asked = prediction["logits"][0, :8].float(), int(example["asked"][0])
        answer, probability = int(logits[asked].argmax()), logits[asked].softmax(dim=0)[asked].item()
        right = int((logits.argmax(dim=1) == example["targets"][0, :8]).sum())
        loss = F.cross_entropy(logits, example["targets"][0, :8]).item()
        return {
            "truth": Number("The neighbour lay", asked, NAMES[asked]),
            "answer": Number("It answers", answer, NAMES[answer]),
            "correct": Number("Right", int(answer == asked), "yes" if answer == asked else "no"),
            "probability_true": Number("Given to the true place", probability, f"{probability:.1%}", "chance: 12.5 %"),
            "correct_of_eight": Number("Right of all eight", right, f"{right} of 8", "chance: 1 of 8"),
            "loss": Number("Loss over all eight", loss, f"{loss:.2f}", "cross-entropy; guessing gives ln 8 = 2.08"),
        }

    def question(self, example: Example, prediction: Prediction) -> Question:
        asked = int(example["asked"][0])
        centre, other = (drawing.picture(example["inputs"][0, number]) for number in (0, 1 + asked))
        return Question("Where did the right patch lie, seen from the left one?",
                        choices(NAMES, prediction["logits"][0, asked].float().softmax(dim=0)), asked,
                        drawing.side_by_side([centre, other], square=False), "Two patches of a photo",
                        "All that the network is shown, in the colours it is left.", board=True, middle=centre)

    def click(self, panel: str, x: float, y: float, example: Example) -> dict:
        return {"centre": f"{100 * x:.1f} {100 * y:.1f}"}

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        grid = model.encoder(images)  # (B, D, h, w)
        return grid.mean(dim=(2, 3)), grid


def cut(images: Tensor, places: Tensor, patch: int) -> Tensor:
    """Patches (B, P, 3, patch, patch) whose upper left corners lie at places (B, P, 2): rows and columns, whole pixels."""
    along = torch.arange(patch, device=images.device)
    rows, columns = places[:, :, 0, None] + along, places[:, :, 1, None] + along  # (B, P, patch)
    which = torch.arange(len(images), device=images.device)[:, None, None, None]
    return images.permute(0, 2, 3, 1)[which, rows[..., :, None], columns[..., None, :]].permute(0, 1, 4, 2, 3)


def guard(patches: Tensor, colors: str, rng: torch.Generator) -> Tensor:
    """Patches without what chromatic aberration leaves (section 3.1): colours projected, two channels dropped, or as they are."""
    if colors == "projected":  # along green against magenta, a = (-1, 2, -1): B = I - aa' / a'a
        axis = torch.tensor([-1.0, 2.0, -1.0], device=patches.device)
        return torch.einsum("bpchw,cd->bpdhw", patches, torch.eye(3, device=patches.device) - axis[:, None] * axis / 6)
    if colors == "dropped":  # all channels but one replaced by faint noise
        keep = F.one_hot(torch.randint(3, patches.shape[:2], generator=rng), 3)[..., None, None].to(patches)
        noise = 0.5 + 0.01 * torch.randn(patches.shape, generator=rng).to(patches)
        return patches * keep + noise * (1 - keep)
    return patches

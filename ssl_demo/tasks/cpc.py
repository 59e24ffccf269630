"""Contrastive predictive coding (CPC): from the upper rows of patches, tell which patch lies below.

The idea. Soon.

What could cheat. Soon.

Where we differ from the paper. Soon.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import contrastive, nets, views
from ..pretext import Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe

# isort: split
from timm.layers import LayerNorm2d
from timm.models.resnet import BasicBlock, downsample_conv

MEAN, SPREAD = 0.45, 0.27  # of photos' pixels, roughly


class PatchEncoder(nn.Module):
    """A small residual network for one patch, (M, 3, p, p) to (M, D): patches never meet in it."""

    def __init__(self, patch: int, width: int, depths: tuple[int, ...], out: int):
        super().__init__()
        layers, channels = [nn.Conv2d(3, width, 8, 4, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)], width
        for stage, depth in enumerate(depths):
            for block in range(depth):
                wider = stage > 0 and block == 0
                shortcut = downsample_conv(channels, 2 * channels, kernel_size=1, stride=2) if wider else None
                layers.append(BasicBlock(channels, width * 2**stage, 2 if wider else 1, downsample=shortcut))
                layers[-1].zero_init_last()  # every block starts as the identity
                channels = width * 2**stage
        cells = (-(-(patch // 4) // 2 ** (len(depths) - 1))) ** 2  # of the map, which is read whole, not averaged
        layers += [nn.Flatten(), nn.Linear(channels * cells, out, bias=False), nn.BatchNorm1d(out), nn.ReLU(inplace=True)]
        self.layers, self.width = nn.Sequential(*layers), out

    def forward(self, patches: Tensor) -> Tensor:
        return self.layers((patches - MEAN) / SPREAD)


class RowsAbove(nn.Module):
    """A residual block over the grid (B, D, rows, columns) that looks at a place's own row and the one above."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = LayerNorm2d(width)
        self.look, self.add = nn.Conv2d(width, width // 2, (2, 3)), nn.Conv2d(width // 2, width, 1)

    def forward(self, grid: Tensor) -> Tensor:
        return grid + self.add(F.relu(self.look(F.pad(self.norm(grid), (1, 1, 1, 0)))))


class CPCNet(nn.Module):
    """Encoder of patches, context of rows, and for each number of rows below a linear prediction W_k."""

    def __init__(self, side: int, patch: int, width: int, depths: tuple[int, ...], features: int, embedding: int, head: str):
        super().__init__()
        self.encoder = PatchEncoder(patch, width, tuple(depths), features)
        D = features
        self.context = nn.Sequential(*[RowsAbove(D) for _ in range(max(1, side - 2))], LayerNorm2d(D))
        self.below = nn.ModuleList(nn.Linear(D, embedding, bias=False) for _ in range(side - 1))  # W_k, k = 1 ... side - 1
        if head == "mlp":
            self.project = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, embedding, bias=False))
        else:
            self.project = nn.Linear(D, embedding, bias=False)

    def encode(self, patches: Tensor) -> Tensor:
        """z: patches (B, N, 3, p, p), each by itself, to (B, N, D)."""
        return self.encoder(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])


class CPC(PretextTask):
    card = Card(
        name="cpc",
        title="Contrastive predictive coding",
        family="Bring views together",
        paper="Representation Learning with Contrastive Predictive Coding",
        authors="van den Oord, Li, Vinyals",
        year=2018,
        link="https://arxiv.org/abs/1807.03748",
        idea="Cut a photo into overlapping patches and tell, from the upper rows alone, which of many patches lies further down: "
        "what upper and lower parts share is what the photo shows.",
        shortcut="Soon, what could cheat, and what guards against it.",
        metric="accuracy",
        metric_label="Patches found",
        chance="chance",
        company=7,
    )
    controls = ()
    defaults = {"size": 96, "cell": 32, "stride": 16, "patch": 24, "width": 64, "depths": [1, 2], "features": 256, "embedding": 128,
                "skip": 1, "temperature": 0.1, "disturb": 1.0, "head": "linear"}
    recipe = Recipe(batch=64, lr=2e-3, crop=(0.4, 1.0))

    @property
    def side(self) -> int:
        """Patches in a row of the grid, and rows."""
        return (self.config["size"] - self.config["cell"]) // self.config["stride"] + 1

    def asked(self) -> tuple[Tensor, Tensor]:
        """Of all Q questions the k (Q,) and the number of the patch that is right (Q,), smallest k first."""
        side = self.side
        return tuple(torch.tensor([(k, patch + k * side) for k in range(1, side) for patch in range((side - k) * side)]).T)

    def build(self) -> nn.Module:
        names = ("patch", "width", "depths", "features", "embedding", "head")
        return CPCNet(self.side, **{name: self.config[name] for name in names})

    def example(self, images: Tensor, rng: torch.Generator, disturbed: bool = True) -> Example:
        B, N, slack, device = len(images), self.side**2, self.config["cell"] - self.config["patch"], images.device
        jitter = torch.randint(slack + 1, (2, B, N), generator=rng).to(device)
        patches = self._cut(images, jitter if disturbed else None)
        strength = self.config["disturb"] * disturbed
        flat = views.drop_colors(views.change_colors(patches.flatten(0, 1), rng, strength), rng, 0.2 * strength)
        return {"inputs": flat.unflatten(0, (B, N)), "targets": self.asked()[1].to(device).expand(B, -1)}

    def _cut(self, images: Tensor, jitter: Tensor | None) -> Tensor:
        """Patches (B, N, 3, p, p), each somewhere in its cell of the grid, or in the middle of it."""
        cell, stride, patch = (self.config[name] for name in ("cell", "stride", "patch"))
        number, along = torch.arange(self.side**2, device=images.device), torch.arange(patch, device=images.device)
        if jitter is None:
            jitter = torch.full((2, len(images), len(number)), (cell - patch) // 2, device=images.device)
        rows = (number // self.side * stride + jitter[0])[:, :, None] + along  # (B, N, p)
        columns = (number % self.side * stride + jitter[1])[:, :, None] + along
        photo = torch.arange(len(images), device=images.device)[:, None, None, None]
        return images.permute(0, 2, 3, 1).contiguous()[photo, rows[:, :, :, None], columns[:, :, None, :]].movedim(-1, 2)

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        z = model.encode(example["inputs"])  # (B, N, D)
        side = self.side
        context = model.context(z.transpose(1, 2).unflatten(2, (side, side))).flatten(2).transpose(1, 2)  # (B, N, D)
        easy = self.config["skip"]
        below = [W(context[:, : (side - k) * side].detach() if k <= easy else context[:, : (side - k) * side])
                 for k, W in enumerate(model.below, start=1)]
        return {"z": z, "keys": F.normalize(model.project(z).float(), dim=2),  # (B, N, E)
                "predicted": F.normalize(torch.cat(below, dim=1).float(), dim=2)}  # (B, Q, E)

    gathered = ("keys", "predicted")

    def _compare(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Cosines of all questions with all patches of all photos, (B * Q, B * N), and which is right, (B * Q,)."""
        keys, predicted = prediction["keys"], prediction["predicted"]
        k, target = (table.to(keys.device) for table in self.asked())
        right = (torch.arange(len(keys), device=keys.device)[:, None] * keys.shape[1] + target).flatten()
        return predicted.flatten(0, 1) @ keys.flatten(0, 1).T, right

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        k = self.asked()[0].to(prediction["keys"].device)
        hard = k > self.config["skip"]
        keys, predicted = prediction["keys"], prediction["predicted"]
        B, N = keys.shape[:2]
        positive = self.asked()[1].to(keys.device)
        right = torch.arange(B, device=keys.device)[:, None] * N + positive
        flat = keys.flatten(0, 1)

        def nce(which: Tensor, keys: Tensor) -> Tensor:
            similarity = predicted[:, which].flatten(0, 1) @ keys.T
            return contrastive.info_nce(similarity, right[:, which].flatten(), self.config["temperature"]).mean()

        loss = nce(hard, flat)
        easy = nce(~hard, flat.detach()) if (~hard).any() else 0
        return loss + easy, {"nce": loss.item(), "feature_spread": contrastive.feature_spread(flat.detach()).item()}

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        similarity, right = self._compare(prediction)
        k = self.asked()[0]
        found = contrastive.found(similarity, right).unflatten(0, (-1, len(k)))
        keys = prediction["keys"]
        one = torch.ones_like(found[:, 0])
        pairs = torch.stack([prediction["predicted"], keys[:, self.asked()[1]]], dim=2).flatten(0, 1)
        hard = k > self.config["skip"]
        align = contrastive.alignment(pairs).unflatten(0, (-1, len(k)))[:, hard].mean(dim=1)
        middle = keys[:, self.side**2 // 2]
        by_k = {f"accuracy_{step}": found[:, k == step].mean(dim=1) for step in range(1, self.side)}
        return {"accuracy": found[:, hard].mean(dim=1), **by_k, "candidates": one * similarity.shape[1],
                "chance": one / similarity.shape[1], "alignment": align, "uniformity": one * contrastive.uniformity(middle),
                "feature_spread": one * contrastive.feature_spread(keys.flatten(0, 1))}

    def alarm(self, numbers: dict[str, float]) -> str:
        return contrastive.collapse_alarm(numbers["feature_spread"])

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        return []

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        z = model.encode(self._cut(images, None))  # (B, N, D)
        return z.mean(dim=1), z.transpose(1, 2).unflatten(2, (self.side, self.side))

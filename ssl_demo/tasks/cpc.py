r"""Contrastive predictive coding (CPC): from the upper rows of a photo's patches, tell which patch lies below.

The idea. A photo is cut into a grid of overlapping patches, and one encoder describes each of them by itself (z). A small network
sums up the rows from the top down to some row (c), and for each k a matrix W_k guesses from it what the patch k rows below is
described as. The guess is never drawn: it has to be more like the true patch than like any other patch of any photo in the batch,
which is InfoNCE. What can be told over such a distance is not the single pixels but what the photo shows.

What could cheat. Neighbouring cells overlap by half, so one row below is answered by recognising what is shared: that W_1 is
trained as a probe, whose gradient never reaches encoder or context, and its score shows how cheap the shortcut is. Brightness,
colour cast and edges that run on give away patches that touch: each patch is cropped a little differently inside its cell, and
its colours are changed by themselves (as CPC v2 does, Hénaff et al. 2019). Nothing of the rows below enters the context, but in
training through the statistics of batch norm, over all patches of a batch.

The loss. $$L = -\log \frac{\exp(\cos(W_k c_t, z_{t+k}) / \tau)}{\sum_j \exp(\cos(W_k c_t, z_j) / \tau)}$$ for each place $t$ and
distance $k$, where $c_t$ is the context, $z_{t+k}$ the patch $k$ rows below, and $z_j$ all patches of all photos.

Where we differ from the paper. 1.8 million parameters on 5 x 5 patches of 32 px (crops of 24) instead of ResNet-101 on 7 x 7 of
64 px, with batch norm, which the paper left out; small convolutions that look up instead of a PixelCNN; cosines of projected
descriptions with a temperature instead of products; all patches of the batch as candidates; the overlapping row trains its own
W_1 only.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import contrastive, drawing, views
from ..patch_nets import CPCNet
from ..pretext import Bar, Card, Chart, Control, Example, Line, Number, Panel, Prediction, PretextTask, Recipe


class CPC(PretextTask):
    card = Card(
        name="cpc",
        title="CPC",
        family="Bring views together",
        paper="Representation Learning with Contrastive Predictive Coding",
        authors="van den Oord, Li, Vinyals",
        year=2018,
        link="https://arxiv.org/abs/1807.03748",
        idea="Show the upper rows of a photo's patches and ask which of many patches lies further down: what can be foretold "
        "over such a distance is what the photo shows.",
        shortcut="Patches in neighbouring rows share pixels, and those of one photo its light and colours. So the row that "
        "overlaps trains nothing but a probe, and each patch is cropped and coloured by itself.",
        metric="accuracy",
        metric_label="Patches found",
        chance="chance",
        company=7,
        also=("accuracy_overlapping", "chance", "one row below, overlapping"),
    )
    controls = (
        Control("target", "Patch asked for", "point", "50 70", "Click a patch in a picture."),
        Control("below", "Rows below", "slider", 2, "At 1 they overlap.", minimum=1, maximum=4, step=1),
        Control("temperature", "Temperature", "slider", 0.1, "Lower: surer.", minimum=0.02, maximum=1, step=0.02),
        Control("disturbed", "Patches disturbed", "toggle", True, "Off: as they are."),
    )
    defaults = {"size": 96, "cell": 32, "stride": 16, "patch": 24, "width": 64, "depths": [1, 2], "features": 256,
                "embedding": 128, "skip": 1, "temperature": 0.1, "jitter": 1.0}  # jitter: of colours; skip: rows that overlap
    recipe = Recipe(batch=64, optimizer="muon", lr=4e-3, crop=(0.4, 1.0))
    knobs = tuple(control for control in controls if control.name == "temperature")

    def __init__(self, **config):
        super().__init__(**config)
        c = self.config
        if not 8 <= c["patch"] <= c["cell"] or c["stride"] < 1 or self.side < 3:
            raise ValueError("“patch” must be from 8 to “cell”, and “size” must hold three cells or more, “stride” apart.")
        if not 0 <= c["skip"] <= self.side - 2 or c["temperature"] <= 0:
            raise ValueError("“skip” must leave a row to predict, and “temperature” must be above 0.")

    @property
    def side(self) -> int:
        """How many patches there are in a row of the grid, and how many rows."""
        return (self.config["size"] - self.config["cell"]) // self.config["stride"] + 1

    def asked(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of the Q questions about a photo, k (Q,) and the number of the patch that is right (Q,); the smallest k first."""
        side = self.side
        pairs = [(k, place + k * side) for k in range(1, side) for place in range((side - k) * side)]
        return tuple(torch.tensor(pairs, device=device).T)

    def build(self) -> nn.Module:
        names = ("patch", "width", "depths", "features", "embedding")
        return CPCNet(self.side, **{name: self.config[name] for name in names})

    def example(self, images: Tensor, rng: torch.Generator, target: str = "50 70", below: int = 2,
                temperature: float | None = None, disturbed: bool = True) -> Example:
        if below >= self.side:
            raise ValueError(f"“below” must be at most {self.side - 1}: there are {self.side} rows.")
        B, N, device = len(images), self.side**2, images.device
        jitter = torch.randint(self.config["cell"] - self.config["patch"] + 1, (2, B, N), generator=rng).to(device)
        strength = self.config["jitter"] * disturbed
        patches = self._cut(images, jitter if disturbed else None).flatten(0, 1)
        patches = views.drop_colors(views.change_colors(patches, rng, strength), rng, 0.2 * strength)
        row, column = divmod(self._nearest(*(float(share) / 100 for share in target.split() or (50, 70))), self.side)
        place = max(row, below) * self.side + column  # the rows above it have nothing to be foretold from
        temperature = self.config["temperature"] if temperature is None else temperature
        run = {"place": place, "below": below, "temperature": temperature, "disturbed": disturbed}  # what a person chose
        return {"inputs": patches.unflatten(0, (B, N)), "targets": self.asked(device)[1].expand(B, -1), "images": images,
                **{name: torch.full((B,), value, device=device) for name, value in run.items()}}

    def _nearest(self, x: float, y: float) -> int:
        """The number of the patch whose middle is nearest to a point of the photo, in shares of its side."""
        cell, stride = self.config["cell"], self.config["stride"]
        row, column = (min(max(round((share * self.size - cell / 2) / stride), 0), self.side - 1) for share in (y, x))
        return row * self.side + column

    def _cut(self, images: Tensor, jitter: Tensor | None = None) -> Tensor:
        """Patches (B, N, 3, p, p), each moved inside its cell by jitter (2, B, N), down and right; or from its middle."""
        cell, stride, patch = (self.config[name] for name in ("cell", "stride", "patch"))
        number, along = torch.arange(self.side**2, device=images.device), torch.arange(patch, device=images.device)
        if jitter is None:
            jitter = torch.full((2, len(images), len(number)), (cell - patch) // 2, device=images.device)
        rows = (number // self.side * stride + jitter[0])[:, :, None] + along  # (B, N, p)
        columns = (number % self.side * stride + jitter[1])[:, :, None] + along
        photo = torch.arange(len(images), device=images.device)[:, None, None, None]
        return images.movedim(1, 3).contiguous()[photo, rows[:, :, :, None], columns[:, :, None, :]].movedim(-1, 2)

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        z = model.encode(example["inputs"])  # (B, N, D)
        return {"keys": F.normalize(model.project(z).float(), dim=2),  # (B, N, E)
                "guesses": F.normalize(model.guess(z, self.config["skip"]).float(), dim=2)}  # (B, Q, E)

    gathered = ("keys", "guesses")

    def _compare(self, prediction: Prediction) -> tuple[Tensor, Tensor, Tensor]:
        """Cosines of all guesses with all patches of all photos, (B * Q, B * N); the right one, (B * Q,); k of each (Q,)."""
        keys, guesses = prediction["keys"], prediction["guesses"]
        k, place = self.asked(keys.device)
        right = torch.arange(len(keys), device=keys.device)[:, None] * keys.shape[1] + place  # (B, Q)
        candidates, probes = keys.flatten(0, 1), int((k <= self.config["skip"]).sum())
        similarity = torch.cat([guesses[:, :probes] @ candidates.detach().T, guesses[:, probes:] @ candidates.T], dim=1)
        return similarity.flatten(0, 1), right.flatten(), k

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        similarity, right, k = self._compare(prediction)
        losses = contrastive.info_nce(similarity, right, self.config["temperature"]).unflatten(0, (-1, len(k)))  # (B, Q)
        figures = {f"loss_{step}": losses[:, k == step].mean().item() for step in range(1, self.side)}
        return losses.mean(), {**figures, "feature_spread": contrastive.feature_spread(prediction["keys"].flatten(0, 1)).item()}

    def alarm(self, numbers: dict[str, float]) -> str:
        return contrastive.collapse_alarm(numbers["feature_spread"])

    def guessing(self, batch: int) -> float:
        return math.log(batch * self.side**2)

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        similarity, right, k = self._compare(prediction)
        found = contrastive.found(similarity, right).unflatten(0, (-1, len(k)))  # (B, Q)
        keys, trained, ones = prediction["keys"], k > self.config["skip"], torch.ones_like(found[:, 0])
        pairs = torch.stack([prediction["guesses"], keys[:, self.asked(keys.device)[1]]], dim=2)  # (B, Q, 2, E)
        distance = contrastive.alignment(pairs.flatten(0, 1)).view_as(found)
        return {
            "accuracy": found[:, trained].mean(dim=1), "accuracy_overlapping": found[:, k == 1].mean(dim=1),
            **{f"accuracy_{step}": found[:, k == step].mean(dim=1) for step in range(2, self.side)},
            "candidates": ones * similarity.shape[1], "chance": ones / similarity.shape[1],
            "alignment": distance[:, trained].mean(dim=1), "uniformity": ones * contrastive.uniformity(keys.flatten(0, 1)),
            "feature_spread": ones * contrastive.feature_spread(keys.flatten(0, 1)),
        }

    def _of_the_first(self, example: Example, prediction: Prediction) -> tuple[Tensor, Tensor, Tensor, int]:
        """Of each question about the first photo cosines (Q, B * N), the right one's rank and loss (Q,); which one is asked."""
        k, place = self.asked(prediction["keys"].device)
        similarity = prediction["guesses"][0] @ prediction["keys"].flatten(0, 1).T
        rank = (similarity >= similarity.gather(1, place[:, None])).sum(dim=1)  # 1: alone at the top
        losses = contrastive.info_nce(similarity, place, example["temperature"][0].item())
        asked = ((k == example["below"][0]) & (place == example["place"][0])).nonzero().item()
        return similarity.cpu(), rank.cpu(), losses.cpu(), asked

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        side, place, below = self.side, int(example["place"][0]), int(example["below"][0])
        similarity, rank, losses, asked = self._of_the_first(example, prediction)
        count, (k, right) = similarity.shape[1], self.asked(torch.device("cpu"))
        last = place // side - below  # the lowest row that is seen
        photo, tiles = example["images"][0], [drawing.picture(tile) for tile in example["inputs"].flatten(0, 1)]
        blank = np.broadcast_to(np.array(drawing.HIDDEN, dtype=np.uint8), tiles[0].shape)
        order = similarity[asked].argsort(descending=True, stable=True).tolist()
        shown = order[:16] if place in order[:16] else [*order[:15], place]
        shares = (similarity[asked] / example["temperature"][0].item()).softmax(dim=0)
        listed = order[:5] + [place] * (place not in order[:5])
        owners = ["yours", *(f"photo {number}" for number in range(2, count // side**2 + 1))]
        names = {n: f"{order.index(n) + 1}. {owners[n // side**2]}, row {n % side**2 // side + 1}" for n in listed}
        ranks = torch.full((side * side,), math.nan).scatter(0, right[k == below], rank[k == below].float())
        by_row = [losses[k == step].mean().item() for step in range(1, side)]
        board = drawing.board((1 - ranks.log() / math.log(count)).view(side, side), place,
                              texts=["" if value.isnan() else str(int(value)) for value in ranks])
        company = [drawing.picture(image) for image in F.interpolate(example["images"], scale_factor=0.5, mode="area")]
        ask = "Ask for a patch."
        return [
            Panel("photo", "Your photo", f"{side} × {side} overlapping patches. Green: the one asked for.", "photo",
                  self._outlined(drawing.picture(photo), place), click=ask),
            Panel("company", "Photos to choose from", f"{count} patches of {len(company)} photos, yours first.", "photo",
                  drawing.tile_board(company, zoom=2)),
            Panel("context", "The rows it sees", f"Rows 1 to {last + 1}; it foretells {below} below.", "sees",
                  self._outlined(drawing.picture(photo), place, last), click=ask),
            Panel("patches", "Patches, each by itself",
                  "Cropped and coloured by themselves." if example["disturbed"][0] else "As they are.", "sees",
                  drawing.tile_board([tiles[n] if n // side <= last or n == place else blank for n in range(side**2)], [place]),
                  click=ask),
            Panel("ranking", "Most like its guess", f"Best first. Framed: the right one, rank {rank[asked]}.", "answers",
                  drawing.tile_board([tiles[n] for n in shown], [shown.index(place)])),
            Panel("probabilities", "How sure it is", f"Likeliest of {count}; the right one is marked.", "answers",
                  bars=tuple(Bar(names[n], shares[n].item(), n == place, n == order[0]) for n in listed)),
            Panel("ranks", "Rank of each patch", f"From {below} above, of {count}. 1: found.", "judged", board, click=ask),
            Panel("distance", "Loss over distance", "At 1 patches overlap, which gives them away.", "judged",
                  chart=Chart(tuple(range(1, side)), (Line("loss", tuple(by_row)),), "rows below", "loss", now=below,
                              level=("guessing", math.log(count)))),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        similarity, rank, losses, asked = self._of_the_first(example, prediction)
        k, count, below = self.asked(torch.device("cpu"))[0], similarity.shape[1], int(example["below"][0])
        found = {step: (rank[k == step] == 1).float().mean().item() for step in range(1, self.side)}
        loss, position = losses[asked].item(), int(rank[asked])
        return {
            "rank": Number("Rank of the right patch", position, f"{position} of {count}", f"guessing: {(count + 1) // 2}"),
            "probability_true": Number("Given to the right patch", math.exp(-loss), f"{math.exp(-loss):.1%}",
                                       f"chance: {1 / count:.1%}"),
            "loss": Number("Loss", loss, f"{loss:.2f}", f"guessing gives ln {count} = {math.log(count):.2f}"),
            "found": Number("Found in this photo", found[below], f"{found[below]:.0%}", f"ranked first, from {below} above"),
            "found_overlapping": Number("Where patches overlap", found[1], f"{found[1]:.0%}", "one row below: the shortcut"),
            "candidates": Number("Candidates", count),
            **{f"found_{step}": Number(f"Found {step} rows below", share) for step, share in found.items() if step > 1},
        }

    def click(self, panel: str, x: float, y: float, example: Example) -> dict:
        cell, stride = self.config["cell"], self.config["stride"]
        if panel in ("patches", "ranks"):  # boards, where patches do not overlap
            row, column = (min(int(share * self.side), self.side - 1) for share in (y, x))
        else:
            row, column = divmod(self._nearest(x, y), self.side)
        row = max(row, int(example["below"][0]))
        return {"target": " ".join(f"{100 * (at * stride + cell / 2) / self.size:.1f}" for at in (column, row))}

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        z = model.encode(self._cut(images))  # (B, N, D)
        return z.mean(dim=1), z.transpose(1, 2).unflatten(2, (self.side, self.side))

    def _outlined(self, photo: np.ndarray, place: int, last: int | None = None) -> np.ndarray:
        """The photo with the grid's lines and the patch asked for outlined; with what lies below the row `last` covered."""
        cell, stride, zoom = self.config["cell"], self.config["stride"], 4
        if last is not None:
            photo[last * stride + cell :] = drawing.HIDDEN
        square = (place // self.side * stride, place % self.side * stride, cell, drawing.RIGHT)
        large = drawing.boxes(photo, [square], zoom).copy()
        large[stride * zoom :: stride * zoom] //= 2  # the corners of cells
        large[:, stride * zoom :: stride * zoom] //= 2
        return large

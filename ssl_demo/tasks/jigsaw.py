r"""Jigsaw puzzle: cut the photo into nine tiles, shuffle them, and ask in which order they lie.

The idea. To put nine tiles back, a network has to see what each of them is a part of, and how such parts lie to one another:
wheels below doors, sky above roofs. It looks at each tile alone, so that parts are recognised first and compared only then. There
are 9! = 362 880 orders; 100 of them, as different from one another as can be, are its classes.

What could cheat. Edges that run on across a cut: tiles of 24 px are cut at a random place of cells of 32, so that borders
rarely touch or line up. Neighbours' likeness in brightness and contrast: each tile is brought to mean 0 and deviation 1 in each
channel. Colour fringes of lenses, which tell how far from the middle a tile lay: three photos in ten are shown in grey. Each
guard can be switched off here.

The orders. The paper's algorithm 1: begin with any, then take, over and over, the one of all 9! with the largest average Hamming
distance (the number of places that differ) to those taken. Many are equally far; of those we take the one whose nearest taken
order is furthest, and then the first in a list shuffled by a fixed seed. The set is saved with the weights, whose classes it is.

The loss. The cross-entropy of the true order: $$L = -\log p(\pi \mid x_{\pi(1)}, \ldots, x_{\pi(9)})$$ where $x_i$ are the tiles
and $\pi$ the order in which they lie, one of the 100; the marked bar is $p(\pi)$.

Where we differ from the paper. A residual network of 3 million parameters at 96 px instead of AlexNet at 225; 100 orders instead
of up to 1000; channels are not shifted against each other. As tiles are encoded one by one, shuffling encoded tiles is the same
as encoding shuffled ones: each photo is encoded once, and asked about in four orders.
"""

import functools
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import drawing
from ..nets import MEAN, SPREAD, ResidualEncoder
from ..pretext import Bar, Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe
from ..questions import Question, choices

PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
TILES = 9  # N, in reading order; an order names, for each of the nine places, the tile that lies there
ORDERS = 4  # M, the orders in which a photo in training is asked about


@functools.lru_cache(maxsize=8)
def permutation_set(count: int, seed: int) -> Tensor:
    """`count` orders of nine tiles, far from one another, (K, 9), by the paper's algorithm 1; the same for the same seed."""
    every = np.fromiter(itertools.chain.from_iterable(itertools.permutations(range(TILES))), np.int8).reshape(-1, TILES)
    # RandomState, since its stream is promised never to change: sets saved with weights must be found again.
    every = np.ascontiguousarray(np.random.RandomState(seed).permutation(every).T)  # (9, 9!)
    total, closest = np.zeros(every.shape[1], np.int32), np.zeros(every.shape[1], np.int32)  # tiles in common with those taken
    taken = [0]
    while len(taken) < count:
        common = sum((place == place[taken[-1]]).astype(np.int32) for place in every)
        total += common
        np.maximum(closest, common, out=closest)
        score = total * (TILES + 1) + closest  # the total decides, the closest breaks ties, argmin takes the first
        score[taken] = np.iinfo(np.int32).max
        taken.append(int(score.argmin()))
    return torch.from_numpy(every[:, taken].T.astype(np.int64))


class ContextFreeNet(nn.Module):
    """The paper's network: one trunk for each tile alone, and only then layers that see all nine."""

    def __init__(self, width: int, depths: tuple[int, ...], tile: int, permutations: Tensor):
        super().__init__()
        self.encoder = ResidualEncoder(width, tuple(depths))
        cells = (-(-tile // 2 ** (len(depths) + 1))) ** 2  # of the encoder's map
        self.describe = nn.Sequential(nn.Flatten(), nn.Linear(self.encoder.width * cells, 256), nn.ReLU())
        self.order = nn.Sequential(nn.Linear(TILES * 256, 512), nn.ReLU(), nn.Linear(512, len(permutations)))
        self.register_buffer("permutations", permutations.clone())

    def encode(self, tiles: Tensor) -> Tensor:
        """Standardised tiles (B, 9, 3, h, w), each by itself, to (B, 9, D)."""
        return self.describe(self.encoder(tiles.flatten(0, 1) * SPREAD + MEAN)).unflatten(0, (-1, TILES))


def shuffle(tiles: Tensor, orders: Tensor) -> Tensor:
    """Tiles or their encodings (B, 9, ...) as they lie in orders (B, M, 9): (B, M, 9, ...)."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None, None], orders]


class Jigsaw(PretextTask):
    card = Card(
        name="jigsaw",
        title="Jigsaw",
        family="Predict a transformation",
        paper="Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
        authors="Noroozi, Favaro",
        year=2016,
        link="https://arxiv.org/abs/1603.09246",
        idea="Shuffle nine tiles of a photo and ask for their order: to put them back is to know what each is a part of.",
        shortcut="Edges that run on across a cut, neighbours' like brightness and contrast, and colour fringes towards a photo's "
        "edge. Random gaps, a mean and deviation that are the same for all tiles, and photos in grey guard against them.",
        metric="accuracy",
        metric_label="Shuffles undone",
        chance=0.01, paper_score="88% of 100 orders (ImageNet)",
        overview=("tiles_right",),
    )
    controls = (
        Control("shuffle", "Shuffle", "choice", "seed", "By hand: click two tiles.", choices=("seed", "by hand"), fixes=True),
        Control("grey", "Grey photos", "choice", "some", "In training three in ten.", choices=("some", "all", "none")),
        Control("gap", "Gaps", "toggle", True, "Off: they touch."),
        Control("normalise", "Even tiles", "toggle", True, "Off: as they are."),
        Control("tiles", "Order by hand", "order", "", "The tile, 0 to 8, at each of the nine places, for “by hand”."),
        Control("picked", "Picked place", "order", "", "The place, 0 to 8, that was clicked first."),
    )
    defaults = {"size": 96, "tile": 24, "width": 48, "depths": [2, 2, 2], "permutations": 100, "permutation_seed": 0}
    recipe = Recipe(batch=64, optimizer="muon", lr=6e-3, crop=(0.5, 1.0), color=0.2)

    def __init__(self, **config):
        super().__init__(**config)
        if not 4 <= self.config["tile"] <= self.config["size"] // 3:
            raise ValueError("“tile” must be at least 4 and at most a third of “size”.")
        if not 2 <= self.config["permutations"] <= 2000 or not 0 <= self.config["permutation_seed"] < 2**31:
            raise ValueError(f"“permutations” must be from 2 to 2000, and “permutation_seed” from 0 to {2**31 - 1}.")

    @property
    def permutations(self) -> Tensor:
        """The orders that are the classes, (K, 9)."""
        return permutation_set(self.config["permutations"], self.config["permutation_seed"])

    def build(self) -> nn.Module:
        return ContextFreeNet(self.config["width"], self.config["depths"], self.config["tile"], self.permutations)

    def example(self, images: Tensor, rng: torch.Generator, shuffle: str = "seed", grey: str = "some", gap: bool = True,
                normalise: bool = True, tiles: str = "", picked: str = "") -> Example:
        hand, first = [int(number) for number in tiles.split()], [int(number) for number in picked.split()]
        if hand and sorted(hand) != list(range(TILES)):
            raise ValueError("“tiles” must name each of the tiles 0 to 8 once.")
        if len(first) > 1 or any(place >= TILES for place in first):
            raise ValueError("“picked” must be one place from 0 to 8, or nothing.")
        example = self._cut(images, rng, 1, grey, gap, normalise)
        if hand and shuffle == "by hand":
            orders = torch.tensor(hand, device=images.device).expand(len(images), 1, TILES)
            differ = (self.permutations.to(images.device) != orders).sum(dim=2)  # (B, K)
            example.update(orders=orders.clone(), targets=differ.argmin(dim=1, keepdim=True))
        return {"images": images, **example, "picked": torch.full_like(example["targets"][:, 0], first[0] if first else -1)}

    def training_example(self, images: Tensor, rng: torch.Generator) -> Example:
        return self._cut(images, rng, ORDERS)

    def _cut(self, images: Tensor, rng: torch.Generator, count: int, grey: str = "some", gap: bool = True,
             normalise: bool = True) -> Example:
        """Tiles in their true order, (B, 9, 3, h, w), and `count` orders for them. All chance is drawn, used or not."""
        B, side, tile = len(images), images.shape[-1] // 3, self.config["tile"]
        corners = torch.randint(side - tile + 1, (B, TILES, 2), generator=rng)  # row and column inside the cell
        is_grey, targets = torch.rand(B, generator=rng) < 0.3, torch.randint(len(self.permutations), (B, count), generator=rng)
        if grey != "some":
            is_grey = torch.full_like(is_grey, grey == "all")
        corners, is_grey, targets = (drawn.to(images.device) for drawn in (corners, is_grey, targets))
        weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]
        images = torch.where(is_grey[:, None, None, None], (images * weights).sum(1, keepdim=True), images)
        cells = images.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 4, 5, 1).flatten(1, 2)  # (B, 9, h, w, 3)
        if gap:
            along = torch.arange(tile, device=images.device)
            rows, columns = corners[:, :, 0, None] + along, corners[:, :, 1, None] + along  # (B, 9, h), (B, 9, w)
            photo, cell = torch.arange(B, device=images.device)[:, None, None, None], torch.arange(TILES, device=images.device)
            tiles = cells[photo, cell[:, None, None], rows[..., :, None], columns[..., None, :]].movedim(-1, 2)
        else:  # whole cells, made small: their borders touch, and nothing moves them
            whole = cells.movedim(-1, 2).flatten(0, 1)
            tiles = F.interpolate(whole, size=(tile, tile), mode="bilinear", antialias=True).unflatten(0, (B, TILES))
            corners = torch.full_like(corners, -1)
        inputs = evened(tiles) if normalise else (tiles - MEAN) / SPREAD
        return {"inputs": inputs, "orders": self.permutations.to(images.device)[targets], "targets": targets, "corners": corners}

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        assert torch.equal(model.permutations.cpu(), self.permutations), "the network answers other orders than the task asks"
        encoded = model.encode(example["inputs"])  # (B, 9, D)
        return {"logits": model.order(shuffle(encoded, example["orders"]).flatten(2)), "encoded": encoded}  # (B, M, K)

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        return F.cross_entropy(prediction["logits"].float().flatten(0, 1), example["targets"].flatten()), {}

    def guessing(self, batch: int) -> float:
        return math.log(self.config["permutations"])

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        answers = prediction["logits"].argmax(dim=2)  # (B, M)
        in_place = self.permutations.to(answers.device)[answers] == example["orders"]  # (B, M, 9)
        accuracy = (answers == example["targets"]).float().mean(dim=1)  # of the photo's M orders
        classes = torch.full_like(accuracy, len(self.permutations))
        return {"accuracy": accuracy, "tiles_right": in_place.float().mean(dim=(1, 2)), "classes": classes}

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        order, truth, photo = example["orders"][0, 0].tolist(), int(example["targets"][0, 0]), example["images"][0]
        tiles = [drawing.picture(tile * SPREAD + MEAN) for tile in example["inputs"][0]]
        probabilities = prediction["logits"][0, 0].float().softmax(dim=0).cpu()
        ranked = probabilities.argsort(descending=True, stable=True).tolist()
        answer = self.permutations[ranked[0]].tolist()
        put = {place: tile for place, tile in zip(answer, order)}  # what it takes for tile `place` is laid there
        wrong = [place for place in range(TILES) if put[place] != place]
        shown = ranked[:5] + [truth] * (truth not in ranked[:5])
        names = {k: f"{ranked.index(k) + 1}. #{k} {''.join(map(str, self.permutations[k].tolist()))}" for k in shown}
        bars = tuple(Bar(names[k], probabilities[k].item(), k == truth, k == ranked[0]) for k in shown)
        cut = "Nine cells, a tile cut from each." if example["corners"][0, 0, 0] >= 0 else "Nine cells, each a tile."
        picked = [int(example["picked"][0])]
        return [
            Panel("photo", "Your photo", cut, "photo",
                  drawing.cut_out(drawing.picture(photo), example["corners"][0].tolist(), self.config["tile"])),
            Panel("shuffled", "Shuffled tiles", "As it gets them.", "sees",
                  drawing.tile_board([tiles[tile] for tile in order], framed=picked), click="Swap: click two."),
            Panel("arranged", "Put back by its answer", f"{TILES - len(wrong)} of 9 right; a cross: wrong.", "answers",
                  drawing.tile_board([tiles[put[place]] for place in range(TILES)], crossed=wrong)),
            Panel("probabilities", "How sure it is", f"Likeliest of {len(ranked)}; the true is marked.", "judged", bars=bars),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        logits, order = prediction["logits"][0, 0].float().cpu(), example["orders"][0, 0].cpu()
        truth, answer = int(example["targets"][0, 0]), int(logits.argmax())
        probability = logits.softmax(dim=0)[truth].item()
        right, far = (int((self.permutations[k] == order).sum()) for k in (answer, truth))
        loss, count = F.cross_entropy(logits, torch.tensor(truth)).item(), len(logits)
        return {
            "correct": Number("Right", int(answer == truth), "yes" if answer == truth else "no"),
            "tiles_right": Number("Tiles put right", right, f"{right} of 9"),
            "probability_true": Number("Given to the true order", probability, f"{probability:.1%}", f"chance: {1 / count:.1%}"),
            "loss": Number("Loss", loss, f"{loss:.2f}", f"cross-entropy; guessing gives ln {count} = {np.log(count):.2f}"),
            "hamming_to_set": Number("From an order it knows", TILES - far, f"{TILES - far} tiles", "the nearest counts as true"),
        }

    def question(self, example: Example, prediction: Prediction) -> Question:
        """Where one tile belongs. The network's share of a place is that of all orders in which the tile belongs there."""
        order, place = example["orders"][0, 0].tolist(), int(example["targets"][0, 0]) % TILES
        probabilities = prediction["logits"][0, 0].float().softmax(dim=0).cpu()
        shares = torch.zeros(TILES).index_add(0, self.permutations[:, place], probabilities)
        tiles = [drawing.picture(tile * SPREAD + MEAN) for tile in example["inputs"][0]]
        return Question("Where in the photo does the framed tile belong?", choices(PLACES, shares), order[place],
                        drawing.tile_board([tiles[tile] for tile in order], framed=[place]), "Nine tiles, shuffled",
                        "All that the network is shown.", board=True)

    def click(self, panel: str, x: float, y: float, example: Example) -> dict:
        order, picked = example["orders"][0, 0].tolist(), int(example["picked"][0])
        place = min(int(y * 3), 2) * 3 + min(int(x * 3), 2)
        if picked in (-1, place):
            return {"picked": str(place) if picked == -1 else ""}
        order[picked], order[place] = order[place], order[picked]
        return {"shuffle": "by hand", "tiles": " ".join(str(tile) for tile in order), "picked": ""}

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of all stages but the last, which knows orders only (`benchmarks/stages.py jigsaw`); photos are evened as tiles are."""
        kept = sum(self.config["depths"][:-1] or self.config["depths"])
        grid = model.encoder.stages[:kept](model.encoder.stem(evened(images)))
        return grid.mean(dim=(2, 3)), grid  # (B, D), (B, D, h, w)


def evened(images: Tensor) -> Tensor:
    """Images (..., 3, h, w) with mean 0 and deviation 1 in each channel; one without any contrast stays without."""
    centred = images - images.mean(dim=(-2, -1), keepdim=True)
    return centred / centred.square().mean(dim=(-2, -1), keepdim=True).sqrt().clamp(min=0.005)

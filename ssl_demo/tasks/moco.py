r"""Momentum contrast (MoCo): find a photo's other view among thousands of others that wait in a queue.

The idea. Two views of one photo, cropped and coloured at random, should get nearby points on a sphere; views of other photos far
ones. The more others there are, the finer a network has to look. Encoding thousands of them for each step is out of reach, so
the points of earlier steps ("keys") are kept in a queue, and the newest push the oldest out. Keys of a network that changes fast
would not compare with each other; so they come from a second network that follows the first slowly, as a running mean of its
weights. The more momentum, the more alike the keys in the queue, but the further behind the network that is to find them.

What could cheat. Time: while the networks change fast, all keys of this step differ from all older ones, and telling the ages
apart is easier than telling photos apart; our first trials did nothing else. So the other photos of the batch are candidates too
(as in the third version, Chen et al. 2021), and batch norm centres each batch's points, so that none lies apart as a whole. That
batch norm could in turn leave a watermark in all views of a batch; here partners stand beside others with the same one.

The loss. $$L = -\log \frac{\exp(q \cdot k_+ / \tau)}{\sum_k \exp(q \cdot k / \tau)}$$ for each query $q$, with its own key
$k_+$ and all keys $k$ of the batch and the queue; then $\theta_k \leftarrow m \theta_k + (1 - m) \theta_q$ with momentum $m$.

Where we differ from the paper. A residual network of 1.7 million parameters, photos of 96 px and views of 64; a queue of 2048
keys instead of 65536; a momentum of 0.99 instead of 0.999, as the training is short; AdamW. From the second version (Chen et al.
2020) the head of two layers, blur, and temperature 0.2; our head has batch norm and looks at each place before the mean is taken.
"""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .. import contrastive, drawing, views
from ..momentum import MOMENTA, Drift, distance, memory
from ..nets import ResidualEncoder
from ..pretext import Card, Chart, Control, Example, Line, Number, Panel, Prediction, PretextTask, Recipe

QUERY, KEY = "#2f6fb7", "#35c07a"  # the colours of a photo's two views


class Encoder(nn.Module):
    """A residual network and a head of two layers: views (B, 3, h, w) to points on a sphere (B, D)."""

    def __init__(self, width: int, depths: tuple[int, ...], features: int):
        super().__init__()
        self.trunk = ResidualEncoder(width, tuple(depths))
        self.head = nn.Sequential(
            nn.Conv2d(self.trunk.width, 512, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU(inplace=True),
            nn.Conv2d(512, features, 1, bias=False), nn.BatchNorm2d(features, affine=False),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.trunk(images)).mean(dim=(2, 3)).float(), dim=1)


class MomentumContrast(nn.Module):
    """The encoder of queries, the one of keys that follows it, the queue, and what is measured of their drift."""

    def __init__(self, width: int, depths: tuple[int, ...], features: int, queue: int):
        super().__init__()
        self.query = Encoder(width, depths, features)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue, features), dim=1))  # (K, D), at first keys of nothing
        self.register_buffer("born", torch.zeros(queue, dtype=torch.long))  # the step each key is of; 0: of none
        self.register_buffer("place", torch.zeros((), dtype=torch.long))  # where the next key goes
        self.drift = Drift(self.query)

    def newest_first(self) -> tuple[Tensor, Tensor]:
        """The queue (K, D), the newest key first, and the keys' ages in steps (K,); -1 for what is no key yet."""
        slots = (self.place - 1 - torch.arange(len(self.queue), device=self.queue.device)) % len(self.queue)
        born = self.born[slots]
        return self.queue[slots], torch.where(born > 0, self.drift.steps - born, -1)

    def step(self, keys: Tensor, momentum: float) -> None:
        """The key encoder follows (equation 2), and keys (B, D) take the places of the oldest ones."""
        contrastive.follow(self.key, self.query, momentum)
        keys = keys[-len(self.queue) :].detach().float()
        self.drift.step(self.query, span=max(1, len(self.queue) // len(keys)))
        slots = (self.place + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[slots], self.born[slots] = keys, self.drift.steps
        self.place.copy_((self.place + len(keys)) % len(self.queue))

    def encode_keys(self, images: Tensor, stretch: float = 1.0) -> Tensor:
        """Keys (B, D) of an encoder that lags `stretch` times as far behind the query encoder as the key encoder does."""
        if stretch == 1:
            return self.key(images)
        ours, theirs = self.query.state_dict(), self.key.state_dict()
        mixed = {name: ours[name].lerp(theirs[name], stretch) for name in ours if ours[name].is_floating_point()}
        mixed = {name: value.clamp(min=0) if name.endswith("running_var") else value for name, value in mixed.items()}
        return functional_call(self.key, mixed, (images,))


class MoCo(PretextTask):
    card = Card(
        name="moco",
        title="MoCo",
        family="Bring views together",
        paper="Momentum Contrast for Unsupervised Visual Representation Learning",
        authors="He, Fan, Wu, Xie, Girshick",
        year=2019,
        link="https://arxiv.org/abs/1911.05722",
        idea="Find a photo's other view among thousands that a second, slowly following network has left in a queue.",
        shortcut="Keys of earlier steps can be told by their age instead of by what they show: so the batch's other photos are "
        "rivals too, and batch norm centres each batch. Colours alone would match two crops: they are changed at random.",
        metric="accuracy",
        metric_label="Other views found",
        chance="chance",
        overview=("nearest", "rank_here"),
        company=11,
    )
    controls = (
        Control("momentum", "Momentum", "choice", "0.99", "Of the follower.", choices=tuple(map("{:g}".format, MOMENTA))),
        Control("length", "Queue length", "slider", 2048, "Keys compared with.", minimum=16, maximum=2048, step=16),
        Control("temperature", "Temperature", "slider", 0.2, "Low: only near keys count.", minimum=0.05, maximum=1, step=0.05),
        Control("color", "Colours (%)", "slider", 100, "0: as they are.", maximum=100),
    )
    defaults = {"size": 96, "view": 64, "width": 48, "depths": [2, 2, 2], "features": 128, "queue": 2048, "momentum": 0.99,
                "temperature": 0.2}
    recipe = Recipe(batch=128, optimizer="muon", lr=4e-3, crop=(1.0, 1.0), flip=False)
    knobs = (Control("momentum", "Momentum", "slider", 0.99, "Of the follower.", maximum=0.999, step=0.001), controls[2])
    gathered = ("queries", "keys")

    def __init__(self, **config):
        super().__init__(**config)
        sensible = {"view": 8 <= self.config["view"] <= 1024, "queue": 1 <= self.config["queue"] <= 65536,
                    "momentum": 0 <= self.config["momentum"] < 1, "temperature": self.config["temperature"] > 0}
        for name, is_sensible in sensible.items():
            if not is_sensible:
                raise ValueError(f"“{name}” cannot be {self.config[name]}.")

    def build(self) -> nn.Module:
        return MomentumContrast(*(self.config[name] for name in ("width", "depths", "features", "queue")))

    def example(self, images: Tensor, rng: torch.Generator, momentum: float | str = "0.99", length: int = 2048,
                temperature: float = 0.2, color: float = 100) -> Example:
        pair, boxes = views.crop(torch.cat([images, images]), rng, self.config["view"])
        pair = views.blur(views.drop_colors(views.change_colors(pair, rng, color / 100), rng, color / 500), rng, sigma=(0.1, 1.0))
        inputs, others = pair.chunk(2)  # the views to encode as queries, those to encode as keys
        B, device = len(images), images.device
        settings = {"momentum": float(momentum), "length": min(length, self.config["queue"]), "temperature": temperature}
        return {"inputs": inputs, "others": others, "targets": torch.arange(B, device=device), "images": images,
                "boxes": torch.stack(boxes.chunk(2), dim=1),
                **{name: torch.full((B,), value, dtype=torch.float64, device=device) for name, value in settings.items()}}

    def training_example(self, images: Tensor, rng: torch.Generator) -> Example:
        return self.example(images, rng, self.config["momentum"], self.config["queue"], self.config["temperature"])

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        queries, momentum = model.query(example["inputs"]), example["momentum"][0].item()
        with torch.no_grad():
            keys = model.encode_keys(example["others"], model.drift.ratio(momentum, self.config["momentum"]))
            queue, ages = model.newest_first()
        return {"queries": queries, "keys": keys, "queue": queue[None], "ages": ages[None],  # (B, D) both, (1, K, D), (1, K)
                "lag": model.drift.lag[None], "change": model.drift.change[None]}

    def similarities(self, example: Example, prediction: Prediction) -> Tensor:
        """Of each query to the batch's keys, its own among them, and then to those in the queue, newest first: (B, B + k)."""
        real = int((prediction["ages"] >= 0).sum())  # points of chance are no rivals to learn from, if there are others
        length = min(int(example["length"][0]), real or self.config["queue"])
        return prediction["queries"] @ torch.cat([prediction["keys"], prediction["queue"][0, :length]]).T

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        queries, similarity = prediction["queries"], self.similarities(example, prediction)
        own = torch.arange(len(queries), device=queries.device)
        loss = contrastive.info_nce(similarity, own, example["temperature"][0].item()).mean()
        return loss, {"feature_spread": contrastive.feature_spread(queries.detach()).item()}

    def after_step(self, model: nn.Module, example: Example, prediction: Prediction, progress: float) -> None:
        model.step(prediction["keys"], self.config["momentum"])

    def alarm(self, numbers: dict[str, float]) -> str:
        return contrastive.collapse_alarm(numbers["feature_spread"])

    def guessing(self, batch: int) -> float:
        return math.log(batch + self.config["queue"])  # once the queue is full

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        queries, keys = prediction["queries"].float(), prediction["keys"].float()
        number, one = torch.arange(len(queries), device=queries.device), torch.ones(len(queries), device=queries.device)
        return {"accuracy": contrastive.found(queries @ keys.T, number), "chance": one / len(queries),
                "candidates": one * len(queries), "alignment": contrastive.alignment(torch.stack([queries, keys], dim=1)),
                "uniformity": one * contrastive.uniformity(queries), "feature_spread": one * contrastive.feature_spread(queries)}

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        queries, keys = prediction["queries"].float(), prediction["keys"].float()
        shown, momentum, length = example["images"][0], example["momentum"][0].item(), int(example["length"][0])
        squares = [(round(top * len(shown[0])), round(left * len(shown[0])), round(width * len(shown[0])), color)
                   for (left, top, width, _), color in zip(example["boxes"][0].tolist(), (QUERY, KEY))]
        near = keys @ queries[0]  # (B,)
        ranked = near.argsort(descending=True, stable=True).tolist()
        tiles = [drawing.picture(example["others"][number]) for number in ranked]
        own, others = near[0].item(), self.similarities(example, prediction)[0, len(keys) :].tolist()
        likeness = others + [math.nan] * (len(prediction["ages"][0]) - len(others))
        ages = ["-" if age < 0 else str(age) for age in prediction["ages"][0].tolist()]
        rank, trained, nearest = ranked.index(0) + 1, ages[0] != "-", int(np.argmax(others))
        x, lines = self._loss_over_length(example, prediction)
        drift = [Line("behind the query's network", tuple(prediction["lag"][0].tolist())),
                 Line("own change while a key waits", tuple(prediction["change"][0].tolist()))]
        said = "Means over training." if trained else "Not trained: no drift yet."
        return [
            Panel("photo", "Your photo", "Two views are cut: query blue, key green.", "photo",
                  drawing.boxes(drawing.picture(shown), squares)),
            Panel("query", "The query", "What the trained network sees.", "sees", drawing.picture(example["inputs"][0])),
            Panel("key", "Its key", "What the following network sees.", "sees", drawing.picture(example["others"][0])),
            Panel("queue", "The queue", "Newest on top; darker: nearer the query." if trained else "Untrained: chance, no keys.",
                  "answers", drawing.strip(likeness, ages, own, nearest)),
            Panel("nearest", "Nearest photos here", f"Own key, framed: {rank} of {len(ranked)}.", "answers",
                  drawing.ranking(tiles, near[ranked].tolist(), rank - 1)),
            Panel("loss", "Loss over queue length", "Against the newest keys, so many of them.", "judged",
                  chart=Chart(x, lines, "keys in the queue", "InfoNCE", log_x=True, now=length)),
            Panel("drift", "Drift over momentum", said, "judged",
                  chart=Chart(tuple(memory(m) for m in MOMENTA), tuple(drift), "steps it looks back",
                              "share of the weights", log_x=True, now=memory(momentum))),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        similarity, here = self.similarities(example, prediction)[0].float(), len(prediction["keys"])  # (B + k,)
        own, queue, temperature = similarity[0].item(), similarity[here:], example["temperature"][0].item()
        loss = contrastive.info_nce(similarity[None], torch.zeros_like(example["targets"][:1]), temperature).item()
        count, share = len(similarity), math.exp(-loss)
        rank, place = (1 + int((rivals >= own).sum()) for rivals in (similarity[1:], similarity[1:here]))
        rival, age, momentum = queue.max().item(), int(prediction["ages"][0, queue.argmax()]), example["momentum"][0].item()
        apart = distance(model.key, model.query) * model.drift.ratio(momentum, self.config["momentum"])
        return {
            "rank": Number("Place of its own key", rank, f"{rank} of {count}", "among all keys compared with"),
            "rank_here": Number("Place among photos here", place, f"{place} of {here}"),
            "probability_true": Number("Given to its own key", share, f"{share:.1%}", f"guessing: {1 / count:.2%}"),
            "loss": Number("Loss", loss, f"{loss:.2f}", f"InfoNCE; guessing gives ln {count} = {math.log(count):.2f}"),
            "similarity": Number("Likeness to its own key", own, f"{own:.2f}", "a cosine: 1 is the same, 0 unrelated"),
            "similarity_rival": Number("Nearest in the queue", rival, f"{rival:.2f}",
                                       "no key yet, only chance" if age < 0 else f"a key {age} steps old"),
            "rival_age": Number("Age of the nearest in steps", age if age >= 0 else None),
            "oldest_age": Number("Age of the oldest in steps", int(prediction["ages"][0, len(queue) - 1])),
            "encoders_apart": Number("Networks apart", apart, f"{apart:.2%}", "of their weights' length, in these weights"),
        }

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        grid = model.query.trunk(images)  # (B, D, h, w)
        return grid.mean(dim=(2, 3)), grid

    def _loss_over_length(self, example: Example, prediction: Prediction) -> tuple[tuple[float, ...], tuple[Line, ...]]:
        """Lengths 1, 2, 4, ... of the queue's newest part, and the losses at each of them."""
        whole = {**example, "length": torch.full_like(example["length"], len(prediction["queue"][0]))}
        logits = self.similarities(whole, prediction).float() / example["temperature"][:, None].float()  # (B, B + k)
        here = len(logits)
        most = logits.shape[1] - here
        lengths = sorted({min(2**power, most) for power in range(most.bit_length() + 1)})
        at = [here + length - 1 for length in lengths]
        losses = (logits.logcumsumexp(dim=1) - logits.diagonal()[:, None])[:, at]  # (B, lengths)
        lines = (Line("your photo", tuple(losses[0].tolist())), Line("mean of those here", tuple(losses.mean(dim=0).tolist())),
                 Line("guessing", tuple(math.log(here + length) for length in lengths)))
        return tuple(map(float, lengths)), lines

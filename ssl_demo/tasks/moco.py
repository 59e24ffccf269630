"""MoCo: tell a view of a photo from thousands of others that a slowly following encoder has seen before.

The idea. Two views of one photo should be near, views of other photos far. Many others make this hard and so instructive, and a
queue makes many others cheap.

What could cheat. Later.

Where we differ from the paper. Later.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import contrastive, views
from ..nets import ResidualEncoder
from ..pretext import Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe

MOMENTA = (0.0, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9997, 0.9999)  # of the followers that show what momentum does
EVERY = 997  # every so many of the encoder's weights is followed: a sample of them


class Encoder(nn.Module):
    """A residual network and v2's head of two layers: views (B, 3, h, w) to points on a sphere (B, D)."""

    def __init__(self, width: int, depths: tuple[int, ...], features: int):
        super().__init__()
        self.trunk = ResidualEncoder(width, tuple(depths))
        self.head = nn.Sequential(nn.Linear(self.trunk.width, 512), nn.ReLU(), nn.Linear(512, features, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.trunk(images).mean(dim=(2, 3))).float(), dim=1)


class MomentumContrast(nn.Module):
    """The encoder of queries, its follower that encodes keys, the queue of keys, and what was measured of their drift."""

    def __init__(self, width: int, depths: tuple[int, ...], features: int, queue: int):
        super().__init__()
        self.query = Encoder(width, depths, features)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue, features), dim=1))  # (K, D), at first of nothing
        self.register_buffer("born", torch.zeros(queue, dtype=torch.long))  # the step each key is of; 0: of none
        self.register_buffer("place", torch.zeros((), dtype=torch.long))  # where the next key goes
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        sample = self.sample().repeat(len(MOMENTA), 1)  # (M, S)
        self.register_buffer("followers", sample)
        self.register_buffer("earlier", sample.clone())
        self.register_buffer("lag", torch.zeros(len(MOMENTA)))
        self.register_buffer("change", torch.zeros(len(MOMENTA)))

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.key.eval()  # the follower's batch norm uses statistics that follow, too, never those of its batch
        return self

    def newest_first(self) -> tuple[Tensor, Tensor]:
        """The queue's keys (K, D), the newest first, and their ages in steps (K,), those of nothing -1."""
        slots = (self.place - 1 - torch.arange(len(self.queue), device=self.queue.device)) % len(self.queue)
        born = self.born[slots]
        return self.queue[slots], torch.where(born > 0, self.steps - born, -1)

    def enqueue(self, keys: Tensor) -> None:
        """The keys (B, D) take the oldest ones' places."""
        keys = keys[-len(self.queue) :].detach()
        slots = (self.place + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.steps += 1
        self.queue[slots], self.born[slots] = keys.float(), self.steps
        self.place.copy_((self.place + len(keys)) % len(self.queue))

    def follow(self, momentum: float) -> None:
        """The key encoder goes a step towards the query encoder: equation 2, and batch norm's statistics likewise."""
        contrastive.follow(self.key, self.query, momentum)
        pairs = [(mine, theirs) for mine, theirs in zip(self.key.buffers(), self.query.buffers()) if mine.is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in pairs], [theirs for _, theirs in pairs], 1 - momentum)

    def sample(self) -> Tensor:
        """Every 997th weight of the query encoder, (S,)."""
        return torch.cat([p.detach().flatten()[::EVERY] for p in self.query.parameters() if p.ndim > 1]).float()

    def measure(self, life: int) -> None:
        """What encoders of other momenta would do, on the sample of weights: means over all steps so far.

        lag: the distance to the query encoder; change: how far they get in `life` steps, those a key stays in the queue. Both
        are shares of the weights' length.
        """
        now, steps = self.sample(), int(self.steps)
        momenta = torch.tensor(MOMENTA, device=now.device)[:, None]
        self.followers.mul_(momenta).add_((1 - momenta) * now)
        self.lag.lerp_((self.followers - now).norm(dim=1) / now.norm(), 1 / steps)
        if steps % life == 0:
            change = (self.followers - self.earlier).norm(dim=1) / now.norm()
            self.change.lerp_(change, life / steps)
            self.earlier.copy_(self.followers)


class MoCo(PretextTask):
    card = Card(
        name="moco",
        title="Momentum contrast",
        family="Bring views together",
        paper="Momentum Contrast for Unsupervised Visual Representation Learning",
        authors="He, Fan, Wu, Xie, Girshick",
        year=2019,
        link="https://arxiv.org/abs/1911.05722",
        idea="Find the key of a photo's other view among thousands that a slowly following encoder has left in a queue.",
        shortcut="Batch norm mixes a batch's photos.",
        metric="accuracy",
        metric_label="Keys found",
        chance="by_chance",
        company=11,
    )
    controls = ()
    defaults = {"size": 96, "view": 64, "width": 48, "depths": [2, 2, 2], "features": 128, "queue": 4096, "momentum": 0.99,
                "temperature": 0.2}
    recipe = Recipe(batch=128, lr=2e-3, crop=(1.0, 1.0), flip=False)
    gathered = ("queries", "keys")

    def __init__(self, **config):
        super().__init__(**config)

    def build(self) -> nn.Module:
        return MomentumContrast(*(self.config[name] for name in ("width", "depths", "features", "queue")))

    def example(self, images: Tensor, rng: torch.Generator) -> Example:
        pair, boxes = views.crop(torch.cat([images, images]), rng, self.config["view"])
        pair = views.change_colors(pair, rng)
        pair = views.blur(views.drop_colors(pair, rng), rng, sigma=(0.1, 1.0))
        inputs, others = pair.chunk(2)
        return {"inputs": inputs, "others": others, "targets": torch.arange(len(images), device=images.device)}

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        queries = model.query(example["inputs"])
        with torch.no_grad():
            keys = model.key(example["others"])
            queue, ages = model.newest_first()
        return {"queries": queries, "keys": keys, "queue": queue[None], "ages": ages[None]}

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        queries = prediction["queries"]  # (B, D)
        positive = (queries * prediction["keys"]).sum(dim=1, keepdim=True)
        similarity = torch.cat([positive, queries @ prediction["queue"][0].T], dim=1)  # (B, 1 + K)
        right = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
        loss = contrastive.info_nce(similarity, right, self.config["temperature"])
        return loss.mean(), {"feature_spread": contrastive.feature_spread(queries.detach()).item()}

    def after_step(self, model: nn.Module, example: Example, prediction: Prediction, progress: float) -> None:
        steps = int(model.steps)
        model.follow(min(self.config["momentum"], (1 + steps) / (10 + steps)))  # at first a mean of few, all of them young
        model.enqueue(prediction["keys"])
        model.measure(max(1, self.config["queue"] // len(prediction["keys"])))

    def alarm(self, numbers: dict[str, float]) -> str:
        return contrastive.collapse_alarm(numbers["feature_spread"])

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        queries, keys = prediction["queries"].float(), prediction["keys"].float()
        number = torch.arange(len(queries), device=queries.device)
        one = torch.ones(len(queries), device=queries.device)
        return {"accuracy": contrastive.found(queries @ keys.T, number), "by_chance": one / len(queries),
                "candidates": one * len(queries),
                "alignment": contrastive.alignment(torch.stack([queries, keys], dim=1)),
                "uniformity": one * contrastive.uniformity(queries), "feature_spread": one * contrastive.feature_spread(queries)}

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        grid = model.query.trunk(images)  # (B, D, h, w)
        return grid.mean(dim=(2, 3)), grid

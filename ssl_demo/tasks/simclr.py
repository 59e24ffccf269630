r"""SimCLR: two random views of every photo; each view has to find its partner among the views of all other photos.

The idea. A crop of a cat in warm light and another in grey have few pixels in common; what they share is the cat. A network that
gives both the same vector, and other photos' views other vectors, has kept what stays when place, size and colour change. The
loss (NT-Xent) is a cross-entropy: of all other views, which is the partner? Its logits are cosines divided by a temperature: the
lower it is, the more the few most similar rivals count, and the less all others.

What could cheat. Two crops of a photo have the same histogram of colours, and that alone would tell most photos apart: so colours
are changed, and sometimes dropped. Small changes of place could be solved by texture: so crops go down to a fifth of the area.
All vectors alike would make every pair agree: the other photos, which must be far, guard against that collapse. Each change can
be turned down here, to see how easy the question becomes.

What is kept. The loss is on a projection of the encoder's average, and the projection is thrown away: it learns to forget what
the changes change, colour for one, which later tasks may want. Alignment says how near partners are (0: one and the same),
uniformity how evenly all vectors are spread (0: all one, -4: evenly), after Wang and Isola (2020).

The loss. $$L = -\frac{1}{2B} \sum_i \log \frac{\exp(z_i \cdot z_{p(i)} / \tau)}{\sum_{k \neq i} \exp(z_i \cdot z_k / \tau)}$$
over all $2B$ views, where $z_i$ is a view's projection of length 1, $p(i)$ its partner, and $\tau$ the temperature.

Where we differ from the paper. A residual network of 1.7 million parameters on views of 64 px instead of ResNet-50 at 224; 128
photos a step instead of 4096, AdamW instead of LARS, and about thirty passes over 27 thousand photos instead of a thousand over
ImageNet. Crops are squares and keep a fifth of the photo or more (there: a twelfth), colours change half as far, and the blur is
narrower, as views are smaller. The projection ends in batch norm, as in the authors' code, and the temperature is 0.2, not 0.1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import contrastive, drawing, views
from ..nets import ResidualEncoder
from ..pretext import Bar, Card, Chart, Control, Example, Line, Matrix, Number, Panel, Prediction, PretextTask, Recipe

TEMPERATURE = 0.2
AREA = (0.2, 1.0)  # share of the photo that a crop keeps
SIGMA = (0.1, 1.0)  # width of the blur in pixels of a view
PHOTOS = 9  # in a run, the visitor's among them: their 18 views make a matrix whose pictures can still be seen
COLORS = ("#4aa3ff", "#ff9d2e")  # of a photo's two views
NAMES = ("blue", "orange")
SHOWN = 5  # likeliest candidates


class ProjectedEncoder(nn.Module):
    """The encoder f, which is kept, and the projection head g, which the loss is on and which is thrown away."""

    def __init__(self, width: int, depths: tuple[int, ...], hidden: int, projection: int):
        super().__init__()
        self.encoder = ResidualEncoder(width, tuple(depths))
        self.head = nn.Sequential(
            nn.Linear(self.encoder.width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, projection, bias=False), nn.BatchNorm1d(projection, affine=False),
        )  # fmt: skip


def nt_xent(projections: Tensor, temperature: float) -> Tensor:
    """The paper's loss (equation 1) of each view, (2B,), of projections (B, 2, D): which of all other views is its partner?"""
    similarity, partner, itself = contrastive.nt_xent_pairs(projections)  # (2B, 2B), (2B,), (2B, 2B)
    return contrastive.info_nce(similarity, partner, temperature, itself)


class SimCLR(PretextTask):
    card = Card(
        name="simclr",
        title="SimCLR",
        family="Bring views together",
        paper="A Simple Framework for Contrastive Learning of Visual Representations",
        authors="Chen, Kornblith, Norouzi, Hinton",
        year=2020,
        link="https://arxiv.org/abs/2002.05709",
        idea="Cut two views from every photo, change their colours, and match them among many: "
        "what two such views share is what the photo shows.",
        shortcut="A photo's histogram of colours tells its views from those of others, and so do textures where crops overlap. "
        "Strong changes of colour, grey views and crops down to a fifth of the area guard against it.",
        metric="accuracy",
        metric_label="Partners found",
        chance="chance",
        overview=("likeliest", "accuracy"),
        company=PHOTOS - 1,
    )
    controls = (
        Control("temperature", "Temperature", "slider", TEMPERATURE, "Low: near rivals count.",
                minimum=0.05, maximum=1, step=0.05),
        Control("photos", "Photos", "slider", PHOTOS, "More: more rivals.", minimum=2, maximum=PHOTOS),
        Control("crop", "Crops (%)", "slider", 100, "0: the whole photo.", minimum=0, maximum=100),
        Control("color", "Colours (%)", "slider", 100, "0: as they are.", minimum=0, maximum=100),
        Control("grey", "Grey (%)", "slider", 20, "Of the views.", minimum=0, maximum=100),
        Control("blur", "Blurred (%)", "slider", 50, "Of the views.", minimum=0, maximum=100),
    )
    defaults = {"size": 96, "view": 64, "width": 48, "depths": [2, 2, 2], "hidden": 512, "projection": 128,
                "temperature": TEMPERATURE}
    recipe = Recipe(batch=128, optimizer="muon", lr=4e-3, crop=(1.0, 1.0), flip=False)
    knobs = tuple(control for control in controls if control.name == "temperature")
    gathered = ("projections",)

    def __init__(self, **config):
        super().__init__(**config)
        if not 8 <= self.config["view"] <= self.config["size"]:
            raise ValueError("“view” must be from 8 to “size”.")
        if self.config["temperature"] <= 0:
            raise ValueError("“temperature” must be above 0.")

    def build(self) -> nn.Module:
        return ProjectedEncoder(*(self.config[name] for name in ("width", "depths", "hidden", "projection")))

    def example(self, images: Tensor, rng: torch.Generator, temperature: float = TEMPERATURE, photos: int = PHOTOS,
                crop: float = 100, color: float = 100, grey: float = 20, blur: float = 50) -> Example:
        twice = images.repeat_interleave(2, dim=0)  # (2B, 3, H, H), partners side by side
        made, boxes = views.crop(twice, rng, self.config["view"], AREA, strength=crop / 100)
        made = views.drop_colors(views.change_colors(made, rng, color / 100), rng, grey / 100)
        made = views.blur(made, rng, blur / 100, SIGMA)
        # The most photos that can be asked for means all of them, as in training; fewer are the same views of the first.
        B = len(images) if photos == PHOTOS else min(photos, len(images))
        return {"images": images[:B], "inputs": made.unflatten(0, (-1, 2))[:B], "boxes": boxes.unflatten(0, (-1, 2))[:B],
                "targets": torch.arange(B, device=images.device),  # whose views they are
                "temperature": torch.full((B,), temperature, device=images.device)}

    def training_example(self, images: Tensor, rng: torch.Generator) -> Example:
        return self.example(images, rng, self.config["temperature"])

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        features = model.encoder(example["inputs"].flatten(0, 1)).mean(dim=(2, 3))  # (2B, D)
        projections = F.normalize(model.head(features).float(), dim=1)
        return {"projections": projections.unflatten(0, (-1, 2)), "features": features.unflatten(0, (-1, 2))}  # (B, 2, D)

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        loss = nt_xent(prediction["projections"], example["temperature"][0].item()).mean()
        # Batch norm spreads the projections even of features that are all alike, so it is the features that are watched.
        return loss, {"feature_spread": contrastive.feature_spread(prediction["features"].detach().flatten(0, 1)).item()}

    def alarm(self, numbers: dict[str, float]) -> str:
        return contrastive.collapse_alarm(numbers["feature_spread"])

    def guessing(self, batch: int) -> float:
        return math.log(2 * batch - 1)

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        projections = prediction["projections"]
        found = contrastive.found(*contrastive.nt_xent_pairs(projections)).unflatten(0, (-1, 2)).mean(dim=1)  # (B,)
        candidates = max(1, 2 * len(found) - 1)
        of_the_set = {
            "candidates": candidates, "chance": 1 / candidates,
            "uniformity": torch.stack([contrastive.uniformity(one) for one in projections.unbind(1)]).mean().item(),
            "feature_spread": contrastive.feature_spread(projections.flatten(0, 1)).item(),
        }  # fmt: skip
        return {"accuracy": found, "alignment": contrastive.alignment(projections),
                **{name: torch.full_like(found, value) for name, value in of_the_set.items()}}

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        inputs, temperature = example["inputs"].flatten(0, 1), example["temperature"][0].item()
        pictures = [drawing.picture(view) for view in inputs]  # 2B
        small = [drawing.picture(view) for view in F.interpolate(inputs, size=(24, 24), mode="area")]
        similarity, partner, itself = contrastive.nt_xent_pairs(prediction["projections"])
        shares = (similarity / temperature).masked_fill(itself, float("-inf")).softmax(dim=1).cpu()
        ranked = shares[:2].argsort(dim=1, descending=True, stable=True)[:, : min(SHOWN, len(inputs) - 1)].tolist()
        bars = tuple(Bar(called(k), shares[0, k].item(), k == 1, k == ranked[0][0]) for k in dict.fromkeys([*ranked[0][:-1], 1]))
        framed = [drawing.edged(picture, color) for picture, color in zip(pictures, COLORS)]
        partners = [drawing.edged(picture, drawing.RIGHT) for picture in pictures[:2]]
        likeliest = [[framed[row], *(partners[k] if k == 1 - row else pictures[k] for k in ranked[row])] for row in (0, 1)]
        side, mirrored = example["images"].shape[-1], example["boxes"][0, :, 3].bool().tolist()
        squares = [(round(top * side), round(left * side), round(width * side), color)
                   for (left, top, width, _), color in zip(example["boxes"][0].tolist(), COLORS)]
        turned = " and ".join(name for name, is_mirrored in zip(NAMES, mirrored) if is_mirrored) or "none"
        guessing, count = math.log(len(inputs) - 1), range(len(inputs))
        losses = nt_xent(prediction["projections"], temperature).unflatten(0, (-1, 2)).T  # (2, B)
        return [
            Panel("photo", "Your photo", "Where its two views were cut.", "photo",
                  drawing.boxes(drawing.picture(example["images"][0]), squares, zoom=4)),
            Panel("views", "Its two views", f"Mirrored: {turned}.", "sees", drawing.wall(framed, across=2)),
            Panel("batch", "All views", "Partners side by side; yours first.", "sees",
                  drawing.wall(pictures, across=2 * math.ceil(len(inputs) ** 0.5 / 2))),  # even: a row breaks no pair
            Panel("matrix", "How alike all views are", "Framed: partners.", "answers", matrix=Matrix(
                similarity.cpu().numpy(), -1.0, 1.0, tuple(small), tuple(small), tuple((k, k ^ 1) for k in count),
                tuple((k, k) for k in count), "cosine")),
            Panel("likeliest", "Who their partners are", "After each view its likeliest; green: right.", "answers",
                  drawing.wall(likeliest[0] + likeliest[1], across=len(likeliest[0]))),
            Panel("softmax", "How sure the blue view is", f"Likeliest of {len(inputs) - 1} candidates.", "judged", bars=bars),
            Panel("losses", "Loss of each view", f"Two a photo; guessing costs {guessing:.2f}.", "judged", matrix=Matrix(
                losses.cpu().numpy(), 0.0, guessing, (), tuple(small[::2]), what="loss")),
            Panel("temperatures", "What temperature does", "Upright line: where it stands.", "judged",
                  chart=over_temperature(prediction["projections"], temperature)),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        similarity, *_ = contrastive.nt_xent_pairs(prediction["projections"])
        losses = nt_xent(prediction["projections"], example["temperature"][0].item())  # (2B,)
        figures = {name: values.mean().item() for name, values in self.metrics(example, prediction).items()}
        cosine, rivals = similarity[0, 1].item(), len(similarity) - 2
        # A rival that is just as similar counts as nearer.
        ranks = [1 + int((similarity[row, 2:] >= similarity[row, 1 - row]).sum()) for row in (0, 1)]
        first, second, guessing = losses[0].item(), losses[1].item(), math.log(rivals + 1)
        found, alignment, uniformity = (figures[name] for name in ("accuracy", "alignment", "uniformity"))
        return {
            "loss": Number("Loss of its views", (first + second) / 2, f"{first:.2f} and {second:.2f}",
                           f"guessing gives ln {rivals + 1} = {guessing:.2f}"),
            "loss_first": Number("Loss of the blue view", first),
            "loss_second": Number("Loss of the orange view", second),
            "loss_guessing": Number("Loss of guessing", guessing),
            "loss_all": Number("Loss of all views", losses.mean().item()),
            "rank": Number("Rank of the partner", ranks[0], f"{ranks[0]} and {ranks[1]} of {rivals + 1}", "1: the most alike"),
            "rank_second": Number("Rank of the orange view's partner", ranks[1]),
            "cosine": Number("Cosine of its views", cosine, signed(cosine), "1: the same to the network"),
            "accuracy": Number("Partners found", found, f"{round(found * len(losses))} of {len(losses)}",
                               f"chance: 1 of {rivals + 1}"),
            "negatives": Number("Rivals of a view", rivals),
            "alignment": Number("Alignment", alignment, f"{alignment:.2f}", "distance² of partners; 0 is best"),
            "uniformity": Number("Uniformity", uniformity, signed(uniformity), "0: all one; −4: evenly spread"),
            "feature_spread": Number("Spread", figures["feature_spread"]),
        }

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        grid = model.encoder(images)  # (B, D, h, w)
        return grid.mean(dim=(2, 3)), grid


def over_temperature(projections: Tensor, now: float) -> Chart:
    """What the same projections cost at other temperatures."""
    temperatures = tuple(0.05 * 20 ** (step / 24) for step in range(25))  # 0.05 to 1
    losses = torch.stack([nt_xent(projections, temperature) for temperature in temperatures])  # (25, 2B)
    lines = tuple(Line(label, tuple(values.mean(dim=1).tolist())) for label, values in
                  (("your photo", losses[:, :2]), ("all photos", losses)))
    return Chart(temperatures, lines, "temperature", "loss", True, now, ("guessing", math.log(losses.shape[1] - 1)))


def called(view: int) -> str:
    """A view's name, by its number."""
    return f"{NAMES[view]} view" if view < 2 else f"photo {view // 2 + 1}, view {view % 2 + 1}"


def signed(number: float) -> str:
    """A number as a person reads it, with a minus as wide as a digit."""
    return f"{number:.2f}".replace("-", "−")

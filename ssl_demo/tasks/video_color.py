r"""Video colouring: colour a grey clip by pointing, from every place of a frame, at where its colour was before.

The idea. One frame's colours are given; the others are grey. For each place of a grey frame the network points at places of
earlier frames and copies their colours. A thing keeps its colour as it moves: who points well has learned to follow it, though
nobody said what a thing is. Copy a mask instead of colours and it is a tracker.

What could cheat. Most of a clip stands still: copying from the same place is almost always right. So we print what that alone
reaches, in colour and in tracking: only what is better was learned. Grey is easy: so colours are sixteen clusters.

The loss. $$L = -\sum_j \log \sum_i A_{ij} [c_i = c_j], \; A_{ij} \propto \exp(f_i \cdot f_j / \tau)$$ features $f$, colours $c$.

Where we differ from the paper. A small residual network at 144 px with a place for every 4 pixels, not a ResNet-18 at 256 px
with one for 8 and 3-D convolutions on top; features of length one, compared by their angle; pointers that reach a few places
around, not the whole frame. Each frame copies from up to three before it; in use also from frame 1. Twenty clips, moving photos.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import drawing
from ..lab import lab_to_rgb, rgb_to_lab
from ..masks import j_and_f
from ..nets import MEAN, SPREAD, ResidualEncoder
from ..pointers import carry, k_means
from ..pretext import Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe
from ..progress import steps

CELL = 4  # pixels a side of what a place of the map stands for


class PointerNet(nn.Module):
    """Features of length one for every place of a grey frame, and the sixteen colours that are told apart.

    A fine map of nearby things (a cell for 4 pixels) and a coarse one of wider surroundings are added up.
    """

    def __init__(self, width: int, depths: tuple[int, ...], features: int, clusters: int):
        super().__init__()
        self.encoder = ResidualEncoder(width, tuple(depths), in_channels=1)
        self.fine_blocks = depths[0]
        self.fine = nn.Conv2d(width, features, 1)
        self.coarse = nn.Conv2d(self.encoder.width, features, 1)
        side = math.ceil(clusters**0.5)
        grid = (torch.arange(side) - (side - 1) / 2) * 24.0  # until `prepare` has seen colours
        self.register_buffer("centres", torch.cartesian_prod(grid, grid)[:clusters])  # (K, 2)

    def forward(self, frames: Tensor) -> Tensor:
        """Grey frames (N, 1, H, W) to (N, D, h, w)."""
        near = self.encoder.stages[: self.fine_blocks](self.encoder.stem((frames - MEAN) / SPREAD))
        far = self.coarse(self.encoder.stages[self.fine_blocks :](near))
        both = self.fine(near) + F.interpolate(far, size=near.shape[-2:], mode="bilinear", align_corners=False)
        return F.normalize(both.float(), dim=1)

    def quantise(self, colors: Tensor) -> Tensor:
        """Colours ab (..., 2, h, w) to the numbers of their nearest clusters (..., h, w)."""
        difference = colors.movedim(-3, -1)[..., None, :] - self.centres
        return difference.square().sum(dim=-1).argmin(dim=-1)


class VideoColor(PretextTask):
    card = Card(
        name="video_color",
        title="Video colouring",
        family="Fill in what is missing",
        paper="Tracking Emerges by Colorizing Videos",
        authors="Vondrick, Shrivastava, Fathi, Guadarrama, Murphy",
        year=2018,
        link="https://arxiv.org/abs/1806.09594",
        idea="Colour a grey frame by pointing at where its colours were in earlier frames: who points well follows things.",
        shortcut="Most of a clip stands still, so that copying from the same place is nearly always right. What that alone "
        "reaches stands beside each figure: only what is better was learned.",
        metric="j_and_f",
        metric_label="Objects followed (J and F)",
        chance="j_and_f_identity", paper_score="0.337 (DAVIS 2017, several objects)",
        input="video",
        watch="color_accuracy",
        watched=("color_accuracy_identity", "Colours right"),
        baselines=(("j_and_f_identity", "mask of frame one kept"),),
    )
    controls = (
        Control("frames", "Frames", "slider", 24, "From the clip's start; training takes 4.", minimum=2, maximum=96),
        Control("recent", "Earlier frames", "slider", 2, "Copied from beside frame 1; 0: only frame 1.", minimum=0, maximum=3),
        Control("frame", "Frame looked at", "slider", 12, "The one in the still pictures.", minimum=2, maximum=96),
        Control("pixel", "Place", "point", "", "Of that frame, looked for in frame 1; empty: random."),
        Control("strokes", "Painted", "brush", "", "Something in frame 1 to follow."),
    )
    defaults = {"size": 144, "width": 48, "depths": [2, 2], "features": 32, "clusters": 16, "radius": 4,
                "temperature": 0.05, "best": 8}
    recipe = Recipe(batch=8, lr=1.5e-3, crop=(0.5, 1.0))
    knobs = (Control("temperature", "Temperature", "slider", 0.05, "Low: copies from few places.", 0.02, 0.5, 0.01),)

    def build(self) -> nn.Module:
        return PointerNet(self.config["width"], self.config["depths"], self.config["features"], self.config["clusters"])

    def prepare(self, model: nn.Module, photos) -> None:
        colors = grid_colors(rgb_to_lab(photos.sample(512))).movedim(1, -1).flatten(0, 2)  # (places, 2)
        centres = k_means(colors[:: max(1, len(colors) // 65536)], self.config["clusters"])
        model.centres.copy_(centres.half())  # as exact as weights are kept: a colour stays in its cluster

    def example(self, images: Tensor, rng: torch.Generator, frames: float = 24, recent: float = 2, frame: float = 12,
                pixel: str = "", strokes: str = "") -> Example:
        if images.shape[1] < 2:
            raise ValueError("This clip has a single frame; following things takes at least two.")
        images = images[:, : round(frames)]
        (B, T), size = images.shape[:2], images.shape[-1]
        lab = rgb_to_lab(images.flatten(0, 1))
        known = torch.zeros(B, T, dtype=torch.bool, device=images.device)
        known[:, 0] = True
        place = torch.rand(B, 2, generator=rng)  # drawn always, so that one seed means one chance
        if pixel:
            place = torch.tensor([[float(share) / 100 for share in pixel.split()]]).expand(B, 2)
        example = {"images": images, "inputs": lab[:, :1].unflatten(0, (B, T)) / 100, "known": known, "place": place,
                   "targets": grid_colors(lab).unflatten(0, (B, T)), "recent": torch.full((B,), round(recent)),
                   "frame": torch.full((B,), min(round(frame), T) - 1)}
        if strokes:
            painted = torch.tensor(drawing.painted(strokes, size), dtype=torch.long, device=images.device)
            example["masks"] = painted.expand(B, 1, -1, -1)
        return example

    def training_example(self, images: Tensor, rng: torch.Generator) -> Example:
        example = self.example(images, rng)
        return {**example, "known": torch.ones_like(example["known"])}  # so each frame copies true colours, as in the paper

    def evaluation_example(self, images: Tensor, rng: torch.Generator) -> Example:
        return self.example(images, rng, frames=images.shape[1])

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        inputs, colors, known = example["inputs"], example["targets"], example["known"]
        B, T, K, (h, w) = *inputs.shape[:2], len(model.centres), colors.shape[-2:]
        chunks = steps(inputs.flatten(0, 1).split(16), "frames encoded") if B == 1 else [inputs.flatten(0, 1)]
        features = torch.cat([model(chunk) for chunk in chunks]).unflatten(0, (B, T))  # (B, T, D, h, w)
        clusters = model.quantise(colors)  # (B, T, h, w): in what is known, and in what the loss compares with
        labels = [F.one_hot(clusters, K).movedim(-1, 2).float(), colors]
        if "masks" in example:
            numbers = example["masks"][:, :1].unique()
            objects = (example["masks"][:, :1, None] == numbers[:, None, None]).float()  # (B, 1, O, H, W)
            labels.append(F.adaptive_avg_pool2d(objects.flatten(0, 1), (h, w))[:, None].expand(-1, T, -1, -1, -1))
        best = 0 if known.all() else self.config["best"]
        with torch.autocast(inputs.device.type, enabled=False):
            copied = carry(features.float(), torch.cat(labels, dim=2), known, self.config["radius"], self.config["temperature"],
                           int(example["recent"][0]), best)
        column, row = (example["place"] * torch.tensor([w, h])).long().T.clamp(max=w - 1)
        asked = features[torch.arange(B), example["frame"], :, row, column]  # (B, D)
        found = torch.einsum("bd,bdn->bn", asked, features[:, 0].flatten(2)) / self.config["temperature"]
        prediction = {"features": features, "clusters": clusters, "shares": copied[:, :, :K], "colors": copied[:, :, K : K + 2],
                      "pointer": found.softmax(dim=1).unflatten(1, (h, w))}
        if "masks" in example:  # of the objects' shares at the masks' own resolution, the largest
            shares = F.interpolate(copied[:, :, K + 2 :].flatten(0, 1), size=objects.shape[-2:], mode="bilinear")
            prediction["followed"] = numbers[shares.argmax(dim=1)].unflatten(0, (B, T))  # (B, T, H, W)
        return prediction

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        right = prediction["shares"].gather(2, prediction["clusters"][:, :, None])[:, 1:]  # (B, T - 1, 1, h, w)
        return -right.clamp(min=1e-4).log().mean(), {}

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        colors, clusters = example["targets"], prediction["clusters"]

        def error(answer: Tensor) -> Tensor:
            return (answer - colors)[:, 1:].square().mean(dim=(1, 2, 3, 4)).sqrt()

        def right(answer: Tensor) -> Tensor:
            return (answer == clusters)[:, 1:].float().mean(dim=(1, 2, 3))

        figures = {"color_accuracy": right(prediction["shares"].argmax(dim=2)), "color_accuracy_identity": right(clusters[:, :1]),
                   "ab_rmse": error(prediction["colors"]), "ab_rmse_identity": error(colors[:, :1])}
        if "masks" in example and example["masks"].shape[1] > 1:
            masks = example["masks"]
            j, f = j_and_f(prediction["followed"], masks)
            figures |= {"j_and_f": (j + f) / 2, "j": j, "f": f,
                        "j_and_f_identity": sum(j_and_f(masks[:, :1].expand_as(masks), masks)) / 2}
        return figures

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        images, lightness, colors = example["images"][0], example["inputs"][0], example["targets"][0]
        size, frame, fps = images.shape[-1], int(example["frame"][0]), float(example.get("fps", [12])[0])
        large = F.interpolate(prediction["colors"][0], size=(size, size), mode="bilinear", align_corners=False)
        colored = lab_to_rgb(torch.cat([lightness * 100, large], dim=1))
        grey, first = lightness.expand(-1, 3, -1, -1), drawing.picture(images[0])
        pointer = drawing.resize_map(prediction["pointer"][0], size).clamp(min=0).cpu().numpy()
        x, y = (int(share * size) for share in example["place"][0].tolist())
        asked = drawing.boxes(drawing.picture(grey[frame]), [(max(0, y - 4), max(0, x - 4), 9, drawing.RIGHT)])
        def clip(name: str, title: str, caption: str, stage: str, *frames: Tensor) -> Panel:
            video = np.concatenate([drawing.film(part) for part in frames], axis=2)
            return Panel(name, title, caption, stage, video=video, fps=fps)

        def error(answer: Tensor):
            off = drawing.resize_map((answer - colors[frame]).norm(dim=0), size)
            return drawing.heat((off / 40).clamp(0, 1).cpu().numpy())

        followed = []
        if "masks" in example:
            is_object = (prediction["followed"][0] > 0)[:, None]  # (T, 1, H, W)
            tint = torch.tensor([0.21, 0.75, 0.48], device=images.device)[:, None, None]  # drawing.RIGHT
            tinted = torch.where(is_object, 0.35 * grey + 0.65 * tint, images)
            first = drawing.picture(tinted[0])
            followed = [clip("followed", "What you painted", "Followed from frame to frame.", "answers", tinted)]
        return [
            Panel("first", "Frame 1", "Its colours are given.", "photo", first, brush="Paint something to follow."),
            clip("grey", "What it sees", f"{len(images)} grey frames.", "sees", grey),
            Panel("asked", f"Frame {frame + 1}", "Marked: the place that asks.", "sees", asked, click="Click another place."),
            *followed,
            clip("colored", "Coloured", "Colours copied from frame to frame.", "answers", colored),
            Panel("pointer", "Where frame 1 has it", "Lit: where the marked place points.", "answers",
                  drawing.glow(drawing.picture(images[0]), (pointer / max(pointer.max(), 1e-9)) ** 0.5)),
            clip("together", "Grey, coloured, true", "Side by side.", "judged", grey, colored, images),
            Panel("error", "Colour error", f"Frame {frame + 1}; dark: more.", "judged", error(prediction["colors"][0, frame])),
            Panel("identity", "Standing still", "Frame 1's colours.", "judged", error(colors[0])),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        figures = {name: values[0].item() for name, values in self.metrics(example, prediction).items()}
        ours, kept = figures["ab_rmse"], figures["ab_rmse_identity"]
        right, right_kept = figures["color_accuracy"], figures["color_accuracy_identity"]
        pointer = prediction["pointer"][0]
        h, w = pointer.shape
        row, column = divmod(int(pointer.argmax()), w)
        x, y = example["place"][0].tolist()
        apart = 100 * math.hypot((column + 0.5) / w - x, (row + 0.5) / h - y)
        numbers = {
            "frames": Number("Frames", example["inputs"].shape[1]),
            "ab_rmse": Number("Colour error", ours, f"{ours:.1f}", f"the same place's colour: {kept:.1f}"),
            "ab_rmse_identity": Number("Colour error of the same place", kept),
            "color_accuracy": Number("Colours right", right, f"{right:.0%}",
                                     f"of {len(model.centres)}; the same place's: {right_kept:.0%}"),
            "color_accuracy_identity": Number("Colours right from the same place", right_kept),
            "pointed_distance": Number("The place came", apart, f"{apart:.0f} % of the width", "where it points in frame 1"),
        }
        if "masks" in example:
            areas = (prediction["followed"][0] > 0).float().mean(dim=(1, 2)).tolist()
            numbers["area_first"] = Number("Painted area", areas[0])
            numbers["area_last"] = Number("Followed to the end", areas[-1], f"{areas[-1]:.1%}",
                                          f"of the picture; painted: {areas[0]:.1%}")
        return numbers

    def click(self, panel: str, x: float, y: float, example: Example) -> dict:
        return {"pixel": f"{100 * x:.1f} {100 * y:.1f}"}

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        grid = model.encoder(rgb_to_lab(images)[:, :1] / 100)  # (B, D, h, w), before it is made to point
        return grid.mean(dim=(2, 3)), grid


def grid_colors(lab: Tensor) -> Tensor:
    """The colours ab (N, 2, h, w) of Lab pictures (N, 3, H, W), the mean of each cell of the map."""
    return F.avg_pool2d(lab[:, 1:], CELL)

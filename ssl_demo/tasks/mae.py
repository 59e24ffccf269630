r"""Masked autoencoder (MAE): hide most of the photo, encode what is left, draw the rest.

The idea. Three quarters of the patches are removed; the encoder works on the visible ones alone, which makes it cheap; a
light decoder gets the encoded patches and one learned token for every hidden place, and paints the pixels.

What could cheat. Neighbouring pixels are so alike that blurring over small holes is almost right, without any knowledge of
what is seen. A high mask ratio guards against it, and we print what a blur alone would reach: only what is better than that
was understood. Nothing of a hidden patch, not even its mean colour, reaches the network or the picture.

The loss. $$L = \frac{1}{|H|} \sum_{i \in H} \lVert \hat x_i - x_i \rVert^2$$ the error over the hidden patches $H$ only.

Where we differ from the paper. A transformer of a few million parameters at 96 px with 8 px patches instead of ViT-L at
224 px with 16; no class token; pixels as targets by default (the paper's best uses per-patch normalised ones, `norm_pix`,
which cannot be shown without guessing each patch's mean and contrast); some 27 thousand photos instead of ImageNet.
"""

import torch
from torch import Tensor, nn

from .. import drawing
from ..baselines import smooth_interpolation
from ..masks import rank_places
from ..nets import MEAN, SPREAD, init_transformer, milliseconds, patchify, sincos_positions, transformer, unpatchify
from ..pretext import Card, Control, Example, Number, Panel, Prediction, PretextTask, Recipe


class MaskedAutoencoder(nn.Module):
    """Encoder on visible patches, lighter decoder on all places. Patches (B, N, P) with P = 3 * patch * patch."""

    def __init__(self, size: int, patch: int, width: int, depth: int, heads: int, decoder_width: int, decoder_depth: int):
        super().__init__()
        if size % patch:
            raise ValueError(f"The size ({size}) must be a multiple of the patch ({patch}).")
        side, pixels = size // patch, 3 * patch * patch
        self.embed = nn.Linear(pixels, width)
        self.encoder = transformer(width, depth, heads)
        self.norm = nn.LayerNorm(width)
        self.to_decoder = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(decoder_width))
        self.decoder = transformer(decoder_width, decoder_depth, max(1, decoder_width // 32))
        self.decoder_norm = nn.LayerNorm(decoder_width)
        self.to_pixels = nn.Linear(decoder_width, pixels)
        self.register_buffer("positions", sincos_positions(side, width), persistent=False)
        self.register_buffer("decoder_positions", sincos_positions(side, decoder_width), persistent=False)
        self.apply(init_transformer)
        nn.init.normal_(self.mask_token, std=0.02)

    def encode(self, patches: Tensor, visible: Tensor) -> Tensor:
        """Visible patches (B, V, P) at places (B, V) to (B, V, D). The cost is that of V tokens, not of N."""
        return self.norm(self.encoder(self.embed((patches - MEAN) / SPREAD) + self.positions[visible]))

    def encoder_multiply_adds(self, tokens: int) -> int:
        """The encoder's work: linear in the tokens for its matrices (12 D^2 each block), quadratic for attention."""
        D, depth = self.embed.out_features, len(self.encoder)
        return tokens * (self.embed.in_features * D + depth * 12 * D**2) + depth * 2 * tokens**2 * D

    def decode(self, encoded: Tensor, visible: Tensor) -> Tensor:
        """Encoded patches (B, V, D) at places (B, V) to pixels in [0, 1], roughly, of all places, (B, N, P)."""
        tokens = self.to_decoder(encoded)  # (B, V, D')
        places = self.mask_token.to(tokens.dtype).repeat(len(tokens), len(self.decoder_positions), 1)  # (B, N, D')
        places = places.scatter(1, visible[:, :, None].expand_as(tokens), tokens) + self.decoder_positions
        return self.to_pixels(self.decoder_norm(self.decoder(places))).float() * SPREAD + MEAN


class MAE(PretextTask):
    card = Card(
        name="mae",
        title="Masked autoencoder",
        family="Fill in what is missing",
        paper="Masked Autoencoders Are Scalable Vision Learners",
        authors="He, Chen, Xie, Li, Dollár, Girshick",
        year=2021,
        link="https://arxiv.org/abs/2111.06377",
        idea="Hide three quarters of a photo and draw them from the rest: beyond what a blur can fill in, "
        "that takes knowing what is there.",
        shortcut="Small holes can be filled by blurring their neighbours. A high mask ratio leaves too little for that, and the "
        "blur's own error stands beside ours. No statistic of a hidden patch ever reaches the network or the picture.",
        metric="mse_hidden",
        metric_label="Error on hidden patches",
        baselines=(("mse_smooth", "blur"), ("mse_mean_color", "mean colour")),
        chance="mse_mean_color",
        overview=("ratio_to_smooth",),
        higher_is_better=False,
    )
    controls = (
        Control("mask_ratio", "Hidden (%)", "slider", 75, "The paper hides 75.",
                minimum=0, maximum=95, step=1),
        Control("kind", "Which patches", "choice", "random", "By hand: click patches in the picture.",
                choices=("random", "block", "grid", "by hand")),
        Control("patches", "Hidden by hand", "patches", "", "Numbers of the hidden patches in reading order, for “by hand”."),
    )
    defaults = {"size": 96, "patch": 8, "width": 160, "depth": 6, "heads": 5, "decoder_width": 128, "decoder_depth": 2,
                "norm_pix": False, "loss_on": "hidden", "mask_ratio": 75}
    recipe = Recipe(batch=32, optimizer="muon", lr=4e-3, crop=(0.4, 1.0))
    quick = {"lr": 5e-3, "crop": (0.8, 1.0), "flip": False}  # of few photos all is learned by heart, given whole and upright
    knobs = (
        Control("mask_ratio", "Hidden (%)", "slider", 75, "The paper hides 75.", minimum=10, maximum=95, step=5),
        Control("loss_on", "Judged on", "choice", "hidden", "The paper: hidden patches.", choices=("hidden", "all")),
    )

    def __init__(self, **config):
        super().__init__(**config)
        if self.config["loss_on"] not in ("hidden", "all"):
            raise ValueError("“loss_on” must be hidden or all.")
        if not 0 < self.config["mask_ratio"] < 100:
            raise ValueError("“mask_ratio” must be between 0 and 100, in per cent.")

    def build(self) -> nn.Module:
        names = ("size", "patch", "width", "depth", "heads", "decoder_width", "decoder_depth")
        return MaskedAutoencoder(**{name: self.config[name] for name in names})

    def example(self, images: Tensor, rng: torch.Generator, mask_ratio: float = 75, kind: str = "random",
                patches: str = "") -> Example:
        side = images.shape[-1] // self.config["patch"]
        count = round(side * side * mask_ratio / 100)
        if kind == "by hand":
            chosen = [int(number) for number in patches.split()]
            if chosen and chosen[-1] >= side * side:
                raise ValueError(f"There is no patch {chosen[-1]}: they are numbered 0 to {side * side - 1}.")
            order, count = torch.ones(len(images), side * side), len(chosen)
            order[:, chosen] = 0
        else:
            order = rank_places(kind, count, len(images), side, rng)
        places = order.argsort(dim=1, stable=True).to(images.device)
        visible = places[:, count:].sort(dim=1).values  # (B, V)
        hidden = torch.ones(len(images), side * side, dtype=torch.bool, device=images.device).scatter(1, visible, False)
        targets = patchify(images, self.config["patch"])  # (B, N, P)
        inputs = targets.gather(1, visible[:, :, None].expand(-1, -1, targets.shape[2]))  # (B, V, P): all the network gets
        return {"inputs": inputs, "visible": visible, "targets": targets, "hidden": hidden}

    def training_example(self, images: Tensor, rng: torch.Generator) -> Example:
        return self.example(images, rng, self.config["mask_ratio"])

    def evaluation_example(self, images: Tensor, rng: torch.Generator) -> Example:
        return self.example(images, rng)  # one score for all, whatever they were trained on

    def predict(self, model: nn.Module, example: Example) -> Prediction:
        encoded = model.encode(example["inputs"], example["visible"])
        return {"encoded": encoded, "patches": model.decode(encoded, example["visible"])}  # (B, V, D), (B, N, P)

    def loss(self, example: Example, prediction: Prediction) -> tuple[Tensor, dict[str, float]]:
        targets = example["targets"]
        if self.config["norm_pix"]:
            variance, mean = torch.var_mean(targets, dim=2, keepdim=True)
            targets = (targets - mean) / (variance + 1e-6).sqrt()  # the paper's normalised targets (section 4.1)
        error = ((prediction["patches"] - targets) / SPREAD).square().mean(dim=2)  # (B, N)
        counted = example["hidden"] if self.config["loss_on"] == "hidden" else torch.ones_like(example["hidden"])
        return (error * counted).sum() / counted.sum().clamp(min=1), {}

    def metrics(self, example: Example, prediction: Prediction) -> dict[str, Tensor]:
        inputs, hidden, smooth = example["inputs"], example["hidden"], self._smooth(example)
        colors = inputs.unflatten(2, (3, -1)).mean(dim=(1, 3)) if inputs.shape[1] else inputs.new_full((len(inputs), 3), 0.5)
        guess = colors.repeat_interleave(self.config["patch"] ** 2, dim=1)[:, None]  # (B, 1, P): the visible patches' mean colour
        drawn = self._in_pixels(example, prediction, smooth)

        def error(patches: Tensor) -> Tensor:
            return ((patches - example["targets"]).square().mean(dim=2) * hidden).sum(1) / hidden.sum(1).clamp(min=1)

        return {"mse_hidden": error(drawn), "mse_mean_color": error(guess), "mse_smooth": error(smooth)}

    def aggregate(self, per_example: dict[str, Tensor]) -> dict[str, float]:
        means = super().aggregate(per_example)
        return {**means, "ratio_to_smooth": means["mse_hidden"] / max(means["mse_smooth"], 1e-12)}

    def render(self, example: Example, prediction: Prediction) -> list[Panel]:
        patch, example = self.config["patch"], {name: value[:1] for name, value in example.items()}
        hidden, targets, smooth = example["hidden"], example["targets"], self._smooth(example)
        raw = self._in_pixels(example, {"patches": prediction["patches"][:1]}, smooth)
        error = (raw - targets).square().mean(dim=2).sqrt() * hidden  # (1, N)
        together = torch.where(hidden[:, :, None], raw, targets)
        side, picture = round(hidden.shape[1] ** 0.5), drawing.picture(unpatchify(targets, patch)[0])
        return [
            Panel("photo", "Your photo", f"{side * side} patches of {patch} × {patch} pixels.", "photo", picture),
            Panel("visible", "What the encoder sees", f"{int((~hidden).sum())} patches.", "sees",
                  drawing.cover(picture, self._pixels(hidden)[0].cpu().numpy()), click="Click to hide or show."),
            Panel("reconstruction", "Its reconstruction", "Its patches beside the visible ones.", "answers",
                  drawing.picture(unpatchify(together, patch)[0])),
            Panel("raw", "All it draws", "Raw output, visible places too.", "answers",
                  drawing.picture(unpatchify(raw, patch)[0])),
            Panel("error", "Where it is wrong", "Darker: further from the truth.", "judged",
                  drawing.heat((drawing.cells(error[0], side, patch) / 0.25).clamp(0, 1).cpu().numpy())),
            Panel("smooth", "What a blur would draw", "The guess without knowledge.", "judged",
                  drawing.picture(unpatchify(smooth, patch)[0])),
        ]

    def numbers(self, model: nn.Module, example: Example, prediction: Prediction) -> dict[str, Number]:
        inputs, visible, targets = example["inputs"][:1], example["visible"][:1], example["targets"][:1]
        every = torch.arange(targets.shape[1], device=targets.device)[None]
        seen, total = visible.shape[1], targets.shape[1]
        work, work_all = model.encoder_multiply_adds(seen), model.encoder_multiply_adds(total)
        time_seen, time_all = milliseconds(model.encode, inputs, visible), milliseconds(model.encode, targets, every)
        figures = {name: values[0].item() for name, values in self.metrics(example, prediction).items()}
        ours, color, smooth = figures["mse_hidden"], figures["mse_mean_color"], figures["mse_smooth"]
        ratio = ours / smooth if smooth > 0 else None
        return {
            "tokens": Number("Patches encoded", seen, f"{seen} of {total}"),
            "tokens_all": Number("Patches in all", total),
            "multiply_adds": Number("Encoder's multiply-adds", work, f"{work / 1e6:.0f} M",
                                    f"{work_all / 1e6:.0f} M for all patches"),
            "multiply_adds_all": Number("Encoder's work on all patches", work_all),
            "encoder_milliseconds": Number("Encoder's time", time_seen, f"{time_seen:.1f} ms",
                                           f"{time_all:.1f} ms for all patches"),
            "encoder_milliseconds_all": Number("Encoder's time on all patches", time_all),
            "mse_hidden": Number("Error on hidden patches", ours, f"{ours:.4f}",
                                 f"a blur: {smooth:.4f}, mean colour: {color:.4f}"),
            "mse_smooth": Number("Error of a blur", smooth),
            "mse_mean_color": Number("Error of the mean colour", color),
            "ratio_to_smooth": Number("Error beside the blur's", ratio, "–" if ratio is None else f"{ratio:.2f} ×",
                                      "below 1: more than smoothing"),
        }

    def click(self, panel: str, x: float, y: float, example: Example) -> dict:
        hidden = example["hidden"][0].tolist()
        side = round(len(hidden) ** 0.5)
        cell = min(int(y * side), side - 1) * side + min(int(x * side), side - 1)
        hidden[cell] = not hidden[cell]
        return {"kind": "by hand", "patches": " ".join(str(number) for number, is_hidden in enumerate(hidden) if is_hidden)}

    def features(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        patches = patchify(images, self.config["patch"])
        every = torch.arange(patches.shape[1], device=images.device).expand(len(patches), -1)
        encoded = model.encode(patches, every)  # (B, N, D)
        side = round(patches.shape[1] ** 0.5)
        return encoded.mean(dim=1), encoded.transpose(1, 2).unflatten(2, (side, side))

    def _pixels(self, hidden: Tensor) -> Tensor:
        """Hidden patches (B, N) as hidden pixels (B, H, W)."""
        side, patch = round(hidden.shape[1] ** 0.5), self.config["patch"]
        return hidden.reshape(-1, side, side).repeat_interleave(patch, 1).repeat_interleave(patch, 2)

    def _smooth(self, example: Example) -> Tensor:
        """Patches (B, N, P): the visible ones, and for the hidden ones what a blur makes of those."""
        images, hidden = unpatchify(example["targets"], self.config["patch"]), self._pixels(example["hidden"])
        return patchify(smooth_interpolation(images, hidden, images.shape[-1] / 32), self.config["patch"])

    def _in_pixels(self, example: Example, prediction: Prediction, smooth: Tensor) -> Tensor:
        """The drawn patches (B, N, P) in [0, 1]. Under `norm_pix` with the blur's mean and the visible ones' contrast."""
        drawn = prediction["patches"].float()
        if self.config["norm_pix"]:
            inputs = example["inputs"]
            contrast = inputs.std(dim=2).mean(dim=1)[:, None, None] if inputs.shape[1] else 0
            drawn = drawn * contrast + smooth.mean(dim=2, keepdim=True)
        return drawn.clamp(0, 1)

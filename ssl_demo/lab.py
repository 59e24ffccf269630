"""Colours as lightness and two colour axes: Lab, its bins, and what Zhang, Isola and Efros (2016) do with them.

L is lightness, 0 (black) to 100 (white); a runs from green to red, b from blue to yellow, both about -110 to 110, 0 is grey.
Q bins of colour are numbered in one order everywhere; (B, Q, h, w) are logits over them, ab maps are (B, 2, H, W).
"""

import contextlib
import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 10.0  # the step between bins along a and b
NEAREST, SIGMA = 5, 5.0  # a colour is spread over so many bins, by a Gaussian of this width (section 2.1)
TEMPERATURE = 0.38  # of the annealed mean (section 2.3)
SPREAD = 16.0  # deviation of a and b in photos, roughly: networks work on standardised values
REACH = 12  # steps of the grid from grey to beyond any colour
RAREST = 0.05  # share of an even one that every bin is met with at least: else a few pixels of one photo would make the score
APART = 18.0  # two colours so far from each other are told apart at a glance
FARTHEST = 150  # the largest threshold of the cumulative error curve


def _exact(values: Tensor):
    """No low precision within; a tensor without memory ("meta") has no precision to lose, and PyTorch no word for it."""
    kind = values.device.type
    return contextlib.nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


def rgb_to_lab(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] to Lab (B, 3, H, W), in float32 whatever the precision around it."""
    from kornia.color import rgb_to_lab  # late: kornia takes a second to import, and the page needs no colours to start

    with _exact(images):
        return rgb_to_lab(images.float())


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab (B, 3, H, W) to images in [0, 1]; a colour that no screen shows is clamped to one that it does."""
    from kornia.color import lab_to_rgb

    with _exact(lab):
        return lab_to_rgb(lab.float())


def resize(maps: Tensor, size: int) -> Tensor:
    """Maps (B, C, h, w) at (size, size)."""
    return maps.float() if maps.shape[-1] == size else F.interpolate(maps.float(), size=(size, size), mode="bilinear")


def ab_bins() -> Tensor:
    """The in-gamut bins (Q, 2): the corners of all squares of the grid that hold a colour of sRGB, at any lightness.

    Computed, and the same on every machine: Q is 306, where the paper counts 313.
    """
    return _gamut()[0]


@functools.lru_cache(maxsize=1)
def _gamut() -> tuple[Tensor, Tensor]:
    """The bins (Q, 2), and the number of the bin at each point of the grid, rows along a, columns along b, or -1.

    Seen along L, the surface of the RGB cube covers all that its inside does. What is kept for the life of the process must not
    depend on who asked first: a network without memory ("meta") or a run whose tensors cannot be trained on.
    """
    with torch.device("cpu"), torch.inference_mode(False):
        levels = torch.linspace(0, 1, 64)
        face = torch.cartesian_prod(levels, levels)
        sides = [torch.cat([face, torch.full((len(face), 1), side)], dim=1) for side in (0.0, 1.0)]
        surface = torch.cat([side.roll(axis, dims=1) for side in sides for axis in range(3)])  # (colours, 3)
        square = (rgb_to_lab(surface.T[None, :, :, None])[0, 1:, :, 0].T / GRID).floor()  # (colours, 2)
        corners = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        points = (square.unique(dim=0)[:, None] + corners).flatten(0, 1).unique(dim=0)
        table = torch.full((2 * REACH + 1, 2 * REACH + 1), -1)
        table[tuple(points.long().T + REACH)] = torch.arange(len(points))
        return points * GRID, table


def nearest_bin(ab: Tensor) -> Tensor:
    """The number (...) of the bin nearest to each colour (..., 2) of sRGB."""
    a, b = ((ab / GRID).round().clamp(-REACH, REACH).long() + REACH).unbind(dim=-1)
    return _gamut()[1].to(ab.device)[a, b].clamp(min=0)


def encode(ab: Tensor) -> tuple[Tensor, Tensor]:
    """Colours (..., 2) as their nearest bins (..., 5), the nearest first, and these bins' shares (..., 5), which sum to 1.

    The nearest five of a grid are among the nine around a colour. At the edge of the gamut fewer may be: their shares are 0.
    """
    step = torch.arange(-1, 2, device=ab.device)
    around = torch.cartesian_prod(step, step)  # (9, 2)
    centre = (ab / GRID).round().clamp(1 - REACH, REACH - 1)
    distance = ((ab / GRID - centre)[..., None, :] - around).square().sum(dim=-1) * GRID**2  # (..., 9)
    places = (centre.long()[..., None, :] + around + REACH).unbind(dim=-1)
    numbers = _gamut()[1].to(ab.device)[places]
    distance, order = distance.masked_fill(numbers < 0, 1e9).topk(NEAREST, largest=False)
    return numbers.gather(-1, order).clamp(min=0), (-distance / (2 * SIGMA**2)).softmax(dim=-1)


def annealed_mean(logits: Tensor, temperature: float | Tensor = TEMPERATURE, bins: Tensor | None = None) -> Tensor:
    """The values (B, C, h, w) of distributions over bins (Q, C), by default those of colour, from logits (B, Q, h, w).

    At temperature 1 their mean, at 0 their mode, and in between the mean of the distribution made sharper.
    """
    bins = (ab_bins() if bins is None else bins).to(logits.device)
    sharp = (logits.float() / torch.as_tensor(temperature, device=logits.device).clamp(min=1e-6)).softmax(dim=1)
    return torch.einsum("bqhw,qc->bchw", sharp, bins)


def entropy(logits: Tensor) -> Tensor:
    """Of distributions over bins, from logits (B, Q, h, w): (B, h, w) in nats."""
    log_shares = logits.float().log_softmax(dim=1)
    return -(log_shares.exp() * log_shares).sum(dim=1)


def at_place(logits: Tensor, lightness: Tensor, truth: Tensor, answer: Tensor, point: Tensor) -> dict:
    """What is said and true at a point (x, y) in [0, 1] of one photo: shares (Q,), lightness, truth (2,), answer (2,).

    The distribution and the answer are those of the cell of (Q, h, w) that the point lies in.
    """
    def at(maps: Tensor) -> Tensor:
        column, row = (min(int(float(share) * maps.shape[-1]), maps.shape[-1] - 1) for share in point)
        return maps[:, row, column].float().cpu()

    return {"shares": at(logits).softmax(dim=0), "lightness": at(lightness).item(), "truth": at(truth), "answer": at(answer)}


def count_colors(photos, frequencies: Tensor, count: int = 1500) -> None:
    """Fills `frequencies` (Q,) with how often each bin is met in a sample of photos (`data.Photos`), 1 being the mean of bins.

    The paper's p~ times Q (section 2.2): smoothed over bins by the same Gaussian, and never below `RAREST`.
    """
    bins, found = ab_bins(), torch.zeros(len(ab_bins()))
    chosen = torch.randperm(len(photos), generator=torch.Generator().manual_seed(0))[:count].sort().values.numpy()
    for first in range(0, len(chosen), 100):
        pixels = photos.tensor(chosen[first : first + 100])[:, :, 2::4, 2::4]  # neighbours are alike
        ab = rgb_to_lab(pixels)[:, 1:].movedim(1, -1).flatten(0, -2)
        found += torch.bincount(nearest_bin(ab), minlength=len(bins))
    kernel = (-torch.cdist(bins, bins).square() / (2 * SIGMA**2)).exp()
    smooth = found @ (kernel / kernel.sum(dim=1, keepdim=True))
    frequencies.copy_((smooth / smooth.mean()).clamp(min=RAREST))


def rebalancing(frequencies: Tensor, uniform: float) -> Tensor:
    """The weight of each bin, (Q,): the inverse of its frequency mixed with the share `uniform` of the same for all.

    The paper's w, with lambda = `uniform`; a pixel of the photos has the mean weight 1.
    """
    weights = 1 / ((1 - uniform) * frequencies + uniform)
    return weights / (weights * frequencies).mean()


def sample(maps: Tensor, size: int) -> Tensor:
    """Maps (B, C, H, W) at (B, C, size, size) of their pixels, evenly spread: means would be paler than any pixel."""
    places = ((torch.arange(size, device=maps.device) + 0.5) * (maps.shape[-1] / size)).long()
    return maps[:, :, places[:, None], places]


def color_loss(logits: Tensor, ab: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits (B, Q, h, w) with the softly encoded colours (B, 2, H, W) there; each place by its bin's weight."""
    ab = sample(ab, logits.shape[-1])
    logits = logits.permute(0, 2, 3, 1).flatten(0, 2).float()  # (pixels, Q), without a copy in channels-last memory
    nearest, shares = encode(ab.permute(0, 2, 3, 1).flatten(0, 2))
    each = logits.logsumexp(dim=1) - (logits.gather(1, nearest) * shares).sum(dim=1)  # five of Q have a share
    return each.mean() if weights is None else (each * weights[nearest[:, 0]]).mean()


def curve_area(predicted: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """The area (B,) under the cumulative curve of colour errors, from 0 (all are 150 off) to 1 (all are right).

    For each threshold from 0 to 150, the share of pixels (by `weights`, (B, H, W)) whose a and b are at most so far off,
    averaged over thresholds (section 3.1): a pixel with error e counts the 150 - ceil(e) + 1 thresholds that it passes.
    """
    error = (predicted - truth).square().sum(dim=1).sqrt()  # (B, H, W)
    passed = ((FARTHEST + 1 - error.ceil()) / (FARTHEST + 1)).clamp(min=0)
    weights = torch.ones_like(passed) if weights is None else weights
    return (passed * weights).sum(dim=(1, 2)) / weights.sum(dim=(1, 2))


def color_metrics(answer: Tensor, truth: Tensor, frequencies: Tensor) -> dict[str, Tensor]:
    """Figures (B,) of answered colours (B, 2, h, w) beside the true ones (B, 2, H, W), and of grey beside them.

    Rebalanced: each pixel weighs the inverse of its true bin's frequency (section 3.1). `rare` is these weights' mean: how much
    a photo counts in a set of photos, see `pool`.
    """
    answer, grey = resize(answer, truth.shape[-1]), torch.zeros_like(truth)
    weights = 1 / frequencies[nearest_bin(truth.movedim(1, -1))]  # (B, H, W)
    return {"auc": curve_area(answer, truth), "auc_rebalanced": curve_area(answer, truth, weights),
            "ab_rmse": (answer - truth).square().mean(dim=(1, 2, 3)).sqrt(),
            "auc_gray": curve_area(grey, truth), "auc_gray_rebalanced": curve_area(grey, truth, weights),
            "rare": weights.mean(dim=(1, 2))}


def pool(per_photo: dict[str, Tensor]) -> dict[str, float]:
    """The figures of a set of photos from those of its photos: all their pixels count as one photo's would."""
    pooled = {}
    for name, values in per_photo.items():
        values = values.double()
        if "rebalanced" in name:
            pooled[name] = ((values * per_photo["rare"]).sum() / per_photo["rare"].sum()).item()
        else:
            pooled[name] = values.square().mean().sqrt().item() if "rmse" in name else values.mean().item()
    return pooled


def hex_color(lightness: float, ab: Tensor) -> str:
    """A colour as people write it for screens, such as #8a9b66."""
    color = lab_to_rgb(torch.cat([torch.tensor([lightness]), ab.cpu().float()])[None, :, None, None])
    return "#" + "".join(f"{round(255 * part):02x}" for part in color.flatten().tolist())


def rivals(truth: Tensor, lightness: float, around: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Colours (count, 2) that could be taken for a true one (2,) at its lightness, drawn from those `around` it (n, 2).

    Any two differ visibly and in name, from the truth too. What is left to find is filled up with pale and medium bins; fewer
    are given where a screen shows too few at that lightness.
    """
    bins = ab_bins()
    muted = bins[bins.norm(dim=1) < 60]
    drawn = [colors[torch.randperm(len(colors), generator=rng)] for colors in (around, muted)]
    candidates = torch.cat([drawn[0][:400], drawn[1]])
    level = torch.full((len(candidates), 1), lightness)
    shown = rgb_to_lab(lab_to_rgb(torch.cat([level, candidates], dim=1).T[None, :, :, None]))[0, 1:, :, 0].T
    free = (shown - candidates).norm(dim=1) < 4  # a colour that no screen shows so dark, or so light, would be another
    free &= (candidates - truth).norm(dim=1) > APART
    found, names = [], {color_name(truth)}
    for number, color in enumerate(candidates):
        if len(found) < count and free[number] and color_name(color) not in names:
            found.append(color)
            names.add(color_name(color))
            free &= (candidates - color).norm(dim=1) > APART
    return torch.stack(found) if found else candidates[:0]


# Where each hue begins, in degrees from a towards b.
HUES = ((0, "pink"), (25, "red"), (55, "orange"), (85, "yellow"), (120, "green"), (175, "turquoise"), (230, "blue"),
        (290, "violet"), (335, "pink"))


def color_name(ab: Tensor) -> str:
    """A colour (2,) in words, roughly: for those who do not see it, or not as others do."""
    a, b = ab.tolist()
    hue, strength = math.degrees(math.atan2(b, a)) % 360, math.hypot(a, b)
    name = next(name for least, name in reversed(HUES) if hue >= least)
    return "grey" if strength < 7 else f"greyish {name}" if strength < 20 else name if strength < 50 else f"strong {name}"

"""Pictures of colours and of what a network thinks of them: uint8 arrays out, as in `drawing`."""

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from . import drawing, lab

CELL = 16  # pixels a bin of the plane takes
DARK, LIGHT = "#26262b", "#efece6"


def in_grey(lightness: Tensor) -> np.ndarray:
    """Lightness (1, H, W) as a grey picture."""
    return drawing.picture(lab.lab_to_rgb(torch.cat([lightness, lightness.new_zeros(2, *lightness.shape[1:])])[None])[0])


def in_color(lightness: Tensor, ab: Tensor) -> np.ndarray:
    """Lightness (1, H, W) with colours (2, h, w) as a picture."""
    return drawing.picture(lab.lab_to_rgb(torch.cat([lightness, lab.resize(ab[None], lightness.shape[-1])[0]])[None])[0])


def recolored(photo: Tensor, ab: Tensor, strip: int = 1 << 20) -> np.ndarray:
    """A photo (3, S, S) with its own lightness and the colours (2, h, w), drawn out to its size; a strip of rows at a time."""
    ab, rows = lab.resize(ab[None], photo.shape[-1])[0], max(1, strip // photo.shape[-1])
    parts = zip(photo.split(rows, dim=1), ab.split(rows, dim=1))
    return np.concatenate([in_color(lab.rgb_to_lab(part[None])[0, :1], colors) for part, colors in parts])


def ringed(image: np.ndarray, point: Tensor) -> np.ndarray:
    """The picture, at least 288 pixels wide, with a ring around a point (x, y), both in [0, 1]."""
    zoom = -(-288 // image.shape[1])
    canvas = Image.fromarray(image.repeat(zoom, axis=0).repeat(zoom, axis=1))
    draw, side = ImageDraw.Draw(canvas), image.shape[1] * zoom
    x, y = (float(share) * side for share in point)
    for radius, color, width in ((0.034, "#000000", 0.016), (0.030, "#ffffff", 0.008)):  # white on black: seen on any colour
        r = radius * side
        draw.ellipse((x - r, y - r, x + r, y + r), outline=color, width=max(1, round(width * side)))
    return np.asarray(canvas)


def ab_plane(shares: Tensor, lightness: float, truth: Tensor, answer: Tensor) -> np.ndarray:
    """A distribution (Q,) over the plane of a (to the right) and b (upwards): the likelier a bin, the larger its square.

    Each is drawn in its colour at this lightness. The true colour (2,) is ringed, the answer (2,) is crossed.
    """
    bins, shares = lab.ab_bins(), shares.cpu()
    side = CELL * (2 * lab.REACH + 1)
    ground, ink = (DARK, LIGHT) if lightness > 45 else (LIGHT, DARK)
    canvas = Image.new("RGB", (side, side), ground)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(CELL)
    colors = lab.lab_to_rgb(torch.cat([torch.full((len(bins), 1), lightness), bins], dim=1).T[None, :, :, None])[0, :, :, 0].T

    def place(ab: Tensor) -> tuple[float, float]:
        a, b = (float(value) / lab.GRID for value in ab)
        return (lab.REACH + a + 0.5) * CELL, (lab.REACH - b + 0.5) * CELL

    faint = tuple((3 * g + i) // 4 for g, i in zip(ImageColor.getrgb(ground), ImageColor.getrgb(ink)))
    for center, color, share in zip(bins, colors, (shares / shares.max()).sqrt().tolist()):
        x, y = place(center)
        draw.point((x, y), fill=faint)  # every bin there is, so that the plane's shape is seen
        half = share * (CELL / 2 - 1)
        if half >= 0.75:
            fill = tuple(round(255 * value) for value in color.tolist())
            draw.rectangle((x - half, y - half, x + half, y + half), fill=fill)
    x, y = place(truth)
    draw.ellipse((x - CELL * 0.8, y - CELL * 0.8, x + CELL * 0.8, y + CELL * 0.8), outline=ink, width=3)
    x, y = place(answer)
    draw.line((x - 7, y - 7, x + 7, y + 7), fill=ink, width=3)
    draw.line((x - 7, y + 7, x + 7, y - 7), fill=ink, width=3)
    for text, at, anchor in (("red", (side - 6, side / 2), "rm"), ("green", (6, side / 2), "lm"),
                             ("yellow", (side / 2, 4), "mt"), ("blue", (side / 2, side - 4), "mb")):
        draw.text(at, text, fill=ink, font=font, anchor=anchor)
    return np.asarray(canvas)

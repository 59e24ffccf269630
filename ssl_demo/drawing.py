"""Small uint8 pictures: (H, W, 3) arrays in, arrays out. No network, no page."""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from .pretext import Bar, Panel

HIDDEN = (224, 222, 217)  # the colour of what a network was not shown, everywhere
_MAGMA = ("#fcfdbf", "#fec488", "#fb8861", "#de4968", "#9f2f7f", "#57157e", "#1d1147")  # light to dark: little to much
_HEAT = np.array([ImageColor.getrgb(color) for color in _MAGMA], dtype=np.float64)


def picture(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] to (H, W, 3) uint8; values outside are clamped."""
    return image.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()


def resize_map(values: Tensor, size: int) -> Tensor:
    """A map (h, w) at (size, size), smoothly."""
    return F.interpolate(values[None, None].float(), size=(size, size), mode="bicubic", align_corners=False)[0, 0]


def heat(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1], (H, W), to colours (H, W, 3) uint8, pale (0) to dark violet (1): lightness alone tells the order."""
    place = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(values, place, _HEAT[:, channel]) for channel in range(3)], axis=2).round().astype(np.uint8)


def glow(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) lit where values (H, W) in [0, 1] are high, dimmed and grey where they are low."""
    grey = image.mean(axis=2, keepdims=True) * 0.35 + 20
    share = np.clip(values, 0, 1)[:, :, None]
    return (image * share + grey * (1 - share)).round().astype(np.uint8)


def cover(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The picture with its hidden pixels (H, W, bool) in the one colour that means hidden."""
    return np.where(hidden[:, :, None], np.array(HIDDEN, dtype=np.uint8), image)


def cells(values: Tensor, side: int, cell: int) -> Tensor:
    """Values of a grid's patches (N,) spread over the pixels of their patches, (side * cell, side * cell)."""
    return values.reshape(side, side).repeat_interleave(cell, 0).repeat_interleave(cell, 1)


def panel_picture(panel: Panel, least: int = 384) -> np.ndarray:
    """A panel as a picture to keep: each of its pixels a square of whole pixels, at least `least` wide; or its bars."""
    if panel.image is None:
        return bar_picture(panel.bars, least)
    factor = -(-least // panel.image.shape[1])
    return panel.image.repeat(factor, axis=0).repeat(factor, axis=1)


def bar_picture(bars: tuple[Bar, ...], width: int = 384) -> np.ndarray:
    """Bars as a picture, (48 * bars + 16, width, 3): the answer filled in blue, the truth outlined and ticked."""
    canvas = Image.new("RGB", (width, 48 * len(bars) + 16), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(18)
    for row, bar in enumerate(bars):
        top, room = 8 + 48 * row, width - 200
        draw.text((12, top + 24), f"{bar.label}{' (true)' if bar.true else ''}", fill="#222", font=font, anchor="lm")
        draw.rectangle((116, top + 8, 116 + room, top + 40), fill="#eeeeee", outline="#222222" if bar.true else None, width=2)
        color = "#2f6fb7" if bar.chosen else "#9db4cc"
        draw.rectangle((118, top + 10, 118 + round((room - 4) * bar.value), top + 38), fill=color)
        draw.text((width - 8, top + 24), f"{bar.value:.1%}", fill="#222", font=font, anchor="rm")
    return np.asarray(canvas)


def save_png(path: Path, image: np.ndarray) -> None:
    """Writes a picture without loss, under a temporary name first."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    Image.fromarray(image).save(temporary, "PNG")
    os.replace(temporary, path)


def seed_all(seed: int) -> torch.Generator:
    """The one source of chance of an example."""
    return torch.Generator().manual_seed(seed)

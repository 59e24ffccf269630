"""Small uint8 pictures: (H, W, 3) arrays in, arrays out. No network, no page."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

RIGHT, WRONG = "#35c07a", "#ff6b3d"  # answers, as drawn into photos
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


def seed_all(seed: int) -> torch.Generator:
    """The one source of chance of an example."""
    return torch.Generator().manual_seed(seed)


def film(frames: Tensor, zoom: int = 2) -> np.ndarray:
    """Frames (T, 3, H, W) in [0, 1] as a video (T, zoom H, zoom W, 3) uint8."""
    large = F.interpolate(frames, scale_factor=zoom, mode="bilinear", align_corners=False)
    return large.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def boxes(image: np.ndarray, squares: list[tuple[int, int, int, str]], zoom: int = 3) -> np.ndarray:
    """The picture, `zoom` times as large, with squares (row, column, side in its own pixels, colour) outlined."""
    canvas = Image.fromarray(image).resize((image.shape[1] * zoom, image.shape[0] * zoom), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    for row, column, side, color in squares:
        left, top = column * zoom, row * zoom
        draw.rectangle((left, top, left + side * zoom - 1, top + side * zoom - 1), outline=color, width=2 * zoom)
    return np.asarray(canvas)


def moves(image: np.ndarray, steps: list[tuple[tuple[float, float], tuple[float, float]]], zoom: int = 3) -> np.ndarray:
    """The picture, `zoom` times as large, with an arrow from each (row, column) to another; a ring where both are the same."""
    canvas = Image.fromarray(image // 2 + 60).resize((image.shape[1] * zoom, image.shape[0] * zoom), Image.Resampling.BICUBIC)
    draw, ring = ImageDraw.Draw(canvas), 3 * zoom
    for start, end in steps:
        (y, x), (v, u) = ((row * zoom, column * zoom) for row, column in (start, end))
        if start == end:
            draw.ellipse((x - ring, y - ring, x + ring, y + ring), outline=RIGHT, width=zoom)
            continue
        draw.line((x, y, u, v), fill=WRONG, width=zoom)
        angle = np.arctan2(v - y, u - x)
        barbs = [(u - 4 * zoom * np.cos(angle + turn), v - 4 * zoom * np.sin(angle + turn)) for turn in (-0.45, 0.45)]
        draw.polygon([(u, v), *barbs], fill=WRONG)
    return np.asarray(canvas)


def side_by_side(images: list[np.ndarray], gap: int = 4, square: bool = True) -> np.ndarray:
    """Pictures of one height in a row on a ground, square or as high as they need, in the colour of what is hidden."""
    width = sum(image.shape[1] for image in images) + gap * (len(images) + 1)
    height = width if square else images[0].shape[0] + 2 * gap
    canvas = np.full((height, width, 3), HIDDEN, dtype=np.uint8)
    top, left = (height - images[0].shape[0]) // 2, gap
    for image in images:
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1] + gap
    return canvas


def edged(image: np.ndarray, color: str) -> np.ndarray:
    """The picture (H, H, 3) with its outermost pixels in one colour."""
    inner = slice(edge := max(1, len(image) // 16), -edge)
    framed = np.full_like(image, ImageColor.getrgb(color))
    framed[inner, inner] = image[inner, inner]
    return framed


def wall(images: list[np.ndarray], across: int, gap: int = 3) -> np.ndarray:
    """Square pictures of one size (H, H, 3) in rows of `across`, on a ground in the colour of what is hidden."""
    step = len(images[0]) + gap
    canvas = np.full((-(-len(images) // across) * step + gap, across * step + gap, 3), HIDDEN, dtype=np.uint8)
    for number, image in enumerate(images):
        top, left = (gap + at * step for at in divmod(number, across))
        canvas[top : top + len(image), left : left + len(image)] = image
    return canvas


def board(shares: Tensor, framed: int, cell: int = 64, texts: Sequence[str] | None = None) -> np.ndarray:
    """Shares in [0, 1] of a square grid (n, n) as a heat map, the cell number `framed` framed.

    Written in: their per cent, or the texts. What is no number is in the colour of what is hidden.
    """
    side, known = len(shares), cells(shares.flatten().isfinite(), len(shares), cell).cpu().numpy()
    canvas = Image.fromarray(cover(heat(cells(shares.flatten().nan_to_num(), side, cell).cpu().numpy()), ~known))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(cell // 4)
    for number, share in enumerate(shares.flatten().tolist()):
        row, column = divmod(number, side)
        ink = "white" if share > 0.45 else "#222"
        text = f"{share:.0%}" if texts is None else texts[number]
        draw.text(((column + 0.5) * cell, (row + 0.5) * cell), text, fill=ink, font=font, anchor="mm")
    row, column = divmod(framed, side)
    draw.rectangle((column * cell + 2, row * cell + 2, (column + 1) * cell - 3, (row + 1) * cell - 3), outline=RIGHT, width=5)
    return np.asarray(canvas)


def cut_out(photo: np.ndarray, corners: Sequence[tuple[int, int]], tile: int) -> np.ndarray:
    """The photo (H, H, 3) with the lines between its nine cells, and pale where no tile of `tile` pixels was cut.

    corners: of each tile, (row, column) in its cell; negative where the whole cell is the tile.
    """
    side, outside = len(photo) // 3, np.ones(photo.shape[:2], dtype=bool)
    for number, (row, column) in enumerate(corners):
        top, left = number // 3 * side + max(row, 0), number % 3 * side + max(column, 0)
        outside[top : top + (side if row < 0 else tile), left : left + (side if row < 0 else tile)] = False
    pale = np.where(outside[:, :, None], photo // 4 + np.array(HIDDEN, dtype=np.uint8) // 4 * 3, photo)
    pale[[side, 2 * side]] = pale[:, [side, 2 * side]] = 34
    return pale


def tile_board(tiles: list[np.ndarray], framed: Sequence[int] = (), crossed: Sequence[int] = (), zoom: int = 3) -> np.ndarray:
    """Square tiles (h, h, 3) on a square board, `zoom` times as large, some of its places framed, some crossed out."""
    side, gap, across = tiles[0].shape[0] * zoom, 2 * zoom, math.ceil(len(tiles) ** 0.5)
    canvas = Image.new("RGB", (across * (side + gap) + gap,) * 2, HIDDEN)
    draw = ImageDraw.Draw(canvas)
    for place, tile in enumerate(tiles):
        top, left = (gap + at * (side + gap) for at in divmod(place, across))
        canvas.paste(Image.fromarray(tile).resize((side, side), Image.Resampling.NEAREST), (left, top))
        right, bottom = left + side - 1, top + side - 1
        if place in framed:  # in the gap around the tile, dark on pale
            draw.rectangle((left - gap, top - gap, right + gap, bottom + gap), outline="#1b1b1b", width=gap)
        if place in crossed:
            corner, inset = side // 4, side // 16  # small, in white, so that the tile stays to be seen and the cross stands out
            draw.rectangle((right - corner, top, right, top + corner), fill="white")
            for start, end in ((top + inset, top + corner - inset), (top + corner - inset, top + inset)):
                draw.line((right - corner + inset, start, right - inset, end), fill=WRONG, width=zoom)
            draw.rectangle((left, top, right, bottom), outline=WRONG, width=zoom - 1)
    return np.asarray(canvas)


def ranking(tiles: list[np.ndarray], values: list[float], framed: int, side: int = 92) -> np.ndarray:
    """Square pictures in rows of four, in their order, the value of each below it, one of them framed."""
    gap, foot = 8, 20
    canvas = Image.new("RGB", (4 * (side + gap) + gap, -(-len(tiles) // 4) * (side + foot + gap) + gap), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)
    for place, (tile, value) in enumerate(zip(tiles, values, strict=True)):
        top, left = gap + place // 4 * (side + foot + gap), gap + place % 4 * (side + gap)
        canvas.paste(Image.fromarray(tile).resize((side, side), Image.Resampling.BICUBIC), (left, top))
        draw.text((left + side // 2, top + side + foot // 2 + 1), f"{value:.2f}", fill="#222", font=font, anchor="mm")
        if place == framed:
            draw.rectangle((left - 5, top - 5, left + side + 4, top + side + 4), outline=RIGHT, width=5)
    return np.asarray(canvas)


def strip(values: list[float], ages: list[str], own: float, marked: int) -> np.ndarray:
    """A queue's values in [0, 1] as cells in rows, dark for much, the hidden colour for NaN; one is marked, `own` stands above.

    At the left, for some rows, stands the age of their first cell.
    """
    across = max(4, 2 ** math.floor(math.log2(len(values)) / 2))
    rows, left, top = -(-len(values) // across), 46, 50
    width, height = max(2, 384 // across), max(2, 384 // rows)
    padded = np.full(rows * across, np.nan)
    padded[: len(values)] = values
    colors = heat(np.nan_to_num(padded)[:, None].clip(0, 1))[:, 0]
    colors[np.isnan(padded)] = HIDDEN
    canvas = Image.new("RGB", (left + across * width + 4, top + rows * height + 4), "white")
    cells = colors.reshape(rows, across, 3).repeat(height, axis=0).repeat(width, axis=1)
    canvas.paste(Image.fromarray(cells), (left, top))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(17)
    draw.rectangle((left, 6, left + 34, 40), fill=tuple(heat(np.clip([[own]], 0, 1))[0, 0].tolist()), outline=RIGHT, width=5)
    draw.text((left + 44, 23), f"own key {own:.2f}, nearest in queue {values[marked]:.2f}", fill="#222", font=font, anchor="lm")
    y, x = top + marked // across * height, left + marked % across * width
    draw.rectangle((x - 4, y - 4, x + width + 3, y + height + 3), outline=WRONG, width=3)
    for row in range(0, rows, max(1, rows // 6)):
        draw.text((left - 6, top + row * height), ages[row * across], fill="#222", font=font, anchor="rt")
    draw.text((left - 6, top - 8), "age", fill="#222", font=font, anchor="rb")
    return np.asarray(canvas)


def painted(strokes: str, size: int) -> np.ndarray:
    """The mask (size, size) bool of the strokes of a brush control: round, as wide as two radii, over a square picture."""
    canvas = Image.new("1", (size, size))
    draw = ImageDraw.Draw(canvas)
    for stroke in filter(str.strip, strokes.split(";")):
        radius, *numbers = (float(number) * size / 100 for number in stroke.split())
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        draw.line(points, fill=1, width=max(1, round(2 * radius)))
        for x, y in points:  # round ends and joints
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return np.asarray(canvas)


def random_blocks(size: int, rng: torch.Generator) -> np.ndarray:
    """A mask (size, size) bool of one to five rectangles that may overlap, of about a quarter of the area in all."""
    hidden, chance = np.zeros((size, size), dtype=bool), torch.rand(6, 4, generator=rng).tolist()
    count = 1 + int(5 * chance[5][0])
    for area, aspect, down, right in chance[:count]:
        side = size * ((0.7 + 0.6 * area) / 4 / count) ** 0.5
        height, width = (round(min(size, side * 2**turn)) for turn in (aspect - 0.5, 0.5 - aspect))
        top, left = round(down * (size - height)), round(right * (size - width))
        hidden[top : top + height, left : left + width] = True
    return hidden


def random_strokes(rng: torch.Generator) -> str:
    """One to four strokes of a wandering brush, roughly as a person paints them, in the notation of `painted`."""
    chance, strokes = torch.rand(4, 17, generator=rng).tolist(), []
    for radius, x, y, count, *steps in chance[: 1 + int(4 * torch.rand((), generator=rng))]:
        x, y, stroke = 100 * x, 100 * y, [f"{3 + 9 * radius:.1f}"]
        for right, down in zip(steps[: 4 + 2 * int(4 * count) : 2], steps[1::2]):
            stroke.append(f"{x:.1f} {y:.1f}")
            x, y = x + 60 * (right - 0.5), y + 60 * (down - 0.5)
        strokes.append(" ".join(stroke))
    return "; ".join(strokes)

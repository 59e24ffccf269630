"""Panels as pictures to keep: what the command line writes and the API returns. The page draws its own, see `ui/panels.py`."""

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .drawing import heat
from .pretext import Bar, Chart, Matrix, Panel
from .video import encode_mp4

INK, SOFT, GRID = "#222222", "#6b6760", "#dcd8d0"
COLORS = ("#2f6fb7", "#b3431e", "#1f7a4d", "#7a4fa3", "#8a6d1f", "#4a4a4a")  # of a chart's lines, in their order


def panel_picture(panel: Panel, least: int = 384) -> np.ndarray:
    """A panel as a picture to keep, at least `least` wide: each pixel of an image a square of whole pixels; bars, matrix, chart.

    Of a video, the frame in the middle.
    """
    if panel.bars:
        return bar_picture(panel.bars, least)
    if panel.matrix is not None:
        return matrix_picture(panel.matrix, least)
    if panel.chart is not None:
        return chart_picture(panel.chart, 2 * least)
    image = panel.image if panel.video is None else panel.video[len(panel.video) // 2]
    factor = -(-least // image.shape[1])
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def pick(panels: Sequence[Panel], stage: str, named: Sequence[str]) -> Panel:
    """The panel of a stage that stands for it: the one that the card names, else the first."""
    of_stage = [panel for panel in panels if panel.stage == stage]
    return next((panel for panel in of_stage if panel.name in named), of_stage[0])


def bar_picture(bars: tuple[Bar, ...], width: int = 384, row: int = 48, letters=ImageFont.load_default,
                true: str = "true") -> np.ndarray:
    """Bars as a picture, (row * bars + 16, width, 3), in the page's colours: a right answer green, a wrong one red.

    The truth is outlined, and named.

    letters: the font of a size in pixels; true: the word for the truth.
    """
    canvas = Image.new("RGB", (width, row * len(bars) + 16), "white")
    draw, font, thick = ImageDraw.Draw(canvas), letters(min(18 + (row > 48) * 4, row - 6)), min(32, row - 8)
    labels = [f"{bar.label}{f' ({true})' if bar.true else ''}" for bar in bars]
    left = max(round(0.3 * width), 24 + round(max(draw.textlength(label, font) for label in labels)))
    for number, (bar, label) in enumerate(zip(bars, labels)):
        middle, room = 8 + row * number + row // 2, max(40, width - left - 84)
        top = middle - thick // 2
        draw.text((12, middle), label, fill="#222", font=font, anchor="lm")
        draw.rectangle((left, top, left + room, top + thick), fill="#eeeeee", outline="#222222" if bar.true else None, width=2)
        color = "#9db4cc" if not bar.chosen else "#1f7a4d" if bar.true else "#b3431e"
        draw.rectangle((left + 2, top + 2, left + 2 + round((room - 4) * bar.value), top + thick - 2), fill=color)
        draw.text((width - 8, middle), f"{bar.value:.1%}", fill="#222", font=font, anchor="rm")
    return np.asarray(canvas)


def matrix_picture(matrix: Matrix, least: int = 384) -> np.ndarray:
    """The cells of a matrix in colours, small pictures along its edges, marked cells framed; as square as the matrix is."""
    rows, columns = matrix.values.shape
    left, top = bool(matrix.row_pictures), bool(matrix.column_pictures)
    cell = max(8, -(-least // (columns + left)))
    colors = heat((np.nan_to_num(matrix.values) - matrix.low) / max(matrix.high - matrix.low, 1e-12))
    canvas = Image.new("RGB", ((columns + left) * cell, (rows + top) * cell), "white")
    draw = ImageDraw.Draw(canvas)

    def corner(row: int, column: int) -> tuple[int, int]:
        return (column + left) * cell, (row + top) * cell

    for row in range(rows):
        for column in range(columns):
            x, y = corner(row, column)
            if (row, column) not in matrix.empty:
                draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=tuple(colors[row, column].tolist()))
    for row, column in matrix.marked:
        x, y = corner(row, column)
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline="#35c07a", width=max(2, cell // 8))
    edges = [(number, -1) for number in range(len(matrix.row_pictures))], [(-1, n) for n in range(len(matrix.column_pictures))]
    for places, pictures in zip(edges, (matrix.row_pictures, matrix.column_pictures)):
        for place, picture in zip(places, pictures):
            canvas.paste(Image.fromarray(picture).resize((cell - 2, cell - 2)), corner(*place))
    return np.asarray(canvas)


def ticks(low: float, high: float, log: bool = False, most: int = 5) -> list[float]:
    """At most about `most` round numbers from `low` to `high`: powers of ten, or steps of 1, 2 or 5 times one."""
    if log:
        powers = [10.0**p for p in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]
        return powers[:: 1 + len(powers) // 5] if len(powers) > 1 else [low, high]  # so that their labels do not touch
    rough = (high - low) / max(1, most - 1) or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * s for s in (1, 2, 5, 10) if power * s >= rough * 0.999)
    return [round(n * step, 12) for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def limits(chart: Chart) -> tuple[float, float]:
    """The lowest and the highest y of a chart, its level in it, with a little air."""
    values = [y for line in chart.lines for y in line.y if math.isfinite(y)] + ([chart.level[1]] if chart.level else [])
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return (0.0 if 0 <= low < 0.3 * high else low - air), high + air


def place(value: float, low: float, high: float, log: bool = False) -> float:
    """Where a value stands between two ends, 0 to 1."""
    if log:
        value, low, high = (math.log(max(number, 1e-12)) for number in (value, low, high))
    return (value - low) / ((high - low) or 1.0)


def chart_picture(chart: Chart, width: int = 768, height: int | None = None, letters=ImageFont.load_default) -> np.ndarray:
    """The curves of a chart with their axes, (height, width, 3), by default three quarters as high as wide.

    letters: the font of a size in pixels. Small charts have letters no smaller than 17 pixels.
    """
    height, size = height or width * 3 // 4, max(width // 40, 17)
    font, line_height = letters(size), round(1.25 * size)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    (low, high), (first, last) = limits(chart), (chart.x[0], chart.x[-1])
    up, along = ticks(low, high), ticks(first, last, chart.log_x, max(2, min(5, width // (4 * size))))
    names = [line.label for line in chart.lines] if len(chart.lines) > 1 else []
    left = max(width // 9, 16 + round(max(font.getlength(f"{y:g}") for y in up)))
    top, right = 10 + line_height * (1 + len(names)), width - max(width // 20, size)
    bottom = height - round(2.3 * line_height) - 6

    def at(x: float, y: float) -> tuple[float, float]:
        return (left + place(x, first, last, chart.log_x) * (right - left), bottom - place(y, low, high) * (bottom - top))

    for y in up:
        draw.line((*at(first, y), *at(last, y)), fill=GRID, width=1)
        draw.text((left - 8, at(first, y)[1]), f"{y:g}", fill=SOFT, font=font, anchor="rm")
    for x in along:
        half = font.getlength(f"{x:g}") / 2  # the last one would be cut off
        draw.text((min(at(x, low)[0], width - 4 - half), bottom + 6), f"{x:g}", fill=SOFT, font=font, anchor="ma")
    draw.text(((left + right) / 2, height - 6), chart.x_label, fill=INK, font=font, anchor="mb")
    draw.text((8, 6), chart.y_label, fill=INK, font=font, anchor="la")
    if chart.level:
        name, y = chart.level
        draw.line((*at(first, y), *at(last, y)), fill=SOFT, width=2)
        above = at(last, y)[1] - line_height >= top - 2  # else it would run into the names of the lines
        near = [min((abs(line.y[end] - y) for line in chart.lines if math.isfinite(line.y[end])), default=0) for end in (0, -1)]
        spot, side = (left + 4, "l") if near[0] > near[1] else (right, "r")  # where the curves are far
        draw.text((spot, at(last, y)[1] + (-2 if above else 4)), name, fill=SOFT, font=font, anchor=side + "ba"[not above])
    if chart.now is not None:
        draw.line((*at(chart.now, low), *at(chart.now, high)), fill=INK, width=1)
    for number, (line, color) in enumerate(zip(chart.lines, COLORS)):
        points = [at(x, y) for x, y in zip(chart.x, line.y) if math.isfinite(y)]
        draw.line(points, fill=color, width=max(3, width // 190))
        if names:
            draw.text((right, 6 + (number + 1) * line_height), line.label, fill=color, font=font, anchor="ra")
    return np.asarray(canvas)


def panel_file(panel: Panel) -> tuple[str, bytes]:
    """A panel as a file: "png" and a picture without loss, or "mp4" and a clip."""
    if panel.video is not None:
        return "mp4", encode_mp4(panel.video, panel.fps)
    stream = io.BytesIO()
    Image.fromarray(panel_picture(panel)).save(stream, "PNG")
    return "png", stream.getvalue()


def save_panel(path: Path, panel: Panel) -> Path:
    """Writes a panel under a temporary name first, a picture as PNG, without loss, a video as MP4; `path` with its ending."""
    ending, data = panel_file(panel)
    path = path.with_name(f"{path.name}.{ending}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
    return path

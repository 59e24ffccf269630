"""One panel as HTML: a picture, a clip, bars, a matrix or a chart, with its title and caption. Strings out; no events."""

import base64
import functools
import html
import io
import math
from collections.abc import Iterable

import numpy as np
from PIL import Image

from ..drawing import heat
from ..figures import limits, place, ticks
from ..images import limit
from ..pretext import Bar, Chart, Matrix, Panel
from ..texts import say
from ..video import encode_mp4

WIDE = 1.25  # how many times as wide as high a picture is to be as wide as its column; others leave room for a second
CHART_WIDTH, CHART_LEFT, CHART_RIGHT = 300, 46, 10  # units that a chart is wide, and left free of curves at its sides
BRUSH_TOOLS = ('<div class="brush"><label>' + say("Brush") + ' <input type="range" class="brush-size" min="1" max="15" value="5">'
               '</label>'
               '<button type="button" class="brush-clear">' + say("Clear") + "</button></div>")


def panel_html(panel: Panel, more: str = "") -> str:
    """One panel with title and caption, and `more` HTML at its end.

    One that can be clicked or painted on says what that does, and carries its name for the page's script.
    """
    title, caption = html.escape(panel.title), html.escape(panel.caption)
    if panel.video is not None:
        height, width = panel.video.shape[1:3]
        wide = ' class="wide"' if width > height else ""
        body = (f'<video src="{video_url(panel)}" aria-label="{title}. {caption}" width="{width}" height="{height}"{wide} '
                'autoplay muted loop playsinline controls></video>')
    elif panel.bars:
        body = bars_html(panel.bars)
    elif panel.matrix is not None:
        body = matrix_html(panel.matrix, f"{title}. {caption}")
    elif panel.chart is not None:
        body = chart_html(panel.chart, f"{title}. {caption}")
    else:
        attributes = f' data-click="{panel.name}" role="button" tabindex="0"' if panel.click else ""
        attributes += f' data-brush="{panel.name}"' if panel.brush else ""
        height, width = panel.image.shape[:2]
        attributes += ' class="wide"' if width > WIDE * height else ""
        body = f'<img src="{data_url(panel.image)}" alt="{title}. {caption}" width="{width}" height="{height}"{attributes}>'
        if panel.brush:
            body = f'<div class="canvas">{body}</div>' + BRUSH_TOOLS
    if hint := panel.click or panel.brush:
        caption += f' <em class="hint">{html.escape(hint)}</em>'
    return (f'<figure class="panel" data-panel="{panel.name}"><h4>{title}</h4>{body}<figcaption>{caption}</figcaption>{more}'
            "</figure>")


def bars_html(bars: Iterable[Bar]) -> str:
    """Shares as bars. The true one is ticked and the answer named, so that colour is not the only sign."""
    rows = []
    for bar in bars:
        marks = f' <b class="true">✓ {say("true")}</b>' * bar.true + f' <b class="chosen">{say("answer")}</b>' * bar.chosen
        kind = "right" if bar.true and bar.chosen else "wrong" if bar.chosen else "other"
        rows.append(f'<li class="{kind}"><div><span>{html.escape(bar.label)}{marks}</span><span>{bar.value:.1%}</span></div>'
                    f'<div class="track"><div class="fill" style="width:{bar.value:.1%}"></div></div></li>')
    return f'<ul class="bars">{"".join(rows)}</ul>'


def matrix_html(matrix: Matrix, told: str) -> str:
    """Cells as an SVG. The page's script says below it what the cell under the pointer holds."""
    rows, columns = matrix.values.shape
    left, top = bool(matrix.row_pictures), bool(matrix.column_pictures)
    colors = heat((np.nan_to_num(matrix.values) - matrix.low) / max(matrix.high - matrix.low, 1e-12))
    drawn = []
    for row in range(rows):
        for column in range(columns):
            if (row, column) in matrix.empty:
                continue
            right = (row, column) in matrix.marked
            value = f"{matrix.what} {matrix.values[row, column]:.2f}{say(', the right one') if right else ''}"
            drawn.append(f'<rect x="{column + left}" y="{row + top}" width="1" height="1" data-says="{html.escape(value)}" '
                         f'fill="rgb{tuple(colors[row, column].tolist())}"/>')
    for row, column in matrix.marked:
        drawn.append(f'<rect class="marked" x="{column + left + 0.06}" y="{row + top + 0.06}" width="0.88" height="0.88"/>')
    for pictures, spot in ((matrix.row_pictures, lambda n: (0, n + top)), (matrix.column_pictures, lambda n: (n + left, 0))):
        for number, small in enumerate(pictures):
            x, y = spot(number)
            drawn.append(f'<image x="{x + 0.04}" y="{y + 0.04}" width="0.92" height="0.92" href="{data_url(small, 48)}"/>')
    ends = say("{low:.2g} pale, {high:.2g} dark", low=matrix.low, high=matrix.high)
    box, wide = f"0 0 {columns + left} {rows + top}", " wide" if columns + left > WIDE * (rows + top) else ""
    return (f'<svg class="matrix{wide}" viewBox="{box}" role="img" aria-label="{told}">{"".join(drawn)}</svg>'
            f'<output class="says">{matrix.what}: {ends}</output>')


def chart_x(chart: Chart, x: float) -> float:
    """Where an x stands in a chart, in units from its left."""
    return round(CHART_LEFT + place(x, chart.x[0], chart.x[-1], chart.log_x) * (CHART_WIDTH - CHART_LEFT - CHART_RIGHT), 1)


def chart_html(chart: Chart, told: str, height: int = 168, legend: bool | None = None) -> str:
    """Curves as an SVG, 300 units wide, whose letters are as large as the captions'. legend: unless told, of several curves."""
    width, left, top, bottom, right = CHART_WIDTH, CHART_LEFT, 22, 34, CHART_RIGHT
    (low, high), (first, last) = limits(chart), (chart.x[0], chart.x[-1])

    across = functools.partial(chart_x, chart)

    def up(y: float) -> float:
        return round(height - bottom - place(y, low, high) * (height - bottom - top), 1)

    drawn = []
    for y in ticks(low, high):
        drawn.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{up(y)}" y2="{up(y)}"/>'
                     f'<text class="tick" x="{left - 5}" y="{up(y) + 4}" text-anchor="end">{y:g}</text>')
    for x in ticks(first, last, chart.log_x):
        anchor = "end" if across(x) > width - 3 * right else "middle"  # or the last one would be cut off
        drawn.append(f'<text class="tick" x="{across(x)}" y="{height - bottom + 14}" text-anchor="{anchor}">{x:g}</text>')
    drawn.append(f'<text x="{width / 2}" y="{height - 4}" text-anchor="middle">{html.escape(chart.x_label)}</text>'
                 f'<text x="2" y="12">{html.escape(chart.y_label)}</text>')
    if chart.level:
        name, y = chart.level
        drawn.append(f'<line class="level" x1="{left}" x2="{width - right}" y1="{up(y)}" y2="{up(y)}"/>'
                     f'<text class="tick" x="{width - right}" y="{up(y) - 4}" text-anchor="end">{html.escape(name)}</text>')
    if chart.now is not None:
        drawn.append(f'<line class="now" x1="{across(chart.now)}" x2="{across(chart.now)}" y1="{top}" y2="{height - bottom}"/>')
    for number, line in enumerate(chart.lines):
        points = " ".join(f"{across(x)},{up(y)}" for x, y in zip(chart.x, line.y) if math.isfinite(y))
        drawn.append(f'<polyline class="line-{number}" points="{points}"/>')
    sample = '<svg viewBox="0 0 24 6" aria-hidden="true"><path d="M0 3h24"/></svg>'  # the dashes: colour is not the only sign
    names = "".join(f'<li class="line-{number}">{sample}{html.escape(one.label)}</li>' for number, one in enumerate(chart.lines))
    below = f'<ul class="legend">{names}</ul>' if (len(chart.lines) > 1 if legend is None else legend) else ""
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{told}">{"".join(drawn)}</svg>{below}'


def data_url(image: np.ndarray, longest: int = 640) -> str:
    """A picture as a PNG inside the page: exact pixels, and no file of a visitor's photo on the server.

    One with more than `longest` pixels a side is made smaller, since no panel is drawn larger.
    """
    stream, picture = io.BytesIO(), Image.fromarray(image)
    limit(picture, longest).save(stream, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def video_url(panel: Panel) -> str:
    """A panel's clip as H.264 inside the page."""
    return "data:video/mp4;base64," + base64.b64encode(encode_mp4(panel.video, panel.fps)).decode()

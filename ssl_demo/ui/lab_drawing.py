"""What the training lab shows, as HTML: how a run stands, its curves, the method's panels as it learns, runs side by side.

Strings out; no events. All of it is drawn anew several times a second, in places whose height the style sheet keeps.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from ..comparison import RECENT, Comparison, guess, in_words, is_share, smooth
from ..images import limit
from ..live import View
from ..pretext import Card, Chart, Line, Panel
from ..texts import say, spoken
from .panels import CHART_LEFT, chart_html, panel_html
from .story import STEPS, heading_of

WORDS = {"waiting": say("Waiting"), "running": say("Learning"), "paused": say("Paused"), "finished": say("Finished"),
         "stopped": say("Stopped"), "failed": say("Broken off")}
LIVE = 256  # pixels of a panel's longest side while it changes every second
TIGHT, TIGHTER = 150, 112  # units that one of two charts is high, and one of three
BOLD = f'<p class="note">{say("Bold, and in figures: the mean of the last {looks} looks.", looks=RECENT)}</p>'


def plan_html(sentence: str, card: Card) -> str:
    """What Start will do. The style sheet shows the box for clips where the method is about them."""
    marker = '<i class="takes-video" hidden></i>' if card.input == "video" else ""
    return f'<h2 class="unseen">{say("Training lab")}</h2><p class="lab-plan">{html.escape(sentence)}{marker}</p>'


def show(view: View, value: float | None) -> str:
    """A metric as a person reads it."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.0%}" if is_share(view) else f"{value:.3g}"


def status_html(view: View | None, doing: str = "", classes: int = 0) -> str:
    """How a run stands: in words, as a bar, in figures. doing: said instead. classes: how many neighbours tell apart."""
    if view is None or doing:
        figures = "".join(map(figure, (say("Loss"), say("Metric"), say("Images a second"), say("Time left"))))
        says = html.escape(doing) or say(
            "Nothing runs yet. Choose a method and press Start: you will see it learn on your photo.")
        return f'<div class="lab-status"><p class="lab-says">{says}</p>{track(0)}<dl class="figures">{figures}</dl></div>'
    loss, metric = (smooth([getattr(point, name) for point in view.points[-RECENT:]])[-1] if view.points else None
                    for name in ("loss", "metric"))
    where = say("place {place} in line" if view.state == "waiting" else "step {step:,}", place=view.place + 1, step=view.step)
    trouble = say(view.error or view.alarm)
    told = say("{name}, on {data}: {where}.", name=named(view), data=say(view.data_name), where=where)
    says = (f'<b class="state-{view.state}">{WORDS[view.state]}</b> {html.escape(told)}'
            + (f' <span class="alarm">{html.escape(trouble)}</span>' if trouble else ""))
    level = view.loss_level
    figures = figure(say("Loss"), "" if loss is None else f"{loss:.3g}", f"{say(level[0])}: {level[1]:.3g}" if level else "")
    figures += figure(say(view.metric_label), show(view, metric),
                      f"{say(guess(view))}: {show(view, view.metric_chance)}" if view.metric_chance is not None else "")
    if classes:
        figures += figure(say("Classes told by neighbours"), f"{view.probe[-1][1]:.0%}" if view.probe else "",
                          f"{say('chance')}: {1 / classes:.0%}")
    figures += figure(say("Images a second"), f"{view.images_per_second:,.0f}" if view.images_per_second else "")
    over = view.state in ("finished", "stopped", "failed")
    seconds = view.seconds if over else max(0, view.seconds_left)
    left = figure(say("Time" if over else "Time left"), f"{seconds:.0f} s")
    share = 1.0 if view.state == "finished" else min(1.0, view.seconds / view.budget) if view.budget else 0.0
    return (f'<div class="lab-status" data-state="{view.state}" data-step="{view.step}">'
            f'<p class="lab-says" role="status">{says}</p>{track(share)}<dl class="figures">{figures}{left}</dl></div>')


def named(view: View) -> str:
    """What a run is called: by its visitor, or after its method."""
    return in_words(view.name)


def figure(label: str, text: str = "", note: str = "") -> str:
    """One figure; a dash where there is none yet, so that the line is as high."""
    return f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(text) or '–'} <small>{html.escape(note)}</small></dd></div>"


def track(share: float) -> str:
    return f'<div class="track"><div class="fill" style="width:{share:.1%}"></div></div>'


def charts_html(view: View | None, classes: int = 0) -> str:
    """The loss with the level of who guesses, the metric with its chance, and the classes told where there are some.

    They are as wide as the whole time from the start, and fill as it goes.
    """
    if view is None:
        return f'<div class="lab-charts">{blank(say("Loss"), TIGHT)}{blank(say("How well it does"), TIGHT)}{BOLD}</div>'
    height = TIGHT if not classes else TIGHTER
    times, scale = [point.seconds for point in view.points], 100 if is_share(view) else 1
    metric = f"{say(view.metric_label)}{' (%)' if scale == 100 else ''}"
    drawn = curve(view, say("Loss"), times, [point.loss for point in view.points],
                  view.loss_level and (say(view.loss_level[0]), view.loss_level[1]), height)
    chance = None if view.metric_chance is None else (say(guess(view)), scale * view.metric_chance)
    drawn += curve(view, metric, times, [scale * point.metric for point in view.points], chance, height)
    if classes:
        at = {point.step: point.seconds for point in view.points}
        when = [at.get(step, step * view.seconds / max(1, view.step)) for step, _ in view.probe]
        shares = [100 * share for _, share in view.probe]
        drawn += curve(view, say("Classes told by neighbours (%)"), when, shares, (say("chance"), 100 / classes), height, 1)
    return f'<div class="lab-charts">{drawn}{BOLD}</div>'


def curve(view: View, label: str, times: Sequence[float], values: Sequence[float], level: tuple[str, float] | None, height: int,
          looks: int = RECENT) -> str:
    """One curve over the seconds of the run, or its frame as long as there is nothing to draw. looks: that it is a mean of."""
    if not any(map(math.isfinite, values)):
        return blank(label, height)
    if len(values) == 1:  # a line needs two points to be seen
        times, values = [times[0], times[0] + 0.01], [*values, *values]
    end = max(view.budget if view.state in ("waiting", "running", "paused") else 0.0, *times, 1e-3)
    lines = tuple(Line(label, (math.nan, *ys, math.nan)) for ys in (values, smooth(values, looks)))
    chart = Chart((0.0, *times, end), lines, say("seconds"), label, level=level)
    told = say("{label} over {end:.0f} seconds, last {last:.3g}", label=html.escape(label), end=end, last=values[-1])
    return chart_html(chart, told, height, legend=False)


def blank(label: str, height: int) -> str:
    """The frame of a chart without a curve."""
    grid = "".join(f'<line class="grid" x1="{CHART_LEFT}" x2="290" y1="{y}" y2="{y}"/>' for y in (34, height / 2, height - 34))
    return (f'<svg class="chart" viewBox="0 0 300 {height}" role="img" aria-label="{html.escape(label)}: {say("nothing yet")}">'
            f'<text x="2" y="12">{html.escape(label)}</text>{grid}</svg>')


def panels_html(panels: Sequence[Panel], card: Card, said: str, moving: bool = True) -> str:
    """The method's panels in its four steps, small. moving: clips stand still, since they would begin anew every second."""
    columns, drawn = [], {stage: "" for stage in STEPS}
    for panel in panels:
        drawn[panel.stage] += panel_html(quiet(spoken(panel), moving)).replace("<img ", '<img decoding="sync" ')
    for number, stage in enumerate(STEPS, start=1):
        columns.append(f'<section class="step step-{stage}"><h3><span>{number}</span>{heading_of(stage, card)}</h3>{drawn[stage]}'
                       "</section>")
    return f'<div class="story lab-story"><p class="lab-said">{html.escape(said)}</p>{"".join(columns)}</div>'


def quiet(panel: Panel, moving: bool) -> Panel:
    """A panel to be watched: nothing to click, and small while it is replaced every second."""
    panel = replace(panel, click="", brush="")
    if panel.video is not None and moving:
        panel = replace(panel, video=None, image=np.ascontiguousarray(panel.video[len(panel.video) // 2]))
    if panel.image is not None and max(panel.image.shape) > LIVE:
        panel = replace(panel, image=np.asarray(limit(Image.fromarray(panel.image), LIVE)))
    return panel


def compared_html(compared: Comparison | None) -> str:
    """Several runs on one chart, while one of them goes on."""
    if compared is None:
        return f'<p class="note">{say("Runs of this visit will stand here side by side, the last five.")}</p>'
    if compared.is_empty:
        return f'<p class="note">{say("There is nothing to draw yet.")}</p>'
    x = tuple(sorted({0.0}.union(*(curve for _, curve in compared.curves))))
    x = x if len(x) > 1 else (0.0, 1.0)
    lines = tuple(Line(name, tuple(curve.get(at, math.nan) for at in x)) for name, curve in compared.curves)
    names, label = html.escape(", ".join(name for name, _ in compared.curves)), compared.label
    chart = chart_html(Chart(x, lines, compared.over, label, level=compared.level),
                       say("{label} of {names}", label=html.escape(label), names=names), TIGHT, legend=True)
    return f'<div class="lab-compared">{chart}{left_out_html(compared)}</div>'


def left_out_html(compared: Comparison | None) -> str:
    """Which runs are not drawn, and why."""
    names = html.escape(", ".join(compared.left_out)) if compared else ""
    return f'<p class="note">{say("Not drawn, as they are judged otherwise: {names}.", names=names)}</p>' if names else ""

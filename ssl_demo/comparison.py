"""Several runs of the lab on one chart: what is comparable of them, in which unit, and as a Plotly figure once they are over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from . import charts
from .live_watch import View
from .pretext import all_tasks
from .texts import say

RECENT = 8  # looks that a curve's bold line and the figures are means of
COLORS = charts.COLORS
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")  # colour is not the only sign
HEIGHT = 236  # pixels


@dataclass(frozen=True)
class Comparison:
    """Curves by the runs' names, each y by x.

    level: a word and a value to compare with; left_out: the names of runs that are judged otherwise.
    """

    curves: list[tuple[str, dict[float, float]]]
    label: str
    over: str
    level: tuple[str, float] | None
    left_out: list[str]

    @property
    def is_empty(self) -> bool:
        return not any(math.isfinite(y) for _, curve in self.curves for y in curve.values())


def is_share(view: View) -> bool:
    """Whether the run's metric is shown as per cent."""
    return "accuracy" in all_tasks()[view.task_name].card.in_training[0]


def guess(view: View) -> str:
    """What people call the metric's chance."""
    card = all_tasks()[view.task_name].card
    return dict(card.baselines).get(card.in_training[1], "chance")


def in_words(name: str) -> str:
    """What a run is called, which is its method's name, perhaps with a number, unless its visitor gave it another."""
    words, blank, number = name.rpartition(" ")
    return f"{say(words)}{blank}{number}" if number.isdecimal() else say(name)


def smooth(values: Sequence[float], looks: int = RECENT) -> list[float]:
    """The mean of each value and the few before it: a batch is small, and tells much by chance."""
    return [sum(values[max(0, at - looks + 1) : at + 1]) / min(at + 1, looks) for at in range(len(values))]


def compare(views: Sequence[View], what: str, over: str) -> Comparison | None:
    """what: "loss" or "metric"; over: "steps" or "seconds". None where no run has begun.

    Losses of different methods are shares of what guessing costs, or the start where that is not known; of metrics, only those
    that are the last run's.
    """
    views = [view for view in views if view.points]
    if not views:
        return None
    last, left_out = views[-1], []
    if what == "metric":
        left_out = [in_words(view.name) for view in views if view.metric_label != last.metric_label]
        views = [view for view in views if view.metric_label == last.metric_label]
    mixed = what == "loss" and len({view.task_name for view in views}) > 1
    scale = 100 if what == "metric" and is_share(last) else 1

    def curve(view: View) -> dict[float, float]:
        """The run's curve, as bold as in its own chart."""
        unit = view.loss_level[1] if mixed and view.loss_level else 1 / scale
        values = smooth([getattr(point, what) / (unit or 1.0) for point in view.points])
        return {float(point.step) if over == "steps" else point.seconds: y for point, y in zip(view.points, values)}

    if what == "metric":
        label = f"{say(last.metric_label)}{' (%)' if scale == 100 else ''}"
        level = None if last.metric_chance is None else (guess(last), scale * last.metric_chance)
    else:
        label = say("Loss; 1 is guessing, or the start" if mixed else "Loss")
        level = ("", 1.0) if mixed else last.loss_level
    level = level and (say(level[0]), level[1])
    return Comparison([(in_words(view.name), curve(view)) for view in views], label, say(over), level, left_out)


def figure(compared: Comparison) -> go.Figure:
    """The runs as lines that differ in colour and in dashes, with their names; the level as a thin line across."""
    drawn = go.Figure()
    for place, (name, curve) in enumerate(compared.curves):
        # Plotly takes names for HTML.
        text = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        drawn.add_scatter(x=list(curve), y=list(curve.values()), name=text, mode="lines" if len(curve) > 1 else "markers",
                          line={"color": COLORS[place % len(COLORS)], "dash": DASHES[place % len(DASHES)], "width": 2.5},
                          hovertemplate=f"%{{y:.3g}}<extra>{text}</extra>")
    if compared.level is not None and math.isfinite(compared.level[1]):
        drawn.add_hline(compared.level[1], line={"color": charts.SOFT, "width": 1.2, "dash": "dot"},
                        annotation={"text": compared.level[0], "font": {"color": charts.SOFT, "size": 12}, "yshift": -2},
                        annotation_position="top right")
    drawn.update_xaxes(title=compared.over, rangemode="tozero", showgrid=False)
    drawn.update_yaxes(nticks=5)
    return drawn.update_layout(
        template=charts.template(), height=HEIGHT, showlegend=True, hovermode="x unified", margin={"t": 48, "r": 12},
        title={"text": compared.label, "font": {"size": 13}, "x": 0.0, "xanchor": "left", "y": 0.99, "yanchor": "top"},
        legend={"font": {"size": 13}, "y": 1.0})  # fmt: skip

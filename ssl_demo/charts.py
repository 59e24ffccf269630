"""The measured transfer table as Plotly figures: accuracies, how few labels do, how far a linear layer lags behind fine-tuning.

Everything works with any part of the rows of `transfer_table.json`; what is missing is said to be not measured. Rows are dicts
with encoder, kind, protocol, labels_per_class (None: all), accuracy, spread (a standard deviation over draws, or None).
"""

import functools
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .checkpoints import UNTRAINED
from .embedding import title
from .pretext import FAMILIES, all_tasks
from .probes import half_interval
from .texts import later, say
from .transfer import PIXELS, PROTOCOLS, SUPERVISED

TABLE = Path(__file__).with_name("transfer_table.json")
NAMES = {"knn": say("Neighbours"), "linear": say("Linear layer"), "finetune": say("Fine-tuning")}
INK, SOFT, GRID = "#7d7770", "#8d877f", "rgba(140, 134, 124, 0.28)"  # to be read on light and on dark; the page has its own inks
COLORS = ("#3d7fc9", "#cf5f33", "#2f9563", "#9a68c4", "#a88420")
GREY = "#9a948a"
DASHES, SYMBOLS = ("solid", "dash", "dot", "dashdot"), ("circle", "square", "diamond", "triangle-up", "cross")
FRESH, BARE = later("the same network, untrained"), later("bare pixels")
CEILING = later("the same network, trained on these labels alone")
LEGEND = (*((name, "■", color) for name, color in zip(FAMILIES, COLORS)), (FRESH, "◇", INK), (CEILING, "△", INK),
          (BARE, "┊", INK))  # fmt: skip
FONT = "system-ui, Segoe UI, Helvetica Neue, sans-serif"
CONFIG = {"displayModeBar": False, "responsive": True}
ROW = 26  # pixels a line of bars


@functools.cache
def template() -> go.layout.Template:
    """What all charts share: no frame, no ground, quiet grid, letters large enough for a projector."""
    axis = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "ticks": "", "automargin": True,
            "fixedrange": True, "title": {"standoff": 8, "font": {"size": 13}}}
    return go.layout.Template(layout={
        "font": {"family": FONT, "size": 13, "color": INK}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": COLORS, "xaxis": axis, "yaxis": axis, "margin": {"l": 8, "r": 8, "t": 34, "b": 8}, "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom", "title": {"text": ""}},
        "annotationdefaults": {"font": {"size": 13, "color": INK}}, "dragmode": False, "modebar": {"remove": ["all"]}})


def table(path: Path = TABLE) -> dict:
    """The whole table, with what it is of and the command that made it."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": []}


def find(rows: Iterable[dict], encoder: str, protocol: str, labels: int | None) -> dict | None:
    """The row of an encoder, or None where it was not measured."""
    wanted = encoder, protocol, labels
    return next((row for row in rows if (row["encoder"], row["protocol"], row["labels_per_class"]) == wanted), None)


def name_of(encoder: str) -> str:
    """How a person reads an encoder's name."""
    base, _, kind = encoder.partition(":")
    return say("{name}, supervised", name=say(title(base))) if kind == SUPERVISED else say(title(encoder))


def trained(rows: Iterable[dict]) -> list[str]:
    """The trained encoders in rows, in the order of the tabs."""
    there = {row["encoder"] for row in rows}
    return [name for name in all_tasks() if name in there]


def family(encoder: str) -> str:
    return all_tasks()[encoder].card.family


def color(encoder: str) -> str:
    """A family's color: those that have one idea in common share it."""
    return COLORS[FAMILIES.index(family(encoder))]


def counts(rows: Iterable[dict]) -> list[int | None]:
    """The numbers of labels a class that there are rows of, all (None) first."""
    return sorted({row["labels_per_class"] for row in rows}, key=lambda count: -(count or math.inf))


def bars(rows: list[dict], labels: int | None = None, protocols: tuple[str, ...] = PROTOCOLS) -> go.Figure:
    """Each encoder's accuracy by protocols, side by side: a bar, its spread; the same network untrained, supervised; bare pixels.

    With one protocol there is no legend: the figures of several can stand beside each other, with `LEGEND` for all.
    """
    names = trained(rows)
    rank = {name: max((row["accuracy"] for row in rows if row["encoder"] == name and row["labels_per_class"] == labels
                       and row["protocol"] == "knn"), default=-1.0) for name in names}
    names.sort(key=lambda name: rank[name])
    figure = make_subplots(1, len(protocols), shared_yaxes=True, horizontal_spacing=0.03,
                           subplot_titles=[NAMES[protocol] for protocol in protocols])
    labelled = set()  # what the legend has already

    def add(key: str, column: int, **trace) -> None:
        figure.add_trace(trace | {"legendgroup": key, "name": say(key), "showlegend": key not in labelled}, row=1, col=column)
        labelled.add(key)

    for column, protocol in enumerate(protocols, start=1):
        found = {name: row for name in names if (row := find(rows, name, protocol, labels))}
        for group in FAMILIES:
            mine = {name_of(name): row for name, row in found.items() if family(name) == group}
            spreads = [100 * (row["spread"] or 0) for row in mine.values()]
            if mine:
                add(group, column, type="bar", y=list(mine), x=[100 * row["accuracy"] for row in mine.values()], orientation="h",
                    error_x={"type": "data", "array": spreads, "color": INK, "visible": any(spreads)}, width=0.62,
                    marker={"color": COLORS[FAMILIES.index(group)]}, hovertemplate="%{y}: %{x:.1f}%<extra></extra>")
        for kind, key, symbol in ((UNTRAINED, FRESH, "diamond"), (SUPERVISED, CEILING, "triangle-up")):
            there = {name_of(name): row for name in names if (row := find(rows, f"{name}:{kind}", protocol, labels))}
            if there:
                add(key, column, type="scatter", y=list(there), mode="markers",
                    x=[100 * row["accuracy"] for row in there.values()],
                    hovertemplate=f"%{{y}}, {say(kind)}: %{{x:.1f}}%<extra></extra>",
                    marker={"symbol": symbol, "size": 9, "color": "white", "line": {"color": "#3a3631", "width": 1.5}})
        if names and (row := find(rows, PIXELS, protocol, labels)):
            add(BARE, column, type="scatter", y=[name_of(names[0]), name_of(names[-1])], x=[100 * row["accuracy"]] * 2,
                mode="lines", line={"color": SOFT, "dash": "dot", "width": 2},
                hovertemplate=f"{say(BARE)}: %{{x:.1f}}%<extra></extra>")
        absent = [name_of(name) for name in names if name not in found]
        figure.add_scatter(y=absent, x=[99] * len(absent), mode="text", text=[say("not measured")] * len(absent),
                           hoverinfo="skip", textposition="middle left", textfont={"size": 12, "color": SOFT},
                           showlegend=False, col=column, row=1)
    figure.update_xaxes(range=[0, 100], tickvals=[25, 50, 75], ticktext=["25%", "50%", "75%"])
    figure.update_yaxes(categoryorder="array", categoryarray=[name_of(name) for name in names], showgrid=False)
    if not names:
        _say_missing(figure, say("Accuracies"))
    one = len(protocols) == 1
    height = (70 if one else 110) + ROW * max(3, len(names))
    return _finish(figure, height, {"legend": {"y": 1 + 26 / (height - 80)}, "barmode": "overlay", "showlegend": not one,
                                    "margin": {"t": 30 if one else 70}})


def curves(rows: list[dict], protocol: str, of_all: float) -> go.Figure:
    """Accuracy against labels a class, on a logarithmic axis. of_all: how many labels a class has where all are given."""
    figure, ends, values = go.Figure(), [], []
    names = [name for name in trained(rows) if any(row["encoder"] == name and row["protocol"] == protocol for row in rows)]
    names += [name for name in dict.fromkeys(row["encoder"] for row in rows if row["protocol"] == protocol) if name == PIXELS]
    for name in names:
        line = sorted((row["labels_per_class"] or of_all, 100 * row["accuracy"], 100 * (row["spread"] or 0)) for row in rows
                      if row["encoder"] == name and row["protocol"] == protocol)
        x, y, spread = zip(*line)
        siblings = [other for other in names if other != PIXELS and name != PIXELS and family(other) == family(name)]
        place = siblings.index(name) if name in siblings else 0
        tint = GREY if name == PIXELS else color(name)
        figure.add_scatter(x=x, y=y, name=name_of(name), mode="lines+markers", showlegend=False,
                           line={"color": tint, "dash": DASHES[place % len(DASHES)], "width": 2},
                           marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 7},
                           error_y={"type": "data", "array": spread, "thickness": 1, "width": 3},
                           hovertemplate=f"{name_of(name)}, %{{x:.0f}} {say('a class')}: %{{y:.1f}} %<extra></extra>")
        values += y
        ends.append((y[-1], x[-1], name_of(name), tint))
    least = 0.047 * (max(values, default=1) - min(values, default=0))  # a line of text, in per cent
    for height, (_, x, text, tint) in zip(_apart(sorted(end[0] for end in ends), least), sorted(ends)):
        figure.add_annotation(x=math.log10(x), y=height, text=text, font={"color": tint, "size": 12}, xanchor="left", xshift=8,
                              showarrow=False)
    ticks = sorted({row["labels_per_class"] or of_all for row in rows if row["protocol"] == protocol})
    figure.update_xaxes(type="log", tickvals=ticks, title=say("labels a class (logarithmic)"),
                        ticktext=[say("all ({count:.0f})", count=x) if x == of_all else f"{x:g}" for x in ticks])
    if ticks:
        low, high = (math.log10(edge) for edge in (ticks[0], ticks[-1]))
        figure.update_xaxes(range=[low - 0.1, high + 0.05])
    figure.update_yaxes(ticksuffix="%")
    if not names:
        _say_missing(figure, NAMES[protocol])
    # The names stand to the right of the axes.
    title = {"text": f"{NAMES[protocol]}: {say('how few labels do')}", "font": {"size": 14}, "x": 0.02}
    return _finish(figure, 440, {"margin": {"r": 136 if names else 8}, "title": title})


def gaps(rows: list[dict]) -> tuple[int | None, dict[str, tuple[float, float]]]:
    """Labels a class (None: all), and the accuracies (linear, fine-tuned) of the encoders that have both with so many.

    The most labels with which most encoders are there, for the claim is about their families. Means are over the draws of labels
    that both were measured with: fine-tuning, which takes minutes, may have fewer of them.
    """
    best: tuple[int | None, dict] = (None, {})
    for labels in counts(rows):
        found = {name: _same_draws(linear, tuned) for name in trained(rows)
                 if (linear := find(rows, name, "linear", labels)) and (tuned := find(rows, name, "finetune", labels))}
        if len(found) > len(best[1]):
            best = labels, found
    return best


def _same_draws(one: dict, other: dict) -> tuple[float, float]:
    """The accuracies of two rows over the draws of labels that both have. A linear layer on all labels has but one."""
    accuracies = [row.get("accuracies") or [row["accuracy"]] for row in (one, other)]
    draws = min(map(len, accuracies)) if one["labels_per_class"] else None
    return statistics.fmean(accuracies[0][:draws]), statistics.fmean(accuracies[1][:draws])


def gap(rows: list[dict]) -> go.Figure:
    """A linear layer beside fine-tuning for each encoder, joined by a line: the longer, the more there was left to learn."""
    found = dict(sorted(gaps(rows)[1].items(), key=lambda item: item[1][1] - item[1][0]))
    figure = go.Figure()
    for name, (linear, tuned) in found.items():
        figure.add_scatter(x=[100 * linear, 100 * tuned], y=[name_of(name)] * 2, mode="lines+text", hoverinfo="skip",
                           text=["", f"   {100 * (tuned - linear):+.1f}"], textposition="middle right", showlegend=False,
                           line={"color": color(name), "width": 3}, cliponaxis=False)
    tints = [color(name) for name in found]
    for which, (label, symbol) in enumerate(((say("linear layer"), "circle-open"), (say("fine-tuning"), "circle"))):
        figure.add_scatter(x=[100 * pair[which] for pair in found.values()], y=[name_of(name) for name in found], mode="markers",
                           name=label, marker={"symbol": symbol, "size": 11, "line": {"width": 2}, "color": tints},
                           hovertemplate=f"%{{y}}, {label}: %{{x:.1f}} %<extra></extra>")
    if not found:
        _say_missing(figure, say("Both a linear layer and fine-tuning of one encoder"))
    figure.update_xaxes(ticksuffix="%")
    figure.update_yaxes(showgrid=False)
    return _finish(figure, 90 + 34 * max(2, len(found)), {"margin": {"r": 56 if found else 8}})


def gap_sentence(rows: list[dict]) -> str:
    """What the rows say of the MAE paper's claim, with its uncertainty.

    Encoders that fill in what is missing gain more by fine-tuning over a linear layer than those that bring views together
    (He et al. 2021, section 4.3). That is said of families, so what is uncertain is how encoders of one family differ: after ±
    stands Welch's interval of 95 % for the difference of two means, from the variance between the encoders of each. It holds the
    noise of the test photos too, which makes encoders differ. One encoder does not tell how those of its family differ.
    """
    labels, found = gaps(rows)
    (here, filling), (there, views) = ((name, [tuned - linear for n, (linear, tuned) in found.items() if family(n) == name])
                                       for name in (_family("fill"), _family("views")))
    for name, group in ((here, filling), (there, views)):
        if not group:
            return say("Not measured yet: it takes a linear layer and fine-tuning of an encoder of “{name}”.", name=say(name))
    means = [statistics.fmean(group) for group in (filling, views)]
    difference, half = means[0] - means[1], math.inf
    if min(len(filling), len(views)) > 1:
        half = half_interval((statistics.variance(group) / len(group), len(group) - 1) for group in (filling, views))
    verdict = (say("as the MAE paper found") if difference > half else
               say("the opposite of what the MAE paper found") if difference < -half else
               say("no difference that so few encoders can tell, so the MAE paper's finding does not show here"))
    return say("With {labels} labels a class, fine-tuning adds {filling:.1f} points to a linear layer for encoders of “{here}” "
               "({some} measured) and {views:.1f} for those of “{there}” ({others}); difference {difference:+.1f} ± {half} "
               "points (95% interval, from how encoders of a family differ): {verdict}.",
               labels=labels or say("all"), filling=100 * means[0], here=say(here), some=len(filling), views=100 * means[1],
               there=say(there), others=len(views), difference=100 * difference, verdict=verdict,
               half="?" if half == math.inf else f"{100 * half:.1f}")


def _family(word: str) -> str:
    """The family whose name holds a word."""
    return next(name for name in FAMILIES if word in name.lower())


def _apart(heights: list[float], least: float) -> list[float]:
    """Ascending heights, moved as little as a few sweeps can so that neighbours are `least` apart: labels do not overlap."""
    heights = list(heights)
    for _ in range(200):
        for below in range(len(heights) - 1):
            if (lack := least - (heights[below + 1] - heights[below])) > 1e-6:
                heights[below] -= lack / 2
                heights[below + 1] += lack / 2
    return heights


def _say_missing(figure: go.Figure, what: str) -> None:
    figure.add_annotation(text=f"{what}:<br>{say('not measured yet.')}", x=0.5, y=0.5, xref="paper", yref="paper",
                          showarrow=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)


def _finish(figure: go.Figure, height: int, more: dict | None = None) -> go.Figure:
    return figure.update_layout(template=template(), height=height, **(more or {}))

"""What a task's tab tells, as HTML: its panels in four steps, its figures, and how good it is. Strings out; no events."""

import base64
import html
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from ..inference import Result
from ..pretext import Bar, Card, Number, Panel

STEPS = {
    "photo": "Photo",
    "sees": "What the network sees",
    "answers": "What it answers",
    "judged": "How it is judged",
}


def story(result: Result, card: Card) -> str:
    """The panels of a run in four steps, its figures, and the shortcut to beware of."""
    columns = []
    for number, (stage, heading) in enumerate(STEPS.items(), start=1):
        panels = "".join(panel_html(panel) for panel in result.panels if panel.stage == stage)
        columns.append(f'<section class="step step-{stage}"><h3><span>{number}</span>{heading}</h3>{panels}</section>')
    shortcut = f'<p class="shortcut"><b>What could cheat.</b> {html.escape(card.shortcut)}</p>'
    notes = f'<div class="notes">{figures_html(result.figures.values())}{shortcut}</div>'
    return f'<div class="story">{"".join(columns)}{notes}</div>'


def panel_html(panel: Panel) -> str:
    """One panel with title and caption. A clickable one says what a click does and carries its name for the page's script."""
    title, caption = html.escape(panel.title), html.escape(panel.caption)
    if panel.image is None:
        body = bars_html(panel.bars)
    else:
        attributes = f' data-click="{panel.name}" role="button" tabindex="0"' if panel.click else ""
        height, width = panel.image.shape[:2]
        body = f'<img src="{data_url(panel.image)}" alt="{title}. {caption}" width="{width}" height="{height}"{attributes}>'
        if panel.click:
            caption += f' <em class="hint">{html.escape(panel.click)}</em>'
    return f'<figure class="panel" data-panel="{panel.name}"><h4>{title}</h4>{body}<figcaption>{caption}</figcaption></figure>'


def bars_html(bars: Iterable[Bar]) -> str:
    """Shares as bars. The true one is ticked and the answer named, so that colour is not the only sign."""
    rows = []
    for bar in bars:
        marks = (' <b class="true">✓ true</b>' if bar.true else "") + (' <b class="chosen">answer</b>' if bar.chosen else "")
        kind = "right" if bar.true and bar.chosen else "wrong" if bar.chosen else "other"
        rows.append(f'<li class="{kind}"><div><span>{html.escape(bar.label)}{marks}</span><span>{bar.value:.1%}</span></div>'
                    f'<div class="track"><div class="fill" style="width:{bar.value:.1%}"></div></div></li>')
    return f'<ul class="bars">{"".join(rows)}</ul>'


def figures_html(figures: Iterable[Number]) -> str:
    """The figures of a run that have a text."""
    rows = "".join(f"<div><dt>{html.escape(n.label)}</dt><dd>{html.escape(n.text)}"
                   f'{f"<small>{html.escape(n.help)}</small>" if n.help else ""}</dd></div>' for n in figures if n.text)
    return f'<dl class="figures">{rows}</dl>'


def about(card: Card, weights: dict) -> str:
    """The idea in one sentence, the paper, and the measured score beside chance and an untrained network."""
    paper = f'<a href="{card.link}" target="_blank" rel="noopener">{html.escape(card.paper)}</a>'
    return (f'<div class="about"><div><p class="idea">{html.escape(card.idea)}</p>'
            f'<p class="paper">{html.escape(card.authors)}, {card.year}: {paper}</p></div>{score_html(card, weights)}</div>')


def score_html(card: Card, weights: dict) -> str:
    """The held-out score of the weights' card, with chance and untrained as marks on the same scale."""
    measured = weights.get("heldout")
    if not measured:
        return '<div class="score"><p>No held-out score has been measured for these weights.</p></div>'
    named = {"trained": measured["score"], "untrained": measured["untrained"]}
    named |= {label: measured["metrics"][metric] for metric, label in card.baselines} or {"chance": measured["chance"]}
    top = 1.0 if card.percent else max(named.values())
    rows = sorted(named.items(), key=lambda item: item[1], reverse=card.higher_is_better)
    bars = "".join(f'<li class="{"right" if name == "trained" else "other"}"><span>{name}</span><div class="track">'
                   f'<div class="fill" style="width:{value / top:.1%}"></div></div>'
                   f'<span>{card.show(value)}</span></li>' for name, value in rows)
    better = "higher" if card.higher_is_better else "lower"
    return (f'<div class="score"><p>{html.escape(card.metric_label)} <small>({measured["images"]:,} held-out photos, {better} '
            f"is better)</small></p><ul>{bars}</ul></div>")


def data_url(image: np.ndarray) -> str:
    """A picture as a PNG inside the page: exact pixels, and no file of a visitor's photo on the server."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


# Pictures are replaced with every answer, so the listeners sit on the component and ask what was hit.
CLICKS = """
const send = (image, x, y) => trigger('select', {panel: image.dataset.click, x, y});
element.addEventListener('click', (event) => {
  const image = event.target.closest('[data-click]');
  if (!image) return;
  const box = image.getBoundingClientRect();
  send(image, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
});
"""

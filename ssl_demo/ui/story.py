"""What a task's tab tells, as HTML: its panels in four steps, its figures, and how good it is. Strings out; no events."""

import html
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ..inference import Result
from ..pretext import Card, Number
from ..progress import steps
from ..texts import in_script, later, say, spoken
from .panels import panel_html
from .take_buttons import button_html, menu_html

STEPS = {
    "photo": say("Photo"),
    "sees": say("What the network sees"),
    "answers": say("What it answers"),
    "judged": say("How it is judged"),
}


def heading_of(stage: str, card: Card) -> str:
    """What a step is called: what a method on clips begins with is one."""
    return say("Clip") if stage == "photo" and card.input == "video" else STEPS[stage]


def story(result: Result, card: Card, link: str = "", calls: Mapping[str, str] = MappingProxyType({})) -> str:
    """The panels of a run in four steps, its figures, and the shortcut to beware of. result: in the host's language.

    link: a query that leads back here; calls: what to type elsewhere for the same run, by the name of the place.
    """
    columns, drawn = [], {stage: "" for stage in STEPS}
    for panel in steps(result.panels, "panels drawn"):  # clips take a while to encode
        drawn[panel.stage] += panel_html(panel, button_html(panel) if link else "")
    for number, stage in enumerate(STEPS, start=1):
        columns.append(f'<section class="step step-{stage}"><h3><span>{number}</span>{heading_of(stage, card)}</h3>{drawn[stage]}'
                       "</section>")
    shortcut = f'<p class="shortcut"><b>{say("What could cheat.")}</b> {html.escape(say(card.shortcut))}</p>'
    notes = f'<div class="notes">{figures_html(result.figures.values())}{shortcut}{link_html(link, calls)}</div>'
    return f'<div class="story" data-link="{html.escape(link)}">{"".join(columns)}{notes}</div>'


def link_html(link: str, calls: Mapping[str, str]) -> str:
    """A button that copies the link to what is shown, and the calls for the same run; nothing where there is no link."""
    if not link:
        return ""
    note = "" if "photo=" in link else f'<p>{say("Without your photo, which never enters a link.")}</p>'
    if "HTTP" not in calls:  # no address can name a network that only this visit has
        note += f'<p>{say("The link asks the network that ships; yours is the file that the Training lab gave you.")}</p>'
    typed = "".join(f"<dt>{html.escape(say(place))}</dt><dd><code>{html.escape(call)}</code></dd>"
                    for place, call in calls.items())
    return (f'<div class="link"><button type="button" class="copy-link">{say("Copy link")}</button>{menu_html()}'
            f"<details><summary>{say('Run it elsewhere')}</summary>{note}<dl>{typed}</dl></details></div>")


def figures_html(figures: Iterable[Number]) -> str:
    """The figures of a run that have a text."""
    rows = "".join(f'<div data-figure="{html.escape(n.label)}"><dt>{html.escape(n.label)}</dt><dd>{html.escape(n.text)}'
                   f'{f"<small>{html.escape(n.help)}</small>" if n.help else ""}</dd></div>' for n in figures if n.text)
    return f'<dl class="figures">{rows}</dl>'


def about(card: Card, weights: dict) -> str:
    """The idea in one sentence, the paper, and the measured score beside chance and an untrained network."""
    said, paper = spoken(card), f'<a href="{card.link}" target="_blank" rel="noopener">{html.escape(card.paper)}</a>'
    return (f'<div class="about"><div><h2 class="unseen method-title">{html.escape(said.title)}</h2>'
            f'<p class="idea">{html.escape(said.idea)}</p>'
            f'<p class="paper">{html.escape(card.authors)}, {card.year}: {paper}</p></div>{score_html(card, weights)}</div>')


def score_html(card: Card, weights: dict) -> str:
    """The held-out score of the weights' card, with chance and untrained as marks on the same scale."""
    card, measured = spoken(card), weights.get("heldout")
    if not measured:
        return '<div class="score"><p>' + say("No held-out score has been measured for these weights.") + "</p></div>"
    named = {later("trained"): measured["score"], later("untrained"): measured["untrained"]}
    named |= {label: measured["metrics"][metric] for metric, label in card.baselines} or {say("chance"): measured["chance"]}
    top = 1.0 if card.percent else max(named.values())
    rows = sorted(named.items(), key=lambda item: item[1], reverse=card.higher_is_better)
    bars = "".join(f'<li class="{"right" if name == "trained" else "other"}"><span>{say(name)}</span><div class="track">'
                   f'<div class="fill" style="width:{value / top:.1%}"></div></div>'
                   f'<span>{card.show(value)}</span></li>' for name, value in rows)
    better = say("higher is better") if card.higher_is_better else say("lower is better")
    also = ""
    if card.also:
        metric, guess, label = card.also
        ours, guessed = (card.show(measured["metrics"][name]) for name in (metric, guess))
        guess = card.baselines[0][1] if card.baselines else say("chance")
        also = f"<p>{html.escape(label)}: <b>{ours}</b>, {html.escape(guess)}: {guessed}</p>"
    if card.untrained_note:
        also += f"<p>{html.escape(card.untrained_note)}</p>"
    what = say("{count:,} held-out clips" if card.input == "video" else "{count:,} held-out photos", count=measured["images"])
    return (f'<div class="score"><p>{html.escape(card.metric_label)} <small>({what}, {better})</small></p><ul>{bars}</ul>{also}'
            "</div>")


def progress_html(done: int, of: int, doing: str, seconds: float) -> str:
    """How far a run is that began `seconds` ago."""
    left = say(", about {seconds:.0f} s left", seconds=seconds / done * (of - done)) if done else ""
    far = say("{done} of {of}", done=done, of=of)
    return (f'<div class="progress" role="status"><span>{html.escape(say(doing))}: {far}{left}</span>'
            f'<div class="track"><div class="fill" style="width:{done / max(1, of):.0%}"></div></div></div>')


# Pictures are replaced with every answer, so the listeners sit on the component and ask what was hit. Strokes that no answer has
# shown yet are sent again with the next one: of several quick ones only the last event may be handled, and twice painted is once.
CLICKS = in_script("""
const share = (event, image) => {
  const box = image.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};
element.addEventListener('click', (event) => {
  const image = event.target.closest('[data-click]');
  if (image) {
    const [x, y] = share(event, image);
    trigger('select', {panel: image.dataset.click, x, y});
  }
  const copy = event.target.closest('.copy-link');
  if (copy) {
    navigator.clipboard.writeText(location.href).then(() => { copy.textContent = say('Copied'); });
  }
  const clear = event.target.closest('.brush-clear');
  if (clear) {
    pending = [];
    trigger('select', {panel: clear.closest('[data-panel]').dataset.panel, strokes: ''});
  }
});
element.addEventListener('pointerover', (event) => {  // a cell of a matrix says what it holds
  const cell = event.target.closest('[data-says]');
  if (cell) cell.closest('.panel').querySelector('.says').textContent = cell.dataset.says;
});
element.addEventListener('keydown', (event) => {
  const image = event.target.closest('[data-click]');
  if (!image || (event.key !== 'Enter' && event.key !== ' ')) return;
  event.preventDefault();
  trigger('select', {panel: image.dataset.click, x: 0.5, y: 0.5});
});

let pending = [], stroke = null, radius = 5;
const draw = (event) => {  // an answer may replace the picture under the brush: it is looked up each time
  const image = element.querySelector(`img[data-brush="${stroke.panel}"]`);
  if (!image) return;
  const [x, y] = share(event, image).map((value) => Math.min(1.4, Math.max(-0.4, value)) * 100);
  const [u = x, v = y] = stroke.points.slice(-2);
  if (stroke.points.length && Math.hypot(x - u, y - v) < 0.7) return;
  stroke.points.push(+x.toFixed(1), +y.toFixed(1));
  let canvas = image.parentElement.querySelector('canvas');
  if (!canvas) {
    canvas = image.parentElement.appendChild(document.createElement('canvas'));
    [canvas.width, canvas.height] = [image.clientWidth, image.clientHeight];
  }
  const pen = canvas.getContext('2d'), across = canvas.width / 100, down = canvas.height / 100;
  pen.lineWidth = 2 * stroke.radius * across;
  pen.lineCap = pen.lineJoin = 'round';
  pen.strokeStyle = '#2f6fb7';
  pen.beginPath();
  pen.moveTo(u * across, v * down);
  pen.lineTo(x * across, y * down + 0.01);
  pen.stroke();
};
element.addEventListener('pointerdown', (event) => {
  const image = event.target.closest('img[data-brush]');
  if (!image || event.button) return;
  event.preventDefault();
  image.setPointerCapture(event.pointerId);
  stroke = {panel: image.dataset.brush, radius, points: []};
  draw(event);
});
element.addEventListener('pointermove', (event) => { if (stroke) draw(event); });
const lift = () => {
  if (!stroke) return;
  pending.push([stroke.radius, ...stroke.points].join(' '));
  trigger('select', {panel: stroke.panel, strokes: pending.join('; ')});
  stroke = null;
};
element.addEventListener('pointerup', lift);
element.addEventListener('pointercancel', lift);
element.addEventListener('input', (event) => { if (event.target.matches('.brush-size')) radius = Number(event.target.value); });
const address = () => {  // of what is on the open tab stands where addresses stand
  const link = element.querySelector('.story')?.dataset.link;
  if (!link || !element.offsetParent) return;
  window.openMethod = new URLSearchParams(link).get('task');
  window.place.method(link);
};
new IntersectionObserver(address).observe(element);
new MutationObserver(() => {  // a new answer: it shows every stroke that was sent
  address();
  if (element.querySelector('.canvas canvas')) return;
  pending = [];
  element.querySelectorAll('.brush-size').forEach((input) => { input.value = radius; });
}).observe(element, {childList: true, subtree: true, attributeFilter: ['data-link']});  // Gradio changes what differs, no more
""")

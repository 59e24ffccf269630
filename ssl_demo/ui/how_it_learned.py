"""How it learned: a slider through what networks of one training said of the example photo, beside the training's curves.

All of it is made when the accordion is first opened, and sent once: sliding and playing happen in the browser.
"""

import base64
import functools
import html
from collections.abc import Sequence

import gradio as gr

from .. import learned
from ..checkpoints import bundled
from ..examples import EXAMPLES
from ..learned import Kept, Learned
from ..pretext import Card, Chart, Line, Number, all_tasks
from ..texts import in_script, say, spoken
from .panels import bars_html, chart_html, chart_x
from .story import STEPS

HEIGHT = 120  # units of each of the two curves


class HowItLearned:
    """The accordion of one task's tab, made where it is constructed; nothing where no answers of a training were kept."""

    def __init__(self, task: str):
        if not learned.file_of(task).is_file():
            return

        def fetch(_) -> str:  # Gradio takes plain functions only, and always hands over something
            return learned_html(task)

        with gr.Accordion(say("How it learned"), open=False, elem_id=f"{task}-learned", elem_classes="learned-box"):
            gr.HTML(f"<p class='learned-wait'>{say('Fetching what it answered as it learned.')}</p>", js_on_load=PLAY,
                    server_functions=[fetch])


@functools.lru_cache(maxsize=16)
def learned_html(task: str) -> str:
    """All photos and steps of a task, one of each to be seen at a time; one sentence where its file is damaged."""
    try:
        kept = learned.load(task)
    except ValueError as error:
        return f'<p class="learned-wait">{html.escape(str(error))}</p>'
    card, count = spoken(all_tasks()[task].card), len(kept.steps)
    after = frames([after_html(step, kept.images_after(step), card) for step in kept.steps])
    bar = (f'<div class="learned-bar"><button type="button" class="learned-play">{say("Play")}</button>'
           f'<input type="range" min="0" max="{count - 1}" step="1" value="0" aria-label="{say("Steps of training")}">'
           f'<div class="learned-after" role="status">{after}</div></div>')
    photos = "".join(photo_html(kept, example.name, say(example.title)) for example in EXAMPLES)
    return (f'<div class="learned" data-task="{task}">{bar}<div class="learned-body">{photos}'
            f'<div class="learned-curves">{curves_html(kept, card)}</div></div>{source_html(kept, task)}</div>')


def after_html(step: int, images: int, card: Card) -> str:
    """How long it had learned."""
    steps = say("after <b>{step:,}</b> step" if step == 1 else "after <b>{step:,}</b> steps", step=step)
    return f"{steps}, {say('{count:,} clips' if card.input == 'video' else '{count:,} photos', count=images)}"


def source_html(kept: Learned, task: str) -> str:
    """Of which training all this is."""
    now = {weights.get("sha256"): weights for weights in bundled(task).values()}
    other = "" if kept.sha256 in now else say("; the tab's own network is another by now")
    leap = say("The curve leaps where a second training went on from weights of the first, its learning rate high again.")
    told = say("Answers of the averaged weights at these steps of a training; the last are those of {weights}{other}. As the tab "
               "first asks: seed 0, all controls as they stand at first.", weights=html.escape(kept.weights), other=other)
    return f'<p class="learned-note">{told} {leap if "before" in now.get(kept.sha256, {}) else ""}</p>'


def photo_html(kept: Learned, name: str, title: str) -> str:
    """What all steps said of one photo. What no step changes stands there once."""
    answers, parts = [spoken(answer) for answer in kept.answers[name]], []
    for slot in range(len(answers[0].panels)):
        drawn = [panel_html(answer.panels[slot]) for answer in answers]
        parts.append(f'<div class="learned-panel">{frames(drawn)}</div>')
    figures = frames([" ".join(map(figure_html, answer.figures)) for answer in answers])
    own = say(", since answers were kept of the example photos only")
    lead = (f'<div class="learned-lead"><p><b>{html.escape(title)}</b><span class="learned-own" hidden>{own}</span></p>{figures}'
            "</div>")
    return (f'<section class="learned-photo" data-photo="{name}" aria-label="{html.escape(title)}">{lead}'
            f'<div class="learned-panels">{"".join(parts)}</div></section>')


def figure_html(figure: Number) -> str:
    """One figure, in a line."""
    label, text, note = map(html.escape, (figure.label, figure.text, figure.help))
    return f'<span class="learned-figure">{label} <b>{text}</b> <small>{note}</small></span>'


def frames(drawn: Sequence[str]) -> str:
    """One drawing a step, all in one place, each once however many steps show it; the bare drawing where all are alike."""
    if len(set(drawn)) == 1:
        return drawn[0]
    steps: dict[str, list[str]] = {}
    for at, one in enumerate(drawn):
        steps.setdefault(one, []).append(str(at))
    return '<div class="frames">' + "".join(f'<div data-at="{" ".join(at)}">{one}</div>' for one, at in steps.items()) + "</div>"


def panel_html(panel: Kept) -> str:
    """A kept panel, as the story above draws its like."""
    title, caption = html.escape(panel.title), html.escape(panel.caption)
    if panel.bars:
        body = bars_html(panel.bars)
    else:
        width, height = panel.size
        url = "data:image/webp;base64," + base64.b64encode(panel.picture).decode()
        body = f'<img src="{url}" alt="{title}. {caption}" width="{width}" height="{height}" class="wide" decoding="sync">'
    return (f'<figure class="panel" data-panel="{panel.name}"><h4><small>{STEPS[panel.stage]}</small>{title}</h4>{body}'
            f"<figcaption>{caption}</figcaption></figure>")


def curves_html(kept: Learned, card: Card) -> str:
    """Loss and metric over the steps, each with what guessing gives, and with a line for the page's script to move."""
    metric, chance = card.in_training
    scale = 100 if "accuracy" in metric else 1
    label = (card.watched[1] if card.watched else card.metric_label) + (" (%)" if scale == 100 else "")
    guess = dict(card.baselines).get(chance, say("chance"))
    steps = [float(point[0]) for point in kept.curve]
    ends = sorted({*steps, float(kept.steps[0]), float(kept.steps[-1])})  # the answers may begin before the curve, or end after
    drawn = ""
    loss = say("Loss"), 2, 1, (say("guessing"), kept.guessing)
    for name, place, unit, level in (loss, (label, 3, scale, (guess, kept.chance))):
        values = {point[0]: unit * point[place] for point in kept.curve}
        line = Line(name, tuple(values.get(step, float("nan")) for step in ends))
        at = None if level[1] is None else (level[0], unit * level[1])
        chart = Chart(tuple(ends), (line,), say("steps"), "", log_x=True, now=float(kept.steps[0]), level=at)
        first, last = (values[step] for step in (kept.curve[0][0], kept.curve[-1][0]))
        told = say("{name} in training, from {first:.3g} to {last:.3g}", name=name, first=first, last=last)
        told += f"; {at[0]}: {at[1]:.3g}" if at else ""
        places = " ".join(f"{chart_x(chart, step)}" for step in kept.steps)
        says = frames([f"<b>{unit * kept.level_at(step)[place - 2]:.3g}</b>" for step in kept.steps])
        drawn += (f'<div class="learned-curve" data-places="{places}"><div class="learned-name">{html.escape(name)} {says}</div>'
                  f"{chart_html(chart, html.escape(told), HEIGHT)}</div>")
    return drawn


# Which photo is shown follows the story above: its link names the example, and no photo where it is the visitor's own.
PLAY = in_script("""
let timer = null, story = null, follower = null;
const root = () => element.querySelector('.learned');
const stop = () => {
  clearInterval(timer);
  timer = null;
  const button = element.querySelector('.learned-play');
  if (button) button.textContent = say('Play');
};
const show = () => {
  if (!root()) return;
  const slider = element.querySelector('.learned-bar input'), at = slider.value;
  root().querySelectorAll('[data-at]').forEach((one) => one.classList.toggle('now', one.dataset.at.split(' ').includes(at)));
  slider.setAttribute('aria-valuetext', element.querySelector('.learned-after .now').textContent);
  root().querySelectorAll('[data-places]').forEach((curve) => {
    const x = curve.dataset.places.split(' ')[at], mark = curve.querySelector('line.now');
    mark.setAttribute('x1', x);
    mark.setAttribute('x2', x);
  });
};
const follow = () => {
  if (!root()) return;
  const found = document.querySelector(`#${root().dataset.task}-story`);
  if (found && found !== story) {
    follower?.disconnect();
    story = found;
    follower = new MutationObserver(follow);
    follower.observe(story, {childList: true, subtree: true, attributeFilter: ['data-link']});
  }
  const photos = [...root().querySelectorAll('[data-photo]')];
  const name = new URLSearchParams(story?.querySelector('.story')?.dataset.link).get('photo');
  const shown = photos.find((photo) => photo.dataset.photo === name) || photos[0];
  photos.forEach((photo) => { photo.hidden = photo !== shown; });
  shown.querySelector('.learned-own').hidden = shown.dataset.photo === name;
};
element.addEventListener('input', (event) => { if (event.target.matches('.learned-bar input')) { stop(); show(); } });
element.addEventListener('click', (event) => {
  if (!event.target.closest('.learned-play')) return;
  if (timer) { stop(); return; }
  const slider = element.querySelector('.learned-bar input'), last = Number(slider.max);
  const go = (value) => {
    slider.value = value;
    show();
    if (value >= last || !element.offsetParent) stop();
  };
  element.querySelector('.learned-play').textContent = say('Pause');
  timer = setInterval(() => go(Number(slider.value) + 1), 800);
  if (Number(slider.value) >= last) go(0);
});
new MutationObserver(() => {  // the answers are there
  if (!root() || root().dataset.begun) return;
  root().dataset.begun = 'yes';
  follow();
  show();
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  root().scrollIntoView({block: 'nearest', behavior: calm ? 'auto' : 'smooth'});
}).observe(element, {childList: true, subtree: true});
let asked = false;
new IntersectionObserver(async () => {  // opened for the first time
  if (asked || !element.offsetParent) return;
  asked = true;
  props.value = await server.fetch();
}).observe(element);
""")

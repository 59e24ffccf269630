"""The room that greets: one photo through every method at once, each with what it sees, what it answers and one figure."""

import html
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import gradio as gr
import numpy as np
from PIL import Image

from ..figures import panel_picture, pick
from ..inference import Result
from ..pretext import FAMILIES, Card, Panel, all_tasks
from ..texts import later, say, spoken
from ..video import Clip, camera_move
from . import links
from .panels import data_url
from .story import progress_html
from .watching import PATIENCE

FRAMES = 8  # of a clip: a card shows one of them
LONGEST = 220  # pixels of a picture on a card, which is drawn half as large


class OverviewRoom:
    """A card for every task, filled as the answers arrive, those of quick tasks first. A click on one opens its tab."""

    name, title, is_long = "overview", later("Overview"), True

    def __init__(self, run: Callable[..., Result], moving: gr.State, company: gr.State, first: Image.Image):
        """run: as of a task's tab; first: a photo to open with, already through all methods."""
        self.run, self.tasks = run, all_tasks()
        told = {name: self.tell(name, first, first, []) for name in self.tasks}
        self.order = sorted(self.tasks, key=lambda name: told[name][1])
        lead = say("One photo, {count} ways to learn from it without a label. Each hides or disturbs something and tells what it "
                   "was: choose one.", count=say(spelled(len(self.tasks))))
        gr.HTML(f"<p class='lead'>{lead}</p>")
        self.progress = gr.HTML(elem_id="overview-progress")
        self.cards = {}
        with gr.Column(elem_id="overview"):
            for family in FAMILIES:
                gr.HTML(f"<h2 class='family'>{html.escape(say(family))}</h2>")
                with gr.Row(elem_classes="cards"):
                    for name, task in self.tasks.items():
                        if task.card.family == family:
                            self.cards[name] = gr.HTML(told[name][0], elem_id=f"card-{name}", js_on_load=OPEN)
        self.asked: dict[str, tuple] = {}  # by visit, what its cards are being filled with
        self.seen = gr.State((first, first, ()))  # what the cards show, so that coming back costs nothing
        self.inputs, self.shown = [moving, company, self.seen], [self.seen, *self.cards.values(), self.progress]

    def answer(self, request: gr.Request, photo: Image.Image, moving, company: Sequence[Image.Image],
               seen: tuple) -> Iterator[list]:
        """The cards one after the other, each as soon as it is known; no further once the same visit asks about another photo."""
        began = time.monotonic()
        asked = self.asked[request.session_hash] = (photo, moving, tuple(company or ()))
        try:
            yield [gr.skip() for _ in self.shown]  # an answer that yields nothing would empty the cards
            for done, name in enumerate(self.order if seen != asked else (), start=1):
                card = self.tell(name, photo, moving, company)[0]
                if self.asked.get(request.session_hash) is not asked:
                    return
                is_last, seconds = name == self.order[-1], time.monotonic() - began
                slow = seconds > PATIENCE and not is_last
                far = progress_html(done, len(self.order), later("methods"), seconds) if slow else ""
                yield [asked if is_last else gr.skip(), *(card if other == name else gr.skip() for other in self.cards), far]
        finally:  # whoever leaves in between leaves nothing here
            if self.asked.get(request.session_hash) is asked:
                self.asked.pop(request.session_hash)

    def tell(self, name: str, photo: Image.Image, moving, company: Sequence[Image.Image]) -> tuple[str, float]:
        """One card, and how many milliseconds the answer took. Bad luck of one method is no bad luck of the others."""
        card = self.tasks[name].card
        try:
            result = self.run(name, None, short(moving) if card.input == "video" else photo, 0, {}, list(company or []))
        except ValueError as error:
            return card_html(card, html.escape(say(str(error)))), 0.0
        return told(result, card), result.milliseconds


def short(moving: Image.Image | Clip) -> Clip:
    """A few frames of a clip, or of a camera's move over a photo."""
    clip = moving if isinstance(moving, Clip) else camera_move(moving, FRAMES)
    return replace(clip, frames=clip.frames[:FRAMES])


def told(result: Result, card: Card) -> str:
    """What a method sees, what it answers, and one figure of it."""
    result = spoken(result)
    panels = [pick(result.panels, stage, card.overview) for stage in ("sees", "answers")]
    figure = next((result.figures[name] for name in card.overview if name in result.figures),
                  next(number for number in result.figures.values() if number.text))
    images = [f'<img src="{data_url(picture(panel), LONGEST)}" alt="{html.escape(f"{panel.title}. {panel.caption}")}">'
              for panel in panels]
    pictures = '<span class="arrow" aria-hidden="true">→</span>'.join(images)
    said = [figure.help] * bool(figure.help)
    if card.input == "video":  # its tab takes more, and comes to another figure
        said.append(say("{frames} frames", frames=FRAMES))
    note = f"<small>{html.escape('; '.join(said))}</small>" if said else ""
    return card_html(card, f'<span class="pair">{pictures}</span><span class="figure">{html.escape(figure.label)}: '
                           f"<b>{html.escape(figure.text)}</b>{note}</span>")


def card_html(card: Card, body: str) -> str:
    """A card around what a method has to say."""
    return (f'<button type="button" class="method" data-opens="{card.name}"><span class="name">{html.escape(say(card.title))}'
            f"<small>{html.escape(card.authors.split(',')[0])} {card.year}</small></span>{body}</button>")


def picture(panel: Panel) -> np.ndarray:
    """A panel as a picture; of a clip, the frame in the middle."""
    if panel.video is not None:
        return panel.video[len(panel.video) // 2]
    return panel_picture(panel, 1)


def spelled(number: int) -> str:
    """A count in words, as far as there are methods."""
    words = "no one two three four five six seven eight nine ten eleven".split() + [later("twelve")]
    return words[number] if number < len(words) else str(number)


OPEN = f"""
element.addEventListener('click', (event) => {{
  const card = event.target.closest('[data-opens]');
  if (card) ({links.OPEN_METHOD})(card.dataset.opens);
}});
"""

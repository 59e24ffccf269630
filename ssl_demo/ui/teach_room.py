"""The room where a visitor teaches: pictures in named classes, what every encoder makes of them, and the photo classified."""

import functools
import html
import time
from collections.abc import Iterator

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData
from PIL import Image

from .. import own_networks, teach
from ..images import square
from ..teach import LEAST, MOST_CLASSES, MOST_PICTURES, Group, Lesson
from ..texts import later, say
from . import leaving, toasts
from .company_input import CompanyInput, files
from .panels import data_url
from .photo_input import PhotoInput, uploaded
from .story import progress_html
from .task_tab import QUICK
from .teach_story import teach_story
from .watching import PATIENCE

# Through the queue, which carries toasts; and none of several in quick succession is dropped.
CHANGE = {"show_progress": "hidden", "api_visibility": "private", "concurrency_id": "teach", "concurrency_limit": 4,
          "trigger_mode": "multiple"}
CANCELLED = f"<p class='note' role='status'>{say('Cancelled. Any change of the classes lets the encoders look again.')}</p>"
HEADING = f'<h3><span>1</span>{say("Your classes")}</h3>'
IDEA = say("Show a few pictures of two to five things: which encoder, taught no label, tells them apart?")
LEAD = f"<h2 class='unseen'>{say('Teach it')}</h2><p class='idea'>{IDEA}</p>"
KEPT = say("At most {most} pictures a class. The central square of each is kept small, in memory only, and gone within {time} of "
           "your leaving.", most=MOST_PICTURES, time=say(leaving.TOLD))


class TeachRoom:
    """See `page` for what a room is."""

    name, title, is_long = "teach", later("Teach it"), False

    def __init__(self):
        self.lesson = gr.State(Lesson())
        with gr.Row(elem_classes="teach-top"):
            gr.HTML(LEAD, elem_classes="teach-lead")
            self.try_it = gr.Button(say("Try an example"), size="sm", variant="primary", min_width=130, elem_id="teach-example")
            self.over = gr.Button(say("Start over"), size="sm", min_width=100, elem_id="teach-over")
        with gr.Row(elem_id="teach"):
            with gr.Column(scale=0, min_width=300, elem_id="teach-classes"):
                gr.HTML(f'<div class="step">{HEADING}</div>')
                self.cards, self.names, self.adds, self.shelves = [], [], [], []
                for place in range(MOST_CLASSES):
                    self._card(place)
                self.more = gr.Button(say("Add a class"), size="sm", elem_id="teach-more")
                with gr.Accordion(say("Take pictures with a camera"), open=False, elem_id="teach-camera-box"):
                    self.camera = PhotoInput(label=say("Camera"), sources=["webcam"], height=230, elem_id="teach-camera",
                                              buttons=[])
                    with gr.Row(elem_classes="teach-shots"):
                        self.shots = [gr.Button(say("Add to {name}", name=say(name)), size="sm", min_width=80, visible=place < 2,
                                                elem_id=f"teach-shot-{place}") for place, name in enumerate(teach.NAMES)]
                self.progress = gr.HTML(elem_id="teach-progress")
                self.cancel = gr.Button(say("Cancel"), size="sm", elem_id="teach-cancel")
                gr.HTML(f"<p class='note'>{KEPT}</p>")
            self.story = gr.HTML(teach_story(Lesson()), elem_id="teach-story", elem_classes="story-box")

    def _card(self, place: int) -> None:
        name = teach.NAMES[place]
        with gr.Column(visible=place < 2, elem_classes="teach-class", elem_id=f"teach-class-{place}") as card:
            with gr.Row():
                self.names.append(gr.Textbox(name, label=say("Name of {name}", name=say(name)), container=False, max_lines=1,
                                             min_width=100, max_length=teach.LONGEST_NAME, elem_id=f"teach-name-{place}"))
                self.adds.append(CompanyInput(say("Add pictures"), size="sm", elem_id=f"teach-add-{place}", min_width=110))
            self.shelves.append(gr.HTML(shelf_html(Group(name)), js_on_load=SHELF, elem_id=f"teach-shelf-{place}"))
        self.cards.append(card)

    @property
    def inputs(self) -> list:
        return [self.lesson]

    @property
    def shown(self) -> list:
        return [self.story, self.progress]

    def answer(self, photo: Image.Image, lesson: Lesson) -> tuple:
        """What is said of a new photo; nothing while encoders still look at pictures, since that run will say it."""
        lesson.ask(photo)
        return (gr.skip(), gr.skip()) if lesson.is_busy or lesson.left == lesson.version else (self.told(lesson), "")

    def told(self, lesson: Lesson) -> str:
        """The story. Own networks that cannot be asked any more have no part in it; a toast says why."""
        for key in list(lesson.own):
            lesson.see(key)
        lost, lesson.lost = lesson.lost, []
        for mistake in lost:
            toasts.warn(mistake)
        return teach_story(lesson)

    def work(self, photo: Image.Image, lesson: Lesson) -> Iterator[tuple]:
        """Lets every encoder look at what it has not seen, says how far that is, and answers. A later change takes over."""
        lesson.ask(photo)
        version, began, lesson.is_busy = lesson.version, time.monotonic(), True
        try:
            if len(lesson.ready()) > 1:
                for done, of in lesson.look():
                    if lesson.left == version:
                        yield gr.skip(), CANCELLED
                        return
                    if (seconds := time.monotonic() - began) > PATIENCE:
                        yield gr.skip(), progress_html(done, of, later("encoders that have seen your pictures"), seconds)
        finally:
            if lesson.version == version:
                lesson.is_busy = False
        yield (self.told(lesson), "") if lesson.version == version else (gr.skip(), gr.skip())

    def listen_to(self, place: int) -> list:
        """Connects a class's card; returns the changes that ask for an answer."""
        name, add, shelf, shot = self.names[place], self.adds[place], self.shelves[place], self.shots[place]

        def drop(lesson: Lesson, event: gr.EventData) -> str:
            lesson.remove(event._data.get("number"))
            return shelf_html(lesson.groups[place])

        return [
            add.upload(functools.partial(self.bring, place), [self.lesson, add], [shelf, add], preprocess=False, **CHANGE),
            shelf.select(drop, self.lesson, shelf, **CHANGE),
            gr.on([name.blur, name.submit], functools.partial(self.rename, place), [self.lesson, name], [name, shot], **CHANGE),
            shot.click(functools.partial(self.shoot, place), [self.lesson, self.camera], [shelf, self.camera], preprocess=False,
                       **CHANGE),
        ]

    def listen(self, photo: gr.State, upload: PhotoInput, own: gr.State, joined_own: gr.Textbox) -> None:
        """Connects the room.

        photo: the session's; upload: the component that reads one; own: the visit's own networks; joined_own: changed when one
        joins them.
        """
        changes = [change for place in range(MOST_CLASSES) for change in self.listen_to(place)]
        self.cancel.click(self.stop, self.lesson, None, **QUICK)
        self.camera.input(self.noted, self.camera, None, preprocess=False, **CHANGE)
        for shot in self.shots:
            shot.click(None, None, None, js=LIVE_AGAIN, api_visibility="private")
        everything = [*self.cards, *self.names, *self.shelves, *self.shots, self.more]
        self.more.click(self.open, self.lesson, everything, **CHANGE)
        changes += [self.try_it.click(self.begin_example, self.lesson, everything, **CHANGE),
                    self.over.click(self.start_over, self.lesson, everything, **CHANGE),
                    joined_own.change(self.invite, [self.lesson, own], None, **CHANGE)]
        for change in changes:
            change.then(self.work, [photo, self.lesson], self.shown, **CHANGE)
        gr.Button(visible=False).click(
            endpoint, [CompanyInput("files", visible=False), gr.JSON(visible=False, label="labels"),
                       PhotoInput(label="file", visible=False)],
            gr.JSON(visible=False, label="answer"), api_name=self.name, concurrency_id="teach",
            api_description="Two to five classes of pictures (the name of each file's class in `labels`): leave-one-out accuracy "
                            "of every encoder, and what each says of `file`.")

    def drawn(self, lesson: Lesson) -> list:
        """The values of all cards, names, shelves and camera buttons, and of the button for one class more."""
        groups = lesson.groups + [None] * (MOST_CLASSES - len(lesson.groups))
        return [*(gr.update(visible=group is not None) for group in groups),
                *(group.name if group else gr.skip() for group in groups),
                *(shelf_html(group) if group else "" for group in groups),
                *(gr.update(value=say("Add to {name}", name=group.name), visible=True) if group else gr.update(visible=False)
                  for group in groups),
                gr.update(interactive=None in groups)]

    def bring(self, place: int, lesson: Lesson, payload) -> tuple:
        """More pictures of a class: the bad files are named in a toast, the good ones join."""
        images = []
        for file in files(payload):
            try:
                images.append(self.adds[place].read(file))
            except ValueError as error:
                toasts.warn(error)
        return self.join(place, lesson, images), None

    def shoot(self, place: int, lesson: Lesson, payload) -> tuple:
        """The camera's picture joins a class, and the camera is free for the next."""
        try:
            if payload is None:
                raise ValueError("Take a picture with the camera first.")
            return self.join(place, lesson, [self.camera.read(ImageData(**payload))]), None
        except ValueError as error:
            toasts.warn(error)
            return gr.skip(), gr.skip()

    def join(self, place: int, lesson: Lesson, images: list[Image.Image]) -> str:
        try:
            lesson.add(place, images)
        except ValueError as error:
            toasts.warn(error)
        return shelf_html(lesson.groups[place])

    def noted(self, payload) -> None:
        """A camera's picture that waits for its class is of this visit."""
        if payload and payload.get("path"):
            uploaded(payload["path"], self.camera.GRADIO_CACHE, "picture")

    def rename(self, place: int, lesson: Lesson, name: str) -> tuple:
        """Another name; one that is taken is refused, and the one before comes back."""
        try:
            if name != lesson.groups[place].name:
                lesson.rename(place, name)
        except ValueError as error:
            toasts.warn(error)
        return lesson.groups[place].name, say("Add to {name}", name=lesson.groups[place].name)

    def open(self, lesson: Lesson) -> list:
        with toasts.told():
            lesson.open()
        return self.drawn(lesson)

    def begin_example(self, lesson: Lesson) -> list:
        """The example's classes, unless a visitor's own pictures would be lost."""
        if any(group.pictures for group in lesson.groups):
            raise toasts.error(later("Start over first: the example would take the place of your pictures."))
        lesson.begin(teach.example())
        return self.drawn(lesson)

    def invite(self, lesson: Lesson, own: dict) -> None:
        """The visit's own networks join the encoders."""
        lesson.invite(own_networks.keys(own or {}))

    def stop(self, lesson: Lesson) -> None:
        """Ends the encoders' look at what the classes hold now; what was told before stays."""
        lesson.left = lesson.version

    def start_over(self, lesson: Lesson) -> list:
        lesson.begin()
        return self.drawn(lesson)


def endpoint(files, labels, file=None) -> dict:
    """What the API calls."""
    with toasts.told():
        return teach.report(teach.grouped(files, labels), teach.Picture(file) if file is not None else None)


def shelf_html(group: Group) -> str:
    """The pictures of a class, each a button that takes it away, and how many more would help."""
    pictures, lacking = "", LEAST - len(group.pictures)
    for place, picture in enumerate(group.pictures, start=1):
        small = data_url(np.asarray(square(picture.image, 56)))
        told = say("Picture {place} of {name}: take it away", place=place, name=html.escape(group.name))
        pictures += (f'<button type="button" data-number="{picture.number}" title="{say("Take this picture away")}">'
                     f'<img src="{small}" alt="{told}"></button>')
    hint = "" if lacking <= 0 else say(
        "{least} or more pictures: drop here." if lacking == LEAST else "One more at least: drop here.", least=LEAST)
    return f'<div class="shelf">{pictures}{f"<p>{hint}</p>" if hint else ""}</div>'


# An emptied camera asks to be switched on; the next picture should not have to.
LIVE_AGAIN = """
() => {
  let patience = 40;
  const timer = setInterval(() => {
    const button = [...document.querySelectorAll('#teach-camera button')].find((one) => one.innerText.includes('Webcam'));
    if (button) button.click();
    if (button || !--patience) clearInterval(timer);
  }, 100);
}
"""

# Files dropped anywhere on a class's card go the way of its button's.
SHELF = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-number]');
  if (button) trigger('select', {number: Number(button.dataset.number)});
});
const card = element.closest('.teach-class');
const over = (event, is) => { event.preventDefault(); event.stopPropagation(); card.classList.toggle('over', is); };
card.addEventListener('dragover', (event) => over(event, true));
card.addEventListener('dragleave', (event) => over(event, false));
card.addEventListener('drop', (event) => {
  over(event, false);
  const input = card.querySelector('input[type=file]');
  if (!input || !event.dataTransfer.files.length) return;
  input.files = event.dataTransfer.files;
  input.dispatchEvent(new Event('change', {bubbles: true}));
});
"""

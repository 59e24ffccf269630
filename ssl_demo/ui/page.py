"""The page: one photo for the whole app, a tab for every task that is found, and the rooms where encoders are put to use.

A room is an object with a `name` and a `title`; `inputs` and `shown`, components that its answer depends on and changes; and
`answer(photo, *inputs)`, the values of `shown`, asked for when the room is opened and when a new photo comes while it is open.
Where a room `is_long`, it gives them one after the other, and gets the request first.
One that connects events of its own has a method `listen`, called once, outside of all tabs; the names of its parameters say
which parts of the page it wants.
"""

import functools
import html
import inspect
from pathlib import Path

import gradio as gr
from gradio.data_classes import FileData, ImageData
from PIL import Image

from .. import inference
from ..examples import EXAMPLES
from ..images import square
from ..pretext import all_tasks
from ..texts import say
from ..video import LIMITS, Clip
from . import guess_first, leaving, toasts
from .address import Address
from .clip_input import ClipInput
from .company_input import CompanyInput, company_html
from .lab_room import TrainingLab
from .overview_room import OverviewRoom
from .panels import data_url
from .photo_input import PhotoInput
from .task_tab import LONG, QUICK, TaskTab
from .teach_room import TeachRoom
from .transfer_room import TransferRoom

STYLES = Path(__file__).with_name("styles")
CSS = [STYLES / "page.css", *sorted(set(STYLES.glob("*.css")) - {STYLES / "page.css"})]  # the page's first, then the rooms'
THEME = gr.themes.Base(primary_hue="blue", neutral_hue="stone", radius_size="sm", text_size="md",
                       font=["system-ui", "Segoe UI", "Helvetica Neue", "sans-serif"],
                       font_mono=["ui-monospace", "Consolas", "monospace"])
METHODS, ROOMS = "methods", (TransferRoom, TeachRoom, TrainingLab)
SEVERAL = {**LONG, "concurrency_id": "rooms", "concurrency_limit": 2}
# What a visitor brings goes through the queue, which carries toasts, but never waits for somebody's long clip.
NEWS = {"show_progress": "hidden", "api_visibility": "private", "concurrency_id": "news", "concurrency_limit": 4,
        "trigger_mode": "multiple"}


def run(name: str, weights: str | None, photo: Image.Image, seed: int, controls: dict, company=()) -> inference.Result:
    """One run of a task; the only way from the page to a network, so that a host can wrap it (ZeroGPU)."""
    return inference.load(name, weights).run(photo, seed=seed, company=company, **controls)


def build(run=run) -> gr.Blocks:
    """The whole interface. Nothing is launched."""
    tasks = all_tasks()
    first = EXAMPLES[0].image
    opening = max(tasks, key=lambda name: tasks[name].card.year)  # the newest method greets
    with gr.Blocks(title=say("Self-supervised learning, seen"), analytics_enabled=False, delete_cache=(3600, 86400),
                   fill_width=True) as demo:
        address = Address()
        toasts.listener()
        photo = gr.State(first)
        moving = gr.State(first)  # what tasks on clips take: the clip a person brought, else a camera's move over the photo
        own = gr.State({})  # the visit's own networks: by task, files of weights by the names that a person gave
        guesses = gr.State(guess_first.Guesses())
        joined_own = gr.Textbox(visible="hidden")  # changes when one joins; a State's own event does not fire without a queue
        with gr.Row(elem_id="page"):
            with gr.Column(scale=0, min_width=272, elem_id="side"):
                with gr.Column(elem_id="clip-side"):
                    clip = ClipInput(label=say("Your clip"), sources=["upload", "webcam"], height=210, elem_id="clip", buttons=[])
                    gr.HTML(f"<p class='note'>{say(LIMITS)} {say('Without a clip, a camera moves over your photo.')}</p>")
                upload = PhotoInput(first, label=say("Your photo"), sources=["upload", "webcam", "clipboard"], height=250,
                                    elem_id="photo", buttons=[], alt_text=say("The photo all tabs work on"))
                with gr.Column(elem_id="company-side"):
                    gr.HTML(f"<p class='heading'>{say('Photos it is compared with')}</p>")
                    joined = gr.HTML(company_html([]), elem_id="company")
                    with gr.Row():
                        add = CompanyInput(say("Add photos"), size="sm", elem_id="company-add", min_width=90)
                        alone = gr.Button(say("Clear"), size="sm", elem_id="company-clear", min_width=70)
                    company = gr.State([])
                examples = gr.HTML(thumbnails(), elem_id="examples", js_on_load=PICK)
                kept = say("What you bring stays in this visit and is deleted within {time} of your leaving. Nothing learns "
                           "from it but a training that you start.", time=say(leaving.TOLD))
                gr.HTML(f"<p class='note'>{kept}</p>")
                address.dialog()
            with (gr.Column(scale=1, min_width=320),
                  gr.Tabs(elem_id="rooms", selected=OverviewRoom.name, overflow_behavior="wrap")):
                tabs, rooms, opened = {}, {}, {}
                with gr.Tab(say(OverviewRoom.title), id=OverviewRoom.name, elem_id="room-overview") as opened[OverviewRoom.name]:
                    rooms[OverviewRoom.name] = OverviewRoom(run, moving, company, first)
                with gr.Tab(say("Methods"), id=METHODS, elem_id="room-methods") as opened[METHODS]:
                    with gr.Tabs(elem_id="tasks", selected=opening, overflow_behavior="wrap"):
                        for name, task in tasks.items():
                            # The style sheet shows the box for clips, and that for other photos, beside such tabs only.
                            kind = [f"takes-{task.card.input}"] + ["takes-company"] * bool(task.card.company)
                            with gr.Tab(say(task.card.title), id=name, elem_id=f"tab-{name}", elem_classes=kind) as opened[name]:
                                tabs[name] = TaskTab(task, run, first if name == opening else None, company, own, guesses)
                for make in ROOMS:
                    with gr.Tab(say(make.title), id=make.name, elem_id=f"room-{make.name}") as opened[make.name]:
                        rooms[make.name] = make()

        parts = {"demo": demo, "photo": photo, "upload": upload, "moving": moving, "company": company, "own": own,
                 "joined_own": joined_own, "tabs": tabs}  # fmt: skip
        for room in rooms.values():
            if hasattr(room, "listen"):
                room.listen(**{name: parts[name] for name in inspect.signature(room.listen).parameters})

        def tell(values: dict, picture: Image.Image) -> dict:
            """What a new photo changes. What is open then answers; the others do when they are opened."""
            changes = {upload: picture, photo: picture, **address.of(picture), **address.tells()}
            return changes if isinstance(values[moving], Clip) else {**changes, moving: picture}

        def take(values: dict):
            """A new photo, in its box, in the session and in the open tab; a bad file is named, and the one before stays."""
            if values[upload] is None or not upload.is_new(ImageData(**values[upload])):
                return gr.skip()  # an emptied box waits for the next photo; the tabs keep the one they have
            try:
                picture = upload.read(ImageData(**values[upload]))
            except ValueError as error:
                toasts.warn(error)
                picture = values[photo]
            return tell(values, picture)

        # Not preprocessed: a file that cannot be read must reach `take`, which knows the photo to go back to. And every one of
        # several in quick succession is taken: by default a photo that comes while another is on its way would be dropped.
        news = [upload, photo, moving, address.photo, address.hears]
        upload.input(take, {upload, photo, moving}, news, preprocess=False, **NEWS)

        def pick(values: dict, event: gr.EventData) -> dict:
            index = event._data.get("index")
            return tell(values, EXAMPLES[index].image if index in range(len(EXAMPLES)) else values[photo])

        examples.select(pick, {photo, moving}, news, **QUICK)

        def take_clip(values: dict) -> dict:
            """A new clip for the tasks on clips; without one, the photo. A bad file is named, and the one before stays."""
            payload = values[clip] and FileData(**values[clip])
            if payload is None:
                return {moving: values[photo], **address.tells()}
            if not clip.is_new(payload):
                return gr.skip()
            try:
                frames = clip.read(payload)
            except ValueError as error:
                toasts.warn(error)
                frames = values[moving]
            return {clip: frames if isinstance(frames, Clip) else None, moving: frames, **address.tells()}

        most = max(task.card.company for task in tasks.values())

        def take_company(values: dict, clear: bool = False) -> dict:
            """More photos to compare with, or none any more: the open tab answers again."""
            photos = [] if clear else add.join(values[add], values[company], most)
            return {company: photos, joined: company_html(photos), add: None, **address.tells()}

        shown = [company, joined, add, address.hears]
        add.upload(take_company, {add, company}, shown, preprocess=False, **NEWS)
        alone.click(functools.partial(take_company, clear=True), {add, company}, shown, preprocess=False, **QUICK)

        gr.on([clip.input, clip.stop_recording], take_clip, {clip, photo, moving}, [clip, moving, address.hears],
              preprocess=False, **NEWS)
        # The tab that was open when the room of methods was left, or that a lecture leads to.
        back = f"() => {{ window.place?.again(window.openMethod || '{opening}'); }}"
        opened[METHODS].select(None, None, None, js=back, api_visibility="private")
        for name, room in rooms.items():
            opened[name].select(None, None, None, js=address.opened(name), api_visibility="private")
            gr.on([opened[name].select, address.again[name].change], room.answer, [photo, *room.inputs], room.shown,
                  **(SEVERAL if room.is_long else QUICK))
        for name, tab in tabs.items():
            opened[name].select(None, None, None, js=f"() => {{ window.openMethod = '{name}'; }}", api_visibility="private")
            asks = [opened[name].select, address.again[name].change]
            tab.listen(*((moving, clip) if tab.is_long else (photo, upload)), asks)

        address.listen(demo, parts, rooms)
    return demo


def thumbnails() -> str:
    """The example photos as buttons with their credits."""
    import numpy as np

    buttons = "".join(f'<button type="button" data-index="{index}" title="{html.escape(f"{say(e.title)}. {e.credit}")}">'
                      f'<img src="{data_url(np.asarray(square(e.image, 96)))}" '
                      f'alt="{say("Example")}: {html.escape(say(e.title))}"></button>'
                      for index, e in enumerate(EXAMPLES))
    credits = "; ".join(f"{say(e.title)}: {e.credit.removesuffix(', via scikit-image')}" for e in EXAMPLES)
    told = say("{credits}; all via scikit-image.", credits=html.escape(credits))
    return (f'<div class="examples"><p>{say("Or take an example")}</p><div class="row">{buttons}</div>'
            f"<details><summary>{say('Credits')}</summary>{told}</details></div>")


PICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-index]');
  if (button) trigger('select', {index: Number(button.dataset.index)});
});
"""

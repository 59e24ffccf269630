"""One tab, for any task: built from its card, its controls and its panels."""

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator

import gradio as gr
from gradio.context import LocalContext
from gradio.processing_utils import save_bytes_to_cache
from PIL import Image

from .. import inference
from ..checkpoints import UNTRAINED, bundled
from ..examples import name_of
from ..figures import panel_picture
from ..inference import Result
from ..pretext import Control, Panel, PretextTask
from ..progress import Cancelled
from ..texts import say, spoken
from ..video import Clip, encode_mp4
from ..walk import read
from . import guess_first, links, take_home, toasts
from .company_input import CompanyInput
from .events import QUICK
from .how_it_learned import HowItLearned
from .just_answered import JustAnswered
from .links import TRAINED
from .story import CLICKS, about, story
from .take_buttons import KEEP
from .walk_strip import FORMULAS, WalkStrip
from .watching import Running, watch

LONG = {**QUICK, "queue": True, "concurrency_id": "model"}  # tells how far it is and can be cancelled, which needs the queue


class TaskTab:
    """The components of one task's tab, made where it is constructed: inside a `gr.Tab`."""

    def __init__(self, task: type[PretextTask], run: Callable[..., Result], first: Image.Image | None = None,
                 company: gr.State | None = None, own: gr.State | None = None, guesses: gr.State | None = None):
        """run: `(task name, weights, photo, seed, controls, company) -> Result`; first: a photo to open with, already solved;
        company: the visit's photos to compare with, for tasks that compare photos; own: the visit's own networks, as in
        `own_networks`; guesses: what the visit has guessed, for tasks with a question.
        """
        self.task, self.run, self.name = task, run, task.card.name
        self.company = [company] if task.card.company and company is not None else []
        self.own = [own] if own is not None else []
        self.guesses = [guesses] if guesses is not None and guess_first.asks(task) else []
        self.weights = bundled(self.name)
        self.running = Running()
        self.walk, self.just = WalkStrip(task), JustAnswered()
        gr.HTML(about(task.card, next(iter(self.weights.values()), {})), elem_id=f"{self.name}-about")
        with gr.Row(elem_classes="controls", equal_height=True):
            self.controls = {control.name: component(control, self.name) for control in task.controls}
            with gr.Column(min_width=130, scale=1, elem_classes="chance"):
                self.seed = gr.Number(0, label=say("Seed"), precision=0, minimum=0, maximum=2**31 - 1,
                                      elem_id=f"{self.name}-seed", info=say("Fixes chance."), min_width=90)
                self.again = gr.Button(say("Draw again"), size="sm", elem_id=f"{self.name}-again")
            self.network = gr.Dropdown(self.networks({}), value=TRAINED if self.weights else UNTRAINED, label=say("Network"),
                                       info=say("Who answers."), min_width=150, elem_id=f"{self.name}-network")
        with gr.Row(elem_classes="long", visible=False) as self.busy:
            self.progress = gr.HTML(elem_id=f"{self.name}-progress")
            self.cancel = gr.Button(say("Cancel"), size="sm", elem_id=f"{self.name}-cancel")
        defaults = [0, self.network.value, *(c.default for c in task.controls), *[[] for _ in self.company],
                    *[{} for _ in self.own], *[guess_first.Guesses() for _ in self.guesses]]
        opening = self.answer(first, *defaults) if first else ""
        scripts = CLICKS + KEEP + guess_first.PRESSED * len(self.guesses)
        self.story = gr.HTML(opening, js_on_load=scripts, elem_id=f"{self.name}-story", elem_classes="story-box")
        HowItLearned(self.name)
        with gr.Accordion(say("The lesson: the idea, what could cheat, where we differ from the paper, and the code"),
                          open=False, elem_classes="lesson-box"):
            with gr.Row(elem_classes="lesson"):
                gr.Markdown(lesson(task), latex_delimiters=FORMULAS)
                gr.Markdown(code(task), elem_classes="code")

    @property
    def is_long(self) -> bool:
        """Whether an answer may take seconds: clips have many frames."""
        return self.task.card.input == "video"

    @property
    def shown(self) -> list:
        """What a run that takes seconds changes: the row that says how far it is, what it says, and the story."""
        return [self.busy, self.progress, self.story]

    @property
    def inputs(self) -> list:
        """What an answer depends on, apart from the photo."""
        return [self.seed, self.network, *self.controls.values(), *self.company, *self.own, *self.guesses]

    def networks(self, own: dict) -> list[tuple[str, str]]:
        """Who can answer: what a person reads, and the value."""
        trained = [(say("Trained"), TRAINED)] if self.weights else []
        return [*trained, (say("Untrained"), UNTRAINED),
                *((say("Yours: {name}", name=name), name) for name in own.get(self.name, {}))]

    def weights_of(self, network: str | None, own: dict) -> str | None:
        """What `run` takes for a network that a person chose. Raises ValueError for one that is not there."""
        if network in (None, TRAINED, UNTRAINED):
            return UNTRAINED if network == UNTRAINED else None
        if network not in own.get(self.name, {}):
            raise ValueError(f"There is no network “{network}”; there are {', '.join(value for _, value in self.networks(own))}.")
        return own[self.name][network]

    def result(self, photo, seed: int | None, network: str | None, *values) -> Result:
        """One run on a photo or a clip with the values of `inputs`. Raises ValueError for what a person did wrong."""
        if photo is None:
            raise ValueError("Choose a photo first.")
        controls, company, own = self.apart(values)
        weights, asked = self.weights_of(network, own), self.asked(photo, seed, network, *values)
        return self.just.once(asked, lambda: self.run(self.name, weights, photo, seed or 0, controls, company))

    def asked(self, photo, seed: int | None, network: str | None, *values) -> tuple | None:
        """What tells a run on an example photo from others; None for any other photo, and for own networks."""
        controls, company, _ = self.apart(values)
        name = None if company or network not in (None, TRAINED, UNTRAINED) or isinstance(photo, Clip) else name_of(photo)
        return name and (name, seed or 0, network, repr(controls))

    def apart(self, values: tuple) -> tuple[dict, list, dict]:
        """The controls' values by name, the photos to compare with (none where the task compares none), and own networks."""
        count = len(self.controls)
        company = values[count] if self.company else []
        own = values[count + len(self.company)] if self.own else {}
        return dict(zip(self.controls, values[:count], strict=True)), company or [], own or {}

    def answer(self, photo: Image.Image, *values) -> str:
        """The story of one run as HTML; a mistake becomes a toast with its sentence, and the page stays as it was."""
        self.just.give(getattr(LocalContext.request.get(None), "session_hash", None), None)
        with toasts.told():
            result, links = spoken(self.result(photo, *values)), self.links(photo, *values)
        whole = story(result, self.task.card, *links) + self.walk.told_html(result)
        return guess_first.told(self.task, result, photo, values[0], values[-1], links, whole) if self.guesses else whole

    def opened(self, request: gr.Request, photo: Image.Image, *values) -> str | dict:
        """The story of a tab that is opened, or turned; nothing where a move in a lecture has just brought it."""
        if photo is not None and self.just.was_given(request.session_hash, (self.asked(photo, *values), *self.guessed(values))):
            return gr.skip()
        return self.answer(photo, *values)

    def bring(self, request: gr.Request, photo: Image.Image, *values) -> str:
        """The story for a page that a lecture leads here. It will open the tab, and need not be answered again."""
        told = self.answer(photo, *values)
        asked = self.asked(photo, *values)
        self.just.give(request.session_hash, asked and (asked, *self.guessed(values)))
        return told

    def guessed(self, values: tuple) -> tuple:
        """What the visit has guessed, where that changes the story."""
        return values[-1:] if self.guesses else ()

    def links(self, photo, seed: int | None, network: str | None, *values) -> tuple[str, dict[str, str]]:
        """What leads back to this answer, as the query of an address, and what to type elsewhere for the same."""
        controls = self.apart(values)[0]
        return links.query(self.task, photo, seed, network, controls), links.calls(self.task, seed, network, controls)

    def answer_slowly(self, request: gr.Request, photo, *values) -> Iterator[tuple]:
        """What `busy`, `progress` and `story` show while a run goes on, and the answer. Closing it ends the run.

        A run that is cancelled says itself that it is over: told by anybody else, the page might hear of its progress later.
        """
        with self.running.of(request.session_hash) as left:
            for far, running in watch(lambda: self.answer(photo, *values), left):
                if running is None:
                    yield gr.update(visible=True), far, gr.skip()
                    continue
                yield gr.update(visible=False), "", gr.skip() if running.exception() else running.result()
                if not isinstance(running.exception(), Cancelled):
                    running.result()  # what a person did wrong becomes a toast

    def stop(self, request: gr.Request) -> None:
        """Ends the runs of this visit."""
        self.running.stop(request.session_hash)

    def clicked(self, photo, *values, event: gr.EventData) -> tuple:
        """The values of `inputs` after a click on a panel, a stroke of the brush, or the switch that lets the network cheat."""
        seed, network, *rest = values
        (settings, company, own), data = self.apart(tuple(rest)), event._data
        brush = next((control.name for control in self.task.controls if control.kind == "brush"), None)
        x, y, strokes = data.get("x"), data.get("y"), data.get("strokes")
        if isinstance(strokes, str) and brush:
            before = settings[brush] if strokes else ""  # no strokes: everything is wiped away
            settings.update(self.task().paint(f"{before}; {strokes}"))
        elif isinstance(data.get("cheat"), bool) and self.walk.box:
            settings.update(self.walk.settings(data["cheat"], data.get("before")))
        elif isinstance(x, (int, float)) and isinstance(y, (int, float)) and 0 <= x <= 1 and 0 <= y <= 1:
            runner = inference.load(self.name, self.weights_of(network, own))
            settings.update(runner.click(photo, seed or 0, settings, str(data.get("panel")), x, y, company))
        return seed, network, *settings.values(), *rest[len(settings) :]

    def listen(self, photo: gr.State, upload: gr.components.Component, asks: list) -> None:
        """Connects the tab: every change of a control answers at once; and the API's endpoint carries the task's name.

        photo: the session's photo, or clip where the task takes clips; upload: the component that reads one; asks: events
        that ask for an answer, such as the opening of the tab.
        """
        # What a person turns. Not the seed's `change`: a link sets it with the controls, and it would ask before they are there.
        # One listener for all: of two, the answer to the earlier question might come later.
        asks = [*asks, self.network.input, self.seed.input, *(control.input for control in self.controls.values())]
        again = self.again.click(lambda seed: (int(seed or 0) + 1) % 2**31, self.seed, self.seed, **QUICK)
        everything, knobs = [photo, *self.inputs], [*self.controls.values()]
        told = [part.select for part in (self.story, self.walk.box) if part]
        if self.is_long:
            def clicked(event: gr.EventData, photo, *values) -> list:
                return [*self.clicked(photo, *values, event=event)[2 : 2 + len(self.controls)]]

            moved = gr.on(told, clicked, everything, knobs, **QUICK)
            gr.on(asks, self.answer_slowly, everything, self.shown, **LONG)
            for event in (moved, again):
                event.then(self.answer_slowly, everything, self.shown, **LONG)
            self.cancel.click(self.stop, **QUICK)
        else:
            def clicked(event: gr.EventData, photo, *values) -> list:
                values = self.clicked(photo, *values, event=event)
                return [self.answer(photo, *values), *values[2 : 2 + len(self.controls)]]

            gr.on(asks, self.opened, everything, self.story, **QUICK)
            again.then(self.answer, everything, self.story, **QUICK)
            gr.on(told, clicked, everything, [self.story, *knobs], **QUICK)
        if self.guesses:
            guess_first.listen(self, photo, *self.guesses)
        take_home.listen(self, photo)
        pictures = gr.Gallery(visible=False, format="png", label="panels")
        numbers = gr.JSON(visible=False, label="numbers")
        others = [CompanyInput("company", visible=False) for _ in self.company]
        gr.Button(visible=False).click(
            self.endpoint(), [upload, self.seed, self.network, *knobs, *others, *self.own], [pictures, numbers],
            api_name=self.name, api_description=self.task.card.idea, concurrency_id="model",
        )

    def endpoint(self) -> Callable:
        """What the API calls: the file, the seed, the network, and the controls by name; to panels and numbers."""
        def call(file, seed, network, *values):
            with toasts.told():
                result = self.result(file, seed, network, *values)
            return [(self.media(panel), panel.title) for panel in result.panels], result.numbers

        # Gradio reads the names of an endpoint's parameters from the function's signature.
        by_name = functools.partial(inspect.Parameter, kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = [by_name(name) for name in ("file", "seed", "network", *self.controls)]
        parameters += [by_name("company", default=None) for _ in self.company] + [by_name("own", default=None) for _ in self.own]
        call.__signature__ = inspect.Signature(parameters)
        call.__name__ = self.name
        return call

    def media(self, panel: Panel):
        """A panel for a gallery: a picture, or the path of an MP4 in the cache, which Gradio empties."""
        if panel.video is None:
            return panel_picture(panel)
        return save_bytes_to_cache(encode_mp4(panel.video, panel.fps), f"{panel.name}.mp4", self.story.GRADIO_CACHE)


def component(control: Control, task: str):
    """The Gradio component of a control. Its values stay as they are in every language."""
    control = spoken(control)
    common = {"label": control.label, "info": control.help, "elem_id": f"{task}-{control.name}"}
    if control.kind == "slider":
        return gr.Slider(control.minimum, control.maximum, control.default, step=control.step, buttons=[], **common)
    if control.kind == "choice" and len(control.choices) > 5:
        return gr.Dropdown([(say(choice), choice) for choice in control.choices], value=control.default, **common)
    if control.kind == "choice":
        return gr.Radio([(say(choice), choice) for choice in control.choices], value=control.default, **common)
    if control.kind == "toggle":
        return gr.Checkbox(control.default, **common)
    return gr.Textbox(control.default, visible="hidden", **common)  # set by clicks on a panel


def lesson(task: type[PretextTask]) -> str:
    """The docstring of the task's file, its first line left out: what a student reads there stands on the tab."""
    told = [say(text) for text in paragraphs(task)]
    return "\n\n".join("**{}.**{}".format(*text.split(".", 1)) for text in told)


def paragraphs(task: type[PretextTask]) -> list[str]:
    """The lesson's paragraphs, each in one line, its heading up to the first dot; without the equation where a walk shows it."""
    text = inspect.getmodule(task).__doc__ or ""
    if read(task.card.name):
        text = re.sub(r"\$\$.*?\$\$", "*(the equation: “The loss”, above)*", text, count=1, flags=re.DOTALL)
    return [paragraph.replace("\n", " ").strip() for paragraph in text.split("\n\n")[1:]]


def code(task: type[PretextTask]) -> str:
    """The very lines that make the riddle and judge the answer, read from the task's file."""
    parts = ((say("What is hidden and what is asked"), task.example), (say("The loss"), task.loss))
    return "\n\n".join(f"**{told}**\n\n```python\n{textwrap.dedent(inspect.getsource(part))}```" for told, part in parts)

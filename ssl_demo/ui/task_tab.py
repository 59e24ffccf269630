"""One tab, for any task: built from its card, its controls and its panels."""

import html
import inspect
from collections.abc import Callable

import gradio as gr
from PIL import Image

from .. import inference
from ..checkpoints import UNTRAINED, bundled
from ..inference import Result
from ..pretext import Control, PretextTask
from .photo_input import PhotoInput
from .story import CLICKS, about, story

QUICK = {"queue": False, "show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}


class TaskTab:
    """The components of one task's tab, made where it is constructed: inside a `gr.Tab`."""

    def __init__(self, task: type[PretextTask], run: Callable[..., Result], first: Image.Image | None = None):
        """run: `(task name, weights, photo, seed, controls) -> Result`; first: a photo to open with, already solved."""
        self.task, self.run, self.name = task, run, task.card.name
        self.weights = bundled(self.name)
        gr.HTML(about(task.card, next(iter(self.weights.values()), {})), elem_id=f"{self.name}-about")
        with gr.Row(elem_classes="controls", equal_height=True):
            self.controls = {control.name: component(control, self.name) for control in task.controls}
            with gr.Column(min_width=130, scale=1, elem_classes="chance"):
                self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, elem_id=f"{self.name}-seed",
                                      info="Fixes chance.", min_width=90)
                self.again = gr.Button("Draw again", size="sm", elem_id=f"{self.name}-again")
            self.untrained = gr.Checkbox(not self.weights, label="Untrained network", interactive=bool(self.weights),
                                         info="Before it learned anything.", min_width=150,
                                         elem_id=f"{self.name}-untrained")
        opening = self.answer(first, 0, not self.weights, *(c.default for c in task.controls)) if first else ""
        self.story = gr.HTML(opening, js_on_load=CLICKS, elem_id=f"{self.name}-story", elem_classes="story-box")
        with gr.Accordion("The lesson: the idea, what could cheat, where we differ from the paper", open=False):
            gr.Markdown(lesson(task), elem_classes="lesson")

    @property
    def inputs(self) -> list:
        """What an answer depends on, apart from the photo."""
        return [self.seed, self.untrained, *self.controls.values()]

    def result(self, photo: Image.Image, seed: int | None, untrained: bool, *values) -> Result:
        """One run with the values of `inputs`. Raises ValueError for what a person did wrong."""
        if photo is None:
            raise ValueError("Choose a photo first.")
        controls = dict(zip(self.controls, values, strict=True))
        return self.run(self.name, UNTRAINED if untrained else None, photo, seed or 0, controls)

    def answer(self, photo: Image.Image, *values) -> str:
        """The story of one run as HTML; a mistake becomes a toast with its sentence, and the page stays as it was."""
        try:
            return story(self.result(photo, *values), self.task.card)
        except ValueError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from None

    def clicked(self, event: gr.EventData, photo: Image.Image, *values):
        """After a click on a panel: the controls' new values, and the story with them."""
        panel, x, y = (event._data.get(key) for key in ("panel", "x", "y"))
        if not (isinstance(x, (int, float)) and isinstance(y, (int, float)) and 0 <= x <= 1 and 0 <= y <= 1):
            return [gr.skip()] * (len(self.controls) + 1)
        seed, untrained, *settings = values
        settings = dict(zip(self.controls, settings, strict=True))
        runner = inference.load(self.name, UNTRAINED if untrained else None)
        settings.update(runner.click(photo, seed or 0, settings, str(panel), x, y))
        return [self.answer(photo, seed, untrained, *settings.values()), *settings.values()]

    def listen(self, photo: gr.State, upload: PhotoInput) -> None:
        """Connects the tab: every change of a control answers at once; and the API's endpoint carries the task's name."""
        changes = [self.seed.change, self.untrained.input, *(control.input for control in self.controls.values())]
        gr.on(changes, self.answer, [photo, *self.inputs], self.story, **QUICK)
        self.again.click(lambda seed: (int(seed or 0) + 1) % 2**31, self.seed, self.seed, **QUICK)
        self.story.select(self.clicked, [photo, *self.inputs], [self.story, *self.controls.values()], **QUICK)
        pictures = gr.Gallery(visible=False, format="png", label="panels")
        numbers = gr.JSON(visible=False, label="numbers")
        gr.Button(visible=False).click(
            self.endpoint(), [upload, self.seed, self.untrained, *self.controls.values()], [pictures, numbers],
            api_name=self.name, api_description=self.task.card.idea, concurrency_id="model",
        )

    def endpoint(self) -> Callable:
        """What the API calls: the file, the seed, untrained or not, and the controls by name; to panels and numbers."""
        from ..drawing import panel_picture

        def call(file, seed, untrained, *values):
            try:
                result = self.result(file, seed, untrained, *values)
            except ValueError as error:
                raise gr.Error(html.escape(str(error)), print_exception=False) from None
            return [(panel_picture(panel), panel.title) for panel in result.panels], result.numbers

        # Gradio reads the names of an endpoint's parameters from the function's signature.
        names = ["file", "seed", "untrained", *self.controls]
        call.__signature__ = inspect.Signature([inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names])
        call.__name__ = self.name
        return call


def component(control: Control, task: str):
    """The Gradio component of a control."""
    common = {"label": control.label, "info": control.help, "elem_id": f"{task}-{control.name}"}
    if control.kind == "slider":
        return gr.Slider(control.minimum, control.maximum, control.default, step=control.step, buttons=[], **common)
    if control.kind == "choice" and len(control.choices) > 5:
        return gr.Dropdown(list(control.choices), value=control.default, **common)
    if control.kind == "choice":
        return gr.Radio(list(control.choices), value=control.default, **common)
    if control.kind == "toggle":
        return gr.Checkbox(control.default, **common)
    return gr.Textbox(control.default, visible="hidden", **common)  # set by clicks on a panel


def lesson(task: type[PretextTask]) -> str:
    """The docstring of the task's file, its first line left out: what a student reads there stands on the tab."""
    text = inspect.getmodule(task).__doc__ or ""
    paragraphs = text.split("\n\n")[1:]
    return "\n\n".join("**{}.**{}".format(*p.replace("\n", " ").split(".", 1)) for p in paragraphs)

"""The training lab for programs: a training begun, asked about and ended through the API. A client sees its own only."""

import gradio as gr
from gradio.data_classes import FileData

from ..live_plan import SCRATCH
from . import lab_visits as visits
from . import toasts
from .clip_input import ClipInput
from .company_input import CompanyInput, files
from .lab_visits import EXAMPLE, PHOTOS
from .photo_input import PhotoInput

AT_ONCE = {"concurrency_id": "lab", "concurrency_limit": 8}  # trainings that get their data ready


class Brought(CompanyInput):
    """A button for several photos, handed on unread: one that cannot be read must not keep the others from their training."""

    def get_block_name(self) -> str:
        return "uploadbutton"  # Gradio would look for a front end of the class that this one is made from

    def preprocess(self, payload) -> list[FileData]:
        return files(payload)


def offer(photo: gr.State, moving: gr.State, company: gr.State) -> None:
    """The endpoints `/lab_start`, `/lab_status` and `/lab_stop`: a run as JSON, see `lab_visits.status`.

    photo, moving, company: of the visit; what a call brings itself comes first.
    """
    pictures = Brought("photos", visible=False)

    def lab_start(request: gr.Request, task, data=EXAMPLE, seconds=60, size="small", start=SCRATCH, knobs=None, name="", seed=0,
                  photos=None, picture=None, film=None, photo=None, moving=None, company=()):
        trouble, brought = [], []
        for file in photos or []:
            try:
                brought.append(pictures.read(file))
            except ValueError as mistake:
                trouble.append(str(mistake))
        with toasts.told():
            if trouble and not brought:
                raise ValueError(trouble[0])
            run = visits.start(
                request.session_hash, task, PHOTOS if brought else data, seconds=seconds, size=size, start_from=start,
                knobs=knobs or {}, called=name or "", seed=seed, photo=picture or photo, moving=film or picture or moving,
                brought=brought, company=company)  # fmt: skip
        return {**visits.status(run.view()), "skipped": trouble}

    def lab_status(request: gr.Request, id: str = "") -> dict:
        with toasts.told():
            return visits.status(visits.known(request.session_hash, id).view())

    def lab_stop(request: gr.Request, id: str = "") -> dict:
        with toasts.told():
            run = visits.known(request.session_hash, id)
            run.stop()
            return visits.status(run.view())

    def word(name: str, value: str | None) -> gr.Textbox:
        return gr.Textbox(value, visible=False, label=name)

    asked = [word("task", None), word("data", EXAMPLE), gr.Number(60, visible=False, label="seconds"), word("size", "small"),
             word("start", SCRATCH), gr.JSON({}, visible=False, label="knobs"), word("name", ""),
             gr.Number(0, visible=False, label="seed"), pictures, PhotoInput(visible=False, label="picture"),
             ClipInput(visible=False, label="film")]  # fmt: skip
    gr.Button(visible=False).click(
        lab_start, [*asked, photo, moving, company], gr.JSON(visible=False, label="run"), api_name="lab_start",
        api_description="Starts a training and says how it stands, with its id. data: examples, photo, photos, clip, "
        "host:NAME or torchvision:NAME; photos: files to learn from, those that cannot be read are named in “skipped”; picture, "
        "film: what the panels are drawn on.", **AT_ONCE)  # fmt: skip
    gr.api(lab_status, api_name="lab_status", api_description="How a training of yours stands; without an id, the newest.",
           queue=False)
    gr.api(lab_stop, api_name="lab_stop", api_description="Ends a training of yours after the step that it is at.", queue=False)

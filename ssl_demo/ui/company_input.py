"""A button that takes several photos, for the tasks that compare a photo with others."""

import functools

import gradio as gr
import numpy as np
from gradio.data_classes import FileData, ListFiles
from PIL import Image

from ..images import limit, load_photo, square
from ..texts import later, say
from . import toasts
from .panels import data_url
from .photo_input import uploaded


class CompanyInput(gr.UploadButton):
    """``gr.UploadButton`` whose value is a list of upright RGB pictures, each read like a photo in its box."""

    is_template = True  # drawn by the front end of gr.UploadButton

    # Gradio asks the signature which properties to send to the browser, so it must be that of gr.UploadButton.
    @functools.wraps(gr.UploadButton.__init__)
    def __init__(self, label="Upload", **arguments):
        super().__init__(label, **{"file_count": "multiple", "file_types": ["image"], **arguments})

    def preprocess(self, payload: ListFiles | FileData | None) -> list[Image.Image]:
        """The photos, none where nothing came. Raises gr.Error with one sentence about the first that cannot be read."""
        with toasts.told():
            return [self.read(file) for file in files(payload)]

    def read(self, file: FileData) -> Image.Image:
        """One photo. Raises ValueError with one sentence where it cannot be read."""
        if not file.path:
            raise ValueError("No photo arrived; please upload it again.")
        path = uploaded(file.path, self.GRADIO_CACHE, later("photo"))
        return limit(load_photo(path, file.orig_name or later("your photo")), 512)

    def join(self, payload, company: list[Image.Image], most: int) -> list[Image.Image]:
        """The company with the new photos behind it, `most` at the most. A bad file is named in a toast; the good ones join."""
        company = list(company)
        for file in files(payload):
            if len(company) >= most:
                toasts.warn(later(f"No more than {most} photos can join; the rest were left out."))
                break
            try:
                company.append(self.read(file))
            except ValueError as error:
                toasts.warn(error)
        return company


def files(payload) -> list[FileData]:
    """What the browser or a client sent, as a list: nothing, one file or several, parsed or not."""
    if not payload:
        return []
    listed = payload if isinstance(payload, (list, ListFiles)) else [payload]
    return [FileData(**file) if isinstance(file, dict) else file for file in listed]


def company_html(company: list[Image.Image]) -> str:
    """The company as small pictures."""
    if not company:
        return f"<p class='note'>{say('The examples and parts of them, until you add some.')}</p>"
    return "<div class='company'>" + "".join(
        f'<img src="{data_url(np.asarray(square(photo, 64)))}" alt="{say("Photo {number} beside yours", number=number)}">'
        for number, photo in enumerate(company, start=1)) + "</div>"

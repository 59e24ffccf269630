"""A clip input that reads every upload and every recording through ``ssl_demo.video``."""

import functools
import secrets
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.data_classes import FileData
from gradio.processing_utils import save_bytes_to_cache

from ssl_demo.texts import later
from ssl_demo.video import Clip, encode_mp4, load_clip

from . import leaving, toasts
from .photo_input import is_served, uploaded

# Cameras offer more than load_clip keeps, and a browser that encodes all of it drops frames.
CAMERA = gr.WebcamOptions(constraints={"video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "frameRate": {"ideal": 24}}})
_OURS = f"clip-{secrets.token_hex(8)}.mp4"  # no file of a visitor is called that


class ClipInput(gr.Video):
    """``gr.Video`` whose value is a ``Clip``, or None.

    The stock component hands over any file as it is, and calls an ffmpeg program that may not be there to drop the sound or to
    mirror a recording. Here the file goes through ``load_clip``, and what that refuses reaches the visitor as its one sentence.
    An upload fires ``input``, a recording ``stop_recording`` only: listen to both.

    Takes the arguments of ``gr.Video``. Shown in it are clips, as an MP4 that every browser plays, the bytes of such an MP4, or
    a file by its path.
    """

    is_template = True  # drawn by the front end of gr.Video

    # Gradio asks the signature which properties to send to the browser, so it must be that of gr.Video.
    @functools.wraps(gr.Video.__init__)
    def __init__(self, value=None, **arguments):
        super().__init__(value, **{"include_audio": False, "webcam_options": CAMERA, **arguments})

    def preprocess(self, payload: FileData | None) -> Clip | None:
        """The uploaded or recorded clip; None where there is none. Raises gr.Error with one sentence where it cannot be read."""
        if payload is None:
            return None
        with toasts.told():
            return self.read(payload)

    def postprocess(self, value: Clip | bytes | str | Path | None) -> FileData | None:
        """The clip for the browser, marked as one that the page itself put there."""
        if isinstance(value, Clip):
            odd_rows, odd_columns = (side % 2 for side in value.frames.shape[1:3])  # H.264 takes even sizes
            value = encode_mp4(np.pad(value.frames, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)), "edge"), value.fps)
        if isinstance(value, bytes):
            data = FileData(path=save_bytes_to_cache(value, "clip.mp4", self.GRADIO_CACHE))
        else:
            data = super().postprocess(value)
        if data is not None:
            data.orig_name = _OURS
            if is_served():
                leaving.brought(data.path)
        return data

    @staticmethod
    def is_new(payload: FileData) -> bool:
        """Whether a person brought this clip. Emptying the box sends once more what the page had put there."""
        return payload.orig_name != _OURS

    def read(self, payload: FileData) -> Clip:
        """The clip in what the browser or a client sent. Raises ValueError with one sentence where it cannot be read."""
        if not payload.path:
            raise ValueError("No clip arrived; please upload it again.")
        return load_clip(uploaded(payload.path, self.GRADIO_CACHE, later("clip")), payload.orig_name or later("your clip"))

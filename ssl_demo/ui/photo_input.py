"""A picture input that reads every upload through ``ssl_demo.images``."""

import functools
import secrets

import gradio as gr
from gradio.context import LocalContext
from gradio.data_classes import ImageData
from gradio.processing_utils import save_base64_to_cache
from gradio.utils import is_in_or_equal, is_static_file
from PIL import Image

from ssl_demo.images import limit, load_photo
from ssl_demo.texts import later

from . import leaving, toasts

_OURS = f"photo-{secrets.token_hex(8)}.png"  # no file of a visitor is called that


class PhotoInput(gr.Image):
    """``gr.Image`` whose value is an upright RGB ``PIL.Image``, its longest side at most 1024 pixels, or None.

    The stock component clips 16-bit greys, drops alpha, keeps the palette indices of a GIF and says only "Error" about a bad
    file. Here the file goes through ``load_photo``, and what that refuses reaches the visitor as its one sentence.
    Takes the arguments of ``gr.Image``; pictures shown in it are served as PNG, which keeps every pixel.
    """

    is_template = True  # drawn by the front end of gr.Image

    # Gradio asks the signature which properties to send to the browser, so it must be that of gr.Image.
    @functools.wraps(gr.Image.__init__)
    def __init__(self, value=None, **arguments):
        super().__init__(value, **{"type": "pil", "format": "png", **arguments})

    def preprocess(self, payload: ImageData | None) -> Image.Image | None:
        """The uploaded photo; None where there is none. Raises gr.Error with one sentence where it cannot be read."""
        if payload is None:
            return None
        with toasts.told():
            return self.read(payload)

    def postprocess(self, value) -> ImageData | None:
        """The picture for the browser, marked as one that the page itself put there."""
        data = super().postprocess(value)
        if data is not None:
            data.orig_name = _OURS
            # Gradio writes it where uploads lie, but of a box that was updated it loses sight of the file.
            if is_served():
                leaving.brought(data.path)
        return data

    @staticmethod
    def is_new(payload: ImageData) -> bool:
        """Whether a person brought this picture. Emptying the box sends once more what the page had put there."""
        return payload.orig_name != _OURS

    def read(self, payload: ImageData) -> Image.Image:
        """The photo in what the browser or a client sent. Raises ValueError with one sentence where it cannot be read."""
        return limit(load_photo(self._path(payload), payload.orig_name or later("your picture")))

    def _path(self, payload: ImageData) -> str:
        """Where the picture lies on this computer; a data URL, which gr.Image prefers as well, is written to its cache."""
        if payload.url and payload.url.startswith("data:"):
            try:
                path = save_base64_to_cache(payload.url, cache_dir=self.GRADIO_CACHE)
            except ValueError:  # not base64
                raise ValueError("The picture arrived damaged; please upload it again.") from None
            leaving.brought(path)
            return path
        if payload.path is None:
            raise ValueError("No picture arrived; please upload it again.")
        return uploaded(payload.path, self.GRADIO_CACHE, later("picture"))


def is_served() -> bool:
    """Whether this is called for a visitor, not where the page is built or a test asks."""
    app = LocalContext.blocks.get(None)
    return app is not None and app.has_launched


def uploaded(path: str, cache: str, kind: str) -> str:
    """The path of a file that a visitor sent. Raises ValueError where it is another file on this computer."""
    # Gradio 6.31 checks a path against its upload folder only if the caller marked it as a file ("meta"). A caller of the
    # API who leaves the mark out could name, and so see, any picture on the server.
    if is_served() and not (is_in_or_equal(path, cache) or is_static_file(path)):
        raise ValueError(f"Only uploaded {kind}s can be used; please upload it first.")
    if is_served():
        leaving.brought(path)  # it stays for as long as the visit does
    return path

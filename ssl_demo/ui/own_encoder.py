"""A visitor's own network in the transfer room: it looks at the photos whose features ship, where the host has them.

Where the host has none, one sentence says so, and a button leads to the room that asks it about the visitor's own pictures.
"""

import html
import threading
import time
from collections.abc import Iterator

import gradio as gr

from .. import own_features, own_networks
from ..embedding import title
from ..texts import later, say
from . import lab_visits as visits
from . import toasts
from .story import progress_html

UNSEEN = later("{name} has not seen the photos of these figures yet.")
MISSING = later("{name} cannot be asked here: the photos behind these figures do not ship, and this host has not got them. "
                "Teach it can ask it about pictures of yours.")
FINDING = f'<div class="progress" role="status"><span>{say("Finding the photos of these figures on this host …")}</span></div>'
OPEN_TEACH = "() => document.querySelector('#room-teach-button').click()"


def said(sentence: str, encoder: str) -> str:
    return f"<p class='note own-note'>{say(sentence, name=html.escape(say(title(encoder))))}</p>"


def is_lacking(encoder: str | None) -> bool:
    """Whether it is an own network whose features of the photos are not there."""
    return bool(encoder) and own_networks.is_own(encoder) and not own_features.known(encoder)


class OwnEncoder:
    """How far a look is, with buttons to cancel and to begin it again, and the way to the other room; made where constructed."""

    def __init__(self):
        with gr.Row(elem_classes="long", visible=False) as self.busy:
            self.progress = gr.HTML(elem_id="transfer-progress")
            self.cancel = gr.Button(say("Cancel"), size="sm", elem_id="transfer-cancel")
        self.again = gr.Button(say("Let it look"), size="sm", visible=False, elem_id="transfer-look", elem_classes="own-button")
        self.teach = gr.Button(say("Open Teach it"), size="sm", visible=False, elem_id="transfer-teach",
                               elem_classes="own-button")
        self.teach.click(None, None, None, js=OPEN_TEACH, api_visibility="private")
        self.cancel.click(self.stop, queue=False, show_progress="hidden", api_visibility="private")
        self._looks: dict[str, threading.Event] = {}  # by visit, what ends its look

    @property
    def shown(self) -> list:
        return [self.busy, self.progress, self.again, self.teach]

    def stop(self, request: gr.Request) -> None:
        """Ends this visit's look."""
        if left := self._looks.get(request.session_hash):
            left.set()

    def supersede(self, owner: str) -> None:
        """Ends this visit's look, which has nothing more to say: something else is shown now."""
        self._looks.pop(owner, threading.Event()).set()

    def at_rest(self, again: bool = False, teach: bool = False) -> tuple:
        """The values of `shown` while nothing looks."""
        return gr.update(visible=False), "", gr.update(visible=again), gr.update(visible=teach)

    def look(self, owner: str, encoder: str) -> Iterator[tuple]:
        """While a network looks at the photos: what stands in the story's place, and the values of `shown`.

        Where it has seen all of them, the last story is None.
        """
        self.supersede(owner)
        left = self._looks[owner] = threading.Event()

        def far(done: int, of: int, doing: str, seconds: float) -> tuple:
            hidden = gr.update(visible=False)
            return said(UNSEEN, encoder), gr.update(visible=True), progress_html(done, of, doing, seconds), hidden, hidden

        try:
            yield said(UNSEEN, encoder), gr.update(visible=True), FINDING, gr.update(visible=False), gr.update(visible=False)
            photos = own_features.photos_of(visits.lab().host_data())
            if photos is None:
                yield said(MISSING, encoder), *self.at_rest(teach=True)
                return
            began = time.monotonic()
            for done, of in own_features.look(encoder, photos):
                if left.is_set():
                    break
                doing = later("Photos seen" if done < of else "Laying them out on a map; photos seen")
                yield far(done, of, doing, time.monotonic() - began)
            if self._looks.get(owner) is left:
                yield (said(UNSEEN, encoder), *self.at_rest(again=True)) if left.is_set() else (None, *self.at_rest())
        except ValueError as mistake:
            toasts.warn(mistake)
            yield gr.skip(), *self.at_rest(again=own_networks.get(encoder) is not None)
        finally:
            if self._looks.get(owner) is left:
                del self._looks[owner]

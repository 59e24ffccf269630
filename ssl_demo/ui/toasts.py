"""What a person did wrong, as one sentence in a corner of the page. Never a traceback."""

import html
import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import quote

import gradio as gr
from gradio.context import LocalContext

from ..texts import in_script, say

_said: ContextVar[list[str] | None] = ContextVar("said", default=None)  # while an event without the queue is answered


def error(sentence: ValueError | str) -> gr.Error:
    """To raise: nothing on the page changes. Toasts are drawn as HTML, and a file's name is the visitor's text."""
    return gr.Error(html.escape(say(str(sentence))), print_exception=False)


def warn(sentence: ValueError | str) -> None:
    """Says it while the rest goes on."""
    _say(gr.Warning, html.escape(say(str(sentence))))


def inform(sentence: str) -> None:
    """Says what went well."""
    _say(gr.Info, html.escape(sentence))


def _say(toast, told: str) -> None:
    if LocalContext.event_id.get(None) is None and _said.get() is not None:
        _said.get().append(told)  # Gradio says nothing where there is no queue
    else:
        toast(told)


class Saying:
    """ASGI middleware: what was said while an event without the queue was answered goes with the answer, in a header."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http" or "/run/" not in scope["path"]:
            await self.app(scope, receive, send)
            return
        said: list[str] = []
        _said.set(said)

        async def send_with(message) -> None:
            if message["type"] == "http.response.start" and said:
                message["headers"] = [*message.get("headers", ()), (b"x-said", quote(json.dumps(said)).encode())]
            await send(message)

        await self.app(scope, receive, send_with)


@contextmanager
def told() -> Iterator[None]:
    """Turns a ValueError inside into such a toast."""
    try:
        yield
    except ValueError as mistake:
        raise error(mistake) from None


# Answers that do not go through the queue come as plain responses, and Gradio shows nothing of what these say.
SAY = in_script(r"""
if (!window.saysMistakes) {
  window.saysMistakes = true;
  const plain = window.fetch;
  const tell = (sentence) => {
    const told = document.createElement('div');
    told.className = 'told-mistake';
    told.setAttribute('role', 'alert');
    told.textContent = new DOMParser().parseFromString(sentence, 'text/html').body.textContent;
    document.querySelector('.told-mistake')?.remove();
    (document.querySelector('.gradio-container') || document.body).append(told);
    told.addEventListener('click', () => told.remove());
    setTimeout(() => told.remove(), 10000);
  };
  window.fetch = async (...asked) => {
    const answer = await plain(...asked);
    const said = answer.headers.get('x-said');
    if (said) tell(JSON.parse(decodeURIComponent(said)).join(' '));
    if (answer.status === 500 && String(asked[0]?.url || asked[0]).includes('/run/')) {
      answer.clone().json().then(({error}) => tell(error || say('That went wrong here; nothing was changed.')), () => {});
    }
    return answer;
  };
}
""")


def listener() -> gr.HTML:
    """What says the mistakes of answers that do not go through the queue. Made once, on the page."""
    return gr.HTML(js_on_load=SAY, elem_id="mistakes")

"""What a person did wrong, as one sentence in a corner of the page. Never a traceback."""

import html
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from ..texts import in_script, say


def error(sentence: ValueError | str) -> gr.Error:
    """To raise: nothing on the page changes. Toasts are drawn as HTML, and a file's name is the visitor's text."""
    return gr.Error(html.escape(say(str(sentence))), print_exception=False)


def warn(sentence: ValueError | str) -> None:
    """Says it while the rest goes on."""
    gr.Warning(html.escape(say(str(sentence))))


@contextmanager
def told() -> Iterator[None]:
    """Turns a ValueError inside into such a toast."""
    try:
        yield
    except ValueError as mistake:
        raise error(mistake) from None


# Answers that do not go through the queue come as plain responses, and Gradio shows nothing of what these say went wrong.
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

"""What a person did wrong, as one sentence in a corner of the page. Never a traceback."""

import html
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr


def error(sentence: ValueError | str) -> gr.Error:
    """To raise: nothing on the page changes. Toasts are drawn as HTML, and a file's name is the visitor's text."""
    return gr.Error(html.escape(str(sentence)), print_exception=False)


def warn(sentence: ValueError | str) -> None:
    """Says it while the rest goes on."""
    gr.Warning(html.escape(str(sentence)))


@contextmanager
def told() -> Iterator[None]:
    """Turns a ValueError inside into such a toast."""
    try:
        yield
    except ValueError as mistake:
        raise error(mistake) from None

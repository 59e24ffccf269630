"""The measured transfer table below the live one: its charts, drawn when they are opened, and the command that made it."""

import html
import json

import gradio as gr
import plotly.graph_objects as go
from gradio.components.plot import PlotData

from .. import charts
from ..texts import later, say
from ..transfer import PROTOCOLS
from .task_tab import QUICK


class Measured:
    """An accordion with the charts, made where it is constructed."""

    def __init__(self):
        table = charts.table()
        self.rows = table["rows"]
        with gr.Accordion(say("Measured on all photos: the whole table, fine-tuning too"), open=False, elem_id="measured") as box:
            gr.HTML(told(table))
            choices = [str(count or "all") for count in reversed(charts.counts(self.rows))] or ["all"]
            self.labels = gr.Radio([(say(one), one) for one in choices], value=choices[-1], label=say("Labels a class"),
                                   elem_id="measured-labels")
            gr.HTML('<ul class="families">' + "".join(f'<li><b style="color:{color}">{sign}</b>{html.escape(say(text))}</li>'
                                                      for text, sign, color in charts.LEGEND) + "</ul>")
            with gr.Row():
                self.bars = [plot(f"measured-bars-{protocol}") for protocol in PROTOCOLS]
            with gr.Row():
                self.curves = [plot(f"measured-curves-{protocol}") for protocol in PROTOCOLS]
            gr.HTML(f"<h4>{say('Is a linear layer far below fine-tuning?')}</h4><p class='soft'>"
                    f"{html.escape(charts.gap_sentence(self.rows))}</p>")
            self.gap = plot("measured-gap")
        self.of_all = table.get("train", 10) / max(1, len(table.get("classes", [0])))
        # Plotly is heavy: nothing is drawn before somebody looks.
        box.expand(self.everything, self.labels, [*self.bars, *self.curves, self.gap], **QUICK)
        self.labels.input(self.barred, self.labels, self.bars, **QUICK)

    def barred(self, labels: str | None) -> list:
        return [shown(charts.bars(self.rows, count(labels), (protocol,))) for protocol in PROTOCOLS]

    def everything(self, labels: str | None) -> list:
        return [*self.barred(labels), *(shown(charts.curves(self.rows, protocol, self.of_all)) for protocol in PROTOCOLS),
                shown(charts.gap(self.rows))]


def plot(name: str) -> gr.Plot:
    return gr.Plot(show_label=False, elem_id=name, buttons=[], min_width=300)


def shown(figure: go.Figure) -> PlotData:
    """A figure for a `gr.Plot`: what Plotly is to leave out reaches the page only inside the figure's own JSON."""
    return PlotData(type="plotly", plot=json.dumps({**json.loads(figure.to_json()), "config": charts.CONFIG}))


def count(labels: str | None) -> int | None:
    return int(labels) if labels and labels.isdigit() else None


def told(table: dict) -> str:
    """What the table is, in words."""
    if not table["rows"]:
        return f"<p class='note'>{say('Nothing is measured yet.')}</p>"
    later("Accuracy on the test photos of the benchmark after hearing the labels of its training photos")  # as the table has it
    text = say("{what}: {train:,} photos to learn from, {test:,} to be judged by. Thin lines: the deviation over draws of "
               "labels. Made by <code>{command}</code>. A network of yours is not among them: choose it as the encoder above, or "
               "<code>{ask}</code> asks it about photos that you have.", what=html.escape(say(table["what"].capitalize())),
               train=table["train"], test=table["test"], command=html.escape(table["command"]),
               ask="python -m ssl_demo transfer --data DIR --encoders FILE.safetensors")
    return f"<p class='soft'>{text}</p>"

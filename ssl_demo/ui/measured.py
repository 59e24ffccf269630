"""The measured transfer table below the live one: its charts, drawn when they are opened, and the command that made it."""

import html

import gradio as gr

from .. import charts
from .task_tab import QUICK

FROZEN = ("knn", "linear")


class Measured:
    """An accordion with the charts, made where it is constructed."""

    def __init__(self):
        table = charts.table()
        self.rows = table["rows"]
        with gr.Accordion("Measured on all photos: the whole table, fine-tuning too", open=False, elem_id="measured") as box:
            gr.HTML(told(table))
            self.counts = [(str(count or "all"), str(count or "all")) for count in reversed(charts.counts(self.rows))]
            self.labels = gr.Radio(self.counts, value="all", label="Labels a class", elem_id="measured-labels")
            self.bars = gr.Plot(show_label=False, elem_id="measured-bars", buttons=[])
            with gr.Row():
                self.curves = [gr.Plot(show_label=False, elem_id=f"measured-{protocol}", buttons=[]) for protocol in FROZEN]
            gr.HTML(f"<h4>Is a linear layer far below fine-tuning?</h4><p class='soft'>"
                    f"{html.escape(charts.gap_sentence(self.rows, table.get('test', 1)))}</p>")
            self.gap = gr.Plot(show_label=False, elem_id="measured-gap", buttons=[])
        of_all = table.get("train", 10) / max(1, len(table.get("classes", [0])))
        box.expand(lambda labels: (charts.bars(self.rows, count(labels)), *(charts.curves(self.rows, protocol, of_all)
                                                                            for protocol in FROZEN), charts.gap(self.rows)),
                   self.labels, [self.bars, *self.curves, self.gap], **QUICK)
        self.labels.input(lambda labels: charts.bars(self.rows, count(labels)), self.labels, self.bars, **QUICK)


def count(labels: str | None) -> int | None:
    return int(labels) if labels and labels.isdigit() else None


def told(table: dict) -> str:
    """What the table is, in words."""
    if not table["rows"]:
        return "<p class='note'>Nothing is measured yet.</p>"
    return (f"<p class='soft'>{html.escape(table['what'].capitalize())}: {table['train']:,} photos to learn from, "
            f"{table['test']:,} to be judged by. Thin lines: the deviation over draws of labels. Made by "
            f"<code>{html.escape(table['command'])}</code>. A network of yours is not among them: its features of these photos "
            "would need the photos, which do not ship; <code>python -m ssl_demo transfer --data DIR --encoders FILE.safetensors"
            "</code> asks it about photos that you have.</p>")

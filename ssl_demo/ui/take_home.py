"""What a person takes home from a tab: a panel at full size, the story as one picture, everything in a ZIP, the numbers as JSON.

Made when asked for, from the same run as the tab shows, and sent inside the answer: no file of a visitor's photo lies anywhere.
"""

import base64
import io
import json
import math
import zipfile
from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ..checkpoints import UNTRAINED, bundled
from ..examples import EXAMPLES, name_of
from ..figures import panel_file
from ..inference import Result
from ..pretext import Panel, PretextTask
from ..texts import say, spoken
from . import links, toasts
from .slide import slide
from .take_buttons import SAVE

KINDS = {"story": "image/png", "panels": "application/zip", "results": "application/json"}


def parcel(what: str, task: type[PretextTask], result: Result, photo, seed: int, network: str,
           company: Sequence[Image.Image] = ()) -> tuple[str, str, bytes]:
    """A file's name, its kind and its bytes. what: a key of `KINDS`, or a panel's name.

    network: who answered, as in `links.query`. Raises ValueError where there is no such panel.
    """
    named = name_of(photo)
    stem = "-".join(filter(None, (task.card.name, named)))
    told, result = results(task, result, photo, seed, network), spoken(result)
    if what == "results":
        return f"{stem}.json", KINDS[what], json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False).encode()
    if what == "story":
        stream = io.BytesIO()
        slide(result, spoken(task.card), notes(task, photo, seed, network, result.controls, company)).save(stream, "PNG")
        return f"{stem}-story.png", KINDS[what], stream.getvalue()
    if what == "panels":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as made:  # pictures and clips do not get smaller
            for number, panel in enumerate(result.panels, start=1):
                ending, data = panel_file(panel)
                made.writestr(f"{stem}/{number}-{panel.stage}-{panel.name}.{ending}", data)
            made.writestr(f"{stem}/{stem}.json", json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False))
        return f"{stem}-panels.zip", KINDS[what], stream.getvalue()
    panel = next((panel for panel in result.panels if panel.name == what), None)
    if panel is None:
        raise ValueError(f"There is no panel “{what}” here.")
    ending, data = panel_file(panel)
    return f"{stem}-{panel.name}.{ending}", "image/png" if ending == "png" else "video/mp4", data


def results(task: type[PretextTask], result: Result, photo, seed: int, network: str) -> dict[str, Any]:
    """A run as JSON: what the command line prints, and what the panels draw, as numbers."""
    card = task.card
    figures = [{"name": name, "label": n.label, "value": plain(n.value), "text": n.text, "help": n.help}
               for name, n in result.figures.items()]
    return {"task": card.name, "title": card.title, "paper": f"{card.authors}, {card.year}: {card.paper}", "link": card.link,
            "weights": weights(task, network), "seed": seed, "controls": result.controls, "photo": name_of(photo),
            "numbers": plain(result.numbers), "figures": figures, "panels": [told(panel) for panel in result.panels],
            "run_it": links.calls(task, seed, network, result.controls)}  # fmt: skip


def told(panel: Panel) -> dict[str, Any]:
    """A panel's words, and its numbers where it draws some."""
    said = {"name": panel.name, "title": panel.title, "caption": panel.caption, "step": panel.stage}
    if panel.bars:
        said["bars"] = [{"label": b.label, "value": plain(b.value), "true": b.true, "answer": b.chosen} for b in panel.bars]
    if panel.matrix is not None:
        said |= {"what": panel.matrix.what, "values": plain(panel.matrix.values), "marked": panel.matrix.marked,
                 "empty": panel.matrix.empty}
    if panel.chart is not None:
        said |= {"x_label": panel.chart.x_label, "y_label": panel.chart.y_label, "x": plain(panel.chart.x),
                 "lines": [{"label": line.label, "y": plain(line.y)} for line in panel.chart.lines]}
    return said


def plain(value: Any) -> Any:
    """Numbers as JSON knows them: no array, and nothing where it is no number."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def weights(task: type[PretextTask], network: str) -> str:
    """Which weights answered: the bundled ones, "untrained", or those that the visitor calls so."""
    if network == UNTRAINED:
        return UNTRAINED
    return next(iter(bundled(task.card.name)), UNTRAINED) if network == links.TRAINED else network


def notes(task: type[PretextTask], photo, seed: int, network: str, controls: dict[str, Any],
          company: Sequence[Image.Image]) -> list[str]:
    """The foot of the slide: whose photos these are, who answered, and what was turned."""
    shown = [example for example in EXAMPLES if example.name == name_of(photo)]
    beside = [example for example in EXAMPLES if example not in shown] if len(company) < task.card.company else []
    said = [f"{say('Photo')}: {say(example.title)} ({example.credit})" for example in shown]
    if beside:
        others = "; ".join(f"{say(e.title)} ({e.credit.removesuffix(', via scikit-image')})" for e in beside)
        said.append(f"{say('Beside it')}: {others}")
    name = weights(task, network)
    said.append(say("An untrained network") if name == UNTRAINED else f"{say('Network')}: {name}")
    turned = [f"{key} {value}" for key, value in links.changed(task, controls).items() if len(str(value)) < 24]
    return [*said, say("seed {seed}", seed=seed), *turned, task.card.link.removeprefix("https://")]


def listen(tab, photo: gr.State) -> None:
    """Connects the buttons of a `TaskTab`. photo: what its runs take."""
    packed = gr.Textbox(visible="hidden", elem_id=f"{tab.name}-parcel")

    def pack(photo, seed, network, *values, event: gr.EventData) -> str:
        with toasts.told():
            result = tab.result(photo, seed, network, *values)
            company = tab.apart(values)[1]
            name, kind, data = parcel(str(event._data.get("what")), tab.task, result, photo, seed or 0, network, company)
        return json.dumps({"name": name, "url": f"data:{kind};base64,{base64.b64encode(data).decode()}"})

    def asked(event: gr.EventData, *values) -> str:
        return pack(*values, event=event)

    asked_for = tab.story.keep(asked, [photo, *tab.inputs], packed, queue=False, show_progress="hidden", trigger_mode="multiple",
                               api_visibility="private")
    asked_for.then(None, packed, packed, js=SAVE, api_visibility="private")

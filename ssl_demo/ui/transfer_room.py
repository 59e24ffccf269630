"""The room where heads are thrown away: what encoders know of ten classes and of your photo, asked live, with few labels."""

import html
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import gradio as gr
import numpy as np
from PIL import Image

from .. import live_transfer, own_networks, shipped_features
from ..embedding import title
from ..inference import parse_seed
from ..live_transfer import MAPS, MOST_NEIGHBOURS
from ..probes import NEIGHBOURS
from ..progress import Cancelled
from ..texts import later, say
from . import toasts
from .measured import Measured
from .own_encoder import UNSEEN, OwnEncoder, is_lacking, said
from .photo_input import PhotoInput
from .task_tab import QUICK
from .transfer_drawing import CLICKS, accuracy_html, features_html, map_html, maps_html, step, votes_html
from .watching import Running, watch

LOOK = {**QUICK, "queue": True, "concurrency_id": "look", "concurrency_limit": 2, "trigger_mode": "multiple"}
CANCELLED = later("Cancelled. What is shown is what was asked before; open this room again to ask about this photo.")
IDEA = say("What is it worth? Throw the head away and show it a few labels: can it tell a church from a golf ball?")
PROBES = (say("<b>Neighbours:</b> the most similar labelled photos vote."),
          say("<b>Linear layer:</b> learns to read classes off the features."))
ABOUT = (f'<div class="about"><div><h2 class="unseen">{say("Transfer")}</h2><p class="idea">{IDEA}</p></div>'
         f'<div class="probes"><p>{PROBES[0]}</p><p>{PROBES[1]}</p></div></div>')


class TransferRoom:
    """The components of the room, made where it is constructed: inside a `gr.Tab`."""

    name, title, is_long = "transfer", later("Transfer"), True

    def __init__(self):
        self.encoders = encoders = shipped_features.available()
        gr.HTML(ABOUT)
        most = shipped_features.load(encoders[0]).labels_per_class if encoders else 2
        if not encoders:
            gr.HTML(f"<p class='note'>{say('No features ship with this copy: run benchmarks/transfer_features.py.')}</p>")
        with gr.Row(elem_classes="controls", equal_height=True):
            with gr.Row(elem_classes="form"):
                self.encoder = gr.Dropdown([(say(title(name)), name) for name in encoders], value=best(encoders, most),
                                           label=say("Encoder"), info=say("Who is asked."), min_width=150,
                                           elem_id="transfer-encoder")
                self.k = gr.Slider(1, MOST_NEIGHBOURS, NEIGHBOURS, step=1, buttons=[], label=say("Neighbours"),
                                   info=say("How many vote."), elem_id="transfer-neighbours")
                self.labels = gr.Slider(1, most, most, step=1, buttons=[], label=say("Labels per class"),
                                        info=say("What the probes hear."),
                                        elem_id="transfer-labels")
                self.map = gr.Radio(list(MAPS), value=MAPS[0], label=say("Map"), info=say("From many numbers to two."),
                                    elem_id="transfer-map")
            with gr.Column(min_width=130, scale=1, elem_classes="chance"):
                self.seed = gr.Number(0, label=say("Seed"), precision=0, minimum=0, maximum=2**31 - 1, elem_id="transfer-seed",
                                      info=say("Which labels."), min_width=90)
                self.again = gr.Button(say("Draw again"), size="sm", elem_id="transfer-again")
        self.seen = gr.State(None)  # the visitor's photo, with what every encoder makes of it
        self.asked = gr.Textbox(visible="hidden")  # what the answer to a new photo was asked with
        self.own, self.running = OwnEncoder(), Running()
        self.story = gr.HTML(f"<p class='note'>{say('Asking every encoder about your photo …')}</p>" if encoders else "",
                             js_on_load=CLICKS, elem_id="transfer-story", elem_classes="story-box")
        self.measured = Measured()

    @property
    def settings(self) -> dict:
        """What a link may set: components by the names of `live_transfer.controls`."""
        return {"encoder": self.encoder, "neighbours": self.k, "labels": self.labels, "map": self.map, "seed": self.seed}

    @property
    def inputs(self) -> list:
        """What the answer depends on, apart from the photo."""
        return [self.encoder, self.k, self.labels, self.map, self.seed, self.seen]

    @property
    def shown(self) -> list:
        return [self.story, self.seen, self.asked, self.own.busy, self.own.progress]

    def answer(self, request: gr.Request, photo: Image.Image, *values) -> Iterator[tuple]:
        """The values of `shown`, while all encoders look at a new photo and then; cancelled, what stood there before stays."""
        self.running.stop(request.session_hash)  # another photo has come: nobody waits for the one before
        with self.running.of(request.session_hash) as left:
            for far, running in watch(lambda: self.told(photo, *values), left):
                if running is None:
                    yield gr.skip(), gr.skip(), gr.skip(), gr.update(visible=True), far
                    continue
                if isinstance(running.exception(), Cancelled):
                    yield gr.skip(), gr.skip(), gr.skip(), gr.update(visible=False), ""
                    return
                told = (gr.skip(), gr.skip(), gr.skip()) if running.exception() else running.result()
                yield *told, gr.update(visible=False), ""
                running.result()  # what a person did wrong becomes a toast

    def stop(self, request: gr.Request) -> None:
        """Ends this visit's look of all encoders at a photo."""
        if self.running.stop(request.session_hash):
            toasts.warn(CANCELLED)

    def told(self, photo: Image.Image, encoder: str, k: int, per_class: int, kind: str, seed: int | None, seen) -> tuple:
        """The story of a photo, what encoders made of it, and what was asked. A mistake becomes a toast."""
        if not self.encoders:
            return gr.skip(), seen, ""
        with toasts.told():
            names = dict.fromkeys([*self.encoders, *(seen[1] if seen else ()), encoder])  # own ones that were asked stay
            seen = seen if seen and seen[0] is photo else (photo, {})
            if new := [name for name in names if name not in seen[1] and not is_lacking(name)]:
                seen = photo, {**seen[1], **live_transfer.see(photo, new)}
            told = said(UNSEEN, encoder) if is_lacking(encoder) else story(
                *seen, encoder, int(k), int(per_class), kind, parse_seed(seed or 0), self.link(encoder, k, per_class, kind, seed))
        return told, seen, json.dumps([encoder, k, per_class, kind, seed, time.time_ns()])

    def link(self, *values) -> str:
        """What of the settings differs from the room's beginning, as part of an address. A visitor's own network has no place."""
        turned = {name: value for (name, one), value in zip(self.settings.items(), values) if value != one.value}
        return urlencode({name: value for name, value in turned.items() if name != "encoder" or value in self.encoders})

    def look(self, request: gr.Request, photo: Image.Image, encoder: str, *values) -> Iterator[tuple]:
        """What `story`, `seen` and the own network's place show while it looks at the photos; nothing new for any other."""
        if not is_lacking(encoder):
            self.own.supersede(request.session_hash)
            yield gr.skip(), gr.skip(), *self.own.at_rest()
            return
        for told, *shown in self.own.look(request.session_hash, encoder):
            story, seen = (told, gr.skip()) if told else self.told(photo, encoder, *values)[:2]
            yield story, seen, *shown

    def listen(self, photo: gr.State, own: gr.State, joined_own: gr.Textbox) -> None:
        """Every change answers at once, from what is known of the photo already.

        photo: the session's; own: the visit's own networks; joined_own: changed when one joins them.
        """
        def again(*values):
            return self.told(values[-1][0], *values)[0] if values[-1] else gr.skip()

        def clicked(event: gr.EventData, *values):
            encoder = event._data.get("encoder")
            if encoder not in (values[-1] or (None, ()))[1]:
                return gr.skip()
            return encoder, again(encoder, *values[1:])

        def checked(asked: str, *values):
            """A new photo takes a while: what a person turned meanwhile has been answered already, with the wrong photo."""
            return gr.skip() if not asked or json.loads(asked)[:-1] == list(values[:-1]) else again(*values)

        self.own.cancel.click(self.stop, **QUICK)
        self.asked.change(checked, [self.asked, *self.inputs], self.story, **QUICK)
        self.again.click(lambda seed: (int(seed or 0) + 1) % 2**31, self.seed, self.seed, **QUICK)
        def joined(known: dict) -> dict:
            names = [*self.encoders, *own_networks.keys(known or {})]
            return gr.update(choices=[(say(title(name)), name) for name in names])

        if self.encoders:
            joined_own.change(joined, own, self.encoder, **QUICK)
        chosen = self.encoder.input(again, self.inputs, self.story, **QUICK)
        for event in (chosen.then, self.own.again.click):
            event(self.look, [photo, *self.inputs], [self.story, self.seen, *self.own.shown], **LOOK)
        changes = [self.k.input, self.labels.input, self.map.input, self.seed.change]
        gr.on(changes, again, self.inputs, self.story, **QUICK)
        self.story.select(clicked, self.inputs, [self.encoder, self.story], **QUICK)
        file, report = PhotoInput(visible=False), gr.JSON(visible=False, label="report")
        gr.Button(visible=False).click(self.endpoint(), [self.encoder, self.k, self.labels, self.seed, file], report,
                                       api_name=self.name, concurrency_id="model",
                                       api_description="What encoders know of ten classes, and of a photo.")

    def endpoint(self) -> Callable:
        """What the API calls: to accuracies, and where there is a photo, to the votes on it.

        margin: half the 95 % interval of knn over other test photos and other draws of labels, here of every encoder.
        """
        def transfer(encoder: str, neighbours: int, labels_per_class: int, seed: int, file=None) -> dict[str, Any]:
            with toasts.told():
                if not 1 <= neighbours <= MOST_NEIGHBOURS:
                    raise ValueError(f"Neighbours must be from 1 to {MOST_NEIGHBOURS}, not {neighbours}.")
                k, per_class, seed = int(neighbours), int(labels_per_class), parse_seed(seed)
                known = shipped_features.load(encoder)
                scores = live_transfer.scores(self.encoders, encoder, k, per_class, seed)
                tests = len(known.test_labels)
                results = [{"encoder": score.encoder, "kind": score.kind, "knn": score.knn, "linear": score.linear,
                            "margin": live_transfer.margin(score.knn, score.encoder, k, per_class, seed)} for score in scores]
                report = {"encoder": encoder, "neighbours": k, "labels_per_class": per_class, "seed": seed,
                          "classes": known.classes, "test": tests, "results": results}
                if file is not None:
                    votes = live_transfer.votes(live_transfer.see(file, self.encoders), k, per_class, seed)
                    report["photo"] = [{"encoder": name, "class": known.classes[int(np.argmax(shares))],
                                        "votes": {label: float(share) for label, share in zip(known.classes, shares)}}
                                       for name, shares in votes.items()]
            return report

        return transfer


def best(encoders: list[str], per_class: int) -> str | None:
    """The encoder to open with: the first of those that know most by their neighbours."""
    trained = [name for name in encoders if live_transfer.kind_of(name) == "trained"]
    return max(trained, key=lambda name: live_transfer.knn(name, NEIGHBOURS, per_class, 0), default=None)


def story(photo: Image.Image, own: dict, encoder: str, k: int, per_class: int, kind: str, seed: int, link: str = "") -> str:
    """The four steps as HTML, and the small maps of all encoders. link: what of an address leads back here.

    Raises ValueError for an encoder, a map or a number of labels that there is not.
    """
    known = shipped_features.load(encoder)
    scores = live_transfer.scores(own, encoder, k, per_class, seed)
    shown = live_transfer.map_of(encoder, kind, k, per_class, seed, own[encoder])
    votes = live_transfer.votes(own, k, per_class, seed)
    labels, tests, classes = len(shown.labelled), len(known.test_labels), len(known.classes)
    half = next(score.margin for score in scores if score.encoder == encoder)
    if kind == "PCA":
        mapped = say("{photos:,} photos in the two directions in which {encoder}'s features differ most (PCA: {explained:.0%} of "
                     "variance). Full colour: the {labels:,} with labels; lines: those that vote on yours, which is projected "
                     "alike.",
                     photos=len(shown.classes), encoder=say(title(encoder)), explained=shown.explained, labels=labels)
    else:
        mapped = say("{photos:,} photos as {encoder} sees them: similar ones lie near each other (t-SNE). Full colour: the "
                     "{labels:,} with labels; lines: those that vote on yours, which lies at the weighted mean of its {voters} "
                     "most similar.",
                     photos=len(shown.classes), encoder=say(title(encoder)), labels=labels, voters=min(k, len(shown.classes)))
    change = (say("other test photos and other labels") if live_transfer.is_drawn(encoder, per_class) else
              say("other test photos"))
    judged = say("Right answers on {tests} unseen photos, after {labels:,} labels. Thin line: what {change} may change "
                 "(95%), ±{half:.1f} points for {encoder}. Upright mark: chance, {chance:.0%}. Hatched: never trained.",
                 tests=tests, labels=labels, change=change, half=100 * half, encoder=say(title(encoder)), chance=1 / classes)
    voted = say("The vote of the {voters} most similar labelled photos, the more similar the weightier. There are only {classes} "
                "classes: anything else gets the nearest of them.", voters=min(k, labels), classes=classes)
    order = [score.encoder for score in scores]
    places = {name: live_transfer.place(name, kind, k, features) for name, features in own.items()}
    return f'<div class="story transfer" data-settings="{html.escape(link)}">' + "".join((
        step(1, say("Features"), "features", features_html(photo, own[encoder][0].numpy(), known.train.numpy(), encoder)),
        step(2, say("Map"), "map", map_html(shown, known.classes, photo, mapped)),
        step(3, say("Accuracy"), "accuracy", accuracy_html(scores, encoder, classes, judged)),
        step(4, say("Your photo"), "votes", votes_html(votes, order, encoder, known.classes, voted)),
        maps_html(places, order, encoder, kind, known.classes))) + "</div>"

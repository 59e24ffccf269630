"""The training lab: choose a method and data, press Start, and watch it learn on your photo."""

import json
import time
import uuid
from collections.abc import Iterator

import gradio as gr
from gradio.context import LocalContext
from gradio.data_classes import FileData
from gradio.processing_utils import save_bytes_to_cache
from PIL import Image

from .. import comparison, inference, live
from ..checkpoints import UNTRAINED, bundled
from ..live_plan import SCRATCH
from ..pretext import all_tasks
from ..texts import later, say
from ..video import Clip
from . import lab_api, leaving, links, toasts
from . import lab_drawing as drawing
from . import lab_visits as visits
from .company_input import company_html
from .lab_api import AT_ONCE, Brought
from .lab_visits import BUNDLED, EXAMPLE, OVER, PHOTOS
from .measured import shown
from .photo_input import uploaded
from .task_tab import QUICK, component

AND_THEN = " " + say("Press Start and watch this change.")
TICK = 0.3  # seconds between two looks at a run: a busy machine drops some, and twice a second is promised
PROMISE = 0.9  # seconds that an answer to Stop waits for the step to end, so that it can say so
SHORTEST = 30  # seconds on the page; programs may ask for less
LIVELY = {**QUICK, "trigger_mode": "once"}  # a look that comes while another is on its way is left out: nothing piles up


class TrainingLab:
    """The room's components, made where it is constructed: inside a `gr.Tab`. A visit has one training at a time."""

    name, title, is_long = "lab", later("Training lab"), False

    def __init__(self):
        tasks, first = all_tasks(), visits.first_method()
        self.most = visits.lab().most_seconds
        visits.prepare()
        with gr.Row(elem_classes="controls lab-set", equal_height=True):
            self.method = gr.Dropdown([(say(task.card.title), name) for name, task in tasks.items()], value=first,
                                      label=say("Method"), info=say("What is predicted."), elem_id="lab-method", min_width=150)
            self.data = gr.Dropdown(visits.sources(tasks[first].card), value=EXAMPLE, label=say("Learn from"),
                                    info=say("One photo is enough: many crops of it."), elem_id="lab-data", min_width=150)
            self.seconds = gr.Slider(min(SHORTEST, self.most), self.most, min(60, self.most), step=1, label=say("Time (s)"),
                                     info=say("At most {seconds:g} here.", seconds=self.most), elem_id="lab-seconds",
                                     min_width=150, buttons=[])
            self.go = gr.Button(say("Start"), variant="primary", elem_id="lab-start", min_width=150, scale=0)
        with gr.Row(visible=False, elem_classes="lab-photos") as self.photos_row:
            self.add = Brought(say("Add photos"), size="sm", elem_id="lab-add", min_width=110, scale=0)
            self.clear = gr.Button(say("Clear"), size="sm", elem_id="lab-clear", min_width=80, scale=0)
            self.joined = gr.HTML(self.photos_html([]), elem_id="lab-photos")
        with gr.Row(elem_classes="lab-go"):
            self.plan = gr.HTML(drawing.plan_html(visits.sentence(first, EXAMPLE, min(60, self.most), SCRATCH, "small", []),
                                                  tasks[first].card), elem_id="lab-plan")
            self.hold = gr.Button(say("Pause"), size="sm", interactive=False, elem_id="lab-pause", min_width=90, scale=0)
            self.step = gr.Button(say("One step"), size="sm", interactive=False, elem_id="lab-step", min_width=90, scale=0)
            self.end = gr.Button(say("Stop"), size="sm", interactive=False, elem_id="lab-stop", min_width=90, scale=0)
        with gr.Accordion(say("Settings: start, size, learning rate, the method’s own"), open=False, elem_id="lab-settings"):
            with gr.Row(elem_classes="controls", equal_height=True):
                self.begin = gr.Radio([(say("From scratch"), SCRATCH), (say("From the bundled weights"), BUNDLED)], value=SCRATCH,
                                      label=say("Start"), info=say("Bundled: it knows most of it already."), elem_id="lab-from")
                self.size = gr.Radio([(label, name) for name, label in visits.SIZES.items()], value="small", label=say("Size"),
                                     info=say("Larger learns more, and slower."), elem_id="lab-size")
                self.called = gr.Textbox("", label=say("Name"), info=say("Of this run."), placeholder=say("the method’s"),
                                         max_length=36, elem_id="lab-name", min_width=140)
            self.knobs, self.rows = {}, {}
            for name in tasks:
                with gr.Row(elem_classes="controls", equal_height=True, visible=name == first) as self.rows[name]:
                    self.knobs[name] = {control.name: component(control, f"lab-{name}") for control in live.knobs(name)}
        self.status = gr.HTML(drawing.status_html(None), elem_id="lab-status")
        with gr.Row(elem_classes="lab-live"):
            with gr.Column(scale=0, min_width=300, elem_classes="lab-left"):
                self.charts = gr.HTML(drawing.charts_html(None), elem_id="lab-charts")
                self.which = gr.Dropdown([], label=say("Runs of this visit"), elem_id="lab-run", min_width=200)
                small, bare = {"size": "sm", "min_width": 90}, {"show_label": False, "container": False}
                with gr.Row(elem_classes="lab-keep"):
                    self.use = gr.Button(say("Use in its tab"), interactive=False, elem_id="lab-use", **small)
                    self.download = gr.Button(say("Download"), interactive=False, elem_id="lab-download", **small)
                    self.bring = gr.UploadButton(say("Bring weights"), file_count="single", elem_id="lab-bring", **small)
            with gr.Column(scale=1, min_width=300):
                self.panels = gr.HTML(drawing.panels_html([], tasks[first].card, ""), elem_id="lab-panels")
                with gr.Row(elem_classes="lab-choose"):
                    gr.HTML(f"<p class='heading'>{say('Runs side by side')}</p>")
                    self.what = gr.Radio([(say("Loss"), "loss"), (say("Metric"), "metric")], value="loss", elem_id="lab-what",
                                         **bare)
                    self.over = gr.Radio([(say("by steps"), "steps"), (say("by seconds"), "seconds")], value="steps",
                                         elem_id="lab-over", **bare)
                self.compared = gr.HTML(drawing.compared_html(None), elem_id="lab-compared")
                self.figure = gr.Plot(visible=False, show_label=False, elem_id="lab-figure", buttons=[])

    @staticmethod
    def photos_html(photos: list[Image.Image]) -> str:
        told = say("Add one photo or many; nothing is kept after your visit.")
        return company_html(photos) if photos else f"<p class='note'>{told}</p>"

    @property
    def inputs(self) -> list:
        """What the room shows depends on, apart from the photo."""
        return [self.method, self.begin, self.which, self.what, self.over]

    @property
    def shown(self) -> list:
        """What a look at the room changes."""
        return [self.status, self.charts, self.panels, self.go, self.hold, self.step, self.end, self.which, self.use,
                self.download, self.compared, self.figure, self.timer, self.seen, self.asleep]

    def answer(self, photo: Image.Image, method: str, begin: str, which: str | None, what: str, over: str) -> list:
        """All that the room shows: how the chosen run stands, or, before the first, what the network answers without training."""
        owner = LocalContext.request.get().session_hash
        drawn = self.draw(owner, which, what, over)
        if not visits.lab().runs(owner):
            drawn[self.panels] = self.before(photo, method, begin, AND_THEN)
        return [drawn.get(one, gr.skip()) for one in self.shown]

    def before(self, photo: Image.Image | Clip, method: str, begin: str, then: str = "") -> str:
        """The panels of a network that has not been trained here, and what is `then` to do.

        Clips would take seconds: their panels wait for Start.
        """
        card = all_tasks()[method].card
        if card.input == "video":
            return drawing.panels_html(
                [], card, say("You will see it learn here, on your clip or a camera’s move over your photo."))
        untrained = begin == SCRATCH or not bundled(method)
        weights = UNTRAINED if untrained else None
        said = say("Before: an untrained network guesses." if untrained else "Before: what the bundled weights know.")
        return drawing.panels_html(inference.load(method, weights).run(photo).panels, card, said + then)

    def draw(self, owner: str, which: str | None, what: str, over: str, seen: str = "") -> dict:
        """What is new of a run since `seen`, as JSON: of the chosen one, else of the visit's newest."""
        runs = visits.lab().runs(owner)
        run = next((run for run in runs if run.id == which), runs[-1] if runs else None)
        if run is None:
            return self.at_rest()
        views = [one.view() for one in runs]
        view, going = views[runs.index(run)], any(one.state not in OVER for one in views)
        saved = view.weights is not None
        now = [view.id, [view.state, saved, view.saving], view.step, view.place, view.panels_step if view.panels else -1]
        before = json.loads(seen or "[]")
        if now == before:
            # Only a look that finds all shown stops the clock: an older answer may still arrive after the one that said the end.
            is_at_work = going or any(one.saving for one in views)
            return {self.timer: gr.skip()} if is_at_work else self.sleep(seen)
        changes = {self.seen: json.dumps(now), self.status: drawing.status_html(view, classes=view.classes),
                   self.charts: drawing.charts_html(view, view.classes)}
        over_now = view.state in OVER
        # The end is said first; what is heavy to draw comes with the next look, when the weights are there.
        anew = now[4] != (before or [None])[-1] or before[0] != view.id or (over_now and not view.saving)
        if anew:
            card = all_tasks()[view.task_name].card
            said = say("After step {step:,}.", step=view.panels_step)
            changes[self.panels] = (drawing.panels_html(view.panels, card, said, moving=not over_now) if view.panels
                                    else self.before(run.plan.photo, view.task_name, run.plan.start))
        if anew or before[:2] != now[:2]:
            changes |= self.side_by_side(views, what, over)
        if before[:2] != now[:2]:
            at_work = view.state in ("running", "paused")
            changes |= {
                self.go: gr.update(interactive=not going), self.end: gr.update(interactive=not over_now),
                self.hold: gr.update(value=say("Go on" if view.state == "paused" else "Pause"), interactive=at_work),
                self.step: gr.update(interactive=at_work),
                self.which: gr.update(choices=[(self.named(one), one.id) for one in views], value=view.id),
                self.use: gr.update(interactive=saved), self.download: gr.update(interactive=saved),
                self.timer: gr.Timer(active=True),
            }  # fmt: skip
        return changes

    def side_by_side(self, views: list[live.View], what: str, over: str) -> dict:
        """The runs of a visit on one chart: light while one goes on, and a figure that can be asked once all are over."""
        compared = comparison.compare(views, what, over)
        if compared is None or compared.is_empty or any(view.state not in OVER or view.saving for view in views):
            return {self.compared: drawing.compared_html(compared), self.figure: gr.update(visible=False)}
        drawn = gr.update(value=shown(comparison.figure(compared)), visible=True)
        return {self.compared: drawing.left_out_html(compared), self.figure: drawn}

    @staticmethod
    def named(view: live.View) -> str:
        return f"{drawing.named(view)} · {drawing.WORDS[view.state].lower()}"

    def sleep(self, shown: str) -> dict:
        """Stops the clock of a page that shows all there is, or of a closed room. The page wakes it where that is not so."""
        return {self.timer: gr.Timer(active=False), self.asleep: shown}

    def at_rest(self) -> dict:
        """Where nothing has run yet."""
        off = gr.update(interactive=False)
        return {self.status: drawing.status_html(None), self.charts: drawing.charts_html(None), self.step: off, self.end: off,
                self.go: gr.update(interactive=True), self.hold: gr.update(value=say("Pause"), interactive=False), self.use: off,
                self.download: off, self.which: gr.update(choices=[], value=None),
                self.timer: gr.Timer(active=False), self.seen: ""}

    def listen(self, demo: gr.Blocks, photo: gr.State, moving: gr.State, company: gr.State, own: gr.State, joined_own: gr.Textbox,
               tabs: dict) -> None:
        """Connects the room: its knobs, its clock, its endpoints. Outside of all tabs: what nobody sees sleeps in a closed one.

        photo, moving, company, own: of the visit; joined_own: changed when a network joins them; tabs: the methods' tabs by
        name.
        """
        self.timer, self.brought = gr.Timer(TICK, active=False), gr.State([])
        self.timer.elem_id = "lab-clock"
        # What the page shows. The page keeps it: answers may come in another order than the server gave them, and only what
        # arrived last stands there.
        self.seen, self.asleep = (gr.Textbox(visible="hidden", elem_id=f"lab-{name}") for name in ("seen", "asleep"))
        self.goto = gr.Textbox(visible="hidden", elem_id="lab-goto")
        self.zip = gr.DownloadButton(visible="hidden", elem_id="lab-zip")
        told = [self.method, self.data, self.seconds, self.begin, self.size, self.brought]

        def choose(method, data, *rest):
            """Another method has other data and knobs."""
            sources = visits.sources(all_tasks()[method].card)
            data = data if data in [key for _, key in sources] else EXAMPLE
            rows = [gr.update(visible=name == method) for name in self.rows]
            return [gr.update(choices=sources, value=data), *rows, *planned(method, data, *rest)]

        def planned(method, data, seconds, begin, size, brought):
            """What Start would do now."""
            text = visits.sentence(method, data, seconds or 0, begin, size, brought)
            return [drawing.plan_html(text, all_tasks()[method].card), gr.update(visible=data == PHOTOS),
                    gr.update(interactive=begin == SCRATCH)]

        def look_before(photo, method, begin, request: gr.Request):
            if visits.lab().runs(request.session_hash):
                return gr.skip()
            return self.before(photo, method, begin, AND_THEN)

        self.method.input(choose, told, [self.data, *self.rows.values(), self.plan, self.photos_row, self.size], **QUICK)
        gr.on([one.input for one in (self.data, self.seconds, self.begin, self.size)], planned, told,
              [self.plan, self.photos_row, self.size], **QUICK)
        gr.on([self.method.input, self.begin.input], look_before, [photo, self.method, self.begin], self.panels, **QUICK)
        gr.on([self.which.input, self.what.input, self.over.input], self.answer, [photo, *self.inputs], self.shown, **QUICK)
        self.take_photos(told, planned)
        self.run_it(demo, photo, moving, company)
        self.keep_it(own, joined_own, tabs)
        lab_api.offer(photo, moving, company)

    def take_photos(self, told: list, planned) -> None:
        """Photos to learn from join and leave; the sentence counts them."""
        def taken(payload, brought, *values) -> list:
            brought = [] if payload is None else self.add.join(payload, brought, visits.MOST_PHOTOS)
            return [None, brought, self.photos_html(brought), planned(*values[:-1], brought)[0]]

        news, shown = [self.add, self.brought, *told], [self.add, self.brought, self.joined, self.plan]
        self.add.upload(taken, news, shown, **{**QUICK, "queue": True, "concurrency_id": "news", "trigger_mode": "multiple"})
        self.clear.click(lambda _, *values: taken(None, *values), news, shown, **QUICK)

    def run_it(self, demo, photo, moving, company) -> None:
        """Start, pause, one step, stop; the clock; and the same for programs."""
        knobs = {(name, knob): one for name, known in self.knobs.items() for knob, one in known.items()}
        asked = [self.method, self.data, self.seconds, self.begin, self.size, self.called, self.what, self.over]

        def start(request: gr.Request, values: dict) -> Iterator[dict]:
            """A run begins; sets that must be fetched first take a while."""
            if any(run.view().state not in OVER for run in visits.lab().runs(request.session_hash)):
                raise toasts.error(later("One training of yours is going already; stop it, or wait for its end."))
            yield {self.status: drawing.status_html(None, say("Getting ready…")), self.go: gr.update(interactive=False)}
            name = values[self.method]
            try:
                run = visits.start(
                    request.session_hash, name, values[self.data], seconds=values[self.seconds], size=values[self.size],
                    start_from=values[self.begin], called=values[self.called], seed=0, photo=values[photo], moving=values[moving],
                    knobs={knob: values[one] for (task, knob), one in knobs.items() if task == name},
                    brought=values[self.brought], company=values[company])  # fmt: skip
            except ValueError as mistake:
                toasts.warn(mistake)
                yield {self.go: gr.update(interactive=True), **self.draw(request.session_hash, None, "loss", "steps")}
                return
            yield {self.called: "", **self.draw(request.session_hash, run.id, values[self.what], values[self.over])}

        self.go.click(start, {*asked, photo, moving, company, self.brought, *knobs.values()}, [self.called, *self.shown],
                      show_progress="hidden", api_visibility="private", trigger_mode="once", **AT_ONCE)

        def look(request: gr.Request, open_now, which, what, over, seen) -> dict:
            """A tick of the clock. In a closed room it stops; whoever opens the room starts it again."""
            if open_now != self.name:
                return self.sleep(f"nothing, at {time.monotonic()}")  # each time another
            return self.draw(request.session_hash, which, what, over, seen)

        open_now, seen = gr.Textbox(visible="hidden"), [self.which, self.what, self.over, self.seen]
        self.timer.tick(look, [open_now, *seen], self.shown, js="(_, ...seen) => [window.place?.now(), ...seen]", **LIVELY)
        self.asleep.change(None, [self.asleep, self.seen], None, js=AWAKE, api_visibility="private")

        def stop(run: live.Run) -> None:
            run.stop()
            run.wait(PROMISE)

        def tell(action):
            def told(request: gr.Request, which, what, over, seen) -> dict:
                run = visits.find(request.session_hash, which)
                if run is not None:
                    action(run)
                return self.draw(request.session_hash, which, what, over, seen)
            return told

        self.hold.click(tell(lambda run: run.resume() if run.view().state == "paused" else run.pause()), seen, self.shown,
                        **QUICK)
        self.step.click(tell(lambda run: run.one_step()), seen, self.shown, **{**QUICK, "trigger_mode": "multiple"})
        self.end.click(tell(stop), seen, self.shown, **QUICK)

        def gone(request: gr.Request) -> None:
            """Others need the place of a training at once; the rest is deleted by `leaving`, unless the page comes back soon."""
            if not leaving.guests.is_anew(request.session_hash):
                visits.stop(request.session_hash)

        demo.unload(gone)

    def keep_it(self, own: gr.State, joined_own: gr.Textbox, tabs: dict) -> None:
        """Weights to the method's tab, to the visitor's disk, and from it."""
        networks = {name: tab.network for name, tab in tabs.items()}

        def joined(owner: str, task: str, name: str, path, known: dict) -> dict:
            known, name = visits.join(known or {}, task, name, visits.shelf().keep(owner, path))
            toasts.inform(say("“{name}” is now a network of {method}, and an encoder in Transfer and Teach it.", name=name,
                              method=say(all_tasks()[task].card.title)))
            return {own: known, joined_own: uuid.uuid4().hex, self.goto: task,
                    networks[task]: gr.update(choices=tabs[task].networks(known), value=name)}

        def use(request: gr.Request, which, known) -> dict:
            with toasts.told():
                view = visits.known(request.session_hash, which or "").view()
                if view.weights is None:
                    raise ValueError(f"{view.name} has no weights yet; stop it, or wait for its end.")
                return joined(request.session_hash, view.task_name, view.name, view.weights, known)

        def bring(request: gr.Request, payload, known) -> dict:
            with toasts.told():
                if not payload:
                    raise ValueError("No file arrived; please upload it again.")
                file = FileData(**payload) if isinstance(payload, dict) else payload
                task, path = live.accept(uploaded(file.path, self.bring.GRADIO_CACHE, "file"))
                name = (file.orig_name or path.name).removesuffix(".safetensors")[:36]
                return joined(request.session_hash, task, name, path, known)

        def pack(request: gr.Request, which) -> str:
            with toasts.told():
                name, made = visits.packed(visits.known(request.session_hash, which or "").view())
            return save_bytes_to_cache(made, name, self.zip.GRADIO_CACHE)

        changed = [own, joined_own, self.goto, *networks.values()]
        used = self.use.click(use, [self.which, own], changed, **QUICK)
        brought = self.bring.upload(bring, [self.bring, own], changed, preprocess=False,
                                    **{**QUICK, "queue": True, "concurrency_id": "news"})
        for event in (used, brought):
            event.success(None, self.goto, None, js=links.OPEN_METHOD, api_visibility="private")
        packed = self.download.click(pack, self.which, self.zip, **QUICK)
        packed.success(None, None, None, js=FETCH, api_visibility="private")


# Where the clock stopped though the page shows something else, or the room is open again, the room answers anew.
AWAKE = "(shown, seen) => { if (shown !== seen && window.place?.now() === 'lab') window.place.again(); }"
FETCH = "() => setTimeout(() => document.querySelector('a#lab-zip, #lab-zip a, #lab-zip').click(), 250)"

"""What an address opens, and what stands in it: a method's state, a room, or a lecture that moves from state to state."""

import html
import itertools
import json
from urllib.parse import parse_qsl, urlencode

import gradio as gr

from ..examples import EXAMPLES, name_of
from ..pretext import all_tasks
from ..texts import say
from . import lectures, links, toasts
from .lecture_script import SCRIPT
from .task_tab import QUICK

# Through the queue, which carries toasts; of several moves in quick succession only the last one counts.
MOVE = {"show_progress": "hidden", "api_visibility": "private", "concurrency_id": "news", "concurrency_limit": 4,
        "trigger_mode": "always_last"}
ROOM = "room"
IDEA = say("Hide something in a photo, predict it back, keep the encoder.")
LARGE = f'aria-label="{say("Large type")}" title="{say("For the back row")}"'
HEADER = f"""<header><h1>{say("Learning without labels")}</h1><p>{IDEA}</p>
<button type="button" id="large-type" aria-pressed="false" {LARGE}><span>Aa</span>
<span>{say("Large type")}</span></button></header>"""
NEEDS = say("One link a line, as “Copy link” gives it; a title may stand before it.")
PLACEHOLDER = say("The cat, half hidden: https://…?task=mae&photo=chelsea&mask_ratio=50")


class Address:
    """The page's head, what it hears of addresses, and the lecture's footer. Made first on the page."""

    def __init__(self):
        gr.HTML(HEADER)
        self.lecture = gr.HTML(js_on_load=SCRIPT, elem_id="lecture")
        # The link of the state that a lecture moves to: a box for every task, since what an event may change costs the browser
        # time even where it does not, and there are ninety controls; and one for the rooms.
        self.asked = {name: gr.Textbox(visible="hidden", elem_id=f"asked-{name}") for name in (ROOM, *all_tasks())}
        self.photo = gr.Textbox(EXAMPLES[0].name, visible="hidden", elem_id="photo-name")  # the example's that is shown, if any
        self.photo.change(None, self.photo, None, js="(name) => { window.place?.photo(name); }", api_visibility="private")
        self._count = itertools.count()
        # The tab to open, by name, and a number that makes each time a change. The browser opens it: were the tabs an output of
        # an event, Gradio's page would copy the settings of all that lies in them, at every change of any event's state.
        self.goes = gr.Textbox(visible="hidden", elem_id="goes")
        self.goes.change(None, self.goes, None, js="(to) => { window.place?.open(to.split(' ')[0]); }", api_visibility="private")
        # What tells the browser that what is open must answer anew; and a box for every tab, and room, by which it asks for that.
        self.hears = gr.Textbox(visible="hidden", elem_id="hears")
        self.hears.change(None, None, None, js="() => { window.place?.again(); }", api_visibility="private")
        self.again = {name: gr.Textbox(visible="hidden", elem_id=f"again-{name}") for name in (*links.ROOMS, *all_tasks())}

    def dialog(self) -> None:
        """Where a teacher makes a lecture of links, and finds those that the host keeps."""
        with gr.Accordion(say("Lecture"), open=False, elem_id="lecture-maker"):
            kept = ", ".join(f'<a href="?lecture={name}">{html.escape(name)}</a>' for name in lectures.names())
            here = say("Here: {lectures}.", lectures=kept) if kept else ""
            gr.HTML(f"<p class='note'>{say('Prepared states, and arrow keys between them.')} {here}</p>")
            lines = gr.Textbox(lines=4, max_lines=8, label=say("Your own"), info=NEEDS, placeholder=PLACEHOLDER,
                               elem_id="lecture-lines")
            make = gr.Button(say("Make one link"), size="sm", elem_id="lecture-make")
            made = gr.HTML(elem_id="lecture-made")
        make.click(made_html, lines, made, **QUICK)

    def opened(self, room: str) -> str:
        """The script for a room that was opened: writes it into the address."""
        return f"() => {{ window.place?.room('{room}'); }}"

    def listen(self, demo: gr.Blocks, parts: dict, rooms: dict) -> None:
        """Connects the page: opening an address, and moving in a lecture."""
        tabs, photo, moving = parts["tabs"], parts["photo"], parts["moving"]

        def lead(place: links.Place, request: gr.Request) -> dict:
            """What a place changes on the page. Controls that it does not name go back to where they stood at first."""
            name = place.photo or EXAMPLES[0].name
            picture = next(example.image for example in EXAMPLES if example.name == name)
            changes = {photo: picture, moving: picture, parts["upload"]: picture, self.photo: name,
                       **self.opens(place.room or place.task)}
            if place.room:
                settings = getattr(rooms[place.room], "settings", {})
                values = {component: place.controls.get(name, component.value) for name, component in settings.items()}
                return {**changes, **values}
            tab = tabs[place.task]
            controls = {component: place.controls.get(name, component.value) for name, component in tab.controls.items()}
            changes |= {tab.seed: place.seed, tab.network: place.network or tab.network.value, **controls}
            if not tab.is_long:
                values = {component: component.value for component in tab.inputs} | changes
                changes[tab.story] = tab.bring(request, picture, *(values[component] for component in tab.inputs))
            return changes

        def follow_address(request: gr.Request) -> str:
            """What stands in the address: a lecture, or a state to move to. What leads nowhere is named, and the page opens as
            ever.
            """
            parameters = dict(request.query_params)
            try:
                if "lecture" in parameters:
                    value = parameters["lecture"]
                    states = lectures.open_lecture(value)
                    at = parameters.get("at", "1")
                    at = min(max(int(at) if at.isascii() and at.isdigit() and len(at) < 9 else 1, 1), len(states)) - 1
                    return lecture_html(value, states, at)
                if links.read(parameters):
                    return f'<i data-link="{html.escape("?" + urlencode(parameters))}"></i>'
            except ValueError as error:
                toasts.warn(error)
            return "<i></i>"

        def move(request: gr.Request, asked: str) -> dict:
            """The state that an address, or a lecture, leads to."""
            query = asked.partition("#")[0].partition("?")[2]
            try:
                place = links.read(dict(parse_qsl(query, keep_blank_values=True)))
            except ValueError as error:
                toasts.warn(error)
                place = None
            return lead(place, request) if place else self.opens("")

        everywhere = [self.photo, photo, moving, parts["upload"]]  # and `goes` last: who opens a tab must find all else changed
        demo.load(follow_address, None, self.lecture, **MOVE)
        for name, tab in tabs.items():
            changed = [tab.seed, tab.network, *tab.controls.values(), tab.story]
            self.asked[name].change(move, self.asked[name], [*everywhere, *changed, self.goes], **MOVE)
        settings = [one for room in rooms.values() for one in getattr(room, "settings", {}).values()]
        self.asked[ROOM].change(move, self.asked[ROOM], [*everywhere, *settings, self.goes], **MOVE)

    def opens(self, name: str) -> dict:
        """What makes the browser open a tab, or go on where an answer opens none."""
        return {self.goes: f"{name} {next(self._count)}"}

    def tells(self) -> dict:
        """What makes the browser ask what is open for a new answer."""
        return {self.hears: str(next(self._count))}

    def of(self, picture) -> dict:
        """What a new photo changes here: an example's name stands in the address, an own photo never does."""
        return {self.photo: name_of(picture) or ""}


def lecture_html(name: str, states: list[lectures.State], at: int) -> str:
    """The footer of a lecture that stands at a state, and all its states for the page's script."""
    told = html.escape(json.dumps([[state.title, state.link] for state in states]))
    return (f'<nav class="lecture-foot" aria-label="{say("Lecture")}" data-name="{html.escape(name)}" data-at="{at}" '
            f'data-states="{told}">'
            f'<button type="button" data-move="-1" aria-label="{say("Previous state")}">‹</button><span role="status"></span>'
            f'<button type="button" data-move="1" aria-label="{say("Next state")}">›</button>'
            f'<button type="button" data-move="0" aria-label="{say("Leave the lecture (Esc)")}" title="Esc">×</button></nav>')


def made_html(text: str) -> str:
    """The one link that pasted lines make, or one sentence about what is wrong with them."""
    try:
        states = lectures.pasted(text or "")
        link = f"?lecture={lectures.pack(states)}"
    except ValueError as error:
        return f'<p class="note bad" role="alert">{html.escape(say(str(error)))}</p>'
    count = say("1 state, all in this link:" if len(states) == 1 else "{count} states, all in this link:", count=len(states))
    return (f'<p class="note" role="status">{count} <a href="{link}" target="_blank">{say("open")}</a> '
            f'<button type="button" class="copy-lecture" data-link="{link}">{say("Copy link")}</button></p>')

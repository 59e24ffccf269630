"""What is on a tab as the query of an address, and back: the task, the example by its name, the seed, the network, the controls.
Or `?room=NAME`, the example, and what is set in that room.

Only what differs from the tab's beginning is written, so that links are short. An uploaded photo never enters one.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from .. import live_transfer
from ..checkpoints import UNTRAINED
from ..examples import EXAMPLES, name_of
from ..inference import parse_seed
from ..pretext import PretextTask, all_tasks, parse_controls

TRAINED = "trained"
FIXED = ("task", "room", "photo", "seed", "network")  # what is no control
SETTINGS = {"transfer": live_transfer.controls}
ROOMS = {"overview": "Overview", "transfer": "Transfer", "teach": "Teach it", "lab": "Training lab"}


@dataclass(frozen=True)
class Place:
    """What a link leads to: a task, or a room; `controls` are those of it that the link names, parsed."""

    task: str
    photo: str
    seed: int = 0
    network: str = ""  # "untrained", or nothing
    controls: dict[str, Any] = field(default_factory=dict)
    room: str = ""


def changed(task: type[PretextTask], controls: dict[str, Any]) -> dict[str, Any]:
    """The controls that do not stand where they stood at first, with their values."""
    defaults = parse_controls(task, {})
    return {name: value for name, value in parse_controls(task, controls).items() if value != defaults[name]}


def query(task: type[PretextTask], photo, seed: int | None, network: str | None, controls: dict[str, Any]) -> str:
    """Such as "?task=mae&photo=coffee&mask_ratio=50". Without a photo where it is none of the examples."""
    named = {"task": task.card.name, "photo": name_of(photo) or "", "seed": seed or 0,
             "network": UNTRAINED if network == UNTRAINED else ""}
    turned = changed(task, controls)
    return "?" + urlencode({name: value for name, value in {**named, **turned}.items() if value or name in turned})


def calls(task: type[PretextTask], seed: int | None, network: str | None, controls: dict[str, Any]) -> dict[str, str]:
    """The same run as a person may type it elsewhere: on the command line, in Python, over HTTP.

    Of a visitor's own network only they have the file, `FILE.safetensors` as the Training lab gave it; HTTP takes none.
    """
    name, turned = task.card.name, changed(task, controls)
    weights = {None: "", TRAINED: "", UNTRAINED: UNTRAINED}.get(network, "FILE.safetensors")
    file = "clip.mp4" if task.card.input == "video" else "photo.jpg"
    shell = [f"--seed {seed}"] * bool(seed) + [f"--weights {weights}"] * bool(weights)
    shell += ["--set " + " ".join(shlex.quote(f"{key}={value}") for key, value in turned.items())] * bool(turned)
    keys = ([f"seed={seed}"] if seed else []) + [f"{key}={value!r}" for key, value in turned.items()]
    load = ", ".join(repr(part) for part in [name, weights] if part)
    over = [f'file=handle_file("{file}")'] + [f'network="{weights}"'] * bool(weights) + keys + [f'api_name="/{name}"']
    http = {"HTTP": f"Client(ADDRESS).predict({', '.join(over)})"} if weights in ("", UNTRAINED) else {}
    return {"Command line": " ".join(["python -m ssl_demo run", name, file, *shell, "--out out"]),
            "Python": f"ssl_demo.load({load}).run({', '.join([repr(file), *keys])})", **http}


def read(parameters: Mapping[str, str]) -> Place | None:
    """Where the parameters of an address lead; None where they name no task and no room. What belongs to somebody else is left
    alone.

    Raises ValueError with one sentence for a task, a room, a photo or a value that is not there.
    """
    name, room, photo = (parameters.get(key, "") for key in ("task", "room", "photo"))
    if not name and not room:
        return None
    if name and name not in all_tasks():
        raise ValueError(f"This link leads to “{name}”, which is none of the methods here.")
    if not name and room not in ROOMS:
        raise ValueError(f"This link leads to “{room}”, which is none of the rooms here.")
    if photo and photo not in [example.name for example in EXAMPLES]:
        raise ValueError(f"This link names the photo “{photo}”, which is none of the examples.")
    if not name:
        return Place("", photo, controls=settings_of(room, parameters), room=room)
    task = all_tasks()[name]
    known = {control.name for control in task.controls}
    named = {key: value for key, value in parameters.items() if key in known and key not in FIXED}
    values = parse_controls(task, named)
    network = UNTRAINED if parameters.get("network") == UNTRAINED else ""
    return Place(name, photo, parse_seed(parameters.get("seed")), network, {key: values[key] for key in named})


def settings_of(room: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """What a link sets of a room's own. Raises ValueError for a value that is not there."""
    known = SETTINGS[room]() if room in SETTINGS else ()
    return {control.name: control.parse(parameters[control.name]) for control in known if control.name in parameters}


# Opens a method's tab as a visitor would, so that all that listens to it hears of it. The tabs of methods come to the page when
# their room is first opened, and then begin with one of their own choice, which nobody need see: hence several tries, until a
# person, or something else, chooses a tab.
OPEN_METHOD = """(name) => {
  const root = document.documentElement;
  window.openMethod = window.wanted = name;
  root.classList.add('opening');
  document.querySelector('#room-methods-button').click();
  const open = (tries, stood) => {
    const tab = document.querySelector(`#tab-${name}-button`), stands = tab?.getAttribute('aria-selected') === 'true';
    const isOver = window.wanted !== name || (stands && stood) || !tries;
    if (stands || isOver) root.classList.remove('opening');
    if (isOver) return;
    if (tab && !stands) tab.click();
    setTimeout(open, 60, tries - 1, stands);
  };
  open(100, false);
}"""

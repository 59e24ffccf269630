"""The walk through a method: what a student is told step by step, the symbols of its loss, and its shortcut let open.

The texts are data, one file a task, `walks/<task>.yaml`, for a teacher to change; a task without such a file has no walk:

    steps: four to six, each with a `title`, a `text` of two or three short sentences, `shows`, the panels it speaks of, and
        where its text is untrue while the shortcut is open, `cheating`, what is said then
    symbols: of the equation in the task's docstring, each with `symbol` (LaTeX), `says` (one line), and `shows`
    cheat: `text`, what to watch or why nothing can be shown; and where the shortcut can be opened here, `controls` that do it,
        `shows`, and `measured`, a sentence with the figures of shortcuts.json. `train`: settings of a training that open it,
        and `trained`, a sentence with the figures of networks that learned with and without them

In braces stand the numbers of the very run: {loss} is a figure as the page shows it, {loss.help} what it compares with,
{loss.value:.0f} the plain number; {shape.visible[1]} a side of a tensor of the example or the prediction; {config.patch} a
setting of the network; {control.mask_ratio} where a control stands. `measured` knows {guarded.METRIC}, {cheating.METRIC} and
{photos}; `trained` {plain.METRIC}, {guarded.METRIC}, {cheating.METRIC} and {minutes}.
"""

import functools
import inspect
import json
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from .checkpoints import bundled
from .inference import Result
from .pretext import Number, PretextTask, parse_controls

WALKS, SHORTCUTS = Path(__file__).with_name("walks"), Path(__file__).with_name("shortcuts.json")


@dataclass(frozen=True)
class Step:
    """One stop of a walk; `shows` are names of panels."""

    title: str
    text: str
    shows: tuple[str, ...] = ()
    cheating: str = ""


@dataclass(frozen=True)
class Symbol:
    """A symbol of the loss, as LaTeX, what it is, and the panels on which it is seen."""

    symbol: str
    says: str
    shows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cheat:
    """How the shortcut is let open: controls of the tab, settings of a training, both, or neither and `text` says why."""

    text: str
    controls: dict[str, Any]
    shows: tuple[str, ...] = ()
    measured: str = ""
    train: dict[str, Any] | None = None
    trained: str = ""


@dataclass(frozen=True)
class Walk:
    """What a task's file holds."""

    steps: tuple[Step, ...]
    symbols: tuple[Symbol, ...]
    cheat: Cheat


@functools.lru_cache(maxsize=64)
def read(name: str) -> Walk | None:
    """The walk of a task; None where it has no file. Raises ValueError with one sentence for a file that is not one."""
    path = WALKS / f"{name}.yaml"
    if not path.exists():
        return None
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Walk(tuple(_made(Step, one) for one in data["steps"]), tuple(_made(Symbol, one) for one in data["symbols"]),
                    _made(Cheat, {"controls": {}, **data["cheat"]}))
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is no walk: {str(error).splitlines()[0]}.") from None


def _made(kind: type, data: dict):
    """A part of a walk from what stands in the file, with lists as tuples and texts in one line."""
    unknown = set(data) - {field.name for field in fields(kind)}
    if unknown:
        raise TypeError(f"a {kind.__name__.lower()} has no “{sorted(unknown)[0]}”")
    tidy = {list: tuple, str: lambda text: " ".join(text.split())}
    return kind(**{key: tidy.get(type(value), lambda same: same)(value) for key, value in data.items()})


def equation(task: type[PretextTask]) -> str:
    """The loss, the first displayed formula of the docstring of the task's file, as LaTeX in one line."""
    found = re.search(r"\$\$(.*?)\$\$", inspect.getmodule(task).__doc__ or "", re.DOTALL)
    return " ".join(found[1].split()) if found else ""


class _Figure:
    """A figure inside a text: by itself as a person reads it, and its parts by name."""

    def __init__(self, number: Number):
        self.value, self.help, self.label = number.value, number.help, number.label
        self._text = number.text or ("–" if number.value is None else f"{number.value:g}")

    def __format__(self, form: str) -> str:
        assert not form, "a figure is shown as it is; its plain number is .value"
        return self._text


def fill(text: str, result: Result) -> tuple[str, list[str]]:
    """A text with the numbers of a run, and the labels of the figures that it tells and that stand on the page."""
    spaces = {"shape": SimpleNamespace(**result.shapes), "config": SimpleNamespace(**result.config),
              "control": SimpleNamespace(**result.controls)}
    figures = {name: _Figure(number) for name, number in result.figures.items()}
    names = [re.split(r"[.\[]", name)[0] for _, name, _, _ in string.Formatter().parse(text) if name]
    told = [result.figures[name].label for name in names if name in figures and result.figures[name].text]
    return text.format(**figures, **spaces), list(dict.fromkeys(told))


def told(walk: Walk, task: type[PretextTask], result: Result) -> dict:
    """The walk with the numbers of a run: plain texts, and what each lights up, for the page's script."""
    def part(text: str, shows: tuple[str, ...]) -> dict:
        text, figures = fill(text, result)
        return {"text": text, "panels": shows, "figures": figures}

    cheat, cheating = part(walk.cheat.text, walk.cheat.shows), is_open(walk, task, result.controls)
    cheat["text"] = " ".join(filter(None, [cheat["text"], *figures_of(task, walk)]))
    return {"steps": [{"title": step.title, **part(cheating and step.cheating or step.text, step.shows)} for step in walk.steps],
            "symbols": [part(symbol.says, symbol.shows) for symbol in walk.symbols],
            "cheat": {**cheat, "can": bool(walk.cheat.controls), "on": cheating,
                      "now": {name: result.controls[name] for name in walk.cheat.controls}}}


def settings(walk: Walk, task: type[PretextTask], cheating: bool, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of the controls that open the shortcut; or, cheating no more, those of before, and of training where none are
    told. Raises ValueError for values that a control cannot have.
    """
    names = walk.cheat.controls
    values = parse_controls(task, names if cheating else {name: before[name] for name in names if name in (before or {})})
    return {name: values[name] for name in names}


def is_open(walk: Walk, task: type[PretextTask], controls: dict[str, Any]) -> bool:
    """Whether controls stand where the shortcut is open."""
    return bool(walk.cheat.controls) and all(controls[name] == value for name, value in settings(walk, task, True).items())


def figures_of(task: type[PretextTask], walk: Walk) -> list[str]:
    """What cheating was measured to do to the score, in sentences; none for weights or settings that were not measured."""
    table = json.loads(SHORTCUTS.read_text(encoding="utf-8")) if SHORTCUTS.exists() else {"tasks": {}}
    entry, weights = table["tasks"].get(task.card.name, {}), next(iter(bundled(task.card.name).values()), {})
    found = []
    current = entry and entry["sha256"] == weights.get("sha256") and entry["controls"] == settings(walk, task, True)
    if walk.cheat.measured and current:
        found.append(walk.cheat.measured.format(guarded=SimpleNamespace(**entry["guarded"]), photos=entry["photos"],
                                                cheating=SimpleNamespace(**entry["cheating"])))
    learned = entry.get("trained", {})
    if walk.cheat.trained and learned.get("settings") == walk.cheat.train:
        runs = {name: SimpleNamespace(**learned[name]) for name in ("plain", "guarded", "cheating")}
        found.append(walk.cheat.trained.format(minutes=f"{learned['minutes']:g}", **runs))
    return found

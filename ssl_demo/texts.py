"""What the page says, in the language of its host: `SSL_DEMO_LANGUAGE=de python app.py` reads `languages/de.yaml`.

The code stays in English, and so do the command line, the API, weights and addresses. What reaches a visitor goes through
`say`, or, where a task made it, through `spoken`; both leave English as it is. A language is one file, a copy of
`languages/en.yaml` with the right sides translated; `python benchmarks/texts.py --write` collects all texts in that one.

A text with numbers in it is looked up without them: “{0} of {1} right.” for “3 of 8 right.” Where other words vary, there is a
named place for them, as in “Yours: {name}”, and what stands there is looked up by itself. A translation may change the order.
"""

import functools
import json
import os
import re
import string
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

LANGUAGES = Path(__file__).with_name("languages")
ENGLISH = "en"
NUMBER = re.compile(r"#[0-9a-f]{6}\b|(?<![A-Za-z_\d.,])[-+−]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")
MADE = "sentences"  # the group of texts whose words vary when they come here to be said: named places stand for any
NARROW = "\N{NO-BREAK SPACE}"  # parts thousands, where a comma would be read as a decimal one


class Table(dict):
    """Translations by the English text, and patterns for texts with varying words in them."""

    def __init__(self, groups: dict[str, dict[str, str]] = {}):  # noqa: B006
        super().__init__({key: value for group in groups.values() for key, value in group.items()})
        keys = [key for key in groups.get(MADE, {}) if re.search(r"\{[a-z_]", key)]
        keys.sort(key=lambda key: -len(re.sub(r"\{[^}]*\}", "", key)))  # the one that leaves least to its places comes first
        self.patterns = [(re.compile(pattern_of(key), re.DOTALL), self[key]) for key in keys]


def pattern_of(key: str) -> str:
    """A regular expression for all texts that a template makes, with its places as groups."""
    seen, found = set(), ""
    for literal, name, _, _ in string.Formatter().parse(key):
        found += re.escape(literal)
        if name is not None:
            found += f"(?P=_{name})" if name in seen else f"(?P<_{name}>.+?)"
            seen.add(name)
    return rf"\A{found}\Z"


def languages() -> list[str]:
    """The languages that there are, by the names of their files."""
    return sorted(path.stem for path in LANGUAGES.glob("*.yaml"))


def groups(language: str) -> dict[str, dict[str, str]]:
    """A language's file: by where they stand, English texts and what they are in it. Raises ValueError where it is none."""
    if language not in languages():
        raise ValueError(f"SSL_DEMO_LANGUAGE is “{language}”, but there are only {', '.join(languages())}.")
    try:
        text = (LANGUAGES / f"{language}.yaml").read_text(encoding="utf-8")
        found = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        assert all(isinstance(one, str) for group in found.values() for pair in group.items() for one in pair)
        return found
    except (yaml.YAMLError, AttributeError, AssertionError, UnicodeDecodeError):
        raise ValueError(f"languages/{language}.yaml must hold groups of texts, each with its translation.") from None


def language() -> str:
    """The host's choice."""
    return os.environ.get("SSL_DEMO_LANGUAGE") or ENGLISH


@functools.cache
def table() -> Table:
    """The host's language, read once; empty for English. Raises ValueError for one that is not there."""
    found = groups(language())
    return Table() if language() == ENGLISH else Table(found)


def say(text: str, **parts: Any) -> str:
    """A text in the host's language, with `parts` in its places. What is not in the language's file stays English."""
    if not table():
        return text.format(**parts) if parts else text
    said = table().get(text, text).format(**parts) if parts else _found(text)
    return re.sub(r"(?<=\d),(?=\d{3})", NARROW, said) if "," in said else said


@functools.lru_cache(maxsize=8192)
def _found(text: str) -> str:
    """A text as it stands in the file; else by its form without numbers, or by the pattern that it fits; else in its parts."""
    known = table()
    if text in known or not re.search(r"[^\W\d_]", text):
        return known.get(text, text)
    if (form := form_of(text)) in known:
        return known[form].format(*NUMBER.findall(text))
    for pattern, value in known.patterns:
        if fits := pattern.match(text):
            return re.sub(r"\{([^}:!.]+)[^}]*\}", lambda place: _found(fits[f"_{place[1]}"]), value)
    return ": ".join(map(_found, text.split(": ", 1))) if ": " in text else text


def form_of(text: str) -> str:
    """A text with a numbered place for each of its numbers: “{0} of {1} right.”"""
    count = iter(range(10_000))
    return NUMBER.sub(lambda _: f"{{{next(count)}}}", text)


def later(text: str) -> str:
    """The text as it is: it is said where it is shown, and this call lets it be found among the texts."""
    return text


def in_script(script: str) -> str:
    """A script of the page whose own texts stand in `say('…')`, which is replaced by the text in the host's language."""
    return IN_SCRIPT.sub(lambda found: json.dumps(say(found[1]), ensure_ascii=False), script)


IN_SCRIPT = re.compile(r"\bsay\('([^'\n]+)'\)")


def _last(pairs: tuple) -> tuple:
    """Of names that are looked up elsewhere and a text for people, only the text is said."""
    return (*pairs[:-1], say(pairs[-1])) if pairs else pairs


# What people read of the things that tasks are made of, by class: by field, what says it. All else is for programs.
READ: dict[str, dict[str, Any]] = {
    "Card": {**dict.fromkeys(("title", "family", "idea", "shortcut", "metric_label", "untrained_note"), say), "watched": _last,
             "baselines": lambda pairs: tuple(map(_last, pairs)), "also": _last},
    "Control": dict.fromkeys(("label", "help"), say),
    "Panel": {**dict.fromkeys(("title", "caption", "click", "brush"), say),
              **dict.fromkeys(("bars", "matrix", "chart"), lambda one: spoken(one))},
    "Bar": {"label": say}, "Number": dict.fromkeys(("label", "text", "help"), say), "Matrix": {"what": say},
    "Line": {"label": say}, "Choice": {"label": say},
    "Chart": {"x_label": say, "y_label": say, "lines": lambda lines: spoken(lines),
              "level": lambda level: level and (say(level[0]), level[1])},
    "Question": {**dict.fromkeys(("text", "title", "caption", "click"), say), "choices": lambda choices: spoken(choices)},
    "Kept": {**dict.fromkeys(("title", "caption"), say), "bars": lambda bars: spoken(bars)},
    "Answer": dict.fromkeys(("panels", "figures"), lambda one: spoken(one)),
    "Result": dict.fromkeys(("panels", "figures", "question"), lambda one: spoken(one)),
    "Walk": dict.fromkeys(("steps", "symbols", "cheat"), lambda one: spoken(one)),
    "Step": dict.fromkeys(("title", "text", "cheating"), say), "Symbol": {"says": say},
    "Cheat": dict.fromkeys(("text", "measured", "trained"), say),
}  # fmt: skip


def spoken(thing: Any) -> Any:
    """A card, a panel, a whole result in the host's language: the very same thing where that is English."""
    if not table() or thing is None:
        return thing
    if isinstance(thing, (list, tuple)):
        return type(thing)(map(spoken, thing))
    if isinstance(thing, dict):
        return {name: spoken(one) for name, one in thing.items()}
    return replace(thing, **{name: read(getattr(thing, name)) for name, read in READ[type(thing).__name__].items()})


def texts_in(thing: Any) -> Iterator[str]:
    """All texts of a thing that `spoken` would say, in their order."""
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        yield from texts_in(tuple(thing.values()))
    elif isinstance(thing, (list, tuple)):
        for one in thing:
            yield from texts_in(one)
    elif type(thing).__name__ == "Number" and not thing.text:
        return  # for programs only
    elif type(thing).__name__ in READ:
        for name, read in READ[type(thing).__name__].items():
            value = getattr(thing, name)
            if read is _last or name == "baselines":
                pairs = value if name == "baselines" else [value]
                value = [pair[-1] for pair in pairs if pair]
            elif name == "level":
                value = value[:1] if value else None
            yield from texts_in(value)

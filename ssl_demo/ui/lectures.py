"""Lectures: lists of prepared states, each a title and a link, from a small YAML file, from pasted lines, or out of an address.

A file is such a list, and `?lecture=NAME` opens it:

    - title: A cat, three quarters of it hidden
      link: ?task=mae&photo=chelsea&mask_ratio=75

Files lie in `ssl_demo/lectures/`, and where a host says in SSL_DEMO_LECTURES. Pasted lines become one address that carries the
whole list in itself, behind a "~": nothing is kept on the server.
"""

import base64
import json
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

import yaml

from ..pretext import all_tasks
from . import links

SHIPPED = Path(__file__).resolve().parents[1] / "lectures"
PACKED = "~"  # what begins an address's list, and no file's name
MOST_STATES, LONGEST_TITLE = 100, 120
LONGEST = 6000  # letters of an address: all browsers, chats and mails take as many
LARGEST = 2**18  # bytes of a file, or of an unpacked list


@dataclass(frozen=True)
class State:
    """One prepared state: what the footer calls it, and the query that leads there, such as "?task=mae&photo=coffee"."""

    title: str
    link: str


def folders() -> list[Path]:
    """Where lectures lie: the host's first."""
    host = os.environ.get("SSL_DEMO_LECTURES")
    return [Path(host), SHIPPED] if host else [SHIPPED]


def names() -> list[str]:
    """The lectures of this host, by name."""
    return list(dict.fromkeys(path.stem for folder in folders() for path in sorted(folder.glob("*.yaml"))))


def open_lecture(value: str) -> list[State]:
    """What `?lecture=value` means: a name, or a packed list. Raises ValueError with one sentence where it means nothing."""
    if value.startswith(PACKED):
        return unpack(value)
    paths = [folder / f"{value}.yaml" for folder in folders()] if re.fullmatch(r"[\w-]{1,60}", value) else []
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ValueError(f"There is no lecture “{value[:60]}” here; there are: {', '.join(names()) or 'none'}.")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"The lecture “{value}” is too large a file.")
    return read_yaml(path.read_text(encoding="utf-8", errors="replace"), value)


def read_yaml(text: str, name: str) -> list[State]:
    """The states of a file. Raises ValueError with one sentence that names the first bad one."""
    try:
        items = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f": its line {mark.line + 1} is not YAML" if mark else ""
        raise ValueError(f"The lecture “{name}” cannot be read{where}.") from None
    if not isinstance(items, list) or not all(isinstance(item, dict) and isinstance(item.get("link"), str) for item in items):
        raise ValueError(f"The lecture “{name}” must be a list of states, each with a `title` and a `link`.")
    return checked(((f"State {number} of the lecture “{name}”", str(item.get("title") or ""), item["link"])
                    for number, item in enumerate(items, start=1)), f"The lecture “{name}”")


def pasted(text: str) -> list[State]:
    """The states of pasted lines, each a link, with a title before it if one likes. Empty lines are left out.

    Raises ValueError with one sentence that names the first bad line.
    """
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    return checked(((f"Line {number}", " ".join(words[:-1]).rstrip(" :|–-"), words[-1]) for number, words in lines),
                   "A lecture")


def checked(items: Iterable[tuple[str, str, str]], who: str) -> list[State]:
    """States of (where it stands, title, link). Raises ValueError that begins with where the first bad link stands."""
    states = []
    for where, title, link in items:
        query = link.strip().partition("#")[0].partition("?")[2]
        try:
            place = links.read(dict(parse_qsl(query, keep_blank_values=True)))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if place is None:
            raise ValueError(f"{where}: “{link[:60]}” is no link to a method or a room.")
        name = all_tasks()[place.task].card.title if place.task else links.ROOMS[place.room]
        states.append(State(title[:LONGEST_TITLE] or name, f"?{query}"))
    if not 1 <= len(states) <= MOST_STATES:
        raise ValueError(f"{who} has from 1 to {MOST_STATES} states, not {len(states)}.")
    return states


def pack(states: Iterable[State]) -> str:
    """The whole list as the value of an address. Raises ValueError where it is too long for one."""
    told = json.dumps([[state.title, state.link] for state in states], ensure_ascii=False, separators=(",", ":"))
    value = PACKED + base64.urlsafe_b64encode(zlib.compress(told.encode(), 9)).decode().rstrip("=")
    if len(value) > LONGEST:
        raise ValueError("That is too long for one link: leave out some lines, or let the host keep it as a YAML file.")
    return value


def unpack(value: str) -> list[State]:
    """The list of states that `pack` made a value of. Raises ValueError with one sentence for what it did not make."""
    try:
        if len(value) > LONGEST:
            raise ValueError
        packed = value.removeprefix(PACKED)
        told = zlib.decompressobj().decompress(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)), LARGEST)
        items = [(str(title), str(link)) for title, link in json.loads(told)]
    except (ValueError, TypeError, zlib.error, RecursionError):
        raise ValueError("This lecture's link is broken: copy the whole of it.") from None
    return checked(((f"State {number} of this lecture", *item) for number, item in enumerate(items, start=1)), "A lecture")

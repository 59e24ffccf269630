"""All texts of the page in one file, which a language is a copy of.

    python benchmarks/texts.py [--write]

Says which texts ssl_demo/languages/en.yaml lacks and which it has to no purpose; with --write it is written anew. Texts are found
where they stand: those of cards, controls, lessons and walks in their objects; those of panels, figures and questions by running
each task, trained and untrained, on the example photos under many settings; those of the page in the calls of `say`, in Python
and in its scripts; and what a visitor did wrong in the ValueErrors of the package.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import torch  # noqa: E402
import yaml  # noqa: E402

from ssl_demo import images, inference, lab, learned, live, walk  # noqa: E402
from ssl_demo.checkpoints import UNTRAINED, bundled  # noqa: E402
from ssl_demo.examples import EXAMPLES  # noqa: E402
from ssl_demo.pretext import FAMILIES, all_tasks  # noqa: E402
from ssl_demo.texts import ENGLISH, IN_SCRIPT, LANGUAGES, MADE, form_of, groups, texts_in  # noqa: E402
from ssl_demo.ui.task_tab import paragraphs  # noqa: E402
from ssl_demo.video import camera_move  # noqa: E402

PACKAGE = ROOT / "ssl_demo"
SILENT = ("bench.py", "checkpoints.py", "cli.py", "clips.py", "data.py", "distributed.py", "finetuning.py", "labelled.py",
          "learned.py", "streaming.py", "texts.py", "training.py", "transfer.py", "walk.py")  # the command line's
TELLING = ("alarm", "collapse_alarm", "_too_large", "_not_a_picture", "_what_it_is")  # functions that make sentences
TOP = """# Every text of the page by where it stands: on the left what the code says, on the right what is read. Written by
# `python benchmarks/texts.py --write`; to add a language see README.md. {0}, {1} ... are numbers, other
# braces hold what their name says.
"""


def still() -> dict[str, list[str]]:
    """The texts that need no run, by where they stand."""
    hues = dict.fromkeys(name for _, name in lab.HUES)
    kinds = [kind for _, kind in images.DOCUMENTS]
    found = {"families": [*FAMILIES], "examples": [example.title for example in EXAMPLES], MADE: [], "files": kinds,
             "colours": ["grey", *(f"{kind}{name}" for name in hues for kind in ("", "greyish ", "strong "))]}
    for name, task in all_tasks().items():
        knobs = [*task.controls, *live.knobs(name)]
        words = [choice for control in knobs for choice in control.choices if re.search("[a-z]", choice)]
        found[name] = [*texts_in(task.card), *texts_in(knobs), *words]
        found[f"lesson: {name}"] = [*paragraphs(task)]
        found[f"walk: {name}"] = [*texts_in(walk.read(name))]
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name != "texts.py":
            found.setdefault(f"page: {path.stem}", []).extend(calls(tree))
            found[MADE] += made(tree, path.name not in SILENT)
    return found


def calls(tree: ast.AST) -> Iterator[str]:
    """What calls of `say` hold, in code and inside of scripts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and getattr(node.func, "id", "") == "say":
            yield from filter(None, map(template, branches(node.args[0])))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from IN_SCRIPT.findall(node.value)


def made(tree: ast.AST, mistakes: bool) -> Iterator[str]:
    """What is said where it is shown: in calls of `later` and of `steps`, in functions of `TELLING`, and in ValueErrors."""
    for node in ast.walk(tree):
        name = getattr(node.func, "id", "") if isinstance(node, ast.Call) and node.args else ""
        if name in ("later", "steps"):
            yield from filter(None, map(template, branches(node.args[-1 if name == "steps" else 0])))
        elif mistakes and name in ("ValueError", "Refused"):
            text = template(node.args[0])
            if len(re.sub(r"\{[^}]*\}|\W", "", text)) > 3:
                yield text
        elif isinstance(node, ast.FunctionDef) and node.name in TELLING:
            inside = {id(part) for one in ast.walk(node) if isinstance(one, ast.JoinedStr)
                      for part in ast.walk(one) if part is not one}
            for one in ast.walk(node):
                text = template(one) if id(one) not in inside and isinstance(one, (ast.JoinedStr, ast.Constant)) else ""
                if " " in text and text != ast.get_docstring(node, clean=False):
                    yield text


def branches(node: ast.AST) -> list[ast.AST]:
    """What an expression may be: both sides of each `if`."""
    return [*branches(node.body), *branches(node.orelse)] if isinstance(node, ast.IfExp) else [node]


def template(node: ast.AST) -> str:
    """A text or an f-string with a place for each of its expressions, named by what the expression is of."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if not isinstance(node, ast.JoinedStr):
        return ""
    text, names = "", {}
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += part.value
            continue
        what = ast.unparse(part.value)
        words = re.findall(r"[a-z_]+", re.sub(r"\[.*?\]|'[^']*'|\b(?:join|or|None|len|str|repr|min|max)\b", "", what).lower())
        name = words[-1] if words else "it"
        same = [known for known, named in names.items() if named.rstrip("0123456789") == name and known != what]
        names.setdefault(what, name + (str(len(same) + 1) if same else ""))
        text += f"{{{names[what]}}}"
    return text


def run(name: str, thorough: bool = True) -> Iterator[str]:
    """The texts of a task's runs, without their numbers."""
    task = all_tasks()[name]
    settings: list[dict[str, Any]] = [{}]
    for control in task.controls:
        values = {"slider": (control.minimum, control.maximum), "choice": control.choices, "toggle": (True, False),
                  "point": ("30 60",), "brush": ("6 30 30 60 45",), "patches": ("0 5",), "order": ()}[control.kind]
        settings += [{control.name: value} for value in values if value != control.default]
    settings += [{one.name: value for one in task.controls if one.name in ("region", "strokes") for value in
                  (["painted"] if one.name == "region" else ["6 30 30 60 45"])}]
    photos = [example.image for example in EXAMPLES][: None if thorough else 1]
    if task.card.input == "video":
        photos = [camera_move(photo, 6) for photo in photos]
    for weights in (None, UNTRAINED) if bundled(name) and thorough else (UNTRAINED,):
        runner = inference.load(name, weights)
        for number, photo in enumerate(photos):
            for seed, values in enumerate(settings):
                yield from map(form_of, texts_in(runner.run(photo, seed=10 * number + seed, **values)))
    if learned.file_of(name).is_file():
        kept = learned.load(name)
        yield from map(form_of, texts_in(kept.answers))


def bare(text: str) -> str:
    """Without the letter that tells choices apart."""
    return re.sub(r"\A[A-Z]: ", "", text)


def places(text: str) -> list[str]:
    """What stands in a text's braces."""
    return re.findall(r"\{([^}]*)\}", text)


def in_words(text: str) -> bool:
    """Whether there is anything to translate."""
    return bool(re.search(r"[^\W\d_]", re.sub(r"\{[^}]*\}", "", text)))


def collected(thorough: bool = True) -> dict[str, dict[str, str]]:
    """All of `en.yaml`: each text once, where it stands first."""
    found = still()
    for name in all_tasks():
        found[name] += map(bare, run(name, thorough))
    known, parted = set(), {}
    for place, texts in found.items():
        fresh = [text for text in dict.fromkeys(texts) if in_words(text) and text not in known]
        known.update(fresh)
        if fresh:
            parted[place] = {text: text for text in fresh}
    return parted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, path = collected(), LANGUAGES / f"{ENGLISH}.yaml"
    if options.write:
        path.write_text(TOP + yaml.safe_dump(found, allow_unicode=True, sort_keys=False, width=10_000), encoding="utf-8")
        return 0
    wanted, there = ({key for group in each.values() for key in group} for each in (found, groups(ENGLISH)))
    for what, texts in (("lacking", wanted - there), ("to no purpose", there - wanted)):
        for text in sorted(texts):
            print(f"{what}: {text}")
    return int(wanted != there)


if __name__ == "__main__":
    raise SystemExit(main())

"""The table of tasks in README.md, from the cards of the weights and the table of transfer.

    python benchmarks/readme_table.py [--write]

Prints the table; with --write it replaces the one between the marks in README.md.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from ssl_demo.checkpoints import bundled  # noqa: E402
from ssl_demo.pretext import all_tasks  # noqa: E402

MARKED = re.compile(r"(<!-- tasks:.*?-->\n).*?(<!-- /tasks -->)", re.DOTALL)


def known(encoder: str, sha256: str | None = None) -> str:
    """An encoder's kNN accuracy with all labels, or a dash where none of these very weights was measured."""
    rows = json.loads((ROOT / "ssl_demo" / "transfer_table.json").read_text(encoding="utf-8"))["rows"]
    for row in rows:
        asked = row["encoder"] == encoder and row["protocol"] == "knn" and row["labels_per_class"] is None
        if asked and row["of"].get("sha256") == sha256:
            return f"{row['accuracy']:.1%}"
    return "–"


def table() -> str:
    """A line for each task: its paper, what trained it, and its measured score beside chance and an untrained network."""
    head = ("task", "paper", "weights", "trained", "score on what was held out", "guesses without learning", "untrained",
            "in the paper, on other data", "ten classes by kNN", "untrained")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, task in all_tasks().items():
        card = task.card
        paper = f"[{card.authors.split(',')[0]} {card.year}]({card.link})"
        for weights, about in bundled(name).items():
            heldout = about["heldout"]
            size = f"{weights}: {about['params'] / 1e6:.1f} M parameters, {about['bytes'] / 1e6:.1f} MB"
            what = "clips" if card.input == "video" else "photos"
            minutes, seen = (about[key] + about.get("before", {}).get(key, 0) for key in ("minutes", "images_seen"))
            trained = f"{minutes / 60:.1f} core-hours, {seen:,} {what} seen"
            score = f"**{card.show(heldout['score'])}** {card.metric} ({heldout['images']:,} {what})"
            guesses = [f"{label}: {card.show(heldout['metrics'][metric])}" for metric, label in card.baselines]
            chance = ", ".join(guesses) or card.show(heldout["chance"])
            if card.also:
                metric, guess, label = card.also
                score += f"; {label}: **{card.show(heldout['metrics'][metric])}**"
                chance += f"; {card.show(heldout['metrics'][guess])}"
            untrained = card.show(heldout["untrained"])
            classes, before = known(name, about["sha256"]), known(f"{name}:untrained")
            cells = card.title, paper, size, trained, score, chance, untrained, card.paper_score or "–", classes, before
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_table(readme: str) -> str:
    """README's text with the table in its place."""
    assert MARKED.search(readme), "README.md has lost the marks of its table"
    return MARKED.sub(lambda match: match[1] + table() + match[2], readme)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        readme = ROOT / "README.md"
        readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table(), end="")

"""What every encoder is good for once its head is thrown away: accuracies on the benchmark's ten classes, kept as data.

    python benchmarks/transfer_table.py --data ../shared/data/photos [--protocol knn,linear] [--encoders rotation,mae:untrained]
                                        [--labels 10,100,all] [--seeds 3] [--out ssl_demo/transfer_table.json]

Writes one row for each encoder, protocol and number of labels, and keeps every draw of labels as soon as it is measured. What is
there already of the same weights is not measured again: kill it when you like, run parts side by side, ask for more draws later,
and run it once more after weights were added or replaced. Without --encoders: the bundled weights of every task, their
architectures untrained, and pixels. Fine-tuning and the supervised ceiling take hours for all of them: ask for them by name.
Prints the table.
"""

import argparse
import fcntl
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from ssl_demo import transfer  # noqa: E402
from ssl_demo.checkpoints import UNTRAINED, bundled, find, machine, sha256  # noqa: E402
from ssl_demo.labelled import Labelled, load_labelled  # noqa: E402
from ssl_demo.pretext import all_tasks  # noqa: E402
from ssl_demo.training import write_atomically  # noqa: E402

TABLE = Path(__file__).parent.parent / "ssl_demo" / "transfer_table.json"
ABOUT = {"what": "accuracy on the test photos of the benchmark after hearing the labels of its training photos",
         "command": "python benchmarks/transfer_table.py --data ../shared/data/photos"}  # fmt: skip


def everything() -> list[str]:
    """The encoders measured unless others are named."""
    trained = [name for name in all_tasks() if bundled(name)]
    return [*trained, *(f"{name}:{UNTRAINED}" for name in trained), transfer.PIXELS]


def identity(encoder: transfer.Encoder) -> dict:
    """What a row is of: it is measured again when this has changed."""
    if encoder.kind == "trained":
        path = find(encoder.name, None) if encoder.name in all_tasks() else Path(encoder.name)
        path = path if path.is_file() else find(encoder.task.card.name, encoder.name)
        return {"weights": path.stem, "sha256": sha256(path)}
    return {"config": json.loads(json.dumps(getattr(encoder.task, "config", {"size": encoder.task.size})))}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {**ABOUT, "rows": []}


def place(row: dict) -> tuple:
    """Where a row stands in the table, and what there is one row of."""
    return transfer.PROTOCOLS.index(row["protocol"]), row["labels_per_class"] or 10**9, row["encoder"]


def keep(path: Path, row: dict, about: dict) -> None:
    """Puts a row into the table, in place of an older one; several of these programs may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.parent, os.O_RDONLY)  # the folder itself: no file is left behind, and none is deleted while others wait
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        table = read(path)
        rows = sorted([other for other in table["rows"] if place(other) != place(row)] + [row], key=place)
        lines = ",\n".join("    " + json.dumps(entry, ensure_ascii=False) for entry in rows)  # a row a line: diffs can be read
        head = json.dumps({**ABOUT, **about}, ensure_ascii=False, indent=2).rstrip("}\n ")
        text = f'{head},\n  "rows": [\n{lines}\n  ]\n}}\n'
        assert json.loads(text)["rows"] == rows
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    finally:
        os.close(lock)


def rows_to_come(path: Path, new: dict, encoder: transfer.Encoder, data: Labelled, draws: int) -> Iterator[dict]:
    """The row after each draw that it lacks of so many; of what was measured of other weights, nothing stays."""
    old = next((row for row in read(path)["rows"] if place(row) == place(new) and new.items() <= row.items()), {"accuracies": []})
    accuracies = list(old["accuracies"])
    for draw in range(len(accuracies), draws):
        result = transfer.measure(encoder, data, new["protocol"], new["labels_per_class"], 1, draw, new["epochs"])
        accuracies.append(round(result["accuracy"], 4))
        yield {**new, "spread": round(statistics.stdev(accuracies), 4) if draw else None,
               "accuracy": round(statistics.fmean(accuracies), 4), "accuracies": list(accuracies), "features": result["features"],
               "date": time.strftime("%Y-%m-%d")}  # fmt: skip


def shown(table: dict) -> str:
    """The table as Markdown: an encoder a line, per cent, and the spread over the draws."""
    columns = sorted({place(row)[:2] for row in table["rows"]})
    cells = {place(row): row for row in table["rows"]}
    names = [transfer.PROTOCOLS[protocol] + f" {'all' if count == 10**9 else count}" for protocol, count in columns]
    lines = [f"| encoder | {' | '.join(names)} |", "|---" * (1 + len(columns)) + "|"]
    for encoder in dict.fromkeys(row["encoder"] for row in table["rows"]):
        row = [cells.get((*column, encoder), {}) for column in columns]
        texts = [f"{100 * cell['accuracy']:.1f}" if cell else "" for cell in row]
        spreads = [f" ± {100 * cell['spread']:.1f}" if cell.get("spread") else "" for cell in row]
        lines.append(f"| {encoder} | {' | '.join(map(''.join, zip(texts, spreads)))} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--protocol", default="knn,linear")
    parser.add_argument("--encoders", help="by the names that `transfer` knows")
    parser.add_argument("--labels", default="10,100,all", help="a class")
    parser.add_argument("--seeds", type=int, default=3, help="draws of labels, and of untrained networks")
    parser.add_argument("--epochs", type=float, help="of finetune and supervised; default as long as is usual")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    names = options.encoders.split(",") if options.encoders else everything()
    protocols = options.protocol.split(",")
    counts = [None if count == "all" else int(count) for count in options.labels.split(",")]
    counts.sort(key=lambda count: count is not None)  # all first, whose features hold those of the others
    assert set(protocols) <= set(transfer.PROTOCOLS), protocols
    data = load_labelled(options.data)
    about = {"data": Path(options.data).name, "classes": data.classes, "train": len(data.train), "test": len(data.test),
             "machine": machine()}  # fmt: skip
    for name in names:
        encoder = transfer.choose([name])[0]
        for protocol in protocols:
            for count in counts:
                new = {"encoder": name, "kind": encoder.kind, "protocol": protocol, "labels_per_class": count,
                       "epochs": options.epochs, "of": identity(encoder)}  # fmt: skip
                draws = options.seeds if encoder.is_by_chance(protocol, count) else 1
                for row in rows_to_come(options.out, new, encoder, data, draws):
                    keep(options.out, row, about)
                    accuracies = ", ".join(f"{accuracy:.3f}" for accuracy in row["accuracies"])
                    print(f"{name}, {protocol}, {count or 'all'} a class: {accuracies}", file=sys.stderr, flush=True)
    print(shown(read(options.out)))


if __name__ == "__main__":
    main()

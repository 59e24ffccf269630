"""Short trainings of a task that compare recipes at equal time, kept as data.

    python benchmarks/recipes.py TASK --data TRAIN.tar ... --minutes 4 --try "" --try "optimizer=muon lr=0.008" [--start WEIGHTS]
    python benchmarks/recipes.py TASK --cards runs/a.json ... [--labels ../shared/data/photos]
    python benchmarks/recipes.py

Each --try is a list of settings for `train --config`, "" the task's own. A row holds the task's score on the photos that `train`
keeps apart (part of the training split: held-out photos choose nothing), the loss at the end, and the steps that fitted into the
time. --cards takes runs of `train` that there are already. --labels adds kNN accuracy on a part of the benchmark's *training*
photos. Rows go to benchmarks/recipes.json; without a task, the table is printed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from ssl_demo import probes, transfer  # noqa: E402
from ssl_demo.checkpoints import read_card  # noqa: E402
from ssl_demo.labelled import load_labelled  # noqa: E402
from ssl_demo.pretext import all_tasks  # noqa: E402
from ssl_demo.training import write_atomically  # noqa: E402

TABLE = Path(__file__).with_suffix(".json")


def changed(card: dict) -> str:
    """The settings in which a run differs from the defaults of its task's network and of `Recipe`, as `--config` takes them."""
    task = all_tasks()[card["task"]]
    plain = json.loads(json.dumps({**task.defaults, **type(task.recipe)().__dict__}))
    asked = {**card["config"], **card["recipe"]}
    return " ".join(f"{key}={json.dumps(value).replace(' ', '')}" for key, value in asked.items() if plain.get(key) != value)


def row(path: Path, labels) -> dict:
    """What a run came to."""
    card = read_card(path.with_suffix(".safetensors"))
    found = {"task": card["task"], "settings": changed(card), "minutes": card["minutes"], "steps": card["steps"],
             "images_seen": card["images_seen"], "loss": card["curve"][-1]["loss"], "metric": card["metric"],
             "score": card["validation"]["score"], "photos": card["validation"]["images"], "seed": card["seed"],
             "start": card.get("before", {}).get("weights"), "date": card["date"], "machine": card["machine"]}  # fmt: skip
    if labels is not None:
        encoder = transfer.choose([str(path.with_suffix(".safetensors"))])[0].frozen(0)
        train, test = (encoder.features(part) for part in (labels.train, labels.test))
        shares = probes.knn(train, labels.train_labels, test, len(labels.classes))
        found["knn"] = round(float((shares.argmax(dim=1).numpy() == labels.test_labels).mean()), 4)
    return found


def trained(options, settings: str, folder: str) -> Path:
    out = Path(folder) / f"{options.task}.safetensors"
    start = ["--start", options.start] if options.start else []
    config = ["--config", *settings.split()] if settings else []
    subprocess.run([sys.executable, "-m", "ssl_demo", "train", options.task, "--data", *options.data, "--minutes",
                    str(options.minutes), "--threads", "1", "--seed", str(options.seed), "--out", out, *start, *config],
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    return out


def keep(new: dict) -> None:
    rows = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else []
    same = ("task", "settings", "minutes", "start", "seed")
    rows = [old for old in rows if any(old[key] != new[key] for key in same)] + [new]
    rows.sort(key=lambda one: (list(all_tasks()).index(one["task"]), str(one["start"]), round(one["minutes"]), one["settings"]))
    text = "[\n" + ",\n".join("  " + json.dumps(one) for one in rows) + "\n]\n"
    write_atomically(TABLE, lambda path: path.write_text(text, encoding="utf-8"))


def shown() -> str:
    lines = ["| task | settings | begun with | minutes | steps | loss | score | kNN |", "|---" * 8 + "|"]
    for one in json.loads(TABLE.read_text(encoding="utf-8")):
        knn = f"{one['knn']:.1%}" if "knn" in one else ""
        score = all_tasks()[one["task"]].card.show(one["score"])
        lines.append(f"| {one['task']} | {one['settings'] or 'as `Recipe` has it'} | {one['start'] or 'nothing'} | "
                     f"{one['minutes']:.1f} | {one['steps']} | {one['loss']:.3f} | {score} {one['metric']} | {knn} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="?")
    parser.add_argument("--data", nargs="+", default=[])
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--try", action="append", default=[], dest="tries", metavar="SETTINGS")
    parser.add_argument("--start", help="weights to begin with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cards", nargs="+", type=Path, default=[])
    parser.add_argument("--labels", metavar="DIR", help="the photo pack: adds kNN accuracy")
    options = parser.parse_args()
    torch.set_num_threads(1)
    labels = load_labelled(options.labels).inside() if options.labels else None
    for path in options.cards:
        keep(row(path, labels))
    for settings in options.tries:
        with tempfile.TemporaryDirectory() as folder:
            keep(row(trained(options, settings, folder), labels))
    print(shown())


if __name__ == "__main__":
    main()

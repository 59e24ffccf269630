"""What letting a network cheat does to its score: every task with the guards against its shortcut, and without.

    python benchmarks/shortcuts.py --data ../shared/data/photos/train-04.tar [--tasks NAME ...] [--train [MINUTES]]

Asks the bundled networks about 256 photos (`--limit`), 64 at a time, with the controls of training and then with those that
walks/<task>.yaml lets it cheat by; where a task takes clips, a camera moves over an eighth of the photos. Held-out photos are
not for this: they choose and explain nothing. --train also trains two small studies for each task whose walk names settings of a
training: MINUTES of one processor's time on other photos of the same data, without and with those settings. What was measured is
written into ssl_demo/shortcuts.json, from which the page tells it as long as weights and settings are those measured.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))
from ssl_demo import inference, training, walk  # noqa: E402
from ssl_demo.checkpoints import bundled, machine  # noqa: E402
from ssl_demo.clips import Clips  # noqa: E402
from ssl_demo.data import Photos, centre, load_photos  # noqa: E402
from ssl_demo.drawing import picture, seed_all  # noqa: E402
from ssl_demo.pretext import PretextTask, all_tasks, parse_controls  # noqa: E402


def examples(task: PretextTask, model: nn.Module, photos: Photos, controls: dict):
    """What the task makes of the photos under these controls, as on its tab; chance from one seed."""
    if task.card.input == "video":
        runner = inference.Runner(task, model)
        for image in photos.tensor(np.arange(len(photos) // 8)):
            yield runner.example(Image.fromarray(picture(image)), 0, controls)
        return
    rng = seed_all(0)
    for images in centre(photos, task.input_size(**controls), 64):
        yield task.example(images, rng, **controls)


@torch.inference_mode()
def scores(task: PretextTask, model: nn.Module, photos: Photos, settings: dict) -> dict[str, float]:
    """The task's metrics over all photos with some controls set, the others as in training."""
    collected: dict[str, list] = {}
    for example in examples(task, model, photos, parse_controls(task, settings)):
        for name, values in task.metrics(example, task.predict(model, example)).items():
            collected.setdefault(name, []).append(values)
    means = task.aggregate({name: torch.cat(values) for name, values in collected.items()})
    return {name: round(value, 5) for name, value in means.items() if isinstance(value, float)}


def learned(task_type: type[PretextTask], photos: Photos, settings: dict, minutes: float) -> tuple[PretextTask, nn.Module]:
    """A network of the bundled size after a short training under these settings."""
    task, last = task_type(**settings), None
    data = Clips.moving(photos) if task.card.input == "video" else photos
    for last in training.train(task, data, minutes=minutes, every=20):
        print(f"{task.card.name} {settings or 'guarded'}: step {last.step}, loss {last.loss:.3f}", file=sys.stderr)
    return task, last.model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="PATH", help="folders or tars of photos, none held out")
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--tasks", nargs="*", default=list(all_tasks()))
    parser.add_argument("--train", type=float, nargs="?", const=2.0, metavar="MINUTES", help="of the processor, for each study")
    options = parser.parse_args()
    torch.set_num_threads(1)
    training.time = SimpleNamespace(perf_counter=time.process_time, monotonic=time.monotonic)  # others use this machine too
    table = json.loads(walk.SHORTCUTS.read_text()) if walk.SHORTCUTS.exists() else {"tasks": {}}
    command = ["benchmarks/shortcuts.py", "--data", *(Path(path).name for path in options.data)]
    table |= {"command": "python " + shlex.join(command), "machine": machine()}
    for name in options.tasks:
        task_type, told = all_tasks()[name], walk.read(name)
        if told is None:
            continue
        whole = load_photos(options.data, task_type.recipe.side)
        order = np.random.default_rng(0).permutation(len(whole))  # or they would all be of the first classes
        photos, others = whole.take(order[: options.limit]), whole.take(order[options.limit :])
        runner, entry = inference.load(name), table["tasks"].setdefault(name, {})
        cheating, (weights, card) = walk.settings(told, task_type, True), next(iter(bundled(name).items()))
        entry |= {"weights": weights, "sha256": card["sha256"], "controls": cheating,
                  "photos": len(photos) // (8 if task_type.card.input == "video" else 1),
                  "guarded": scores(runner.task, runner.model, photos, {}),
                  "cheating": scores(runner.task, runner.model, photos, cheating)}
        if options.train and told.cheat.train:
            plain, guided = (learned(task_type, others, config, options.train) for config in ({}, told.cheat.train))
            entry["trained"] = {"settings": told.cheat.train, "minutes": options.train, "plain": scores(*plain, photos, {}),
                                "guarded": scores(*guided, photos, {}), "cheating": scores(*guided, photos, cheating)}
        walk.SHORTCUTS.write_text(json.dumps(table, indent=1) + "\n")
        shown = {kind: entry[kind] for kind in ("guarded", "cheating", "trained") if kind in entry}
        print(json.dumps({name: shown}))


if __name__ == "__main__":
    main()

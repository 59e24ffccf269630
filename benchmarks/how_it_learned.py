"""What networks of one training said of the example photos, after 1, 2, 4, 8, ... steps: what the page plays as "How it learned".

    python -m ssl_demo train rotation --data my_photos/ --minutes 30 --history --out runs/rotation.safetensors
    python benchmarks/how_it_learned.py rotation --history runs/rotation.history [--final weights/rotation-small.safetensors]

Runs the weights in the folder on the four example photos, with seed 0 and the controls as they stand at first; then those that
lie beside the folder, if any; then --final, by default the task's bundled weights: of the same training or, where that kept no
history, of another one that went on for longer. Their cards give the curve and count the steps
of what a training began with, too: `--history first.history second.history` puts one behind the other. Weights of as many steps
as the final ones or more are left out. Writes `weights/learned/TASK.zip`, with pictures as good as fit into 300 KB.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from ssl_demo import learned  # noqa: E402
from ssl_demo.checkpoints import bundled, find, load_weights, read_card  # noqa: E402
from ssl_demo.examples import EXAMPLES  # noqa: E402
from ssl_demo.inference import Result, Runner  # noqa: E402
from ssl_demo.learned import LIMIT, Answer, Learned  # noqa: E402
from ssl_demo.pretext import PretextTask, create  # noqa: E402

QUALITIES = (92, 88, 84, 80, 75, 70, 65, 60, 50, 40, 30)  # of WebP, the best one that fits
CLOSE = 1.2  # weights of fewer times the steps of those before them are left out: they would show the same


def weights_after(histories: list[Path], final: Path) -> dict[int, Path]:
    """Files by the steps they took, their own beginning included, in order; the last is `final`.

    Raises ValueError where a folder holds none, or the final weights have no card with their steps.
    """
    found = {}
    for folder in histories:
        beside = folder.with_suffix(".safetensors")
        files = [path for path in folder.glob("*.safetensors") if path.stem.isdecimal()]
        if not files:
            raise ValueError(f"There are no weights such as 0000001.safetensors in {folder}: train with --history.")
        earlier = earlier_amounts(beside)[0]
        found |= {earlier + int(path.stem): path for path in files}
        if beside.is_file() and "steps" in read_card(beside):
            found[steps_of(beside)] = beside
    steps, kept = steps_of(final), {}
    for step, path in sorted(found.items()):
        if step >= steps and path.name != final.name:
            print(f"left out: {path}, as {final.name} was trained for {steps:,} steps", file=sys.stderr)
        elif CLOSE * max(kept, default=0) < step and CLOSE * step < steps:
            kept[step] = path
    return {**kept, steps: final}


def earlier_amounts(weights: Path) -> tuple[int, int]:
    """Steps and images of what the training of these weights began with."""
    before = read_card(weights).get("before", {})
    return before.get("steps", 0), before.get("images_seen", 0)


def steps_of(weights: Path) -> int:
    """All steps it took to make these weights. Raises ValueError where no card tells."""
    card = read_card(weights)
    if not {"steps", "curve", "sha256"} <= set(card):
        raise ValueError(f"{weights} has no card with its steps and its curve.")
    return card["steps"] + earlier_amounts(weights)[0]


def curve_to(weights: list[Path]) -> tuple[tuple[int, int, float, float], ...]:
    """The curve of the last weights, and before it, where theirs began with others, those of the weights before."""
    joined = {}
    for path in weights:
        steps, images = earlier_amounts(path)
        joined = {step: point for step, point in joined.items() if step <= steps}
        joined |= {steps + point["step"]: (images + point["images"], point["loss"], point["metric"])
                   for point in read_card(path).get("curve", [])}
    return tuple((step, *point) for step, point in sorted(joined.items()))


def levels(task: PretextTask, card: dict) -> tuple[float | None, float | None]:
    """The loss of who guesses and the metric of who guesses, where they are known."""
    chance = task.card.in_training[1]
    if isinstance(chance, str):
        chance = card.get("validation", {}).get("metrics", {}).get(chance)
    return task.guessing(card.get("recipe", {}).get("batch", type(task).recipe.batch)), chance


def ask(name: str, path: Path) -> list[Result]:
    """The runs of the network in a file, one an example photo."""
    runner = Runner(*load_weights(name, path))
    return [runner.run(example.image) for example in EXAMPLES]


def fitted(task: PretextTask, asked: dict[int, list[Result]], **about) -> Learned:
    """The answers with their pictures as good as the limit lets them be. Raises ValueError where none are poor enough."""
    chosen = [[learned.chosen(result, task.card) for result in results] for results in asked.values()]
    for quality in QUALITIES:
        answers = {example.name: tuple(Answer(tuple(learned.keep(panel, quality) for panel in panels), tuple(figures))
                                       for panels, figures in (results[place] for results in chosen))
                   for place, example in enumerate(EXAMPLES)}
        kept = Learned(task.card.name, steps=tuple(asked), answers=answers, **about)
        if len(learned.packed(kept)) <= LIMIT:
            return kept
    raise ValueError(f"The answers of {len(asked)} networks do not fit into {LIMIT:,} bytes.")


def main(arguments: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", metavar="TASK")
    parser.add_argument("--history", type=Path, required=True, nargs="+", metavar="DIR", help="as `train --history` leaves it")
    parser.add_argument("--final", metavar="FILE", help="the weights that come last: a file, or bundled ones by name")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    started = time.perf_counter()
    name, histories = create(options.task).card.name, options.history
    final = find(name, options.final or (None if bundled(name) else histories[-1].with_suffix(".safetensors")))
    asked = {}
    for step, file in weights_after(histories, final).items():
        try:
            asked[step] = ask(name, file)
        except ValueError as error:
            if file == final:
                raise
            print(f"left out: {error}", file=sys.stderr)
    card = read_card(final)
    task = create(name, **card.get("config", {}))
    guessing, chance = levels(task, card)
    curve = curve_to([*(folder.with_suffix(".safetensors") for folder in histories), final])
    command = f"python benchmarks/how_it_learned.py {name} --history {' '.join(map(str, histories))}"
    command += f" --final {options.final}" if options.final else ""
    kept = fitted(task, asked, weights=final.stem, sha256=card["sha256"], command=command, curve=curve, guessing=guessing,
                  chance=chance)
    written = learned.save(kept)
    print(f"{written}: {len(asked)} networks, {written.stat().st_size / 1e3:.0f} KB, {time.perf_counter() - started:.0f} s")
    return written


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"how_it_learned: {error}")

"""The command line: python -m ssl_demo list | run | evaluate | transfer | train | bench.

What was asked for goes to standard output (with --json: exactly one JSON object), everything else to standard error. What a
person did wrong ends with exit status 2 and one line.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ValueError(f"{message} (see {self.prog} --help)")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, 2 for a mistake of the caller, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser().parse_args(arguments)
        options.typed = "python -m ssl_demo " + shlex.join(arguments)
        _limit_threads(options)
        report = options.command(options)
        if report is None:  # a process of several that is not the one to speak
            return 0
        print(json.dumps(report) if options.json else _readable(report), flush=True)
        return 0
    except ValueError as error:
        print(f"ssl_demo: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader went away: nothing left to say
        return 0
    except OSError as error:  # a file that may not be written, a full disk
        print(f"ssl_demo: {error.filename or 'a file'} cannot be used ({error.strerror or error}).", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ssl_demo: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m ssl_demo", description="Self-supervised learning, one pretext task per paper.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, function, help: str, task: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=function, threads=None)
        sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        if task:
            sub.add_argument("task", metavar="TASK", help="its name, as in `list`")
            sub.add_argument("--seed", type=_seed, default=0)
        return sub

    command("list", _list, "every task and its weights", task=False)

    run = command("run", _run, "one photo or clip through one task")
    run.add_argument("file", metavar="FILE")
    run.add_argument("--weights", help="bundled weights by name, a .safetensors file, or untrained")
    run.add_argument("--set", nargs="+", action="extend", default=[], metavar="control=value", help="see `list` for the controls")
    run.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the panels go, as PNG or MP4")

    evaluate = command("evaluate", _evaluate, "the task's metrics on a set of photos")
    evaluate.add_argument("--data", nargs="+", required=True, metavar="PATH", help="folders, tars, or torchvision:NAME")
    evaluate.add_argument("--weights", help="bundled weights by name, a .safetensors file, or untrained")
    evaluate.add_argument("--limit", type=_count, help="only so many photos, drawn by the seed")
    evaluate.add_argument("--record", action="store_true", help="write the score into the card of the weights")

    transfer = command("transfer", _transfer, "what encoders are good for, once the head is thrown away", task=False)
    transfer.add_argument("--data", required=True, metavar="DIR",
                          help="train/CLASS/* and val/CLASS/*, or the photo pack with its index.csv, or torchvision:CIFAR10")
    transfer.add_argument("--encoders", metavar="a,b", help="tasks, weights, NAME:untrained, NAME:supervised; default all")
    transfer.add_argument("--protocol", required=True, choices=("knn", "linear", "finetune"))
    transfer.add_argument("--labels-per-class", type=_count, metavar="N", help="only so many, drawn by the seed; default all")
    transfer.add_argument("--seeds", type=_count, default=1, metavar="N", help="repeat with so many draws, and say the spread")
    transfer.add_argument("--seed", type=_seed, default=0)
    transfer.add_argument("--epochs", type=_minutes, help="of finetune and supervised; default as long as is usual")
    transfer.add_argument("--threads", type=_count, help="processor threads of PyTorch")

    train = command("train", _train, "train a task and write its weights and their card")
    train.add_argument("--data", nargs="+", required=True, metavar="PATH", help="folders, tars, torchvision:NAME, or hf:NAME")
    length = train.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=_count)
    length.add_argument("--minutes", type=_minutes)
    train.add_argument("--out", type=Path, metavar="FILE", help="a .safetensors file; default runs/TASK.safetensors")
    train.add_argument("--resume", type=Path, metavar="FILE", help="a .checkpoint file to go on from, with the same length")
    train.add_argument("--start", metavar="WEIGHTS", help="begin with bundled weights by name, or a .safetensors file")
    train.add_argument("--limit", type=_count, help="only so many photos, drawn by the seed")
    train.add_argument("--history", action="store_true", help="keep the weights after 1, 2, 4, 8, ... steps, in FILE's .history/")
    train.add_argument("--config", nargs="+", action="extend", default=[], metavar="k=v", help="of the network or the recipe")
    train.add_argument("--threads", type=_count, help="processor threads of PyTorch")

    bench = command("bench", _bench, "latency, training rate, share of the machine's matrix-multiply rate", task=False)
    bench.add_argument("--threads", type=_count, help="processor threads of PyTorch")
    bench.add_argument("--seconds", type=_minutes, default=8.0, help="of training measured for each task")
    bench.add_argument("--tasks", nargs="+", help="only these")
    return parser


def _list(options) -> dict:
    from .checkpoints import bundled
    from .pretext import all_tasks

    rows = []
    for name, task in all_tasks().items():
        cards = bundled(name)
        weights = [{"name": weight, "bundled": True, "params": card.get("params"), "bytes": card.get("bytes"),
                    "score": card.get("heldout", {}).get("score")} for weight, card in cards.items()]
        controls = [{"name": c.name, "kind": c.kind, "default": c.default, "help": c.help, "choices": list(c.choices),
                     "range": [c.minimum, c.maximum] if c.kind == "slider" else None} for c in task.controls]
        card, best = task.card, next(iter(cards.values()), {})
        # A chance that is no level but a guess without looking was measured together with the best weights' score.
        chance = best.get("heldout", {}).get("chance") if isinstance(card.chance, str) else card.chance
        rows.append({"name": name, "title": card.title, "year": card.year, "family": card.family, "metric": card.metric,
                     "chance": chance, "weights": weights, "controls": controls})
    return {"tasks": rows}


def _run(options) -> dict:
    from . import inference
    from .checkpoints import UNTRAINED, find
    from .figures import save_panel

    inference.limit_threads()
    controls = _pairs(options.set)
    runner = inference.load(options.task, options.weights)
    result = runner.run(options.file, seed=options.seed, **controls)
    _make_folder(options.out)
    panels = []
    for panel in result.panels:
        file = save_panel(options.out / f"{options.task}-{panel.name}", panel)
        panels.append({"title": panel.title, "file": str(file)})
    weights = UNTRAINED if options.weights == UNTRAINED else find(options.task, options.weights).stem
    return {"task": options.task, "weights": weights, "seed": options.seed, "controls": result.controls,
            "numbers": result.numbers, "panels": panels, "milliseconds": round(result.milliseconds, 1)}


def _evaluate(options) -> dict:
    from .checkpoints import UNTRAINED, find, load_weights, read_card, write_card
    from .clips import load_to_score
    from .data import load_photos
    from .inference import pick_device
    from .training import evaluate

    task, model = load_weights(options.task, options.weights, options.seed)
    path = None if options.weights == UNTRAINED else find(options.task, options.weights)
    if options.record and path is None:
        raise ValueError("An untrained network has no card to record a score in.")
    load = load_to_score if task.card.input == "video" else load_photos
    photos = load(options.data, task.recipe.side, limit=options.limit, seed=options.seed)
    device = pick_device()
    metrics = evaluate(task, model.to(device), photos, options.seed)
    if path is None:
        untrained = metrics
    else:
        fresh = type(task)(**task.config), load_weights(options.task, UNTRAINED, options.seed)[1]
        untrained = evaluate(fresh[0], fresh[1].to(device), photos, options.seed)
    name = task.card.metric
    chance = metrics[task.card.chance] if isinstance(task.card.chance, str) else task.card.chance
    report = {"task": options.task, "weights": UNTRAINED if path is None else path.stem, "images": len(photos), "metric": name,
              "score": metrics[name], "chance": chance, "untrained": untrained[name], "metrics": metrics}
    if options.record:
        how = {"data": _names(options.data), "seed": options.seed, "command": options.typed.replace(" --record", "")}
        write_card(path, {**read_card(path), "heldout": {**report, **how}})
    return report


def _transfer(options) -> dict:
    from .transfer import transfer

    names = [name.strip() for name in (options.encoders or "").split(",") if name.strip()]
    return transfer(options.data, names, options.protocol, options.labels_per_class, options.seeds, options.seed, options.epochs)


def _train(options) -> dict | None:
    from tqdm import tqdm

    from . import checkpoints
    from .data import sources
    from .distributed import processes
    from .pretext import create
    from .training import evaluate, load_checkpoint, train, with_settings, write_atomically

    settings = _pairs(options.config)
    task, recipe = with_settings(type(create(options.task)), settings)
    out = options.out or Path("runs") / f"{options.task}.safetensors"
    if out.suffix != ".safetensors" or out.is_dir():
        raise ValueError(f"--out must name a .safetensors file, not {out}.")
    if options.resume is not None:
        load_checkpoint(options.resume, task, recipe, options.seed)  # what is wrong with it is said before the photos are read
    before = start = None
    if options.start:
        taught, start = checkpoints.load_weights(options.task, options.start)
        if taught.config != task.config:
            raise ValueError(f"{options.start} holds another network than these settings ask for.")
        before = _trained_before(checkpoints.read_card(checkpoints.find(options.task, options.start)), options.start)
    _make_folder(out.parent)
    # A part is kept for watching: recipes are chosen on it, and held-out photos stay out of every choice.
    state = processes()
    with state.local_main_process_first():  # one of a machine's decodes the photos, and the others find them decoded
        learned, kept = _load_to_learn(options, recipe.side, task.card.input == "video").apart()
    last = None
    with tqdm(total=1.0, desc=options.task, file=sys.stderr, disable=not state.is_main_process,
              bar_format="{desc} {percentage:3.0f}% {elapsed} {postfix}") as bar:
        log, checkpoint = out.with_suffix(".jsonl"), out.with_suffix(".checkpoint")
        history = out.with_suffix(".history")
        if options.resume is None:
            for old in (log, *history.glob("*.safetensors"), *history.glob("*.json")):
                old.unlink(missing_ok=True)
        elif (begun := options.resume.with_suffix(".jsonl")) != log and begun.is_file() and state.is_main_process:
            write_atomically(log, lambda path: shutil.copyfile(begun, path))  # or the beginning would be missing in the curve
        watched, alarm = task.card.watch or task.card.metric, ""

        def keep(step: int, model) -> None:
            checkpoints.save_weights(history / f"{step:07d}.safetensors", task, model, {"step": step})

        try:
            for last in train(task, learned, recipe, steps=options.steps, minutes=options.minutes, seed=options.seed,
                              checkpoint=checkpoint, resume=options.resume, log=log, start_from=start,
                              milestone=keep if options.history else None):
                bar.set_postfix_str(f"step {last.step}, loss {last.loss:.4f}, {watched} {last.metric:.4f}, "
                                    f"{last.images_per_second:.0f} images/s", refresh=False)
                bar.update(last.progress - bar.n)
                if last.alarm and last.alarm != alarm and state.is_main_process:
                    tqdm.write(f"step {last.step}: {last.alarm}", file=sys.stderr)
                alarm = last.alarm
        except FloatingPointError as error:
            raise ValueError(str(error)) from None
        except KeyboardInterrupt:
            print(f"\nstopped; go on with --resume {checkpoint}", file=sys.stderr)
            raise
    if not state.is_main_process:
        return None
    metrics = evaluate(task, last.model, kept, options.seed) if len(kept) else {}  # clips without masks have nothing to score
    score, minutes = metrics.get(task.card.metric), last.seconds / 60
    curve = _curve(log)
    report = {"task": options.task, "steps": last.step, "images_seen": last.images, "images_per_second": last.images_per_second,
              "minutes": minutes, "loss_first": curve[0]["loss"] if curve else None, "loss_last": last.loss, "score": score,
              "file": str(out)}
    card = {"metric": task.card.metric, "validation": {"score": score, "images": len(kept), "metrics": metrics},
            "data": _names(options.data), "photos": None if hasattr(learned, "source") else len(learned),
            "sources": sources(getattr(learned, "names", ())), "steps": last.step, "images_seen": last.images,
            "minutes": round(minutes, 2),
            "machine": checkpoints.machine(), "seed": options.seed, "recipe": _plain(recipe),
            "date": time.strftime("%Y-%m-%d"), "command": options.typed, "curve": curve}
    checkpoints.save_weights(out, task, last.model, card | ({"before": before} if before else {}))
    return report


def _trained_before(card: dict, weights: str) -> dict:
    """What it took to make the weights that a run begins with, their own beginning included."""
    earlier = card.get("before", {})
    amounts = {key: card.get(key, 0) + earlier.get(key, 0) for key in ("steps", "images_seen", "minutes")}
    return {"weights": Path(weights).stem, "sha256": card.get("sha256"), **amounts, "commands": [*earlier.get("commands", []),
                                                                                                card.get("command")]}


def _load_to_learn(options, side: int, clips: bool):
    """Photos or clips, or photos that are streamed."""
    from .clips import load_clips
    from .data import load_photos
    from .streaming import SCHEME, open_stream

    if not any(path.startswith(SCHEME) for path in options.data):
        return (load_clips if clips else load_photos)(options.data, side, limit=options.limit, seed=options.seed)
    if clips or len(options.data) > 1 or options.limit:
        raise ValueError(f"{SCHEME}… streams photos, not clips, and takes neither other data beside it nor --limit.")
    return open_stream(options.data[0], side)


def _bench(options) -> dict:
    from .bench import bench

    return bench(options.tasks, options.seconds, log=sys.stderr)


def _curve(log: Path, points: int = 24) -> list[dict]:
    """About `points` lines of the log, log-spaced in steps, each the mean of the lines since the last; none where it is lost."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    total, curve, since = lines[-1]["step"] if lines else 0, [], []
    goals = sorted({round(total ** (i / (points - 1))) for i in range(points)})
    for line in lines:
        since.append(line)
        if goals and line["step"] >= goals[0]:
            mean = {key: round(sum(entry[key] for entry in since) / len(since), 5) for key in ("loss", "metric")}
            curve.append({"step": line["step"], "images": line["images"], **mean})
            goals, since = [goal for goal in goals if goal > line["step"]], []
    return curve


def _names(paths: list[str]) -> list[str]:
    return [path if path.startswith(("torchvision:", "hf:")) else Path(path).name for path in paths]


def _plain(recipe) -> dict:
    from dataclasses import asdict

    return asdict(recipe)


def _pairs(items: list[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ValueError(f"“{item}” must be name=value.")
        pairs[name] = value
    return pairs


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"The folder {folder} cannot be made ({error.strerror}).") from None


def _limit_threads(options) -> None:
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)


def _number(text: str, kind, least, name: str):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not least <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not {name}")
    return value


def _seed(text: str) -> int:
    return _number(text, int, 0, "a seed: a whole number from 0 to 2147483647")


def _count(text: str) -> int:
    return _number(text, int, 1, "a whole number of at least 1")


def _minutes(text: str) -> float:
    return _number(text, float, 1e-3, "a length of time")


def _readable(report, indent: str = "") -> str:
    """The same report for a person: a line an entry, nested ones indented."""
    lines = []
    for key, value in report.items() if isinstance(report, dict) else enumerate(report):
        label = f"{indent}{key}" if isinstance(report, dict) else f"{indent}-"
        if isinstance(value, (dict, list)) and value:
            lines.append(label + ":" if isinstance(report, dict) else label)
            lines.append(_readable(value, indent + "  "))
        else:
            lines.append(f"{label}: {f'{value:.4g}' if isinstance(value, float) else value}")
    return "\n".join(lines)

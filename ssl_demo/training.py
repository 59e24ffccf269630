"""One training loop that knows no task: AdamW or Muon, warm-up and cosine, averaged weights, resumable, cancellable.

`train` is a generator of snapshots, so that a command, a test or a page can watch it, and stop it by closing it. The batch of a
step is a pure function of (seed, step), so a resumed run continues on the same curve as one that was never stopped.
"""

import copy
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .clips import ClipBatches, Clips
from .data import Batches, Photos, centre, prefetch
from .distributed import gather, mean, processes, share, share_batch_norm
from .muon import Muon
from .pretext import PretextTask, Recipe, fresh
from .streaming import Stream, StreamBatches


@dataclass(frozen=True)
class Snapshot:
    """Where a run is. `loss` is the mean over the steps since the last snapshot, `metric` that of the last step's batch.

    Of several processes, `metric` and `numbers` are of each one's own share of the photos; all else is the same for all.
    """

    step: int
    progress: float  # share of the budget that is spent, 0 to 1
    seconds: float  # of training, over all resumed parts
    images: int  # photos seen, over all processes
    loss: float
    metric: float
    numbers: dict[str, float]
    model: nn.Module  # the averaged weights
    done: bool = False
    alarm: str = ""  # a sentence where something goes wrong, such as collapse
    guess: float | None = None  # the metric of who guesses, where that is measured on the same batch

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.seconds, 1e-9)


class Step(nn.Module):
    """A task's loss as the forward pass of one module, which is what DistributedDataParallel can wrap.

    What the task wants of all processes (`gathered`, such as the negatives of a contrastive loss) is put together in between.
    """

    def __init__(self, task: PretextTask, model: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.task, self.model, self.dtype = task, model, dtype

    def forward(self, example: dict[str, Tensor]):
        device = example["inputs"].device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype != torch.float32):
            prediction = self.task.predict(self.model, example)
            prediction |= {name: gather(prediction[name]) for name in self.task.gathered}
            loss, numbers = self.task.loss(example, prediction)
        return loss, numbers, prediction


def train(
    task: PretextTask,
    photos: Photos | Clips,
    recipe: Recipe | None = None,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    resume: Path | None = None,
    log: Path | None = None,
    start_from: nn.Module | None = None,
    batches: Callable[[int], Tensor] | None = None,
    every: float = 1.0,
    due: Callable[[], bool] | None = None,
    milestone: Callable[[int, nn.Module], None] | None = None,
    save_every: float = 60.0,
) -> Iterator[Snapshot]:
    """Trains for `steps` or `minutes` (exactly one is given); yields a snapshot about each `every` seconds and at the end.

    Snapshots come less often where the metric takes long. due: asked after each step, instead of the clock, whether a snapshot
    is wanted. milestone: told the step and the averaged weights after 1, 2, 4, 8, ... steps.

    photos: clips where the task is about them.
    checkpoint: where the run is kept, each `save_every` seconds and when the generator is closed; written under a temporary name
    and renamed, so a kill at any moment leaves the last one whole. resume: a checkpoint to go on from (ValueError if it is not
    of this task, configuration and seed). log: a JSONL file, a line a snapshot. start_from: a network whose weights to begin
    with. batches: step -> images, instead of crops of the photos. Raises FloatingPointError when the loss is not finite.
    """
    if (steps is None) == (minutes is None):
        raise ValueError("Give the length of the training either in steps or in minutes.")
    if (minutes if steps is None else steps) <= 0:
        raise ValueError("The length of the training must be more than nothing.")
    recipe = recipe or task.recipe
    state = processes()
    device, rank, world = state.device, state.process_index, state.num_processes
    if recipe.batch % world:
        raise ValueError(f"The batch ({recipe.batch}) cannot be shared by {world} processes.")

    model = fresh(task, seed)
    if start_from is not None:
        model.load_state_dict(start_from.state_dict())
    elif resume is None:
        task.prepare(model, photos)
    model = model.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    if world > 1:
        model = share_batch_norm(model)
    optimizer = make_optimizer(model, recipe)
    run = Step(task, model, precision(recipe.precision, device)).train()
    if world > 1:
        run = DistributedDataParallel(run, device_ids=[device.index] if device.type == "cuda" else None)

    step, seconds, snapshot = 0, 0.0, None
    if resume is not None:
        saved = load_checkpoint(resume, task, recipe, seed)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step, seconds = saved["step"], saved["seconds"]
        if log is not None and rank == 0:
            _cut_log(log, step)

    def save() -> None:
        if checkpoint is not None and rank == 0:
            state = {"task": task.card.name, "config": task.config, "recipe": asdict(recipe), "seed": seed, "step": step,
                     "seconds": seconds, "model": model.state_dict(), "average": average.state_dict(),
                     "optimizer": optimizer.state_dict(), "last": snapshot and (snapshot.loss, snapshot.metric)}
            write_atomically(checkpoint, lambda path: torch.save(state, path))

    def progress() -> float:
        return min(1.0, step / steps if steps is not None else seconds / (60 * minutes))

    batches = batches or batches_of(task, photos, recipe, seed, rank, world)
    feed = prefetch(batches, step, steps if steps is not None else 2**62)
    total, since, saved_at = 0.0, 0, time.monotonic()
    pause, spoke = every, saved_at - every  # the first step is worth a snapshot: it shows the loss of an untrained network
    try:
        if progress() == 1:  # resumed after its last step, before anything was made of it: what it came to
            snapshot = Snapshot(step, 1.0, seconds, step * recipe.batch, *saved["last"], {}, average, True)
            yield snapshot
        while progress() < 1:
            started = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * schedule(progress(), recipe.warmup)
            images = gather(next(feed).to(device))
            rng = torch.Generator().manual_seed(hash((seed, step, 0)) % 2**63)  # the 0 is there for runs begun with it
            example = share(task.training_example(images, rng))
            with uninterrupted() if world == 1 else nullcontext():  # several would wait for one that has stopped
                loss, numbers, prediction = run(example)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
                optimizer.step()
                step += 1
                with torch.no_grad():
                    task.after_step(model, example, prediction, progress())
                update_average(average, model, min(recipe.ema, (1 + step) / (10 + step)))
            spent = loss.item(), time.perf_counter() - started  # .item() waits for the device, so the time is honest
            if world > 1:  # all processes have the same loss to report, and the same clock, or they would stop at different steps
                spent = mean(torch.tensor(spent, dtype=torch.float64, device=device)).tolist()
            total, since, seconds = total + spent[0], since + 1, seconds + spent[1]
            if not math.isfinite(total):
                checkpoint = None  # what was kept is from before it went wrong
                raise FloatingPointError(f"the loss is not a number any more at step {step}: try a lower learning rate")

            if milestone is not None and rank == 0 and step & (step - 1) == 0:
                milestone(step, average)
            finished = progress() == 1
            if finished or (time.monotonic() - spoke >= pause if due is None else due()):
                watching = time.monotonic()
                with torch.no_grad():
                    figures, (name, guess) = task.metrics(example, prediction), task.card.in_training
                    metric = figures[name].mean().item()
                    guess = figures[guess].mean().item() if guess in figures else None
                # Some metrics are slow. Watching may take a twentieth of the time, no more.
                pause = every and max(every, 20 * (time.monotonic() - watching))
                snapshot = Snapshot(step, progress(), seconds, step * recipe.batch, total / since, metric, numbers,
                                    average, finished, task.alarm(numbers), guess)
                if log is not None and rank == 0:
                    _append(log, snapshot)
                yield snapshot
                total, since, spoke = 0.0, 0, time.monotonic()
            if time.monotonic() - saved_at >= save_every:
                save()
                saved_at = time.monotonic()
    finally:
        feed.close()
        save()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of this block: half a step, kept, could not be gone on from as if nothing had been."""
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    asked = []
    before = signal.signal(signal.SIGINT, lambda *what: asked.append(what))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
    if asked and callable(before):
        before(*asked[0])


def batches_of(task: PretextTask, photos: Photos | Clips, recipe: Recipe, seed: int = 0, rank: int = 0,
               world: int = 1) -> Callable[[int], Tensor]:
    """step -> this process's share of its images, or clips."""
    if task.card.input == "video":
        return ClipBatches(photos, recipe.batch, task.size, seed, recipe.crop, recipe.flip, rank, world)
    kind = StreamBatches if isinstance(photos, Stream) else Batches
    return kind(photos, recipe.batch, task.size, seed, recipe.crop, recipe.flip, recipe.color, rank, world)


def schedule(progress: float, warmup: float) -> float:
    """The learning rate's share of its peak: linear up, then half a cosine down to a hundredth."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * model, for parameters and batch norm's statistics; other buffers are copied.

    A mean of two queues of keys, or of two counters, would be neither.
    """
    learned = {name for name, _ in model.named_parameters()}
    mine, theirs = average.state_dict(), model.state_dict()
    averaged = [name for name in mine if name in learned or name.endswith(("running_mean", "running_var"))]
    torch._foreach_lerp_([mine[name] for name in averaged], [theirs[name] for name in averaged], 1 - decay)
    for name in mine.keys() - set(averaged):
        mine[name].copy_(theirs[name])


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups, betas = _groups(model, recipe.weight_decay), (0.9, recipe.beta2)
    if recipe.optimizer == "muon":
        groups[0]["matrices"] = True
        return Muon(groups, recipe.lr, betas)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=betas, fused=True)


def _groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay for matrices and filters only: biases, gains and tokens are not pulled to zero."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


_bfloat16_pays: dict[str, bool] = {}


def precision(name: str, device: torch.device) -> torch.dtype:
    """The type of matrix products: "float32", "bfloat16", or "auto": whichever is faster here, by a measured product.

    Processors without bfloat16 arithmetic emulate it slowly, and no name tells for sure, so we time it, once a process.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"“precision” must be auto, float32 or bfloat16, not {name}.")
    if name == "auto":
        if device.type not in _bfloat16_pays:
            faster = device.type == "cuda" or _time_product(torch.bfloat16) < 0.8 * _time_product(torch.float32)
            _bfloat16_pays[device.type] = faster
        name = "bfloat16" if _bfloat16_pays[device.type] else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _time_product(dtype: torch.dtype, size: int = 512) -> float:
    a, times = torch.ones(size, size, dtype=dtype), []
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return min(times)


def write_atomically(path: Path, write) -> None:
    """`write(temporary path)`, then rename: whoever looks sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path, task: PretextTask, recipe: Recipe, seed: int) -> dict:
    """What `train` saved. Raises ValueError where it is missing, damaged, or of another task, network, recipe or seed."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"There is no checkpoint {path}.") from None
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise ValueError(f"{path} is not a checkpoint of a training run ({type(error).__name__}).") from None
    if not isinstance(saved, dict) or saved.get("task") != task.card.name:
        raise ValueError(f"{path} is not a checkpoint of {task.card.name}.")
    plain = json.loads(json.dumps([task.config, asdict(recipe)]))  # tuples and lists are the same thing in a file
    if json.loads(json.dumps([saved["config"], saved["recipe"]])) != plain:
        raise ValueError(f"{path} was trained with another configuration; resume it with the same one.")
    if saved["seed"] != seed:
        raise ValueError(f"{path} was trained with seed {saved['seed']}; resume it with the same one.")
    return saved


def _append(log: Path, snapshot: Snapshot) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    line = {"step": snapshot.step, "seconds": round(snapshot.seconds, 2), "images": snapshot.images,
            "loss": round(snapshot.loss, 5), "metric": round(snapshot.metric, 5), **snapshot.numbers}
    if snapshot.alarm:
        line["alarm"] = snapshot.alarm
    with open(log, "a") as stream:
        stream.write(json.dumps(line) + "\n")


def _cut_log(log: Path, step: int) -> None:
    """Drops the lines of steps that a kill lost after the last checkpoint, since they will be made again."""
    if log.is_file():
        whole = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        kept = "".join(line for line in whole if json.loads(line)["step"] <= step)
        write_atomically(log, lambda path: path.write_text(kept))


@torch.no_grad()
def evaluate(task: PretextTask, model: nn.Module, photos: Photos | Clips, seed: int = 0,
             batch: int = 64) -> dict[str, float | str]:
    """The task's metrics over all photos, undisturbed centre squares, in float32; chance from the seed, and with it the order of
    photos where those of a batch are compared.

    Clips are taken one by one, whole, each example with its objects' true masks (1, T, H, W) as "masks".
    """
    device, rng = next(model.parameters()).device, torch.Generator().manual_seed(seed)
    if task.card.company:  # what compares the photos of a batch must not get one class at a time, as sets lie sorted
        photos = photos.take(torch.randperm(len(photos), generator=torch.Generator().manual_seed(seed)).tolist())
    collected: dict[str, list[Tensor]] = {}
    photographed = ((images, None) for images in centre(photos, task.size, batch)) if isinstance(photos, Photos) else None
    for images, masks in photographed or photos.whole(task.size):
        example = task.evaluation_example(images.to(device), rng)
        if masks is not None:
            example["masks"] = masks.to(device)
        for name, values in task.metrics(example, task.predict(model, example)).items():
            collected.setdefault(name, []).append(values.cpu())
    return task.aggregate({name: torch.cat(values) for name, values in collected.items()})


def with_settings(task_type: type[PretextTask], settings: dict[str, str]) -> tuple[PretextTask, Recipe]:
    """A task and a recipe with `name=value` settings applied to whichever of them has the name, parsed to its default's type.

    Raises ValueError on an unknown name or a value of the wrong type.
    """
    config, changes = {}, {}
    for name, text in settings.items():
        if name in task_type.defaults:
            config[name] = _parse(name, text, task_type.defaults[name])
        elif name in asdict(task_type.recipe):
            changes[name] = _parse(name, text, getattr(task_type.recipe, name))
        else:
            known = ", ".join([*task_type.defaults, *asdict(task_type.recipe)])
            raise ValueError(f"There is no setting “{name}”; there are {known}.")
    task, recipe = task_type(**config), replace(task_type.recipe, **changes)
    if not 8 <= task.size <= 1024:
        raise ValueError(f"“size” cannot be {task.size}.")
    try:
        with torch.device("meta"):  # no memory, no time: only whether the sizes fit together
            task.build()
    except ValueError:
        raise
    except Exception as error:  # networks complain about sizes in many ways
        raise ValueError(f"No network can be built with these settings ({str(error) or type(error).__name__}).") from None
    return task, recipe


def _parse(name: str, text: str, default):
    if isinstance(default, str):
        return text
    try:
        value = json.loads(text.lower())
    except json.JSONDecodeError:
        raise ValueError(f"“{name}” must be like {json.dumps(default)}, not {text}.") from None
    if isinstance(default, tuple):
        value = tuple(value) if isinstance(value, list) else value
    if isinstance(value, (list, tuple)) and not all(type(entry) in (int, float) for entry in value):
        value = None
    numbers = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
    if type(value) is not type(default) and not numbers:
        raise ValueError(f"“{name}” must be like {json.dumps(default)}, not {text}.")
    return float(value) if numbers else value

"""How fast it is here: latency of a run, training rate, and its share of the machine's matrix-multiply rate.

Times on shared machines differ from minute to minute, so what is compared is measured in turns within one run.
"""

import statistics
import time

import numpy as np
import torch
from PIL import Image

from .clips import Clips
from .data import Photos
from .drawing import seed_all
from .inference import load, pick_device
from .nets import multiply_adds
from .pretext import PretextTask, all_tasks, create
from .training import Step, batches_of, precision, train

RUNS = 30


def bench(names: list[str] | None = None, seconds: float = 8.0, log=None) -> dict:
    """The report of the `bench` command. Raises ValueError for an unknown task."""
    names = names or list(all_tasks())
    device = pick_device()
    tasks = []
    for name in names:
        create(name)
        if log:
            print(f"measuring {name} ...", file=log)
        tasks.append({"name": name, **_latency(name), **_training(create(name), seconds, device)})
    return {"device": str(device), "threads": torch.get_num_threads(), "gemm_gflops": gemm_rate(torch.float32, device),
            "gemm_gflops_bfloat16": gemm_rate(torch.bfloat16, device), "tasks": tasks}


def gemm_rate(dtype: torch.dtype, device: torch.device, size: int = 1024) -> float:
    """The best measured rate of a square matrix product, in GFLOP/s (two operations for each multiply-add)."""
    a, times = torch.randn(size, size, device=device).to(dtype), []
    for _ in range(12):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the device
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def _latency(name: str) -> dict:
    """One whole run: a photo of a megapixel already decoded, to panels and figures; 5 runs to warm up."""
    from .checkpoints import UNTRAINED, bundled

    runner = load(name, None if bundled(name) else UNTRAINED)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), dtype=np.uint8))
    times = [runner.run(photo, seed=seed).milliseconds for seed in range(RUNS + 5)][5:]
    return {"run_ms_p50": round(statistics.median(times), 1), "run_ms_p95": round(statistics.quantiles(times, n=20)[-1], 1)}


def _training(task: PretextTask, seconds: float, device: torch.device) -> dict:
    """Training with batches made as it goes, in turns with training on one fixed batch, which shows what making them costs."""
    side = task.recipe.side
    array = np.random.default_rng(0).integers(0, 255, (512, side, side, 3), dtype=np.uint8)
    photos, recipe = Photos(array, [str(i) for i in range(len(array))]), task.recipe
    photos = Clips.moving(photos) if task.card.input == "video" else photos
    fixed = batches_of(task, photos, recipe)(0)
    rates: dict[str, list[float]] = {"made": [], "fixed": []}
    for _ in range(3):
        for kind, batches in (("made", None), ("fixed", lambda step: fixed)):
            start = None
            for snapshot in train(task, photos, minutes=1.0, every=0, batches=batches):
                if snapshot.step == 2:  # the first steps also allocate and choose algorithms
                    start = snapshot
                elif start is not None and snapshot.seconds - start.seconds >= seconds / 6:
                    break
            rates[kind].append((snapshot.images - start.images) / (snapshot.seconds - start.seconds))
    made, still = statistics.median(rates["made"]), statistics.median(rates["fixed"])
    dtype = precision(recipe.precision, device)
    operations = 2 * _step_multiply_adds(task, fixed.to(device))
    share = operations * made / recipe.batch / 1e9 / gemm_rate(dtype, device)
    return {"train_images_per_second": round(made, 1), "train_images_per_second_fixed_batch": round(still, 1),
            "share_of_fixed_batch_rate": round(made / still, 3), "train_precision": str(dtype).removeprefix("torch."),
            "train_gflops_share": round(share, 3)}


def _step_multiply_adds(task: PretextTask, images: torch.Tensor) -> int:
    step = Step(task, task.build().to(images.device), torch.float32)
    example = task.training_example(images, seed_all(0))
    return multiply_adds(lambda: step(example)[0].backward())

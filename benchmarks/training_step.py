"""What the precision and the attention of a training step cost here, measured in turns on one thread.

    python benchmarks/training_step.py [--rounds 5]

Prints one JSON object: for each task the photos a second of a whole step on a fixed batch in float32 and in bfloat16, and for
the tasks with transformers also with PyTorch's fused attention, which the package switches off on CPUs. Compare the ratios.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from ssl_demo.drawing import seed_all  # noqa: E402
from ssl_demo.pretext import all_tasks  # noqa: E402
from ssl_demo.training import Step  # noqa: E402


def step_maker(task, dtype: torch.dtype, fused_attention: bool):
    """A function that trains one step and returns its seconds."""
    model = task.build().to(memory_format=torch.channels_last)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused_attention
    step, optimizer = Step(task, model, dtype).train(), torch.optim.AdamW(model.parameters(), fused=True)
    example = task.training_example(torch.rand(task.recipe.batch, 3, task.size, task.size), seed_all(0))

    def once() -> float:
        start = time.perf_counter()
        loss, _, _ = step(example)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - start

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    report = {}
    for name, task_type in all_tasks().items():
        task = task_type()
        has_attention = any(hasattr(module, "fused_attn") for module in task.build().modules())
        steps = {"float32": step_maker(task, torch.float32, False), "bfloat16": step_maker(task, torch.bfloat16, False)}
        if has_attention:
            steps["float32_fused_attention"] = step_maker(task, torch.float32, True)
            steps["bfloat16_fused_attention"] = step_maker(task, torch.bfloat16, True)
        times = {kind: [] for kind in steps}
        for turn in range(rounds + 1):
            for kind, once in steps.items():
                seconds = once()
                if turn:  # the first also allocates and chooses algorithms
                    times[kind].append(seconds)
        report[name] = {kind: round(task.recipe.batch / statistics.median(values), 1) for kind, values in times.items()}
    print(json.dumps(report))


if __name__ == "__main__":
    main()

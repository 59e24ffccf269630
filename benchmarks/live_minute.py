"""What a minute in the training lab comes to: rotation on the example photos, and a masked autoencoder on one photo.

    python benchmarks/live_minute.py [--seconds 60] [--processor-time] [--unseen PHOTOS ...] [--photo FILE] [--out DIR]

Trains both as a visitor's click does, one after the other, and prints one JSON object. rotation: the share of turned crops told
rightly, on fresh crops of the photos it was trained on and on whole photos that it never saw; chance is 0.25. mae: the squared
error on the hidden patches of the photo, over eight draws of them, beside that of a blur and of the mean colour; the pictures
of the first draw go to DIR. `cpu_share` is how much of a processor the trainings got: far below 1 something else was running;
with --processor-time the seconds counted are those in which it was theirs.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from ssl_demo import live, live_data, training  # noqa: E402
from ssl_demo.checkpoints import load_weights  # noqa: E402
from ssl_demo.data import load_photos  # noqa: E402
from ssl_demo.drawing import seed_all  # noqa: E402
from ssl_demo.examples import EXAMPLES  # noqa: E402
from ssl_demo.figures import save_panel  # noqa: E402
from ssl_demo.images import load_photo  # noqa: E402
from ssl_demo.inference import Runner  # noqa: E402
from ssl_demo.pretext import all_tasks  # noqa: E402
from ssl_demo.training import batches_of, evaluate  # noqa: E402

HELDOUT = Path(__file__).parents[2] / "shared/data/photos"


def minute(lab: live.Lab, name: str, data, photo: Image.Image, seconds: float, size: str):
    """A run to its end: its plan, its view, and the share of a processor it got."""
    plan = live.plan(name, data, "photos", seconds=seconds, size=size, photo=photo, lab=lab)
    clock, cpu = time.perf_counter(), time.process_time()
    run = lab.start("benchmark", plan)
    run.join()
    view = run.view()
    assert view.state == "finished", view.error
    share = (time.process_time() - cpu) / (time.perf_counter() - clock)
    return plan, view, round(share, 2)


def rotation(lab: live.Lab, seconds: float, unseen: list[str], size: str) -> dict:
    """The default run, and what it knows of crops that it has not seen before."""
    task = all_tasks()["rotation"]
    plan, view, share = minute(lab, "rotation", live_data.example_data(task), EXAMPLES[0].image, seconds, size)
    task, model = load_weights("rotation", view.weights)
    batches, right = batches_of(task, plan.data, plan.recipe, seed=12345), []
    with torch.no_grad():
        for step in range(40):
            example = task.training_example(batches(step), seed_all(step))
            right.append(task.metrics(example, task.predict(model, example))["accuracy"].mean().item())
    found = {"steps": view.step, "cpu_share": share, "chance": 0.25, "fresh_crops": statistics.fmean(right),
             "crops": 40 * plan.recipe.batch}
    if unseen:
        photos = load_photos(unseen, plan.recipe.side, limit=1000, progress=False)
        found |= {"unseen_photos": evaluate(task, model, photos)["accuracy"], "photos": len(photos)}
    return found


def mae(lab: live.Lab, seconds: float, photo: Image.Image, out: Path | None, size: str) -> dict:
    """One photo, and how its hidden patches are drawn."""
    task = all_tasks()["mae"]
    _, view, share = minute(lab, "mae", live_data.photos_of([photo], task), photo, seconds, size)
    runner = Runner(*load_weights("mae", view.weights))
    runs = [runner.run(photo, seed=seed) for seed in range(8)]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for panel in runs[0].panels:
            save_panel(out / f"mae-{panel.name}", panel)
    means = {name: statistics.fmean(run.numbers[name] for run in runs) for name in ("mse_hidden", "mse_smooth", "mse_mean_color")}
    return {"steps": view.step, "cpu_share": share, **means, "ratio_to_smooth": means["mse_hidden"] / means["mse_smooth"],
            "ratio_to_mean_color": means["mse_hidden"] / means["mse_mean_color"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processor-time", action="store_true", help="count the time the processor gave, not the clock's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", default="small")
    parser.add_argument("--only", choices=("rotation", "mae"))
    parser.add_argument("--photo", type=Path, help="for the masked autoencoder; default the cat")
    parser.add_argument("--unseen", nargs="*", default=sorted(map(str, HELDOUT.glob("heldout-*.tar"))))
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the pictures go")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.processor_time:
        training.time = SimpleNamespace(perf_counter=time.process_time, monotonic=time.monotonic)
    lab, report = live.Lab(most_seconds=1e9), {"seconds": options.seconds, "threads": options.threads,
                                                        "clock": "processor" if options.processor_time else "wall"}
    if options.only != "mae":
        report["rotation"] = rotation(lab, options.seconds, options.unseen, options.size)
    if options.only != "rotation":
        photo = EXAMPLES[0].image if options.photo is None else load_photo(options.photo)
        report["mae"] = mae(lab, options.seconds, photo, options.out, options.size)
    lab.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main()

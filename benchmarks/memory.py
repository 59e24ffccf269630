"""How much memory the app takes at most while every room is used: what a host must have.

    python benchmarks/memory.py [--seconds 30] [--trainings mae,simclr]

Starts the app, asks every method (both its networks, on the largest photo that is kept, or on a clip) and every encoder, teaches
four classes, and then trains each method twice at once, as the lab allows, while a photo is answered. Prints one JSON object: the
peak resident memory of the app's process, in MB, after each of these. Linux only.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from gradio_client import Client, handle_file  # noqa: E402
from served import served  # noqa: E402

from ssl_demo.examples import EXAMPLES  # noqa: E402
from ssl_demo.pretext import all_tasks  # noqa: E402
from ssl_demo.video import camera_move, encode_mp4  # noqa: E402

OVER = ("finished", "stopped", "failed")  # how a training ends


def peak(process: int) -> int:
    """The most memory that a process had, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def use(client: Client, process: int, folder: Path, seconds: int, trainings: list[str]) -> dict:
    """The peak after each room."""
    report = {"started": peak(process)}
    photos = []
    for number, example in enumerate(EXAMPLES):
        photos.append(str(folder / f"{number}.png"))
        example.image.resize((1024, 1024)).save(photos[-1])
    clip = camera_move(EXAMPLES[0].image)
    (folder / "clip.mp4").write_bytes(encode_mp4(clip.frames, clip.fps))
    for name, task in all_tasks().items():
        file = str(folder / "clip.mp4") if task.card.input == "video" else photos[0]
        for more in ({}, {"network": "untrained"}):
            client.predict(file=handle_file(file), api_name=f"/{name}", **more)
        print(name, peak(process), file=sys.stderr, flush=True)
    report["all methods"] = peak(process)
    client.predict(file=handle_file(photos[1]), api_name="/transfer")
    report["transfer"] = peak(process)
    client.predict(files=[handle_file(photo) for photo in photos * 2], labels=list("abcd") * 2, api_name="/teach")
    report["teach"] = peak(process)
    visits = client, Client(client.src, verbose=False)
    for name in trainings:
        for visit in visits:
            visit.predict(task=name, seconds=seconds, api_name="/lab_start")
        client.predict(file=handle_file(photos[2]), api_name="/simclr")
        while any(visit.predict(api_name="/lab_status")["state"] not in OVER for visit in visits):
            time.sleep(1)
        report[f"training {name}"] = peak(process)
    return report | {"peak": peak(process)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--trainings", default=",".join(all_tasks()), help="which methods, parted by commas (default: all)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(GRADIO_TEMP_DIR=folder) as (process, url):
        report = use(Client(url, verbose=False), process, Path(folder), asked.seconds, asked.trainings.split(","))
    print(json.dumps({"unit": "MB", **report}, indent=2))


if __name__ == "__main__":
    main()

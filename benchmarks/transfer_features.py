"""The features of benchmark photos that ship for the page's transfer room: numbers, no photo, and no name of one.

    python benchmarks/transfer_features.py --data ../shared/data/photos [--untrained simclr,mae] [--encoders rotation,pixels]
                                           [--train 100] [--test 60] [--seed 0]

Writes one file an encoder into `weights/features/`: every task's bundled weights, the untrained networks named (or those that
there are already), and pixels. A file of the weights that ship, and of as many photos, is left as it is: run it once more after
weights were replaced. Prints what there is.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from ssl_demo import shipped_features  # noqa: E402
from ssl_demo.checkpoints import UNTRAINED  # noqa: E402
from ssl_demo.embedding import bundled_encoders  # noqa: E402
from ssl_demo.labelled import Labelled, drawn, load_labelled  # noqa: E402
from ssl_demo.shipped_features import SIDE, Shipped, embed, file_of, header, identity, places_by_tsne  # noqa: E402
from ssl_demo.transfer import PIXELS  # noqa: E402


def write(encoder: str, data: Labelled, per_class: tuple[int, int], seed: int, about: dict[str, str]) -> Path:
    """The file of one encoder: features of so many training and so many test photos of each class, drawn by the seed."""
    parts = {}
    for part, count in zip(("train", "test"), per_class):
        photos, labels = getattr(data, part), getattr(data, f"{part}_labels")
        places = drawn(labels, data.classes, count, seed)
        parts[part] = embed([Image.fromarray(pixels) for pixels in photos.array[photos.index[places]]], encoder)
        parts[f"{part}_labels"] = labels[places]
    places = places_by_tsne(torch.cat([parts["train"], parts["test"]]), seed)
    return shipped_features.save(Shipped(encoder, tuple(data.classes), **parts, map=places, about=about))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--encoders", help="as `transfer` names them, instead of all")
    parser.add_argument("--untrained", help="tasks whose networks, drawn by chance, join the others")
    parser.add_argument("--train", type=int, default=100, help="photos a class to learn from")
    parser.add_argument("--test", type=int, default=60, help="photos a class to be judged by")
    parser.add_argument("--seed", type=int, default=0, help="draws the photos, and where t-SNE begins")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    untrained = [f"{name}:{UNTRAINED}" for name in (options.untrained or "").split(",") if name]
    untrained += [name for name in shipped_features.kept() if name.endswith(f":{UNTRAINED}")]
    names = options.encoders.split(",") if options.encoders else [*bundled_encoders(), *dict.fromkeys(untrained), PIXELS]
    command = f"python benchmarks/transfer_features.py --data {options.data}"
    command += f" --untrained {','.join(name.partition(':')[0] for name in dict.fromkeys(untrained))}" if untrained else ""
    wanted = {"data": Path(options.data).name, "seed": str(options.seed), "train": str(options.train), "test": str(options.test)}
    data = None
    for name in names:
        about = {**wanted, **identity(name)}
        if not about.items() <= header(name).items():
            data = data or load_labelled(options.data, SIDE)
            start = time.perf_counter()
            write(name, data, (options.train, options.test), options.seed, {**about, "command": command})
            print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        print(f"{file_of(name).name}: {header(name)['D']} features, {file_of(name).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

"""What each block of a residual encoder knows of classes: its mean over the photo, asked by neighbours and by a linear layer.

    python benchmarks/stages.py jigsaw rotation relative_patch --data ../shared/data/photos [--labels 2000]

Papers ask every layer so (Noroozi and Favaro 2016, table 2; Zhang et al. 2017, figure 5): the last one may serve its own task
alone. A photo is given as it is and evened, as a jigsaw's tiles are. Test photos choose nothing: all are of the training split.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from ssl_demo import probes, transfer  # noqa: E402
from ssl_demo.checkpoints import load_weights  # noqa: E402
from ssl_demo.labelled import load_labelled  # noqa: E402
from ssl_demo.nets import MEAN, SPREAD  # noqa: E402
from ssl_demo.tasks.jigsaw import evened  # noqa: E402


def by_block(encoder, standardised: Tensor) -> list[Tensor]:
    """The mean of every block's map, (B, D) each."""
    grid, means = encoder.stem(standardised), []
    for block in encoder.stages:
        grid = block(grid)
        means.append(grid.mean(dim=(2, 3)))
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", help="whose network has an `encoder`")
    parser.add_argument("--data", required=True)
    parser.add_argument("--labels", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, rng = load_labelled(options.data).inside(), np.random.default_rng(0)
    heard = np.sort(rng.permutation(len(data.train))[: options.labels])
    print("| encoder | photo | block | kNN | linear |\n|---|---|---|---|---|")
    for name in options.tasks:
        task, network = load_weights(name)
        for kind, prepare in (("as it is", lambda images: (images - MEAN) / SPREAD), ("evened", evened)):
            def ask(images, network=network, prepare=prepare):
                return torch.cat(by_block(network.encoder, prepare(images)), dim=1)

            widths = [block.conv2.out_channels for block in network.encoder.stages]
            parts = [transfer.over(photos, task.size, ask, name) for photos in (data.train.take(heard), data.test)]
            for block, (train, test) in enumerate(zip(*(part.split(widths, dim=1) for part in parts)), 1):
                near = probes.knn(train, data.train_labels[heard], test, len(data.classes))
                line, _ = probes.linear(train, data.train_labels[heard], test, len(data.classes))
                scores = " | ".join(f"{probes.accuracy(shares, data.test_labels):.1%}" for shares in (near, line))
                print(f"| {name} | {kind} | {block} | {scores} |", flush=True)


if __name__ == "__main__":
    main()

"""What the answers of a colouring network score by how much the weights of rare colours count in them, and how sharp they are.

    python benchmarks/color_answers.py colorization --data ../shared/data/photos/train-0*.tar [--weights NAME] [--photos 500]

Prints both areas under the error curve, all pixels alike and rare colours counted more, for each `answer_uniform` and temperature
(lambda and T of Zhang et al. 2016, sections 2.2 and 2.3), beside those of all grey. The photos are those that `train` keeps apart
of the training split: held-out photos choose nothing.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from ssl_demo import lab  # noqa: E402
from ssl_demo.checkpoints import load_weights  # noqa: E402
from ssl_demo.data import centre, load_photos  # noqa: E402

UNIFORM, TEMPERATURES = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8), (0.38, 0.6)


def pooled(batches: list[dict]) -> tuple[str, str]:
    figures = lab.pool({name: torch.cat([batch[name] for batch in batches]) for name in batches[0]})
    return f"{figures['auc']:.4f}", f"{figures['auc_rebalanced']:.4f}"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("colorization", "split_brain"))
    parser.add_argument("--data", required=True, nargs="+")
    parser.add_argument("--weights")
    parser.add_argument("--photos", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task, network = load_weights(options.task, options.weights)
    photos = load_photos(options.data, max(144, task.size)).apart()[1]
    known = []
    for images in centre(photos.take(range(min(options.photos, len(photos)))), task.size, 50):
        example = task.example(images, torch.Generator().manual_seed(0))
        prediction = task.predict(network.eval(), example)
        known.append((prediction["logits"].float(), example["targets"][:, -2:]))
        frequencies = prediction["frequencies"][0]
    trained = lab.rebalancing(frequencies, task.config["uniform"])

    def scores(answer) -> tuple[str, str]:
        return pooled([lab.color_metrics(answer(logits), truth, frequencies) for logits, truth in known])

    print("| answers | temperature | all pixels alike | rare colours counted more |\n|---|---|---|---|")
    print("| all grey | |", " | ".join(scores(lambda logits: torch.zeros_like(logits[:, :2]))), "|", flush=True)
    for uniform in UNIFORM:
        shift = (lab.rebalancing(frequencies, uniform) / trained).log()[:, None, None]
        for temperature in TEMPERATURES:
            found = scores(lambda logits, shift=shift, sharp=temperature: lab.annealed_mean(logits + shift, sharp))
            print(f"| {uniform} | {temperature} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()

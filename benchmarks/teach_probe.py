"""Which probe to ask where a class has a handful of pictures, chosen on the benchmark's training photos alone.

    python benchmarks/teach_probe.py --data ../shared/data/photos [--pictures 5] [--draws 20]

Draws two, three and five of the ten classes and so many pictures of each, teaches every probe on the frozen features of every
bundled encoder, of an untrained one and of the pixels, and judges it by 30 other photos of each class. Prints the mean accuracy
and log loss of the probes; of the chosen one also how leave-one-out and its interval agree with those other photos, and what all
trained encoders say together. Several minutes, most of them for the features.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
from ssl_demo import embedding, probes, teach  # noqa: E402
from ssl_demo.labelled import Labelled, load_labelled  # noqa: E402

POOL, JUDGES, CLASSES = 40, 30, (2, 3, 5)  # photos a class to draw from and to judge by; numbers of classes drawn


def centroid(train, labels, test, classes):
    """Nearest centroid of centred, normalised features: SimpleShot (Wang et al. 2019)."""
    mean = train.mean(dim=0)
    train, test = F.normalize(train - mean, dim=1), F.normalize(test - mean, dim=1)
    middles = torch.stack([train[labels == label].mean(dim=0) for label in range(classes)])
    return (-torch.cdist(test, middles).square() / 0.2).softmax(dim=1)


def held_back(strength, softness):
    """`probes.least_squares` with other constants."""
    def probe(*arguments):
        before = probes.HELD_BACK, probes.SOFTNESS
        try:
            probes.HELD_BACK, probes.SOFTNESS = strength, softness
            return probes.least_squares(*arguments)
        finally:
            probes.HELD_BACK, probes.SOFTNESS = before
    return probe


PROBES = {
    "nearest centroid": centroid,
    "1 neighbour": lambda *a: probes.knn(*a, k=1),
    "kNN, weighted": probes.knn,
    **{f"logistic, C {c:g}": lambda *a, c=c: probes.linear(*a, strength=c)[0] for c in (1e-3, 1e-2, 1e-1, 1.0)},
    **{f"least squares, {s:g}": held_back(s, probes.SOFTNESS) for s in (0.1, 0.3, 1.0, 3.0)},
    **{f"least squares, {probes.HELD_BACK:g}, softness {t:g}": held_back(probes.HELD_BACK, t) for t in (0.2, 0.3, 0.5, 0.7)},
}  # fmt: skip


def features(data: Labelled, cache: Path | None) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """By encoder, (10 * POOL, D) to draw from and (10 * JUDGES, D) to judge by, class after class."""
    if cache and cache.is_file():
        return torch.load(cache)
    random, parts = np.random.default_rng(0), []
    for photos, labels, count in ((data.train, data.train_labels, POOL), (data.test, data.test_labels, JUDGES)):
        of_class = [np.flatnonzero(labels == label) for label in range(len(data.classes))]
        places = np.concatenate([random.permutation(places)[:count] for places in of_class])
        pictures = [Image.fromarray(photos.array[place]) for place in photos.index[places]]
        parts.append({name: embedding.embed(pictures, name) for name in tqdm(teach.encoders(), file=sys.stderr)})
    if cache:
        torch.save(tuple(parts), cache)
    return tuple(parts)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--pictures", type=int, default=5, help="a class")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--cache", type=Path, help="a file that keeps the features")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pool, judges = features(load_labelled(options.data).inside(), options.cache)
    right, loss = ({name: [] for name in PROBES} for _ in range(2))
    alone, together, agreement, covered = [], [], [], []
    for count in CLASSES:
        for draw in tqdm(range(options.draws), desc=f"{count} classes", file=sys.stderr):
            random = np.random.default_rng([count, draw])
            chosen = random.permutation(10)[:count]
            taught = np.concatenate([label * POOL + random.permutation(POOL)[: options.pictures] for label in chosen])
            asked = np.concatenate([label * JUDGES + np.arange(JUDGES) for label in chosen])
            labels, true = np.repeat(np.arange(count), options.pictures), np.repeat(np.arange(count), JUDGES)
            votes = []
            for name in pool:
                train, test = pool[name][taught], judges[name][asked]
                for probe, ask in PROBES.items():
                    shares = ask(train, labels, test, count)
                    right[probe].append(probes.accuracy(shares, true))
                    loss[probe].append(-shares[np.arange(len(true)), true].clamp(min=1e-3).log().mean().item())
                shares = probes.least_squares(train, labels, test, count)
                score = teach.Score(name, *teach.tally(train, labels, count))
                agreement.append((score.accuracy, probes.accuracy(shares, true)))
                covered.append(score.interval[0] <= agreement[-1][1] <= score.interval[1])
                if name in embedding.bundled_encoders():
                    votes.append(shares)
                    alone.append(agreement[-1][1])
            together.append(probes.accuracy(torch.stack(votes).mean(dim=0), true))
    print(f"{options.pictures} pictures a class, {options.draws} draws each of {', '.join(map(str, CLASSES))} classes, "
          f"{len(pool)} encoders")
    for probe in PROBES:
        print(f"{probe:34} accuracy {np.mean(right[probe]):.3f}, log loss {np.mean(loss[probe]):.3f}")
    left_out, true = np.mean(agreement, axis=0)
    print(f"chosen: leave-one-out says {left_out:.3f} on average, other photos {true:.3f}; its 95 % interval holds the accuracy "
          f"on other photos in {np.mean(covered):.1%} of cases")
    print(f"trained encoders: one alone {np.mean(alone):.3f}, all together {np.mean(together):.3f}")


if __name__ == "__main__":
    main()

"""Two processes follow the curve of one with the same batch, for every task: photos, chance, batch norm, queues and all."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL

from ssl_demo import contrastive
from ssl_demo.clips import Clips
from ssl_demo.data import Photos
from ssl_demo.distributed import SharedBatchNorm, gather, mean, share, share_batch_norm
from ssl_demo.pretext import all_tasks
from ssl_demo.training import train, with_settings

SHARED = """
import sys
sys.path.insert(0, "tests")
import test_distributed
test_distributed.in_one_of_two(*sys.argv[1:])
"""


def run(name, photos, batch=8, **named):
    """Snapshots of a small training of a task."""
    task, recipe = with_settings(all_tasks()[name], dict(setting.split("=") for setting in SMALL[name]))
    data = Clips.moving(photos) if task.card.input == "video" else photos
    yield from train(task, data, replace(recipe, batch=batch, precision="float32"), seed=4, every=0, **named)


def curve(name, photos, steps):
    """The losses of a short training, and the sums of each of the weights it ends with."""
    snapshots = list(run(name, photos, steps=steps))
    sums = {weight: value.double().sum().item() for weight, value in snapshots[-1].model.state_dict().items()}
    return {"losses": [snapshot.loss for snapshot in snapshots], "weights": sums}


def contrast(gather, rank=slice(None), wrap=lambda module: module):
    """NT-Xent of a linear layer on eight photos' two views, and its gradient."""
    torch.manual_seed(0)
    points, layer = torch.randn(8, 2, 16), torch.nn.Linear(16, 4)
    wrapped = wrap(layer)
    views = gather(F.normalize(wrapped(points[rank]), dim=2))  # (B, 2, D)
    similarity, partner, itself = contrastive.nt_xent_pairs(views)
    loss = contrastive.info_nce(similarity, partner, 0.5, itself).mean()
    loss.backward()
    return [loss.item(), *layer.weight.grad.flatten().tolist()]


def in_one_of_two(photos, checkpoint):
    """What each of the two processes does, printed as one JSON object."""
    torch.set_num_threads(1)
    photos = Photos(np.load(photos), [str(number) for number in range(32)])
    told = {"curves": {name: curve(name, photos, steps=2) for name in all_tasks()}}
    half = run("mae", photos, steps=5, checkpoint=Path(checkpoint))
    told["first half"] = [next(half).loss for _ in range(3)]
    half.close()
    told["steps in minutes"] = [snapshot.step for snapshot in run("mae", photos, minutes=0.01)][-1]
    rank = torch.distributed.get_rank()
    told["contrast"] = contrast(gather, slice(rank, None, 2), torch.nn.parallel.DistributedDataParallel)
    told["mean"] = mean(torch.tensor([rank, 2.0])).tolist()
    print(json.dumps(told), flush=True)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(photos, tmp_path_factory, two_processes):
    """What the two said, and where they left a checkpoint."""
    folder = tmp_path_factory.mktemp("two")
    np.save(folder / "photos.npy", photos.array)
    ends = two_processes(SHARED, folder / "photos.npy", folder / "run.checkpoint")
    return *(json.loads(out.splitlines()[-1]) for out in ends), folder / "run.checkpoint"


def test_two_processes_stay_one(two):
    """The same losses, weights and buffers, queues among them, to the last bit; and both stop at the same step."""
    one, other, _ = two
    assert one == other and one["steps in minutes"] > 1 and one["mean"] == [0.5, 2.0]


@pytest.mark.parametrize("name", all_tasks())
def test_two_processes_are_one(name, two, photos):
    """A step of two gives the loss of a plain process with the same batch, and leaves the same weights."""
    shared, plain = two[0]["curves"][name], curve(name, photos, steps=2)
    assert shared["losses"] == pytest.approx(plain["losses"], rel=1e-5)
    # AdamW's first steps go as far for a gradient that is nothing but rounding as for any other.
    assert shared["weights"] == pytest.approx(plain["weights"], rel=1e-3, abs=0.02)


def test_a_run_of_two_goes_on_in_one(two, photos):
    whole = [snapshot.loss for snapshot in run("mae", photos, steps=5)]
    rest = [snapshot.loss for snapshot in run("mae", photos, steps=5, resume=two[2])]
    assert two[0]["first half"] + rest == pytest.approx(whole, rel=1e-5) and len(rest) == 2


def test_negatives_come_from_both_and_gradients_go_back_to_both(two):
    assert two[0]["contrast"] == pytest.approx(contrast(lambda values: values), rel=1e-4, abs=1e-6)


def test_alone_nothing_is_shared():
    values = torch.rand(3, 2)
    assert gather(values) is values and share({"inputs": values})["inputs"] is values and torch.equal(mean(values), values)


@pytest.mark.parametrize("affine", [True, False])
def test_shared_batch_norm_is_batch_norm(affine, monkeypatch):
    """In values, gradients and statistics, where the one process is all; and in its place it keeps the names of weights."""
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, affine=affine))
    shared = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, affine=affine))
    shared.load_state_dict(plain.state_dict())
    assert isinstance(share_batch_norm(shared)[1], SharedBatchNorm)
    images = torch.randn(5, 3, 6, 6)
    for model in (plain, shared):
        for _ in range(3):
            model(images).square().sin().sum().backward()
    assert all(torch.allclose(p.grad, q.grad, atol=1e-4) for p, q in zip(plain.parameters(), shared.parameters()))
    state = shared.state_dict()
    assert all(torch.allclose(value, state[name], atol=1e-6) for name, value in plain.state_dict().items())
    assert torch.allclose(plain.eval()(images), shared.eval()(images), atol=1e-5)

import copy

import pytest
import torch
from torch import nn

from ssl_demo.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(2, 24, 60), (1, 60, 24), (3, 32, 32)])
def test_singular_values_become_alike(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    matrices[:, 0] *= 30  # one direction far longer than the others
    values, before = (torch.linalg.svdvals(m.float()) for m in (orthogonalized(matrices), matrices))
    assert (before[:, 0] / before[:, shape[1] // 3]).min() > 3, "the test has nothing to even out"
    upper = values[:, : min(shape[1:]) * 3 // 4]  # the smallest ones of a square matrix need more than five steps
    assert 0.6 < upper.min() and values.max() < 1.3


def test_directions_stay():
    """The polar factor: left and right singular vectors are those of the matrix."""
    matrix = torch.randn(1, 12, 40, generator=torch.Generator().manual_seed(1))
    U, _, V = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(orthogonalized(matrix).float().flatten(), (U @ V).flatten(), dim=0) > 0.95


def test_what_is_no_matrix_is_adamw():
    ours = nn.Linear(5, 3)
    theirs = copy.deepcopy(ours)
    optimizers = (Muon([{"params": list(ours.parameters()), "weight_decay": 0.1}], lr=0.01),
                  torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1))
    for step in range(5):
        inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        for model, optimizer in zip((ours, theirs), optimizers):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters()):
        assert torch.allclose(mine, other, atol=1e-6)


def test_a_filter_moves_as_far_as_adamw_moves_it():
    conv = nn.Conv2d(4, 8, 3, bias=False).to(memory_format=torch.channels_last)
    before, optimizer = conv.weight.detach().clone(), Muon([{"params": [conv.weight], "matrices": True}], lr=0.01)
    conv(torch.randn(2, 4, 9, 9)).square().mean().backward()
    optimizer.step()
    moved = (conv.weight.detach() - before).square().mean().sqrt().item()
    assert 0.001 < moved < 0.003  # 0.2 times the learning rate
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_its_state_can_be_kept_and_taken_up():
    def trained(steps: int, kept: dict | None = None, model: nn.Module | None = None):
        model = model or nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "matrices": True},
                  {"params": [p for p in model.parameters() if p.ndim == 1]}]
        optimizer = Muon(groups, lr=0.02)
        if kept:
            optimizer.load_state_dict(copy.deepcopy(kept))  # it takes the tensors themselves
        for _ in range(steps):
            optimizer.zero_grad()
            (model(torch.ones(3, 6)) - 1).square().mean().backward()
            optimizer.step()
        return model, optimizer

    torch.manual_seed(0)
    begun, optimizer = trained(3)
    again = copy.deepcopy(begun)
    kept = copy.deepcopy(optimizer.state_dict())
    on, _ = trained(3, kept, begun)
    resumed, _ = trained(3, kept, again)
    assert all(torch.equal(a, b) for a, b in zip(on.parameters(), resumed.parameters()))
    fresh, _ = trained(3, None, copy.deepcopy(again))
    assert not torch.equal(fresh[0].weight, resumed[0].weight), "its state made no difference"


def test_of_a_stack_each_matrix_moves_by_itself():
    torch.manual_seed(0)
    stack, grads = nn.Parameter(torch.zeros(4, 6, 6)), torch.randn(4, 6, 6)
    alone = [nn.Parameter(torch.zeros(6, 6)) for _ in range(4)]
    stack.grad = grads
    for p, grad in zip(alone, grads):
        p.grad = grad
    for params in ([stack], alone):
        Muon([{"params": params, "matrices": True}], lr=0.01).step()
    torch.testing.assert_close(stack.data, torch.stack([p.data for p in alone]), atol=1e-4, rtol=0)
    assert stack.abs().min(dim=0).values.max() > 1e-3, "all of them moved"

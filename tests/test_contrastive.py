"""InfoNCE and its kin: against a double loop, and where the answer is known without one."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_demo import contrastive
from ssl_demo.contrastive import alignment, collapse_alarm, feature_spread, follow, found, info_nce, nt_xent_pairs, uniformity


def random_views(count=6, width=5, seed=0):
    return F.normalize(torch.randn(count, 2, width, generator=torch.Generator().manual_seed(seed)), dim=2)


def by_loops(similarity, positive, temperature, left_out):
    """The paper's equation, term by term."""
    losses = []
    for q, row in enumerate(similarity.double().tolist()):
        below = 0.0
        for k, s in enumerate(row):
            if not left_out[q][k]:
                below += math.exp(s / temperature)
        losses.append(-math.log(math.exp(row[positive[q]] / temperature) / below))
    return losses


# InfoNCE


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_info_nce_is_a_double_loop(temperature):
    generator = torch.Generator().manual_seed(1)
    similarity = torch.rand(7, 11, generator=generator) * 2 - 1
    positive, left_out = torch.randint(11, (7,), generator=generator), torch.rand(7, 11, generator=generator) < 0.3
    left_out[torch.arange(7), positive] = False
    expected = by_loops(similarity, positive.tolist(), temperature, left_out.tolist())
    assert info_nce(similarity, positive, temperature, left_out).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    everything = torch.zeros_like(left_out)
    expected = by_loops(similarity, positive.tolist(), temperature, everything.tolist())
    assert info_nce(similarity, positive, temperature).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_info_nce_is_cross_entropy_where_nothing_is_left_out():
    similarity, positive = torch.randn(4, 9), torch.tensor([0, 8, 3, 3])
    assert torch.allclose(info_nce(similarity, positive, 0.3), F.cross_entropy(similarity / 0.3, positive, reduction="none"))


@pytest.mark.parametrize("temperature", [0.01, 1.0])
@pytest.mark.parametrize("candidates", [1, 2, 64])
def test_guessing_costs_the_logarithm_of_the_candidates(candidates, temperature):
    losses = info_nce(torch.full((3, candidates), 0.7), torch.zeros(3, dtype=torch.long), temperature)
    assert losses.tolist() == pytest.approx([math.log(candidates)] * 3, abs=1e-5)


def test_who_is_left_out_costs_nothing_and_gets_no_gradient():
    similarity = torch.randn(2, 5, requires_grad=True)
    left_out = torch.tensor([[False, True, False, True, False]] * 2)
    losses = info_nce(similarity, torch.tensor([0, 4]), 0.5, left_out)
    losses.sum().backward()
    assert torch.allclose(losses, info_nce(similarity[:, ::2], torch.tensor([0, 2]), 0.5))
    assert (similarity.grad[left_out] == 0).all() and similarity.grad.isfinite().all()


def test_no_temperature_makes_it_overflow():
    losses = info_nce(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.tensor([0, 0]), 1e-3)
    assert losses[0] == 0 and losses[1] == pytest.approx(2000)


def test_half_precision_is_counted_in_full():
    similarity = torch.randn(3, 8).bfloat16()
    assert info_nce(similarity, torch.tensor([1, 2, 3]), 0.1).dtype == torch.float32


# NT-Xent: InfoNCE among all views of a batch


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_a_double_loop(temperature):
    """Equation 1 of SimCLR, with its indicator k != i, over z_2i and z_2i+1."""
    views = random_views()
    z, expected = views.flatten(0, 1).double(), []
    for i in range(12):
        j = i + 1 if i % 2 == 0 else i - 1
        below = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(12) if k != i)
        expected.append(-math.log(math.exp(float(z[i] @ z[j]) / temperature) / below))
    similarity, partner, itself = nt_xent_pairs(views)
    assert info_nce(similarity, partner, temperature, itself).tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("photos", [2, 5])
@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_nt_xent_of_orthogonal_pairs(photos, temperature):
    """Partners alike, all else at right angles: log(1 + (2B - 2) exp(-1 / t))."""
    similarity, partner, itself = nt_xent_pairs(torch.eye(photos)[:, None].expand(-1, 2, -1))
    expected = math.log(1 + (2 * photos - 2) * math.exp(-1 / temperature))
    assert info_nce(similarity, partner, temperature, itself).tolist() == pytest.approx([expected] * 2 * photos, rel=1e-5)


def test_nt_xent_of_collapsed_views_is_that_of_guessing():
    similarity, partner, itself = nt_xent_pairs(F.normalize(torch.ones(4, 2, 3), dim=2))
    assert info_nce(similarity, partner, 0.1, itself).tolist() == pytest.approx([math.log(7)] * 8, rel=1e-5)
    assert found(similarity, partner, itself).sum() == 0, "ties are not found"


def test_partners_are_each_others():
    similarity, partner, itself = nt_xent_pairs(random_views(3))
    assert partner.tolist() == [1, 0, 3, 2, 5, 4] and itself.equal(torch.eye(6, dtype=torch.bool))
    assert torch.allclose(similarity, similarity.T) and torch.allclose(similarity.diagonal(), torch.ones(6))


def test_negatives_push_apart_and_partners_pull_together():
    raw = random_views(2, 3, seed=4).requires_grad_()
    for _ in range(300):
        similarity, partner, itself = nt_xent_pairs(F.normalize(raw, dim=2))
        (gradient,) = torch.autograd.grad(info_nce(similarity, partner, 1.0, itself).mean(), raw)
        raw.data -= 0.3 * gradient
    similarity, *_ = nt_xent_pairs(F.normalize(raw.detach(), dim=2))
    assert similarity[0, 1] > 0.95 and similarity[2, 3] > 0.95 and similarity[:2, 2:].max() < -0.9


# Finding the positive


def test_found():
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.3, 0.2, 0.1]])
    assert found(similarity, torch.tensor([0, 0, 1])).tolist() == [1, 0, 0], "first: the highest; second: a tie; third: beaten"
    left_out = torch.tensor([[False] * 3, [False, True, False], [True, False, False]])
    assert found(similarity, torch.tensor([0, 0, 1]), left_out).tolist() == [1, 1, 1]
    assert found(torch.tensor([[0.4]]), torch.tensor([0])).tolist() == [1], "no rival at all"


def test_found_agrees_with_a_loop():
    similarity, partner, itself = nt_xent_pairs(random_views(8, 4))
    for row, right in enumerate(found(similarity, partner, itself).tolist()):
        rivals = [similarity[row, k].item() for k in range(16) if k not in (row, row ^ 1)]
        assert right == (similarity[row, row ^ 1].item() > max(rivals))


# How good a space of views is


def test_alignment():
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    views = torch.stack([torch.stack(pair) for pair in ((one, one), (one, other), (one, -one))])
    assert alignment(views).tolist() == pytest.approx([0, 2, 4]), "2 - 2 cosine"


def test_uniformity():
    assert uniformity(torch.ones(9, 4) / 2).item() == pytest.approx(0, abs=1e-6), "collapsed"
    axes = torch.cat([torch.eye(3), -torch.eye(3)])  # of 15 pairs, 12 at distance² 2 and 3 at 4
    assert uniformity(axes).item() == pytest.approx(math.log((12 * math.exp(-4) + 3 * math.exp(-8)) / 15), rel=1e-5)
    assert uniformity(torch.eye(3)[:1]).item() == 0, "one alone"
    many = F.normalize(torch.randn(1500, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    assert uniformity(many).item() == pytest.approx(-4, abs=0.1), "evenly spread in many dimensions: distance² is 2"


def test_feature_spread():
    assert feature_spread(torch.ones(9, 4)).item() == pytest.approx(0, abs=1e-5), "collapsed"
    assert feature_spread(torch.cat([torch.eye(8), -torch.eye(8)])).item() == pytest.approx(1), "evenly spread"
    many = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_spread(many).item() == pytest.approx(1, abs=0.01)
    assert feature_spread(many * 1000).item() == pytest.approx(feature_spread(many).item()), "lengths do not matter"
    assert feature_spread(many[:, :1]).item() == pytest.approx(1, abs=0.01) and feature_spread(many[:1]).item() == 0


def test_collapse_is_named():
    assert collapse_alarm(1.0) == collapse_alarm(contrastive.COLLAPSED) == ""
    assert "collapse" in collapse_alarm(0.02) and "0.020" in collapse_alarm(0.02)


# What follows


def test_follow():
    leader, follower = (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(2))
    with torch.no_grad():
        for parameter in leader.parameters():
            parameter.fill_(1.0)
        for parameter in follower.parameters():
            parameter.fill_(0.0)
    leader[1].running_mean.fill_(5.0)
    follow(follower, leader, 0.9)
    assert all(torch.allclose(p, torch.tensor(0.1)) for p in follower.parameters())
    follow(follower, leader, 0.9)
    assert all(torch.allclose(p, torch.tensor(0.19)) for p in follower.parameters())
    assert all((p == 1).all() for p in leader.parameters()), "the leader stays"
    assert (follower[1].running_mean == 0).all(), "batch norm's statistics are its own"
    follow(follower, leader, 1.0)
    assert all(torch.allclose(p, torch.tensor(0.19)) for p in follower.parameters())
    follow(follower, leader, 0.0)
    assert all((p == 1).all() for p in follower.parameters())

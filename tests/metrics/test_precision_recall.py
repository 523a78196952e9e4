import pytest
import torch

from difflab.errors import UserError
from difflab.metrics import precision_recall as module
from difflab.metrics.precision_recall import precision_recall


def features(n, seed, shift=0.0, dim=6, scale=1.0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)) * scale + shift


def grid(n, seed, dim=2):
    """Few places for many points, so that most distances are ties and many points are repeated."""
    return torch.randint(0, 4, (n, dim), generator=torch.Generator().manual_seed(seed)).float()


def by_definition(samples, reference, k):
    """Kynkaanniemi et al. 2019, eqs. 1 and 2, with Python loops over exact differences."""

    def squared(a, b):
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))

    def covered(points, centres):
        radii = [
            sorted(squared(c, other) for j, other in enumerate(centres) if i != j)[k - 1] for i, c in enumerate(centres)
        ]
        inside = [any(squared(p, c) <= r for c, r in zip(centres, radii, strict=True)) for p in points]
        return sum(inside) / len(inside)

    x, y = samples.double().tolist(), reference.double().tolist()
    return covered(x, y), covered(y, x)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("rows_at_once", [7, 1024])
@pytest.mark.parametrize("make", [features, grid])
def test_it_is_the_definition_in_blocks_of_any_size(monkeypatch, make, rows_at_once, k):
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", rows_at_once)
    samples, reference = make(40, 0), make(31, 1)
    found = precision_recall(samples, reference, k)
    assert found == pytest.approx(by_definition(samples, reference, k))
    assert min(found) > 0
    assert max(found) < 1 or make is grid


def test_torch_fidelity_agrees():
    from torch_fidelity.metric_prc import prc_features_to_metric

    samples, reference = features(300, 0, scale=0.8), features(200, 1)
    judged = prc_features_to_metric(
        samples.double(),
        reference.double(),
        prc_neighborhood=3,
        prc_batch_size=64,
        save_cpu_ram=False,
        verbose=False,
    )
    found = precision_recall(samples, reference, 3)
    assert found == pytest.approx((judged["precision"], judged["recall"]))
    assert found[0] > found[1]


def test_identical_sets_cover_each_other():
    x = features(50, 0)
    assert precision_recall(x, x, 3) == (1.0, 1.0)
    assert precision_recall(x, x[torch.randperm(50, generator=torch.Generator().manual_seed(2))], 3) == (1.0, 1.0)


def test_sets_far_apart_share_nothing():
    assert precision_recall(features(50, 0), features(50, 1, shift=100.0), 3) == (0.0, 0.0)


def test_a_mode_that_is_missing_costs_recall_and_not_precision():
    left, right = features(100, 0), features(100, 1, shift=100.0)
    both = torch.cat([left, right])
    dropped, whole = precision_recall(features(100, 2), both, 3), precision_recall(features(200, 2), left, 3)
    assert dropped[0] == pytest.approx(whole[0], abs=0.1)
    assert dropped[0] > 0.7
    assert 0.35 < dropped[1] <= 0.5


def test_a_mode_that_is_invented_costs_precision_and_not_recall():
    real, invented = features(100, 0), features(100, 1, shift=100.0)
    found = precision_recall(torch.cat([features(100, 2), invented]), real, 3)
    assert 0.35 < found[0] <= 0.5
    assert found[1] > 0.7


def test_samples_closer_to_the_middle_are_more_precise_and_cover_less():
    found = [precision_recall(features(400, 1, scale=scale), features(400, 0), 3) for scale in (1.0, 0.7, 0.4)]
    precisions, recalls = zip(*found, strict=True)
    assert list(precisions) == sorted(precisions)
    assert list(recalls) == sorted(recalls, reverse=True)
    assert recalls[-1] < recalls[0] / 2


def test_balls_without_size_hold_the_images_that_are_repeated():
    """The distances are zero, and what a product of matrices makes of them is noise around it."""
    reference = features(37, 0, dim=515, shift=10.0)
    repeated = reference.repeat_interleave(4, dim=0)
    assert precision_recall(reference, repeated, 3) == (1.0, 1.0)
    assert precision_recall(repeated[:52], reference, 3) == (1.0, pytest.approx(13 / 37))


def test_the_border_of_a_ball_belongs_to_it():
    reference = torch.tensor([[0.0], [1.0], [3.0], [0.1]])
    samples = torch.tensor([[6.0], [6.001], [-3.0], [-3.1], [20.0]])
    # k = 1: the ball around 3 has radius 2, around 0 radius 0.1, around 1 radius 0.9.
    assert precision_recall(samples, reference, 1)[0] == 0
    # k = 2: around 3 radius 2.9, around 0 radius 1, around 1 radius 1, around 0.1 radius 0.9.
    assert precision_recall(samples, reference, 2)[0] == 0
    # k = 3: around 3 and 0 radius 3; 6 and -3 lie on the border.
    assert precision_recall(samples, reference, 3)[0] == pytest.approx(2 / 5)


@pytest.mark.parametrize(("n", "m"), [(3, 20), (20, 3)])
def test_fewer_images_than_neighbours(n, m):
    with pytest.raises(UserError, match=rf"k=3 neighbours need at least 4 images .* there are {n} and {m}; draw more"):
        precision_recall(features(n, 0), features(m, 1), 3)
    assert precision_recall(features(4, 0), features(4, 0), 3) == (1.0, 1.0)


def test_features_that_are_not_finite_are_refused():
    bad = features(10, 0)
    bad[3, 1] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        precision_recall(bad, features(10, 1), 3)

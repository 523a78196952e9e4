import pytest
import torch

from difflab.errors import UserError
from difflab.metrics.config import KIDConfig
from difflab.metrics.kid import kernel_distance


def features(n, seed, shift=0.0, dim=8):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)) + shift


def mmd2_by_definition(x, y):
    """Gretton et al. 2012, eq. 3, with Python loops."""
    x, y = x.double().tolist(), y.double().tolist()

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    m = len(x)
    within = sum(k(s[i], s[j]) for s in (x, y) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within - 2 * sum(k(a, b) for a in x for b in y) / (m * m)


def test_one_subset_of_everything_is_the_definition():
    x, y = features(12, 0), features(12, 1, shift=0.3)
    value, spread = kernel_distance(x, y, KIDConfig(subsets=1, subset_size=12))
    assert value == pytest.approx(mmd2_by_definition(x, y), rel=1e-12)
    assert spread == 0.0


def test_torchmetrics_agrees_where_subsets_cannot_differ():
    from torchmetrics.image.kid import KernelInceptionDistance

    class Flat(torch.nn.Module):
        num_features = 12

        def forward(self, images):
            return images.flatten(1).double() / 255

    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, top, (30, 3, 2, 2), generator=generator, dtype=torch.uint8) for top in (256, 200))
    judge = KernelInceptionDistance(feature=Flat(), subsets=3, subset_size=30)
    judge.update(real, real=True)
    judge.update(fake, real=False)
    ours, _ = kernel_distance(Flat()(fake), Flat()(real), KIDConfig(subsets=3, subset_size=30))
    assert ours == pytest.approx(float(judge.compute()[0]), rel=1e-6)


def test_unbiased_at_small_counts():
    """The mean over many draws from one distribution is zero within four standard errors."""
    config = KIDConfig(subsets=1, subset_size=10)
    values = torch.tensor([kernel_distance(features(10, s), features(10, s + 999), config)[0] for s in range(300)])
    assert abs(values.mean()) < 4 * values.std() / 300**0.5
    assert kernel_distance(features(10, 0), features(10, 1, shift=1.0), config)[0] > 5 * values.std()


def test_the_seed_alone_chooses_the_subsets():
    x, y = features(50, 0), features(60, 1, shift=0.2)
    config = KIDConfig(subsets=5, subset_size=20)
    first = kernel_distance(x, y, config)
    torch.rand(3)
    assert kernel_distance(x, y, config) == first
    assert kernel_distance(x, y, KIDConfig(subsets=5, subset_size=20, seed=1)) != first


def test_gamma_and_degree_reach_the_kernel():
    x, y = features(12, 0), features(12, 1, shift=0.3)
    base = kernel_distance(x, y, KIDConfig(subsets=1, subset_size=12))
    assert kernel_distance(x, y, KIDConfig(subsets=1, subset_size=12, gamma=1 / 8)) == base
    for other in ({"gamma": 0.5}, {"degree": 2}, {"coef": 0.0}):
        assert kernel_distance(x, y, KIDConfig(subsets=1, subset_size=12, **other)) != base


def test_fewer_images_than_a_subset():
    with pytest.raises(UserError, match="set subset_size=12"):
        kernel_distance(features(12, 0), features(40, 1), KIDConfig(subset_size=20))

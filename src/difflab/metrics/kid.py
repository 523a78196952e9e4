"""Kernel distance between features: unbiased at any sample count."""

from __future__ import annotations

from torch import Tensor

from difflab.errors import UserError
from difflab.metrics.base import FeatureMetric, Samples
from difflab.metrics.config import KIDConfig
from difflab.metrics.naming import with_network
from difflab.metrics.protocol import Result

_RECORDED = ("subsets", "subset_size", "degree", "gamma", "coef", "seed")


class KernelDistance(FeatureMetric[KIDConfig]):
    """See `kernel_distance`."""

    keeps = frozenset({"pool"})

    def check_count(self, n: int) -> None:
        if n < self.config.subset_size:
            raise UserError(
                f"{self.key}.subset_size={self.config.subset_size} exceeds n={n}; "
                f"draw more or set {self.key}.subset_size={n}"
            )

    def check_reference(self, found: int) -> None:
        if found < self.config.subset_size:
            raise UserError(
                f"{self.key}.subset_size={self.config.subset_size} exceeds the {found} reference images; "
                f"set {self.key}.subset_size={found}"
            )

    def results(self, samples: Samples) -> list[Result]:
        features, reference = samples.compared_features()
        value, spread = kernel_distance(features.pool, reference, self.config)
        parameters = {key: getattr(self.config, key) for key in _RECORDED} | {"reference_features": len(reference)}
        name = samples.distance(with_network("kid", features.extractor.record))
        return [samples.result(name, value, parameters, spread=spread)]


def kernel_distance(features: Tensor, reference: Tensor, config: KIDConfig) -> tuple[float, float]:
    """Mean and standard deviation over subsets of the unbiased MMD^2; Binkowski et al. 2018, section 4, eq. 4.

    features [n, D], reference [m, D]; computed by torch-fidelity in float64. Slightly negative values are genuine.
    Permuting the rows changes the subsets: give both in a fixed order.

    Raises UserError if either side is smaller than a subset.
    """
    smaller = min(len(features), len(reference))
    if smaller < config.subset_size:
        raise UserError(
            f"kid needs at least subset_size={config.subset_size} images on each side, there are {len(features)} and "
            f"{len(reference)}; set subset_size={smaller} or draw more"
        )
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    values = kid_features_to_metric(
        features.double(),
        reference.double(),
        kid_subsets=config.subsets,
        kid_subset_size=config.subset_size,
        kid_kernel="poly",
        kid_kernel_poly_degree=config.degree,
        kid_kernel_poly_gamma=config.gamma,
        kid_kernel_poly_coef0=config.coef,
        rng_seed=config.seed,
        verbose=False,
    )
    return float(values[KEY_METRIC_KID_MEAN]), float(values[KEY_METRIC_KID_STD])

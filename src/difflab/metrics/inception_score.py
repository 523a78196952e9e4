"""Inception score: confident and varied classes."""

from __future__ import annotations

from torch import Tensor

from difflab.errors import UserError
from difflab.metrics.base import FeatureMetric, Samples
from difflab.metrics.config import InceptionScoreConfig
from difflab.metrics.naming import with_network
from difflab.metrics.protocol import Result


class InceptionScore(FeatureMetric[InceptionScoreConfig]):
    """See `inception_score`."""

    keeps = frozenset({"logits"})

    def check_count(self, n: int) -> None:
        if n < self.config.splits:
            raise UserError(
                f"{self.key}.splits={self.config.splits} exceeds n={n}; draw more or set {self.key}.splits={n}"
            )

    def results(self, samples: Samples) -> list[Result]:
        features = samples.features
        assert features is not None
        value, spread = inception_score(features.logits, self.config.splits, self.config.seed)
        parameters = {"splits": self.config.splits, "seed": self.config.seed}
        return [samples.result(with_network("is", features.extractor.record), value, parameters, spread=spread)]


def inception_score(logits: Tensor, splits: int, seed: int) -> tuple[float, float]:
    """Mean and standard deviation over splits of exp(E KL(p(y|x) || p(y))); Salimans et al. 2016, section 4.

    logits [n, K]; the rows are shuffled by `seed` first, as samples often come sorted by class. Computed by
    torch-fidelity in float64; between 1 and K.

    Raises UserError with fewer images than splits.
    """
    if len(logits) < splits:
        raise UserError(
            f"inception_score with splits={splits} needs at least as many images, there are {len(logits)}; "
            "lower splits or draw more"
        )
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    values = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=seed)
    return float(values[KEY_METRIC_ISC_MEAN]), float(values[KEY_METRIC_ISC_STD])

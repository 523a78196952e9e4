"""Inception score: confident and varied classes."""

from __future__ import annotations

from torch import Tensor

from difflab.errors import UserError


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

"""How much each noise level counts in the loss."""

from __future__ import annotations

from typing import Literal

import numpy as np

from difflab.diffusion.process import GaussianProcess, check_choice

Weighting = Literal["none", "min_snr"]


def loss_weights(process: GaussianProcess, weighting: Weighting, gamma: float = 5.0) -> np.ndarray | None:
    """The weight of each row of the process, float64 [T], on the squared error of its own prediction; None for 1.

    min_snr: min(SNR, gamma) on the error of x0, that is divided by SNR for eps and by SNR + 1 for v; Hang et al. 2023,
        "Efficient diffusion training via min-SNR weighting strategy", section 3.4.

    Raises ValueError for an unknown name, or a prediction that the weighting is not defined for.
    """
    check_choice("weighting", weighting, Weighting)
    if weighting == "none":
        return None
    if process.prediction == "prev":
        raise ValueError("weighting=min_snr is defined for predictions eps, x0 and v, not for prev: use weighting=none")
    snr = process.alphas_cumprod / (1.0 - process.alphas_cumprod)
    per_x0_error = {"x0": np.ones_like(snr), "eps": snr, "v": snr + 1.0}[process.prediction]
    return np.minimum(snr, gamma) / per_x0_error

"""How much each noise level counts in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from difflab.diffusion.parametrisation import Parametrisation
from difflab.diffusion.process import Prediction
from difflab.diffusion.tables import check_choice

Weighting = Literal["none", "min_snr", "p2", "edm"]


@dataclass(frozen=True)
class LossWeighting:
    """The weight of the squared error of what the network regresses, as a function of SNR = alpha^2 / sigma^2.

    Each is defined as a weight on the error of x0, and divided by what an error of the prediction makes of it.

    min_snr: min(SNR, gamma); Hang et al. 2023, "Efficient diffusion training via min-SNR weighting strategy",
             section 3.4.
    p2:      SNR / (k + SNR)^gamma, which on eps is 1 / (k + SNR)^gamma; Choi et al. 2022, "Perception prioritized
             training of diffusion models", eq. 8, with p2_k and p2_gamma.
    edm:     SNR + 1 / sigma_data^2, which on EDM's own prediction is 1; Karras et al. 2022, table 1, lambda(sigma).

    Raises ValueError for an unknown name.
    """

    kind: Weighting = "none"
    gamma: float = 5.0
    p2_k: float = 1.0
    p2_gamma: float = 1.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        check_choice("weighting", self.kind, Weighting)

    def __call__(self, snr: Tensor, prediction: Prediction | Parametrisation) -> Tensor | None:
        """snr [B] -> weights [B], None for 1; infinite only for edm on eps at snr = 0.

        Raises ValueError for a prediction that no weighting is defined for.
        """
        if self.kind == "none":
            return None
        if prediction == "prev":
            raise ValueError(
                f"weighting={self.kind} is defined for predictions eps, x0 and v, not for prev: use weighting=none"
            )
        weights = self._on_x0(snr) / self._error_per_x0_error(snr, prediction)
        if prediction not in ("eps", "ve") or self.kind == "edm":
            return weights
        # Without any signal the error of eps is that of x0 times 0: the limit of two zeros' ratio.
        return torch.where(snr == 0.0, 1.0 if self.kind == "min_snr" else self.p2_k**-self.p2_gamma, weights)

    def _on_x0(self, snr: Tensor) -> Tensor:
        if self.kind == "min_snr":
            return snr.clamp(max=self.gamma)
        if self.kind == "p2":
            return snr / (self.p2_k + snr) ** self.p2_gamma
        return snr + self.sigma_data**-2

    def _error_per_x0_error(self, snr: Tensor, prediction: Prediction | Parametrisation) -> Tensor | float:
        """The squared error of the prediction where that of x0 is 1."""
        if prediction in ("eps", "ve"):
            return snr
        if prediction == "v":
            return snr + 1.0
        return 1.0 if prediction == "x0" else snr + self.sigma_data**-2

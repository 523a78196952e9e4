"""Loss weightings: weights of the squared error as functions of SNR = alpha^2 / sigma^2."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from difflab.diffusion.predictions import Prediction

if TYPE_CHECKING:
    from difflab.diffusion.base_process import Process
    from difflab.diffusion.config import MinSNRConfig, P2Config, WeightingBase


class LossWeighting(ABC):
    """A weight on the error of x0, converted to a weight on the error of the network's own prediction.

    name: its name in the configuration.
    """

    name: ClassVar[str]

    @abstractmethod
    def on_x0(self, snr: Tensor) -> Tensor:
        """Returns the weight of the squared error of x0: snr [B] -> [B]."""

    @property
    def without_signal(self) -> float | None:
        """Returns the limit of weight / SNR as the SNR goes to 0, None if that is infinite."""
        return None

    def __call__(self, snr: Tensor, prediction: Prediction) -> Tensor:
        """Returns the weight of the squared error of the network's prediction: snr [B] -> [B].

        Raises ValueError if the prediction is defined only on the rows of a table.
        """
        if prediction.rows_only:
            raise ValueError(
                f"weighting={self.name} is defined for predictions eps, x0 and v, not for {prediction.name}: "
                "use weighting=none"
            )
        weights = self.on_x0(snr) / prediction.error_per_x0_error(snr)
        if self.without_signal is None or not prediction.needs_signal:
            return weights
        # Without any signal the error of eps is that of x0 times 0: use the limit of the ratio.
        return torch.where(snr == 0.0, self.without_signal, weights)


@dataclass(frozen=True)
class MinSNR(LossWeighting):
    """min(SNR, gamma), and at least `floor`; Hang et al. 2023, "Efficient diffusion training via min-SNR weighting
    strategy", section 3.4. A floor of 1 is the truncated SNR of Salimans and Ho 2022, section 4."""

    name = "min_snr"

    gamma: float = 5.0
    floor: float = 0.0

    def on_x0(self, snr: Tensor) -> Tensor:
        return snr.clamp(min=self.floor, max=self.gamma)

    @property
    def without_signal(self) -> float | None:
        return 1.0 if self.floor == 0.0 else None

    @classmethod
    def from_config(cls, config: MinSNRConfig, process: Process) -> MinSNR:
        return cls(config.gamma, config.floor)


@dataclass(frozen=True)
class P2(LossWeighting):
    """SNR / (k + SNR)^gamma, which is 1 / (k + SNR)^gamma on eps; Choi et al. 2022, "Perception prioritized training of
    diffusion models", eq. 8.
    """

    name = "p2"

    k: float = 1.0
    gamma: float = 1.0

    def on_x0(self, snr: Tensor) -> Tensor:
        return snr / (self.k + snr) ** self.gamma

    @property
    def without_signal(self) -> float:
        return self.k**-self.gamma

    @classmethod
    def from_config(cls, config: P2Config, process: Process) -> P2:
        return cls(config.k, config.gamma)


@dataclass(frozen=True)
class EDMWeighting(LossWeighting):
    """SNR + 1 / sigma_data^2, which is 1 on EDM's own prediction; Karras et al. 2022, table 1, lambda(sigma)."""

    name = "edm"

    sigma_data: float = 0.5

    def on_x0(self, snr: Tensor) -> Tensor:
        return snr + self.sigma_data**-2

    @classmethod
    def from_config(cls, config: WeightingBase, process: Process) -> EDMWeighting:
        return cls(process.sigma_data)


def no_weighting(config: WeightingBase, process: Process) -> None:
    """Returns None: all levels are weighted equally."""

"""What the processes of the `diffusion` group have in common, and the base of each axis below it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from difflab.config.axes import DIFFUSIONS, PREDICTIONS, SCHEDULES, WEIGHTINGS
from difflab.config.base import Config

BetaValue = Annotated[float, Field(gt=0, lt=1)]


class ScheduleBase(Config):
    """Base of the noise schedules."""

    kind: str
    shift: float = Field(default=1.0, gt=0)
    """Factor on sigma / alpha of every step: above 1 for more steps where layout and colours are decided (simple
    diffusion, section 3.1: pixels per side / 64)."""
    zero_terminal_snr: bool = False
    """Rescaled to end in pure noise (Lin et al. 2024, algorithm 1); needs prediction v or x0."""

    @property
    def ends_without_signal(self) -> str | None:
        """Which option makes its last row pure noise, in words; None if some signal is left."""
        return "zero_terminal_snr" if self.zero_terminal_snr else None

    def check_timesteps(self, timesteps: int) -> None:
        """Raises ValueError if it is undefined for this number of timesteps."""
        if timesteps < 2 and self.zero_terminal_snr:
            raise ValueError(f"schedule {self.kind} needs timesteps of 2 or more, got {timesteps}")


class RampConfig(ScheduleBase):
    """Base of the schedules between two betas."""

    beta_start: BetaValue = 1e-4
    """The first beta."""
    beta_end: BetaValue = 0.02
    """The last beta."""


class CappedConfig(ScheduleBase):
    """Base of the schedules derived from alpha_bar."""

    max_beta: BetaValue = 0.999
    """The largest beta (Improved DDPM, section 3.2)."""


Schedule = Annotated[ScheduleBase, SCHEDULES]


class TimestepSamplingBase(Config):
    """Base of the samplers of training timesteps.

    between_rows: whether it draws noise levels between two rows of the table.
    """

    between_rows: ClassVar[bool] = False

    kind: str


class SigmaDistributionBase(Config):
    """Base of the distributions of training noise levels, sigma / alpha.

    has_ends: whether it has a lowest and a highest level. has_vp_time: whether its time is that of the VP process.
    """

    has_ends: ClassVar[bool] = True
    has_vp_time: ClassVar[bool] = False

    kind: str


class WeightingBase(Config):
    """Base of the weightings of the squared error.

    weighs: whether it changes anything.
    """

    weighs: ClassVar[bool] = True

    kind: str


@WEIGHTINGS.register("difflab.diffusion.weighting:no_weighting")
class NoWeighting(WeightingBase):
    """Every noise level counts alike."""

    weighs: ClassVar[bool] = False

    kind: Literal["none"]


class DiffusionBase(Config):
    """Base of the processes: what the network predicts and how errors are weighted.

    loss_builder, times_builder: build the loss and the sampler of training times from (config, process).
    """

    loss_builder: ClassVar[str] = "difflab.diffusion.losses:DiffusionLoss.from_config"
    times_builder: ClassVar[str] = "difflab.diffusion.timesteps:UniformPositions.from_config"

    kind: str
    prediction: Annotated[str, PREDICTIONS]
    """What the network predicts: eps, x0, v; edm and ve (EDM table 1); prev, the mean of x_{t-1} (of a table)."""
    variance: str = "fixed_large"
    """The variance of ancestral sampling: fixed_small is the posterior's, fixed_large is beta."""
    variance_mix: float = Field(default=0.0, ge=0, le=1)
    """v of variance=interpolated, fixed_small^(1-v) fixed_large^v."""
    loss: str = "mse"
    """The loss on the prediction: mse or l1."""
    weighting: Annotated[WeightingBase, WEIGHTINGS] = NoWeighting(kind="none")
    """The weight of each noise level in the squared error."""
    sigma_data: float = Field(default=0.5, gt=0)
    """Standard deviation of the data, used by prediction=edm and weighting=edm (EDM table 1)."""

    @property
    def learns_variance(self) -> bool:
        """Whether the network's output has twice the channels of its input."""
        return self.variance in ("learned", "learned_range")

    @property
    def levels_in_words(self) -> str:
        """Its noise levels, for messages."""
        return self.kind

    @model_validator(mode="after")
    def _check_weighting(self) -> Self:
        if self.weighting.weighs and (self.loss in ("l1", "kl", "rescaled_kl") or self.prediction == "prev"):
            raise ValueError(
                f"weighting={self.weighting.kind} weighs the squared error of eps, x0 or v, not loss={self.loss} of "
                f"prediction={self.prediction}: set weighting=none"
            )
        return self


DiffusionConfig = Annotated[DiffusionBase, DIFFUSIONS]
"""One process, selected by `kind`."""

"""The configuration of `difflab likelihood`: a stored run, real images, and how their likelihood is computed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difflab.config.base import Config
from difflab.config.work import MeasuringImagesConfig


class BoundConfig(Config):
    """The variational bound over all timesteps of a discrete process."""

    kind: Literal["bound"]
    clip_denoised: bool = True
    """Clip the predicted x0 to [-1, 1]."""


class ODEConfig(Config):
    """The probability-flow ODE."""

    kind: Literal["ode"]
    solver: Literal["dopri5", "rk4", "heun"] = "dopri5"
    """The ODE solver: dopri5 adapts its steps to rtol and atol; rk4 and heun take `steps` steps."""
    rtol: float = Field(default=1e-5, gt=0)
    """For dopri5: the relative tolerance per step."""
    atol: float = Field(default=1e-5, gt=0)
    """For dopri5: the absolute tolerance per step."""
    steps: int = Field(default=100, ge=1)
    """For rk4 and heun: the number of steps."""
    trace: Literal["rademacher", "gaussian"] = "rademacher"
    """The random vectors of the trace estimator of the divergence: rademacher or gaussian."""
    probes: int = Field(default=1, ge=1)
    """The number of random vectors."""
    sigma_min: float | None = Field(default=None, gt=0)
    """The lowest sigma / alpha; null = that of samplers."""
    sigma_max: float | None = Field(default=None, gt=0)
    """The highest sigma / alpha; null = that of samplers."""


MethodConfig = Annotated[BoundConfig | ODEConfig, Field(discriminator="kind")]


class LikelihoodConfig(MeasuringImagesConfig):
    """`difflab likelihood`.

    out: where the records go; null = <run>/evaluations/likelihood-<method>-<split>-n<n>-<hash of the rest>. They are
        also added to the run's evaluations.jsonl.
    """

    method: MethodConfig
    """The variational bound of a discrete process (bound), or the probability-flow ODE (ode)."""

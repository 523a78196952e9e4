"""The configuration of `difflab likelihood`: a stored run, real images, and how their likelihood is found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difflab.config.base import Config
from difflab.config.work import MeasuringImagesConfig


class BoundConfig(Config):
    """The variational bound by all steps of the table.

    clip_denoised: predicted x0 is clipped to [-1, 1].
    """

    kind: Literal["bound"]
    clip_denoised: bool = True


class ODEConfig(Config):
    """The probability-flow ODE.

    solver: dopri5 holds its error within rtol and atol; rk4 and heun take `steps` steps.
    trace, probes: of the estimate of the divergence.
    sigma_min, sigma_max: ends of sigma / alpha; null for those that samplers visit.
    """

    kind: Literal["ode"]
    solver: Literal["dopri5", "rk4", "heun"] = "dopri5"
    rtol: float = Field(default=1e-5, gt=0)
    atol: float = Field(default=1e-5, gt=0)
    steps: int = Field(default=100, ge=1)
    trace: Literal["rademacher", "gaussian"] = "rademacher"
    probes: int = Field(default=1, ge=1)
    sigma_min: float | None = Field(default=None, gt=0)
    sigma_max: float | None = Field(default=None, gt=0)


MethodConfig = Annotated[BoundConfig | ODEConfig, Field(discriminator="kind")]


class LikelihoodConfig(MeasuringImagesConfig):
    """`difflab likelihood`.

    method: bound or ode.
    out: where the records go; null = <run>/evaluations/likelihood-<method>-<split>-n<n>-<hash of the rest>. They are
        also added to the run's evaluations.jsonl.
    """

    method: MethodConfig

"""The configuration of `difflab likelihood`: a stored run, real images, and how their likelihood is found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difflab.config.base import Config
from difflab.config.work import MeasuringImagesConfig


class BoundConfig(Config):
    """The variational bound by all steps of the table."""

    kind: Literal["bound"]
    clip_denoised: bool = True
    """The predicted x0 is clipped to [-1, 1]."""


class ODEConfig(Config):
    """The probability-flow ODE."""

    kind: Literal["ode"]
    solver: Literal["dopri5", "rk4", "heun"] = "dopri5"
    """dopri5 holds its error within rtol and atol; rk4 and heun take `steps` steps."""
    rtol: float = Field(default=1e-5, gt=0)
    """Of dopri5: the relative error of a step."""
    atol: float = Field(default=1e-5, gt=0)
    """Of dopri5: the absolute error of a step."""
    steps: int = Field(default=100, ge=1)
    """Of rk4 and heun: how many."""
    trace: Literal["rademacher", "gaussian"] = "rademacher"
    """The vectors by which the divergence is estimated: rademacher or gaussian."""
    probes: int = Field(default=1, ge=1)
    """How many such vectors."""
    sigma_min: float | None = Field(default=None, gt=0)
    """The lowest sigma / alpha; null is that of samplers."""
    sigma_max: float | None = Field(default=None, gt=0)
    """The highest sigma / alpha; null is that of samplers."""


MethodConfig = Annotated[BoundConfig | ODEConfig, Field(discriminator="kind")]


class LikelihoodConfig(MeasuringImagesConfig):
    """`difflab likelihood`.

    out: where the records go; null = <run>/evaluations/likelihood-<method>-<split>-n<n>-<hash of the rest>. They are
        also added to the run's evaluations.jsonl.
    """

    method: MethodConfig
    """The variational bound of a table (bound), or the probability-flow ODE (ode)."""

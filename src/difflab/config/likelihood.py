"""The configuration of `difflab likelihood`: a stored run, real images, and how their likelihood is found."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.data import DataConfig
from difflab.config.logger import LoggerConfig
from difflab.config.ranks import RanksConfig


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
    noise_min, noise_max: ends of sigma / alpha; null for those that samplers visit.
    """

    kind: Literal["ode"]
    solver: Literal["dopri5", "rk4", "heun"] = "dopri5"
    rtol: float = Field(default=1e-5, gt=0)
    atol: float = Field(default=1e-5, gt=0)
    steps: int = Field(default=100, ge=1)
    trace: Literal["rademacher", "gaussian"] = "rademacher"
    probes: int = Field(default=1, ge=1)
    noise_min: float | None = Field(default=None, gt=0)
    noise_max: float | None = Field(default=None, gt=0)


MethodConfig = Annotated[BoundConfig | ODEConfig, Field(discriminator="kind")]


class LikelihoodConfig(Config):
    """`difflab likelihood`.

    run: a run directory, an exported folder, or a checkpoint file.
    method: bound or ode.
    data: the data set; null = the one the run was trained on. `split` is the part of it, n how many of its images.
    seed: of the noise; that of an image depends on the seed and its place in the split alone.
    batch_size: images of each process at once.
    weights: the averaged (ema) or the raw weights.
    devices: processes, each with its share of the images; auto = one for each GPU, one on a CPU.
    ranks: how long they wait for a silent one.
    precision: of the network's arithmetic.
    out: where the records go; null = <run>/likelihood/<method>-<split>-n<n>-<hash of the rest>. They are also added to
        the run's evaluations.jsonl.
    """

    run: str | None
    method: MethodConfig
    data: DataConfig | None = None
    split: str
    n: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=1)]
    weights: Literal["ema", "raw"]
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Annotated[int, Field(ge=1)] | Literal["auto"]
    ranks: RanksConfig = RanksConfig()
    precision: Literal["32-true", "bf16-mixed"]
    logger: LoggerConfig
    out: str | None

    @model_validator(mode="after")
    def _there_is_a_model(self) -> Self:
        if self.run is None:
            raise ValueError(
                "run has no value: give one, as in run=... (a run directory, an exported folder or a checkpoint)"
            )
        return self

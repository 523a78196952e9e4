"""The `sampler` group: which sampler, with how many steps, spaced how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from difflab.config.level_sampler import (
    DPM2AncestralConfig,
    DPM2Config,
    DPMFastConfig,
    DPMSolverPP2MSDEConfig,
    DPMSolverPP2SAncestralConfig,
    DPMSolverPP3MSDEConfig,
    DPMSolverPPConfig,
    DPMSolverPPSDEConfig,
    EDMAblationConfig,
    EulerAncestralConfig,
    EulerConfig,
    HeunConfig,
    LMSConfig,
    UniPCConfig,
)
from difflab.config.listed import ListedConfig


class _Strided(ListedConfig):
    """steps: null for all training steps, a number, or for spacing=sections also "10,10,20", "ddim50" or a list."""

    steps: int | str | list[int] | None = None
    spacing: Literal["sections", "ddim", "leading", "linspace", "trailing", "ldm_uniform", "ldm_quad", "listed"] = (
        "sections"
    )
    steps_offset: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        steps = self.steps
        if steps is None:
            return self
        if isinstance(steps, int):
            if steps < 1:
                raise ValueError(f"steps={steps} must be 1 or more (null takes every training step)")
            return self
        if self.spacing != "sections":
            raise ValueError(f"spacing={self.spacing} takes a number in steps; {steps!r} needs spacing=sections")
        if isinstance(steps, str) and not re.fullmatch(r"ddim\d+|\d+(,\d+)*", steps):
            raise ValueError(f'steps={steps!r} is not understood; write a number, "10,10,20" or "ddim50"')
        if isinstance(steps, list) and (not steps or min(steps) < 1):
            raise ValueError(f"steps={steps} must list how many steps each section takes, 1 or more")
        return self


class AncestralConfig(_Strided):
    """DDPM's own sampler."""

    kind: Literal["ancestral"]


class _Striding(_Strided):
    """stride: constant goes down by T // steps whatever was kept."""

    final_level: Literal["clean", "first"] = "clean"
    stride: Literal["listed", "constant"] = "listed"

    @model_validator(mode="after")
    def _check_stride(self) -> Self:
        if self.spacing == "listed" and self.stride == "constant":
            raise ValueError("stride=constant leaves the levels of spacing=listed: take stride=listed")
        return self

    def _listing(self, noises: Sequence[float]) -> dict[str, Any]:
        return {**super()._listing(noises), "stride": "listed"}


class DDIMConfig(_Striding):
    """DDIM; eta 0 is deterministic, 1 as noisy as the posterior."""

    kind: Literal["ddim"]
    eta: float = Field(default=0.0, ge=0)


class DDIMInversionConfig(_Strided):
    """From an image to its noise."""

    kind: Literal["ddim_inversion"]
    end: Literal["pure_noise", "last_row"] = "last_row"


BetweenLevels = (
    EulerConfig
    | HeunConfig
    | EulerAncestralConfig
    | DPM2Config
    | DPM2AncestralConfig
    | LMSConfig
    | DPMSolverPP2SAncestralConfig
    | DPMSolverPPSDEConfig
    | DPMSolverPP2MSDEConfig
    | DPMSolverPP3MSDEConfig
    | DPMFastConfig
    | DPMSolverPPConfig
    | UniPCConfig
    | EDMAblationConfig
)


class PLMSConfig(_Striding):
    """PLMS of latent diffusion, or PNDM with warm_up=runge_kutta; on the timesteps of a table."""

    kind: Literal["plms"]
    warm_up: Literal["improved_euler", "runge_kutta"] = "improved_euler"


SamplerConfig = Annotated[
    AncestralConfig | DDIMConfig | DDIMInversionConfig | PLMSConfig | BetweenLevels,
    Field(discriminator="kind"),
]


def refuse_inversion(sampler: SamplerConfig, key: str = "sampler") -> None:
    """Raises ValueError for a sampler that draws nothing. key: where it was chosen."""
    if isinstance(sampler, DDIMInversionConfig):
        raise ValueError(f"{key}=ddim_inversion goes from images to noise and draws none; choose ddim or ancestral")

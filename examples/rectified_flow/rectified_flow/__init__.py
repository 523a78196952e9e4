"""Rectified flow (Liu et al. 2022; Lipman et al. 2022): what it adds to difflab's axes. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from difflab.config.axes import DIFFUSIONS, PREDICTIONS, SAMPLERS
from difflab.config.diffusion import DiffusionBase
from difflab.config.sampler import SamplerBase

PREDICTIONS.register("flow", "rectified_flow.process:Flow")


@DIFFUSIONS.register("rectified_flow.process:RectifiedFlow")
class RectifiedFlowConfig(DiffusionBase):
    """Straight paths x_t = (1 - t) x0 + t eps, of which the network learns the velocity eps - x0."""

    times_builder: ClassVar[str] = "rectified_flow.process:training_times"

    kind: Literal["rectified_flow"]
    prediction: Annotated[str, PREDICTIONS] = "flow"
    """What the network regresses: flow, the velocity eps - x0 (Liu et al. 2022, eq. 1), or any other of difflab."""
    times: Literal["uniform", "logit_normal"] = "uniform"
    """Which t are trained on; logit_normal: the sigmoid of a standard normal (Esser et al. 2024, section 3.1)."""
    t_max: float = Field(default=0.999, gt=0.5, lt=1)
    """The latest t of samplers that cannot begin at t = 1, where nothing of x0 is left."""


@SAMPLERS.register("rectified_flow.sampler:FlowEuler.from_config")
class FlowEulerConfig(SamplerBase):
    """Euler's method in t, from t = 1 to 0 (Liu et al. 2022, section 2.1)."""

    kind: Literal["flow_euler"]
    steps: int = Field(default=50, ge=1)
    """How many, evenly spaced in t."""
    shift: float = Field(default=1.0, gt=0)
    """Above 1, more of the steps are spent where noise is high (Esser et al. 2024, eq. 23)."""

"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.base import Config


class LearningRateConfig(Config):
    """A factor on the learning rate as a function of `train/step`."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """The length of a linear warmup from 0 to 1 (DDPM: 5,000)."""
    decay: Literal["none", "linear", "cosine"] = "none"
    """The decay to `decay_to` at the last step of training: none, linear or cosine (ADM's classifier: linear)."""
    warmup_from: Annotated[float, Field(ge=0, le=1)] | None = None
    """The factor of the first step of the warmup (latent diffusion: 1e-6); null begins with 1 / warmup_steps."""
    decay_to: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The factor at the end of the decay."""
    decay_from: Literal["start", "warmup", "jump"] = "start"
    """Where the decay begins. start: at the first step, multiplied with the warmup; warmup: when the warmup ends, as in
    latent diffusion's cosine schedules; jump: at the first step, but it shows only after the warmup, when the rate
    jumps onto it, as in latent diffusion's `LambdaLinearScheduler`."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if not self.warmup_steps and self.warmup_from is not None:
            raise ValueError(f"warmup_from={self.warmup_from:g} needs a warmup: set warmup_steps")
        if self.decay == "none" and self.decay_to != 0:
            raise ValueError(f"decay_to={self.decay_to:g} needs a decay: set decay to linear or cosine")
        if self.decay_from != "start" and (self.decay == "none" or not self.warmup_steps):
            raise ValueError(
                f"decay_from={self.decay_from} needs a warmup and a decay: set warmup_steps, and decay to linear or "
                "cosine"
            )
        return self


class OptimizerConfig(Config):
    """adam is torch's Adam (L2 weight decay), adamw decouples the decay."""

    kind: Literal["adam", "adamw"]
    lr: Annotated[float, Field(gt=0)]
    """The learning rate."""
    betas: list[float] = Field(default_factory=lambda: [0.9, 0.999])
    """Decay rates of the moving averages of the gradient and its square."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator for numerical stability."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Added to the gradient by adam, subtracted from the weights by adamw."""
    decayed: Literal["all", "matrices"] = "all"
    """Whether gains, biases and other vectors and numbers decay too (CLIP: matrices alone)."""
    schedule: LearningRateConfig = LearningRateConfig()
    """A factor on the learning rate as a function of `train/step`."""

    @model_validator(mode="after")
    def _two_betas(self) -> OptimizerConfig:
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas={self.betas} must be two numbers in [0, 1), as in betas=[0.9,0.999]")
        return self

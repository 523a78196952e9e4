"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from difflab.config.base import Config


class LearningRateConfig(Config):
    """A factor on the learning rate as a function of `train/step`."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """The length of a linear warmup from 0 to 1 (DDPM: 5,000)."""
    decay: Literal["none", "linear", "cosine"] = "none"
    """The decay to 0 at the last step of training: none, linear or cosine (ADM's classifier: linear)."""


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

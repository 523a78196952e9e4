"""Devices, precision and length of training: what goes to Lightning's Trainer, and a few defaults chosen per device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.ranks import RanksConfig


class TrainerConfig(Config):
    """One optimised batch is one step.

    max_steps: training ends after this many optimised batches.
    accumulate: each process works its share of a global batch (`data.batch_size`) through in this many parts.
    gradient_clip: the largest norm of the gradients of each optimizer, 0 = any.
    precision: auto = bf16-mixed on GPUs with bf16 and CPUs with AMX, fp32 elsewhere.
    compile, channels_last: auto = on for CUDA, off for CPU (docs/performance.md has the measurements).
    deterministic: a resumed run is the uninterrupted one, bit for bit; on CUDA an operation that has no deterministic
        kernel then ends training.
    val_every_steps: 0 = no validation; val_batches limits one validation.
    ranks: how long several processes wait for a silent one.
    """

    max_steps: Annotated[int, Field(gt=0)]
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] | list[int] = 1
    num_nodes: Annotated[int, Field(ge=1)] = 1
    strategy: Literal["auto", "ddp"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    accumulate: Annotated[int, Field(ge=1)] = 1
    gradient_clip: Annotated[float, Field(ge=0)] = 1.0
    compile: Literal["auto"] | bool = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    deterministic: bool = True
    log_every_steps: Annotated[int, Field(ge=1)] = 10
    val_every_steps: Annotated[int, Field(ge=0)] = 0
    val_batches: Annotated[int, Field(ge=1)] | None = None
    ranks: RanksConfig = RanksConfig()

    @model_validator(mode="after")
    def _scaler_and_clip(self) -> TrainerConfig:
        if self.precision == "16-mixed" and self.accelerator == "cpu":
            raise ValueError("precision=16-mixed needs a GPU; use trainer.precision=32-true on a CPU")
        return self

"""Devices, precision and length of training: what goes to Lightning's Trainer, and a few defaults chosen per device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.ranks import RanksConfig


class TrainerConfig(Config):
    """One optimised batch is one step."""

    max_steps: Annotated[int, Field(gt=0)]
    """Training ends after so many optimised batches."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """The kind of device: auto, cpu, gpu, cuda or mps; auto takes a GPU where there is one."""
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] | list[int] = 1
    """Devices of each node: a number, a list of their indices, or auto for all."""
    num_nodes: Annotated[int, Field(ge=1)] = 1
    """Machines, each with so many devices."""
    strategy: Literal["auto", "ddp"] = "auto"
    """How several devices train together: ddp; auto is ddp where there are several."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Of the arithmetic: auto, 32-true, bf16-mixed or 16-mixed. auto = bf16-mixed on GPUs with bf16 and CPUs with AMX,
    fp32 elsewhere."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """In how many parts each process works through its share of a batch (`data.batch_size`)."""
    gradient_clip: Annotated[float, Field(ge=0)] = 1.0
    """The largest norm of the gradients of each optimizer, 0 = any."""
    compile: Literal["auto"] | bool = "auto"
    """Whether torch compiles the network; auto = on CUDA, where it was measured to pay."""
    channels_last: Literal["auto"] | bool = "auto"
    """Whether images lie with their channels last in memory; auto = on CUDA."""
    deterministic: bool = True
    """A resumed run is the uninterrupted one, bit for bit. On CUDA an operation that has no deterministic kernel then
    ends training."""
    log_every_steps: Annotated[int, Field(ge=1)] = 10
    """Optimised batches between two rows of `train/` metrics."""
    val_every_steps: Annotated[int, Field(ge=0)] = 0
    """Optimised batches between two validations, 0 = no validation."""
    val_batches: Annotated[int, Field(ge=1)] | None = None
    """At most so many batches of the validation split; null = all of them."""
    ranks: RanksConfig = RanksConfig()
    """How long several processes wait for a silent one."""

    @model_validator(mode="after")
    def _scaler_and_clip(self) -> TrainerConfig:
        if self.precision == "16-mixed" and self.accelerator == "cpu":
            raise ValueError("precision=16-mixed needs a GPU; use trainer.precision=32-true on a CPU")
        return self

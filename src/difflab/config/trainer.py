"""Devices, precision and length of training: options of Lightning's Trainer, and some defaults chosen per device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.ranks import RanksConfig


class TrainerConfig(Config):
    """One step is one optimizer update."""

    max_steps: Annotated[int, Field(gt=0)]
    """The number of optimizer steps after which training ends."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """The kind of device: auto, cpu, gpu, cuda or mps; auto = a GPU if there is one."""
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] | list[int] = 1
    """Devices per node: a number, a list of indices, or auto for all."""
    num_nodes: Annotated[int, Field(ge=1)] = 1
    """The number of machines."""
    strategy: Literal["auto", "ddp"] = "auto"
    """How several devices train together: ddp; auto = ddp if there are several."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """The precision: auto, 32-true, bf16-mixed or 16-mixed. auto = bf16-mixed on GPUs with bf16 and CPUs that
    multiply in it (AMX, AVX512-BF16), fp32 otherwise."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """The number of parts into which each process splits its share of a batch (`data.batch_size`)."""
    gradient_clip: Annotated[float, Field(ge=0)] = 1.0
    """The largest gradient norm of each optimizer; 0 = no clipping."""
    compile: Literal["auto"] | bool = "auto"
    """Whether to use torch.compile on the network; auto = on CUDA, where it was measured to pay."""
    channels_last: Literal["auto"] | bool = "auto"
    """Whether to use the channels_last memory format; auto = on CUDA."""
    deterministic: bool = True
    """Make a resumed run identical to an uninterrupted one, bit for bit. On CUDA, an operation without a deterministic
    kernel then ends training."""
    log_every_steps: Annotated[int, Field(ge=1)] = 10
    """Optimizer steps between two rows of `train/` metrics."""
    val_every_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps between two validations; 0 = no validation."""
    val_batches: Annotated[int, Field(ge=1)] | None = None
    """The largest number of validation batches; null = all."""
    ranks: RanksConfig = RanksConfig()
    """How long several processes wait for an unresponsive one."""

    @model_validator(mode="after")
    def _scaler_and_clip(self) -> TrainerConfig:
        if self.precision == "16-mixed" and self.accelerator == "cpu":
            raise ValueError("precision=16-mixed needs a GPU; use trainer.precision=32-true on a CPU")
        return self

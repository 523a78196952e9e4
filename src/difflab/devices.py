"""The meaning of `auto` on this machine: accelerator, precision, compilation and memory layout.

The choices are measured; development/performance.md has the figures.
"""

from __future__ import annotations

import os
from typing import Literal

import torch
import torch.utils.deterministic
from torch import Tensor, nn

from difflab.errors import UserError
from difflab.types import Conditioning, Network

Accelerator = Literal["cpu", "cuda", "mps"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def resolve_accelerator(choice: str) -> Accelerator:
    """auto = a GPU if torch can use one. Raises UserError for a missing device."""
    if choice in ("gpu", "cuda"):
        if not torch.cuda.is_available():
            raise UserError(f"accelerator={choice}, but torch finds no GPU here; use accelerator=auto or cpu")
        return "cuda"
    if choice == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("accelerator=mps, but torch finds no Apple GPU here; use accelerator=auto or cpu")
        return "mps"
    if choice == "auto" and torch.cuda.is_available():
        return "cuda"
    return "cpu"


def training_precision(choice: Precision | Literal["auto"], accelerator: Accelerator) -> Precision:
    """Lightning's name of the training precision; auto = bf16-mixed if the device is built for it, else fp32."""
    if choice != "auto":
        return choice
    return "bf16-mixed" if fast_in_bf16(accelerator) else "32-true"


def sampling_autocast(choice: Literal["auto", "32-true", "bf16-mixed"], accelerator: Accelerator) -> torch.dtype | None:
    """The autocast dtype of the network in sampling, or None for float32; auto as in training."""
    bf16 = fast_in_bf16(accelerator) if choice == "auto" else choice == "bf16-mixed"
    return torch.bfloat16 if bf16 else None


def under_autocast(network: nn.Module, dtype: torch.dtype | None) -> Network:
    """The network with its arithmetic in `dtype` and its output in float32; None for float32 throughout."""

    def call(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        with torch.autocast(x.device.type, dtype=dtype, enabled=dtype is not None):
            return network(x, time, conditioning).float()

    return call


def choose_arithmetic(device: torch.device, precision: str) -> None:
    """Sets how this process multiplies float32 on a GPU: exactly with 32-true, else in TF32.

    For numbers that are kept or compared; sampling allows TF32, whose error exceeds the tolerances of an ODE solver.
    """
    if device.type == "cuda":
        exact = precision == "32-true"
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact


def fast_in_bf16(accelerator: Accelerator) -> bool:
    """GPUs with bf16, and CPUs that multiply in it: AMX (Intel since 2023) or AVX512-BF16 (AMD since Zen 4)."""
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported()
    return accelerator == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def deterministic_mode(wanted: bool, accelerator: Accelerator) -> bool | Literal["warn"]:
    """The mode of deterministic algorithms, which make a resumed run identical to an uninterrupted one, bit for bit.

    True: always; "warn": if torch has some.
    On CUDA it must be always: with a mode that only warns, torch uses the fast backward passes of attention, whose
    order of summation varies. An operation without a deterministic kernel then raises torch's error.
    """
    if not wanted:
        return False
    return True if accelerator == "cuda" else "warn"


def choose_algorithms(deterministic: bool, accelerator: Accelerator, *, compiles: bool) -> None:
    """Sets this process to deterministic algorithms, or to the fastest ones.

    compiles: whether compiled code must comply. For that torch imports its compiler, which takes more than a second.
    """
    mode = deterministic_mode(deterministic, accelerator)
    if compiles:
        torch.use_deterministic_algorithms(deterministic, warn_only=mode == "warn")
    else:
        torch.set_deterministic_debug_mode({False: "default", True: "error", "warn": "warn"}[mode])
    if deterministic:
        # NVIDIA, "cuBLAS: results reproducibility".
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    # Filling every new buffer as well would only slow down each step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyrefly: ignore


def on_cuda_only(choice: str | bool, accelerator: Accelerator) -> bool:
    """Resolves true, false, or auto = on a GPU. For `compile` in training; sampling has its own rule."""
    return accelerator == "cuda" if choice == "auto" else bool(choice)


def compiling_pays(flops: float, layers: int, device: str, dtype: torch.dtype | None) -> bool:
    """Whether compiling a network takes less time than it saves: the meaning of `compile=auto` in sampling.

    Computed from the constants below, not measured: the bits of a sample must not depend on the load of a machine.

    flops: of all calls of the network together. layers: its convolutions and linear layers. dtype: of its arithmetic,
    None for float32.
    """
    if device not in ("cpu", "cuda"):
        return False
    seconds = flops / _flops_per_second(device, dtype)
    return seconds * SAVED_BY_COMPILING > COMPILER_START + COMPILING_A_LAYER * layers


SAVED_BY_COMPILING = 0.055
"""The fraction of a network's time that is saved: the least measured, of 0.055 to 0.28."""
COMPILER_START, COMPILING_A_LAYER = 5.0, 0.6
"""Seconds, on two cores with nothing in the cache."""


def _flops_per_second(device: str, dtype: torch.dtype | None) -> float:
    """The throughput of networks without compilation; with AMX and on a GPU it is an estimate."""
    if device == "cuda":
        return 2e13 if dtype is None else 1e14
    a_thread = 7e10 if dtype is None else 4e11 if torch.cpu._is_amx_tile_supported() else 1.2e11
    return a_thread * torch.get_num_threads()


def is_first_process() -> bool:
    """Whether this process writes and prints for the run, as far as is known before a Trainer has started."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    # On a further machine the process that starts the others does not know its rank before that.
    return getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"

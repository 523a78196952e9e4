"""What `auto` means on this machine: accelerator, precision, compilation and memory layout.

The choices are measured; docs/performance.md has the figures.
"""

from __future__ import annotations

from typing import Literal

import torch

from difflab.errors import UserError

Accelerator = Literal["cpu", "cuda", "mps"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def resolve_accelerator(choice: str) -> Accelerator:
    """auto takes a GPU where torch can use one. Raises UserError for a device that is not there."""
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
    """Lightning's name of the training precision. bf16 autocast makes training on a CPU slower, so auto avoids it."""
    if choice != "auto":
        return choice
    return "bf16-mixed" if accelerator == "cuda" and torch.cuda.is_bf16_supported() else "32-true"


def sampling_autocast(choice: str, accelerator: Accelerator) -> torch.dtype | None:
    """The dtype of the network's arithmetic in sampling, or None for float32.

    auto: bfloat16 on GPUs that have it and on CPUs with AMX, where it is faster.
    """
    if choice == "32-true":
        return None
    if choice == "bf16-mixed":
        return torch.bfloat16
    if accelerator == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    return torch.bfloat16 if accelerator == "cpu" and torch.cpu._is_amx_tile_supported() else None


def on_cuda_only(choice: str | bool, accelerator: Accelerator) -> bool:
    """A choice of true, false, or auto = where there is a GPU."""
    return accelerator == "cuda" if choice == "auto" else bool(choice)

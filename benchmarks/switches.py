"""torch's global switches, which contenders in one process must not share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch

from difflab.networks import attention


@contextlib.contextmanager
def deterministic(wanted: bool | Literal["warn"]) -> Iterator[None]:
    """Inside, the switch is as wanted: off (torch's own default), on, or on where that is possible ("warn"); afterwards
    as it was before."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(bool(wanted), warn_only=wanted == "warn")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


@contextlib.contextmanager
def allowing_tf32(wanted: bool) -> Iterator[None]:
    """Inside, float32 products and convolutions round their inputs to TF32, as in training, or do not."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if wanted else "highest")
    torch.backends.cudnn.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextlib.contextmanager
def attending_in_batches(wanted: bool) -> Iterator[None]:
    """Inside, a CPU's bf16 training attends to few tokens in whole batches, as it does by itself, or never does."""
    before = attention.FEW_TOKENS
    attention.FEW_TOKENS = before if wanted else 0
    try:
        yield
    finally:
        attention.FEW_TOKENS = before

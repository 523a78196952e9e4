"""What is freed goes back to where it came from."""

from __future__ import annotations

import ctypes
import sys

import torch


def return_freed_memory(device: torch.device) -> None:
    """Gives back what this process has freed and kept for later: to the driver of a GPU, or to Linux.

    glibc keeps freed blocks of less than 32 MB. Those of many tensors of a few sizes add up to hundreds of MB, for
    which tensors of other sizes have no use.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
        if trim is not None:
            trim(0)

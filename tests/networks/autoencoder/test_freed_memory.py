"""Freed blocks that lie below one in use do not stay with the process."""

from __future__ import annotations

import platform

import pytest
import torch
from benchmarks.memory import peak_memory

from difflab.networks.autoencoder.freed_memory import return_freed_memory


def resident() -> float:
    """MB."""
    return peak_memory(lambda: None, torch.device("cpu")).before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_free_memory_goes_back_to_the_system() -> None:
    # From now on glibc keeps blocks of this size.
    torch.ones(30 * 2**20, dtype=torch.uint8)
    blocks = [torch.ones(2**20, dtype=torch.uint8) for _ in range(300)]
    last = blocks[-1]
    del blocks
    before = resident()
    return_freed_memory(torch.device("cpu"))
    assert before - resident() > 200
    assert bool((last == 1).all())

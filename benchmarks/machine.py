"""The machine a figure was measured on, in words that can stand beside it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from difflab.data.processes import cores

MATTERING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16")
"""The CPU features that decide how fast convolutions and matrix products are."""


def describe_machine(*, with_torch: bool = True) -> dict[str, Any]:
    """CPU, cores, load and versions; with torch also its threads and the GPU."""
    facts = {
        "cpu": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "flags": [flag for flag in MATTERING_FLAGS if flag in (_cpuinfo("flags") or "").split()],
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
    if with_torch:
        import torch

        facts |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
    return facts


def machine_lines(facts: dict[str, Any]) -> list[str]:
    """The same for a reader; a machine that others use too is said to be busy."""
    counted = f"{facts['cores']} cores" + (f", {facts['threads']} torch threads" if "threads" in facts else "")
    versions = f"Python {facts['python']}" + (f", torch {facts['torch']}" if "torch" in facts else "")
    lines = [f"CPU: {facts['cpu']} ({counted}; {' '.join(facts['flags']) or 'no vector flags known'})"]
    if "gpu" in facts:
        lines.append(f"GPU: {facts['gpu']}")
    busy = ", which is BUSY: trust the ratios only" if facts["load"] > facts["cores"] / 2 else ""
    lines.append(f"{versions}; load {facts['load']} at the start{busy}")
    return lines


def _cpuinfo(key: str) -> str | None:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return None
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None

"""Which steps of the training process a sampler keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

Spacing = Literal["sections", "ddim", "leading", "linspace", "trailing", "ldm_uniform", "ldm_quad"]


def space_timesteps(num_timesteps: int, spec: str | int | Sequence[int]) -> list[int]:
    """The kept steps, ascending, in 0..num_timesteps-1, by the rules of improved-diffusion.

    "250" (or 250):    250 steps evenly over all, both ends included.
    "10,10,20":        the process in three equal sections with 10, 10 and 20 steps (also as the list [10, 10, 20]).
    "ddim50":          the integer stride of the DDIM paper that gives exactly 50 steps, from 0.

    Raises ValueError for a section with more steps than it has, and where no integer stride gives the number.
    """
    if isinstance(spec, str) and spec.startswith("ddim"):
        return _integer_stride(num_timesteps, _count(spec[len("ddim") :], spec))
    if isinstance(spec, int):
        counts = [spec]
    elif isinstance(spec, str):
        counts = [_count(part, spec) for part in spec.split(",")]
    else:
        counts = list(spec)
    return _sections(num_timesteps, counts)


def sampling_timesteps(
    num_timesteps: int, steps: int | str | Sequence[int], spacing: Spacing = "sections", offset: int = 0
) -> list[int]:
    """The kept steps, ascending, for one of the spacings of the field.

    sections:     `space_timesteps` above; the only spacing that takes more than a number in `steps`.
    ddim:         the integer stride of the DDIM paper; `steps` must be reachable.
    leading:      0, r, 2r, ... with r = T // steps, each plus `offset` (diffusers; Lin et al. 2024, table 2).
    linspace:     from 0 to T - 1, both ends included, rounded.
    trailing:     T - 1 downwards by T / steps.
    ldm_uniform:  stride T // steps, all shifted by one (latent diffusion; may give more steps than asked for).
    ldm_quad:     squares of an even spacing up to sqrt(0.8 T), shifted by one (latent diffusion).

    Raises ValueError for more steps than the process has and for steps that fall outside of it.
    """
    if spacing == "sections":
        kept = space_timesteps(num_timesteps, steps)
    else:
        if not isinstance(steps, int):
            raise ValueError(
                f"spacing={spacing} takes a number of steps, got {steps!r}; only spacing=sections takes a list"
            )
        if not 1 <= steps <= num_timesteps:
            raise ValueError(f"cannot take {steps} steps of a process with {num_timesteps}; ask for 1..{num_timesteps}")
        kept = _even(num_timesteps, steps, spacing)
    kept = [t + offset for t in kept]
    if kept[-1] >= num_timesteps:
        raise ValueError(
            f"spacing={spacing} with {steps} steps and offset {offset} reaches step {kept[-1]}, "
            f"beyond {num_timesteps - 1}; take fewer steps or a smaller offset"
        )
    return kept


def _even(total: int, steps: int, spacing: Spacing) -> list[int]:
    if spacing == "ddim":
        return _integer_stride(total, steps)
    if spacing == "leading":
        values = np.arange(steps) * (total // steps)
    elif spacing == "linspace":
        values = np.linspace(0, total - 1, steps).round()
    elif spacing == "trailing":
        values = (np.round(np.arange(total, 0, -total / steps)) - 1)[:steps][::-1]
    elif spacing == "ldm_uniform":
        values = np.arange(0, total, total // steps) + 1
    elif spacing == "ldm_quad":
        values = np.unique((np.linspace(0, np.sqrt(total * 0.8), steps) ** 2).astype(np.int64) + 1)
    else:
        raise ValueError(f"spacing={spacing!r} is not one of {', '.join(get_args(Spacing))}")
    return [int(v) for v in values]


def _integer_stride(total: int, steps: int) -> list[int]:
    for stride in range(1, total + 1):
        kept = range(0, total, stride)
        if len(kept) == steps:
            return list(kept)
    reachable = {len(range(0, total, stride)) for stride in range(1, total + 1)}
    nearest = [*sorted(n for n in reachable if n < steps)[-1:], *sorted(n for n in reachable if n > steps)[:1]]
    freely = f", or steps={steps} with spacing=sections" if 1 <= steps <= total else ""
    raise ValueError(
        f"no integer stride takes exactly {steps} of {total} steps; ask for {' or '.join(map(str, nearest))}{freely}"
    )


def _sections(total: int, counts: list[int]) -> list[int]:
    size, extra = divmod(total, len(counts))
    kept: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        section = size + (1 if i < extra else 0)
        if not 1 <= count <= section:
            raise ValueError(
                f"cannot take {count} steps of a section with {section} (of {total} in all); ask for 1..{section}"
            )
        stride = 1.0 if count == 1 else (section - 1) / (count - 1)
        # The running sum, not index * stride: the official code adds up, and rounding follows it.
        position = 0.0
        for _ in range(count):
            kept.append(start + round(position))
            position += stride
        start += section
    return kept


def _count(text: str, spec: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'steps={spec!r} is not understood; write a number, "10,10,20" or "ddim50"') from None

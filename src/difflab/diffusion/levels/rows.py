"""The steps of the training process that a sampler keeps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Spacing = Literal["sections", "ddim", "leading", "linspace", "trailing", "ldm_uniform", "ldm_quad"]

QUAD_LENGTH = 2  # times T: the length of an official quad list that has every possible entry

_log = logging.getLogger(__name__)


def space_timesteps(num_timesteps: int, spec: str | int | Sequence[int]) -> list[int]:
    """Returns the kept steps, ascending, in 0..num_timesteps-1, by the rules of improved-diffusion.

    "250" (or 250):    250 steps evenly spaced over all, including both ends.
    "10,10,20":        the process in three equal sections with 10, 10 and 20 steps (also as the list [10, 10, 20]).
    "ddim50":          the integer stride of the DDIM paper that gives exactly 50 steps, from 0.

    Raises ValueError if a section has fewer steps than requested, or no integer stride gives the number.
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
    """Returns the kept steps, ascending, for one of the common spacings.

    sections:     `space_timesteps` above; the only spacing for which `steps` may be more than a number.
    ddim:         the integer stride of the DDIM paper; `steps` must be reachable.
    leading:      0, r, 2r, ... with r = T // steps, each plus `offset` (diffusers; Lin et al. 2024, table 2).
    linspace:     from 0 to T - 1, both ends included, rounded.
    trailing:     T - 1 downwards by T / steps.
    ldm_uniform:  stride T // steps, all shifted by one (latent diffusion). If the stride does not give the requested
                  number, it gives more: 31 of 1000 for 30. `steps_as_asked` refuses those.
    ldm_quad:     squares of an even spacing up to sqrt(0.8 T), shifted by one (latent diffusion): `steps` distinct
                  ones. The official list repeats its first entries if it has 30 or more of 1000 (33 begin with 1,
                  1, 4), and a repeated step changes nothing: it is not counted, so the official 33 are 32 here.

    Raises ValueError if the process has fewer steps, steps fall outside it, or no list of ldm_quad has as many distinct
    steps.
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


def resolve_steps(
    num_timesteps: int, steps: int | str | Sequence[int], spacing: Spacing = "sections", offset: int = 0
) -> list[int]:
    """Returns `sampling_timesteps` for a sampler, which must take exactly the requested number of steps.

    If timestep 0 is the only step, a warning is logged: x is then nearly an image, while sampling starts from noise.

    Also raises ValueError if the spacing gives another number of steps.
    """
    kept = sampling_timesteps(num_timesteps, steps, spacing, offset)
    if isinstance(steps, int) and len(kept) != steps:
        exact = [n for n in range(1, num_timesteps // 2 + 1) if len(range(0, num_timesteps, num_timesteps // n)) == n]
        nearest = [*[n for n in exact if n < steps][-1:], *[n for n in exact if n > steps][:1]]
        raise ValueError(
            f"spacing={spacing} takes {len(kept)} of {num_timesteps} steps instead of {steps}, because its stride "
            f"is {num_timesteps} // {steps}; ask for {' or '.join(map(str, nearest))}"
        )
    if len(kept) == 1 and kept[0] < num_timesteps // 2:
        _log.warning(
            "the only step of spacing=%s is timestep %d, where there is almost no noise to remove; "
            "use spacing=trailing, which begins in noise",
            spacing,
            kept[0],
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
        values = _different_squares(total, steps)
    else:
        raise ValueError(f"spacing={spacing!r} is not one of {', '.join(get_args(Spacing))}")
    return [int(v) for v in values]


def _different_squares(total: int, steps: int) -> NDArray[np.int64]:
    """Returns the shortest list of latent diffusion's quad spacing with as many distinct entries."""
    most = int(np.sqrt(total * 0.8) ** 2) + 1
    shorter = 0
    for length in range(steps, QUAD_LENGTH * total + 2):
        values = np.unique((np.linspace(0, np.sqrt(total * 0.8), length) ** 2).astype(np.int64) + 1)
        if len(values) == steps:
            return values
        if len(values) > steps:
            break
        shorter = max(shorter, len(values))
    nearest = f"{shorter} or {len(values)}" if len(values) > steps else f"at most {most}"
    raise ValueError(f"spacing=ldm_quad never visits exactly {steps} of {total} steps; ask for {nearest}")


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
        # A running sum, not index * stride: the rounding is that of the official code.
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

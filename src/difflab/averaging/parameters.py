"""Averages of the trained parameters of a module, in float32, each on its parameter's device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from difflab.parts.selection import averaged_parameters, exported

Groups: TypeAlias = list[tuple[list[Tensor], list[Tensor]]]
"""Pairs (averages, weights) of the same device and dtype, for torch's multi-tensor functions."""


def copies_of(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the initial averages: copies of the parameters."""
    return {name: p.detach().to(torch.float32, copy=True) for name, p in parameters.items()}


def fitted(averages: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns stored averages of these parameters, in their order and on their devices.

    Raises ValueError if they are averages of a different model.
    """
    differing = parameters.keys() ^ averages.keys()
    if differing:
        raise ValueError(f"the stored EMA and the model differ in {len(differing)} parameters: {min(differing)!r}, ...")
    return {name: averages[name].to(p.device, torch.float32) for name, p in parameters.items()}


def by_device_and_type(averages: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Groups:
    """Groups averages with their weights so that each group takes one multi-tensor call."""
    groups: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for name, weight in weights.items():
        group = groups[weight.device, weight.dtype]
        group[0].append(averages[name])
        group[1].append(weight)
    return list(groups.values())


@torch.no_grad()
def average_in(groups: Groups, decay: float) -> None:
    """average = decay * average + (1 - decay) * weights, in place and in float32; decay 0 copies."""
    for averages, weights in groups:
        if decay == 0.0:
            torch._foreach_copy_(averages, weights)
        else:
            torch._foreach_lerp_(averages, [w.float() for w in weights], 1.0 - decay)


def with_averages(
    module: nn.Module, averages: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Returns the exported state of `module`, with averages instead of parameters, tied ones under all their names.

    dtype: of the averages; None for the dtype of the weights that they replace.
    """
    by_identity = {id(p): averages[name].to(dtype or p.dtype) for name, p in averaged_parameters(module).items()}
    state = exported(module)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in by_identity and name in state:
            state[name] = by_identity[id(parameter)]
    return state

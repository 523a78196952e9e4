"""What is averaged: trained parameters of a module, in float32, on the device of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from difflab.parts.selection import averaged_parameters, exported

Groups: TypeAlias = list[tuple[list[Tensor], list[Tensor]]]
"""(averages, weights) of one device and type each, for torch's multi-tensor functions."""


def copies_of(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What an average starts from."""
    return {name: p.detach().to(torch.float32, copy=True) for name, p in parameters.items()}


def fitted(averages: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored averages of these parameters in their order and on their devices.

    Raises ValueError where they are averages of another model.
    """
    differing = parameters.keys() ^ averages.keys()
    if differing:
        raise ValueError(f"the stored EMA and the model differ in {len(differing)} parameters: {min(differing)!r}, ...")
    return {name: averages[name].to(p.device, torch.float32) for name, p in parameters.items()}


def by_device_and_type(averages: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Groups:
    """Averages beside their weights, in groups that one multi-tensor call can take."""
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
    """What is exported of `module`, with averages in place of parameters, of tied ones under all their names.

    dtype: of the averages; None for the type of the weights that they stand for.
    """
    by_identity = {id(p): averages[name].to(dtype or p.dtype) for name, p in averaged_parameters(module).items()}
    state = exported(module)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in by_identity and name in state:
            state[name] = by_identity[id(parameter)]
    return state

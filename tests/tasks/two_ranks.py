"""Run by two processes (see test_two_ranks): each trains the toys under DDP and writes what came out to
<folder>/<scenario>/<rank>.pt. Arguments: the folder, and that of the data."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from difflab.callbacks.ema import EMA
from difflab.callbacks.guard import NonFiniteGuard
from difflab.commands.processes import leave_process_group
from difflab.tasks.gradients import average_gradients
from tasks.toys import Adversarial, Contrastive, fit

RANK = int(os.environ["RANK"])
TWO: dict[str, Any] = {"devices": 2, "strategy": "ddp"}


class Following(Adversarial):
    """Each process moves a buffer of its own; they have to be the first one's again before the next step."""

    def __init__(self) -> None:
        super().__init__()
        self.begun_with: list[float] = []

    def optimize(self, batch: Any) -> torch.Tensor:
        told = self.discriminator.get_buffer("told")
        self.begun_with.append(float(told))
        loss = super().optimize(batch)
        told.add_(10 * RANK)
        return loss


def adversarial(folder: Path, data: Path, accumulate: int = 1) -> dict[str, Any]:
    module, ema = Adversarial(accumulate=accumulate), EMA(0.8)
    module.network[2].p = 0.0
    fit(module, data, folder, [NonFiniteGuard(), ema], **TWO)
    return {"weights": module.state_dict(), "average": ema.averages, "step": module.train_step}


def adversarial_in_parts(folder: Path, data: Path) -> dict[str, Any]:
    return adversarial(folder, data, accumulate=2)


def bad_on_one(folder: Path, data: Path) -> dict[str, Any]:
    """Only the second process meets losses that are not finite, one of each optimizer."""
    module = Adversarial(bad=[(2, "generator"), (4, "discriminator")] if RANK == 1 else [], accumulate=2)
    guard = NonFiniteGuard()
    fit(module, data, folder, [guard], **TWO)
    return {"weights": module.state_dict(), "step": module.train_step, "skipped": guard.skipped}


def buffers(folder: Path, data: Path) -> dict[str, Any]:
    module = Following()
    fit(module, data, folder, steps=3, **TWO)
    return {"begun_with": module.begun_with}


def contrastive(folder: Path, data: Path) -> dict[str, Any]:
    module = Contrastive(accumulate=2)
    fit(module, data, folder, **TWO)
    return {"weights": module.state_dict(), "whole": module.whole}


def missing_gradients(folder: Path, data: Path) -> dict[str, Any]:
    """Of three parameters the first has a gradient on both processes, the second on one, the third on none."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.full((2,), 1.0 + RANK)
    if RANK == 1:
        parameters[1].grad = torch.tensor([4.0, 0.0])
    average_gradients(parameters)
    return {"gradients": [parameter.grad for parameter in parameters]}


if __name__ == "__main__":
    for scenario in (adversarial, adversarial_in_parts, bad_on_one, buffers, contrastive, missing_gradients):
        target = Path(sys.argv[1]) / scenario.__name__
        target.mkdir(exist_ok=True)
        torch.save(scenario(target, Path(sys.argv[2])), target / f"{RANK}.pt")
    leave_process_group()
    # Now and then an interpreter that ends after gloo aborts (torch 2.14); what is tested here is done by then.
    os._exit(0)

"""Run by two processes (see test_two_ranks): each takes its half of a batch, and writes what it found to
<folder>/<rank>.pt. Arguments: the folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from difflab.networks.towers.clip import CLIP, Embeddings, unit
from difflab.tasks.contrastive.loss import InfoNCE, Loss, SigLIP
from golden_fixtures import load
from tasks.contrastive.small_clips import TOWERS, gradients, pairs, small_clip

RANK = int(os.environ["RANK"])


def half(x: Tensor) -> Tensor:
    return x.chunk(2)[RANK]


def averaged(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """As DistributedDataParallel does."""
    for value in values.values():
        dist.all_reduce(value)
        value /= 2
    return values


def trained(network: CLIP, tower: str, loss: Loss) -> dict[str, Any]:
    found = loss(network(*map(half, pairs(tower))), None)
    found.minimized.backward()
    running = {name: value.clone() for name, value in network.named_buffers() if "running" in name}
    return {"gradients": averaged(gradients(network)), "buffers": running, "values": found.values}


def golden(name: str) -> dict[str, Any]:
    """Gradients of each process before any averaging, by `local_loss`."""
    fixture = load("multimodal", name)
    reports = {}
    for local in (False, True):
        image, text = (unit(fixture.input(f"{kind}_features")) for kind in ("image", "text"))
        image, text = half(image).clone().requires_grad_(), half(text).clone().requires_grad_()
        scale = torch.tensor(fixture.spec["args"]["logit_scale_log"], requires_grad=True)
        found = InfoNCE(local)(Embeddings(image, text, scale.exp()), None)
        found.minimized.backward()
        reports[local] = {"loss": found.minimized.detach(), "image": image.grad, "text": text.grad, "scale": scale.grad}
    return reports


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    losses: dict[str, Loss] = {"infonce": InfoNCE(), "local": InfoNCE(local=True), "siglip": SigLIP()}
    report: dict[str, Any] = {
        f"{tower}-{name}": trained(small_clip(tower, bias=-1.0 if name == "siglip" else None), tower, loss)
        for tower in TOWERS
        for name, loss in losses.items()
    }
    report |= {name: golden(name) for name in ("clip_infonce", "clip_infonce_hot")}
    torch.save(report, folder / f"{RANK}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

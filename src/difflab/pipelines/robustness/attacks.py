"""Adversarial images, which a classifier takes for another class (Goodfellow et al. 2015; Madry et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Logits = Callable[[Tensor], Tensor]


def fgsm(logits: Logits, x: Tensor, label: Tensor, epsilon: float) -> Tensor:
    """Images [B, C, H, W] in [-1, 1], one step of epsilon along the sign of the gradient of their cross entropy.

    logits: of such images, [B, classes]. epsilon: in these units, half of which are those of [0, 1].
    """
    return (x + epsilon * _gradient(logits, x, label).sign()).clamp(-1, 1)


def pgd(logits: Logits, x: Tensor, label: Tensor, epsilon: float, steps: int, seeds: Sequence[int]) -> Tensor:
    """The same in several steps of 2.5 epsilon / steps, kept within epsilon of the images.

    It starts at random within that bound, by one seed per image, whatever the batch.
    """
    start = torch.stack([_uniform(x.shape[1:], seed) for seed in seeds]).to(x)
    found = (x + epsilon * start).clamp(-1, 1)
    for _ in range(steps):
        stepped = found + 2.5 * epsilon / steps * _gradient(logits, found, label).sign()
        found = stepped.clamp(x - epsilon, x + epsilon).clamp(-1, 1)
    return found


def _gradient(logits: Logits, x: Tensor, label: Tensor) -> Tensor:
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        # A sum: no image's gradient depends on the others.
        loss = F.cross_entropy(logits(at), label, reduction="sum")
        return torch.autograd.grad(loss, at)[0]


def _uniform(shape: Sequence[int], seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1

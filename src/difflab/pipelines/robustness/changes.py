"""What a configuration does to images before they are classified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difflab.config.zero_shot import Corruption, ZeroShotConfig
from difflab.images import to_float
from difflab.pipelines.robustness.attacks import Logits, fgsm, pgd
from difflab.pipelines.robustness.corruptions import corrupted
from difflab.seeding import stream_seed

Change = Callable[[Logits, Tensor, Tensor, Sequence[int]], Tensor]
"""(the classifier, images [B, C, H, W] in [-1, 1], their classes [B], their indices) -> other images."""


def change_of(config: ZeroShotConfig) -> Change | None:
    """The corruption or the attack, None for neither. What is random is a function of (seed, index) alone."""
    if config.corruption is not None:
        return partial(_corrupted, config.corruption, config.severity, config.seed)
    if config.attack is not None:
        # Within [-1, 1], which is twice as wide as [0, 1].
        return partial(_attacked, config.steps if config.attack == "pgd" else None, 2 * config.epsilon, config.seed)
    return None


def change_parameters(config: ZeroShotConfig) -> dict[str, Any]:
    """The same, for the protocol of a result; empty for neither."""
    if config.corruption is not None:
        return {"corruption": config.corruption, "severity": config.severity}
    if config.attack is None:
        return {}
    steps = {"steps": config.steps} if config.attack == "pgd" else {}
    return {"attack": config.attack, "epsilon": config.epsilon, **steps}


def changed_in_words(config: ZeroShotConfig) -> str:
    """`jpeg of severity 3`, `pgd within 4/255`."""
    if config.corruption is not None:
        return f"{config.corruption} of severity {config.severity}"
    return f"{config.attack} within {config.epsilon * 255:.3g}/255"


def _corrupted(
    corruption: Corruption,
    severity: int,
    seed: int,
    logits: Logits,
    images: Tensor,
    label: Tensor,
    index: Sequence[int],
) -> Tensor:
    pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    found = [
        corrupted(one, corruption, severity, stream_seed(seed, "corruption", corruption, number))
        for one, number in zip(pixels, index, strict=True)
    ]
    return to_float(torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)).to(images.device)


def _attacked(
    steps: int | None,
    epsilon: float,
    seed: int,
    logits: Logits,
    images: Tensor,
    label: Tensor,
    index: Sequence[int],
) -> Tensor:
    if steps is None:
        return fgsm(logits, images, label, epsilon)
    return pgd(logits, images, label, epsilon, steps, [stream_seed(seed, "attack", number) for number in index])

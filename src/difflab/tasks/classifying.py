"""What all classifiers share: labels, accuracy, and the logits of clean images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from difflab.types import Batch

TOP_K = (1, 5)

CLEAN_TIME = 0.0
"""The time passed to a network that only sees clean images."""


class Classes:
    """The number of classes, and the values that are logged for each sample.

    top_k: `top1` is whether the true class has the largest logit, `top5` whether it has one of the five largest; the
        latter only if there are more than five classes.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.top_k = tuple(k for k in TOP_K if k == 1 or k < count)

    @property
    def logged(self) -> tuple[str, ...]:
        """The names of `values`."""
        return ("loss", *(f"top{k}" for k in self.top_k))

    def label(self, batch: Batch) -> Tensor:
        """The true classes, int64 [B]. Raises ValueError for one out of range."""
        label = batch["label"]
        # On a GPU this check would synchronize at every step; there the loader has refused such labels before.
        outside = [c for c in label.tolist() if not 0 <= c < self.count] if label.device.type == "cpu" else []
        if outside:
            raise ValueError(f"class {outside[0]} is not in 0..{self.count - 1}, the classes of this classifier")
        return label

    def values(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """logits [B, count], label int64 [B] -> the cross entropy `loss` [B] and, as 0 or 1, `top1` and `top5` [B]."""
        logits = logits.float()
        hits = {f"top{k}": _among_likeliest(logits.detach(), label, k) for k in self.top_k}
        return {"loss": F.cross_entropy(logits, label, reduction="none"), **hits}


def clean_logits(network: Callable[..., Tensor], x: Tensor) -> Tensor:
    """Logits [B, classes] of clean images x [B, C, H, W] in [-1, 1]."""
    return network(x, torch.full((len(x),), CLEAN_TIME, device=x.device))


def _among_likeliest(logits: Tensor, label: Tensor, k: int) -> Tensor:
    """1 if the true class has one of the k largest logits, else 0; float32 [B]."""
    return (logits.topk(k, dim=-1).indices == label[:, None]).any(dim=-1).float()

"""Contrastive losses over the global batch: images and texts that belong together against all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from difflab.networks.towers.clip import Embeddings
from difflab.tasks.gathering import gathered, rank, world_size


@dataclass(frozen=True)
class Contrasted:
    """minimized: [], whose gradient, averaged over processes, is that of the loss of the global batch. values: of each
    of this process's pairs, float32 [B]: `loss`, and as 0 or 1 whether the own text has the largest logit of the image
    (`image_top1`) and the own image that of the text (`text_top1`); their means over all processes are those of the
    global batch."""

    minimized: Tensor
    values: dict[str, Tensor]


Loss = Callable[..., Contrasted]
"""(`Embeddings`, weight [B] or None) -> `Contrasted`."""


@dataclass(frozen=True)
class InfoNCE:
    """The symmetric cross entropy of CLIP (Radford et al. 2021, figure 3).

    local: each process computes the rows of its own pairs alone, with the same gradient; otherwise all of them, as
        OpenAI's pseudocode does. The memory of the logits is smaller by the number of processes.
    """

    local: bool = False

    def __call__(self, found: Embeddings, weight: Tensor | None = None) -> Contrasted:
        """weight: [B], 0 for pairs that do not count, neither as pairs nor as others; None if all do."""
        image, text = gathered(found.image), gathered(found.text)
        counted = None if weight is None else gathered(weight) > 0
        own = _own_rows(found.image)
        local = self.local or world_size() == 1
        images, texts = (found.image, found.text) if local else (image, text)
        target = own if local else torch.arange(len(image), device=own.device)
        of_images = _rows(found, images, text, target, counted)
        of_texts = _rows(found, texts, image, target, counted)
        per_pair = (of_images.loss + of_texts.loss) / 2
        values = {"loss": per_pair, "image_top1": of_images.hit, "text_top1": of_texts.hit}
        return Contrasted(per_pair.mean(), values if local else {name: each[own] for name, each in values.items()})


@dataclass(frozen=True)
class SigLIP:
    """The sigmoid loss (Zhai et al. 2023, algorithm 1): every pair of an image and a text is a question of its own."""

    def __call__(self, found: Embeddings, weight: Tensor | None = None) -> Contrasted:
        """weight: as in `InfoNCE`."""
        counted = None if weight is None else gathered(weight) > 0
        own = _own_rows(found.image)
        text, image = gathered(found.text), gathered(found.image)
        logits = _logits(found, found.image, text)
        belongs = F.one_hot(own, len(text)).to(logits)
        each = -F.logsigmoid((2 * belongs - 1) * logits)
        loss = (each if counted is None else each * counted).sum(dim=1)
        of_texts = _rows(found, found.text, image, own, counted)
        values = {"loss": loss, "image_top1": _hits(logits, own, counted), "text_top1": of_texts.hit}
        return Contrasted(loss.mean(), values)


@dataclass(frozen=True)
class _Rows:
    loss: Tensor
    hit: Tensor


def _rows(found: Embeddings, mine: Tensor, other: Tensor, target: Tensor, counted: Tensor | None) -> _Rows:
    logits = _without(_logits(found, mine, other), target, counted)
    return _Rows(F.cross_entropy(logits, target, reduction="none"), _hits(logits, target, None))


def _logits(found: Embeddings, mine: Tensor, other: Tensor) -> Tensor:
    logits = found.scale * mine @ other.T
    return logits if found.bias is None else logits + found.bias


def _without(logits: Tensor, target: Tensor, counted: Tensor | None) -> Tensor:
    """Logits without those of others that do not count; a pair's own stays, so that its row has a value."""
    if counted is None:
        return logits
    hidden = (~counted).expand_as(logits).clone()
    hidden[torch.arange(len(target), device=target.device), target] = False
    return logits.masked_fill(hidden, float("-inf"))


def _hits(logits: Tensor, target: Tensor, counted: Tensor | None) -> Tensor:
    return (_without(logits.detach(), target, counted).argmax(dim=1) == target).float()


def _own_rows(mine: Tensor) -> Tensor:
    return torch.arange(len(mine), device=mine.device) + rank() * len(mine)

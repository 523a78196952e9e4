"""The choice between the caption of an image and false ones, for which chance is known whatever the model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from difflab.data.shapes.negatives import other_bindings, other_relations

_MADE: Mapping[str, Callable[[str], list[str]]] = {"relation": other_relations, "binding": other_bindings}


def false_captions(kind: str, caption: str, lines: Sequence[str]) -> list[str]:
    """The false captions of an image with a true one, none if there are none of that kind.

    kind: `relation`, `binding`, or `lines`, those after the first of `lines`, its caption file.
    """
    return _MADE[kind](caption) if kind in _MADE else list(lines[1:])


def choices(own: Tensor, wrong: Tensor, of: Tensor) -> Tensor:
    """Whether each image is nearer to its caption than to its false ones, float64 [n] in [0, 1].

    own: [n], the similarity of each image and its caption. wrong: [m], of false captions and the images `of`, [m].
    Where k false ones are exactly as near as the caption, and none is nearer, it is 1 / (k + 1): a model that cannot
    tell them apart is at chance.
    """
    nearest = torch.full_like(own, -torch.inf).scatter_reduce(0, of, wrong, "amax")
    as_near = torch.zeros_like(own, dtype=torch.float64).scatter_add(0, of, (wrong == own[of]).double())
    return torch.where(nearest > own, 0.0, 1 / (1 + as_near))


def chance(of: Tensor, n: int) -> float:
    """The mean of `choices` for guesses."""
    return float((1 / (1 + torch.bincount(of, minlength=n).double())).mean())

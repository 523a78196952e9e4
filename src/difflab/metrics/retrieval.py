"""Retrieval between images and texts: how many candidates are ahead of the first right one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

AT_ONCE = 1 << 24
"""Similarities that are held at a time."""


def ranks(queries: Tensor, candidates: Tensor, of_query: Tensor, of_candidate: Tensor) -> Tensor:
    """The number of candidates ahead of the first right one, int64 [q].

    queries: [q, dim]. candidates: [c, dim]. of_query, of_candidate: int64 [q, m] and [c, l], the groups that each is
    of, -1 for none: a candidate is right if it has a group in common with the query, as every query has with one.

    Of candidates that are equally similar the first is ahead. Blocks of rows bound the memory, whatever q and c are.
    """
    return torch.cat([torch.zeros(0, dtype=torch.int64), *_blocks(queries, candidates, of_query, of_candidate)])


def _blocks(queries: Tensor, candidates: Tensor, of_query: Tensor, of_candidate: Tensor) -> Iterator[Tensor]:
    place = torch.arange(len(candidates), device=candidates.device)
    rows = max(1, AT_ONCE // max(1, len(candidates)))
    for begin in range(0, len(queries), rows):
        block, groups = queries[begin : begin + rows], of_query[begin : begin + rows]
        scores = block @ candidates.T
        right = torch.zeros_like(scores, dtype=torch.bool)
        for one in groups.unbind(1):
            for other in of_candidate.unbind(1):
                right |= (one[:, None] == other[None]) & (one[:, None] >= 0)
        best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        first = torch.where(right & (scores == best), place, len(candidates)).amin(dim=1, keepdim=True)
        yield ((scores > best) | ((scores == best) & (place < first))).sum(dim=1).cpu()


def recall(found: Tensor, k: int) -> Tensor:
    """1 if a right candidate is among the k most similar, else 0: float64 [q]. found: as `ranks` gives."""
    return (found < k).double()


def numbered(captions: Sequence[Sequence[str]]) -> tuple[list[str], list[list[int]]]:
    """The distinct captions in order of appearance, and for each image which of them it has, in its own order."""
    known: dict[str, int] = {}
    of_image = [[known.setdefault(text, len(known)) for text in texts] for texts in captions]
    return list(known), of_image


def padded(groups: Sequence[Sequence[int]]) -> Tensor:
    """int64 [n, longest], filled up with -1."""
    longest = max(map(len, groups), default=0)
    return torch.tensor([[*one, *[-1] * (longest - len(one))] for one in groups], dtype=torch.int64)

"""Brownian motion that belongs to the sample: one path each, the same however densely and in what order it is asked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

DEPTH = 24
"""Bisections of [0, 1]: times are rounded to multiples of 2^-24."""

CELLS = 8
"""Times of a run are rounded to at most an eighth of its shortest stretch."""

ROOT = 0
KEPT_VALUES = 4


class BrownianPaths:
    """W(t) on [0, 1] of every sample, a function of (its seed, t) and nothing else.

    A virtual Brownian tree (Li et al. 2020, section 4): W(1) is a standard normal, and every bisection draws the middle
    of its interval from the Brownian bridge between its ends, with a generator that is seeded by the sample and the
    node of the tree. Only the nodes on the way to t are drawn, so a t with few binary digits is cheap.

    seeds: one per sample. shape: of one sample. Values are float32 on `device`; CPU and GPU paths are different ones.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.seeds = list(seeds)
        self.shape = tuple(shape)
        self.device = torch.device(device)
        self._generator = torch.Generator(self.device)
        # Steps go on where the last one ended: the nodes above the last time and the last values are worth keeping.
        self._nodes: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def at(self, t: float) -> Tensor:
        """W(t) [B, *shape], rounded to 2^-24; do not write to it. Raises ValueError for a t outside of [0, 1]."""
        if not 0.0 <= t <= 1.0:
            raise ValueError(f"Brownian motion is asked at t={t:g}, outside of [0, 1]")
        tick = round(t * 2**DEPTH)
        value = self._values.get(tick)
        if value is None:
            value = self._sum(tick)
            recent = list(self._values.items())[1 - KEPT_VALUES :]
            self._values = dict([*recent, (tick, value)])
        return value

    def increment(self, start: float, end: float, finest: float = 2.0**-DEPTH) -> Tensor:
        """(W(end) - W(start)) / sqrt(|end - start|) [B, *shape]: standard normals, independent of disjoint ones.

        finest: the shortest stretch that this run asks for. Both times are rounded to a dyadic fraction of it, an
        eighth or less, which keeps deep parts of the tree from being drawn for nothing.
        Raises ValueError for times outside of [0, 1] and for two that are the same.
        """
        digits = _digits(min(finest, abs(end - start)))
        begin, stop = round(start * 2**digits) / 2**digits, round(end * 2**digits) / 2**digits
        if begin == stop:
            raise ValueError(f"Brownian motion from t={start:g} to t={end:g} does not move: take fewer steps")
        return (self.at(stop) - self.at(begin)) * (1.0 / math.sqrt(abs(stop - begin)))

    def _sum(self, tick: int) -> Tensor:
        """Every node on the way to t times its hat function (the construction of Levy and Ciesielski)."""
        hats = _hats(tick)
        nodes = {node: self._nodes[node] if node in self._nodes else self._draw(node) for node, _ in hats}
        self._nodes = nodes
        total = torch.zeros(len(self.seeds), *self.shape, device=self.device)
        for node, height in hats:
            # Not one fused operation: its rounding could depend on where in the batch a value stands.
            total += nodes[node] * height
        return total

    def _draw(self, node: int) -> Tensor:
        out = torch.empty(len(self.seeds), *self.shape, device=self.device)
        for row, seed in zip(out, self.seeds, strict=True):
            row.normal_(generator=self._generator.manual_seed(_node_seed(seed, node)))
        return out


def _digits(stretch: float) -> int:
    """Binary digits of a time that tell an eighth of a stretch."""
    return DEPTH if stretch <= CELLS * 2.0**-DEPTH else min(DEPTH, math.ceil(math.log2(CELLS / stretch)))


def _hats(tick: int) -> list[tuple[int, float]]:
    """(node, weight) of W(t), t = tick / 2^24: t for the root, and for the interval of width w that is bisected at each
    level sqrt(w) times the distance to its nearer end, in widths. The nodes of a level are numbered from 2^level up.
    """
    t = tick / 2**DEPTH
    hats = [(ROOT, t)] if tick else []
    for level in range(DEPTH):
        cell, within = divmod(tick, 2 ** (DEPTH - level))
        if within == 0:
            break
        share = within / 2 ** (DEPTH - level)
        hats.append((2**level + cell, 2.0 ** (-level / 2) * min(share, 1.0 - share)))
    return hats


def _node_seed(seed: int, node: int) -> int:
    digest = hashlib.blake2b(f"{seed}/brownian/{node}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

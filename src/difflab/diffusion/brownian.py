"""Brownian motion per sample: each path is the same however densely and in whatever order it is evaluated."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

DEPTH = 24
"""Bisections of [0, 1]: times are rounded to multiples of 2^-24."""

CELLS = 8
"""Times of a sampling run are rounded to at most an eighth of its shortest interval."""

ROOT = 0
KEPT_VALUES = 4


class BrownianPaths:
    """W(t) on [0, 1] of every sample, a function of (its seed, t) only.

    A virtual Brownian tree (Li et al. 2020, section 4): W(1) is a standard normal, and every bisection samples the
    midpoint of its interval from the Brownian bridge between its ends, with a generator seeded by the sample and the
    node of the tree. Only the nodes on the path to t are sampled, so a t with few binary digits is cheap.

    seeds: one per sample. shape: of one sample. Values are float32 on `device`; CPU and GPU paths differ.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.seeds = list(seeds)
        self.shape = tuple(shape)
        self.device = torch.device(device)
        self._generator = torch.Generator(self.device)
        # Each step starts where the last one ended: the nodes above the last time and the last values are kept.
        self._nodes: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def at(self, t: float) -> Tensor:
        """Returns W(t) [B, *shape], t rounded to 2^-24; read-only. Raises ValueError if t is outside [0, 1]."""
        if not 0.0 <= t <= 1.0:
            raise ValueError(f"Brownian motion evaluated at t={t:g}, outside [0, 1]")
        tick = round(t * 2**DEPTH)
        value = self._values.get(tick)
        if value is None:
            value = self._sum(tick)
            recent = list(self._values.items())[1 - KEPT_VALUES :]
            self._values = dict([*recent, (tick, value)])
        return value

    def increment(self, start: float, end: float, finest: float = 2.0**-DEPTH) -> Tensor:
        """Returns (W(end) - W(start)) / sqrt(|end - start|) [B, *shape]: standard normals, independent if disjoint.

        finest: the shortest interval of this sampling run. Both times are rounded to a dyadic fraction of it, an eighth
        or less, so that no deep parts of the tree are sampled needlessly.
        Raises ValueError if a time is outside [0, 1], or if both times are the same.
        """
        digits = _digits(min(finest, abs(end - start)))
        begin, stop = round(start * 2**digits) / 2**digits, round(end * 2**digits) / 2**digits
        if begin == stop:
            raise ValueError(f"Brownian motion from t={start:g} to t={end:g} has no increment: take fewer steps")
        return (self.at(stop) - self.at(begin)) * (1.0 / math.sqrt(abs(stop - begin)))

    def _sum(self, tick: int) -> Tensor:
        """Sums every node on the path to t times its hat function (the Levy-Ciesielski construction)."""
        hats = _hats(tick)
        nodes = {node: self._nodes[node] if node in self._nodes else self._draw(node) for node, _ in hats}
        self._nodes = nodes
        total = torch.zeros(len(self.seeds), *self.shape, device=self.device)
        for node, height in hats:
            # Not one fused operation: its rounding could depend on a value's position in the batch.
            total += nodes[node] * height
        return total

    def _draw(self, node: int) -> Tensor:
        out = torch.empty(len(self.seeds), *self.shape, device=self.device)
        for row, seed in zip(out, self.seeds, strict=True):
            row.normal_(generator=self._generator.manual_seed(_node_seed(seed, node)))
        return out


def _digits(stretch: float) -> int:
    """Binary digits of a time that resolve an eighth of an interval."""
    return DEPTH if stretch <= CELLS * 2.0**-DEPTH else min(DEPTH, math.ceil(math.log2(CELLS / stretch)))


def _hats(tick: int) -> list[tuple[int, float]]:
    """Returns (node, weight) pairs for W(t), t = tick / 2^24. The weight is t for the root; at each level, for the
    bisected interval of width w, it is sqrt(w) times the distance to the nearer end in units of w. The nodes of a level
    are numbered from 2^level up.
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

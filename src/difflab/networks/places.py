"""Iterates over a plan: every block with its place in the state dict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from difflab.networks.plan import BackbonePlan, Level, UNetPlan
from difflab.networks.registry import BlockSpec


@dataclass(frozen=True)
class Place:
    """A block and its place.

    level:    resolution level (0 is full size); 0 in the middle.
    step:     index of the step in the level; `position` within that step.
    number:   number of blocks of the same name before it in the level.
    key:      its prefix in our state dict, such as `encoder.0.block.1`.
    """

    side: Literal["encoder", "middle", "decoder"]
    level: int
    step: int
    position: int
    number: int
    skip: bool
    key: str
    spec: BlockSpec


def places(plan: BackbonePlan) -> Iterator[Place]:
    """Yields every block in order of execution; a classifier's pool is not a block."""
    for level, steps in enumerate(plan.encoder):
        yield from _of_level("encoder", level, steps)
    yield from _of_level("middle", 0, plan.middle)
    decoder = plan.decoder if isinstance(plan, UNetPlan) else ()
    for level in range(len(decoder) - 1, -1, -1):
        yield from _of_level("decoder", level, decoder[level])


def numbered(level: Level) -> list[list[tuple[str, int]]]:
    """Returns, for each step of a level, (name, index among blocks of that name in the level) of its blocks."""
    counts: dict[str, int] = {}
    steps = []
    for step in level:
        steps.append([])
        for spec in step.blocks:
            number = counts.get(spec.name, 0)
            counts[spec.name] = number + 1
            steps[-1].append((spec.name, number))
    return steps


def _of_level(side: Literal["encoder", "middle", "decoder"], level: int, steps: Level) -> Iterator[Place]:
    prefix = side if side == "middle" else f"{side}.{level}"
    for index, (step, names) in enumerate(zip(steps, numbered(steps), strict=True)):
        for position, (spec, (name, number)) in enumerate(zip(step.blocks, names, strict=True)):
            key = f"{prefix}.{name}.{number}"
            yield Place(side, level, index, position, number, step.skip, key, spec)

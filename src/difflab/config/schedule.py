"""The configuration of `difflab schedule`: how noise levels are searched for, and by which metric."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.axes import METRICS
from difflab.config.groups import smallest_with
from difflab.config.metrics import known_metric
from difflab.config.sample import EvaluateConfig

Goal = Literal["minimize", "maximize"]

SEARCHING = ("metric", "goal", "candidates", "held_out_seed")
"""The keys of a search that an evaluation does not have."""


class ScheduleConfig(EvaluateConfig):
    """`difflab schedule`.

    out: Where the result goes, and the candidates below it; null = <run>/schedules/<sampler>-<steps>-seed<seed>-<hash
        of the rest>-n<n>, and the candidates beside it, shared with other searches.
    """

    metric: Annotated[str, Field(min_length=1)]
    """The metric to optimize: its logged name without the protocol (`kid-lite0`), or a prefix of it."""
    goal: Goal | None = None
    """The direction of improvement: minimize or maximize; null = the known direction of the metric."""
    candidates: Annotated[int, Field(ge=2)]
    """The number of schedules to try, including the sampler's own spacing."""
    held_out_seed: Annotated[int, Field(ge=0)] | None = None
    """The seed of the samples for the final evaluation of the best schedule; null = seed + 1."""

    @property
    def kind(self) -> str | None:
        """The kind of the metric, if known."""
        known = known_metric(self.metric)
        return None if known is None else known[0]

    @property
    def direction(self) -> Goal:
        """The direction of improvement."""
        goal = self.goal or self._known_goal
        assert goal is not None, "checked below"
        return goal

    @property
    def other_seed(self) -> int:
        """The seed of the held-out samples."""
        return self.seed + 1 if self.held_out_seed is None else self.held_out_seed

    @property
    def _known_goal(self) -> Goal | None:
        _, larger = known_metric(self.metric) or (None, None)
        return None if larger is None else "maximize" if larger else "minimize"

    @model_validator(mode="after")
    def _check_metric(self) -> Self:
        if self.goal is None and self._known_goal is None:
            raise ValueError(f"metric={self.metric}: set goal=minimize or goal=maximize")
        kinds = [config.kind for config in self.metrics.values() if config is not None]
        if self.kind is not None and self.kind not in kinds:
            chosen = ", ".join(kinds) or "none"
            of_samples = {name for name, kind in METRICS.items() if "samples" in getattr(kind.config, "measures", ())}
            there_is = smallest_with("metrics", self.kind, of_samples)
            other = f": choose others, as in metrics={there_is}" if there_is else ""
            raise ValueError(f"metric={self.metric} is none of metrics= ({chosen}){other}")
        return self

    @model_validator(mode="after")
    def _check_search(self) -> Self:
        if self.pipeline.kind != "single":
            raise ValueError(
                f"pipeline={self.pipeline.kind}: levels are searched for one model: leave it out, and give run= the "
                "model of one stage"
            )
        if not self.sampler.takes_a_list:
            raise ValueError(
                f"sampler={self.sampler.kind} has fixed levels and accepts no list of others to search over: choose "
                "another, such as ddim or heun"
            )
        if self.start is not None or self.inverted or self.mask is not None:
            raise ValueError("levels are searched for sampling from noise: leave start, inverted and mask out")
        if self.sampler.steps is None:
            raise ValueError("sampler.steps=null takes every level of the model: give a number, as in sampler.steps=6")
        if self.other_seed == self.seed:
            raise ValueError(f"held_out_seed={self.seed} is the seed of the search: give another one")
        return self

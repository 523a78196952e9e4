"""What every metric has that a stored CLIP judges by."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from difflab.config.model import EmbeddingModelConfig
from difflab.errors import UserError
from difflab.metrics.base import Metric, SampleFacts
from difflab.metrics.config import CLIPMetricBase
from difflab.pipelines.clip_judge import CLIPJudge, judge_at
from difflab.pipelines.stored import Stored, find_stored

J = TypeVar("J", bound=CLIPMetricBase)


class CLIPMetric(Metric[J]):
    """A metric whose configuration names a CLIP (`clip`)."""

    @functools.cached_property
    def stored(self) -> Stored:
        """The CLIP. Raises UserError if it does not exist, or does not embed images and texts."""
        stored = find_stored(self.config.clip, "auto", "clip")
        if not isinstance(stored.config, EmbeddingModelConfig):
            raise UserError(
                f"clip={self.config.clip} is {stored.config.title}, which embeds no texts: give a run of "
                "task=contrastive, or an imported CLIP"
            )
        return stored

    @property
    def files(self) -> Sequence[Path]:
        return [self.stored.weights]

    def judge(self, device: torch.device) -> CLIPJudge:
        """The CLIP with its weights; loaded once."""
        return judge_at(self.config.clip, self.stored.weights, device)

    def check_samples(self, facts: SampleFacts) -> None:
        """Raises UserError if samples have more channels than the CLIP takes."""
        theirs, ours = self.stored.config.channels, facts.shape[0]
        if ours > theirs:
            raise UserError(f"clip={self.config.clip} takes {theirs} channel, the samples have {ours}: give another")

    def described(self) -> dict[str, Any]:
        """What the record of the protocol says of the CLIP, besides its weights."""
        return {
            "preprocessing": dict(self.stored.config.untold),
            "clip": {"run": str(self.stored.home), "experiment": self.stored.config.experiment},
        }

"""How close samples are to their originals, according to a stored CLIP: the cosine of the embeddings of both images."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difflab.metrics.base import SampleFacts, ScoreMetric
from difflab.metrics.config import CLIPImageSimilarityConfig
from difflab.metrics.scores import Pictures
from difflab.pipelines.clip_judge import CLIPJudge, check_channels, described, find_clip, judge_at
from difflab.pipelines.stored import Stored


class CLIPImageSimilarity(ScoreMetric[CLIPImageSimilarityConfig]):
    """`clip-image-similarity`, in [-1, 1]; 1 for an identical pair."""

    result_name = "clip-image-similarity"
    _judge: CLIPJudge

    @functools.cached_property
    def stored(self) -> Stored:
        """The CLIP. Raises UserError if it does not exist, or does not embed images."""
        return find_clip(self.config.clip)

    @property
    def files(self) -> Sequence[Path]:
        return [self.stored.weights]

    def load(self, device: torch.device) -> None:
        self._judge = judge_at(self.config.clip, self.stored.weights, device)

    def check_samples(self, facts: SampleFacts) -> None:
        check_channels(self.config.clip, self.stored, facts.shape[0])

    def score(self, images: Tensor, pictures: Pictures) -> Tensor:
        assert pictures.original is not None, "there is something to compare with"
        ours, theirs = (self._judge(each).pool.double() for each in (images, pictures.original))
        return (ours * theirs).sum(dim=1)

    def parameters(self, pictures: Pictures) -> dict[str, Any]:
        return {**described(self.stored), "judge": self._judge.record.plain()}

"""How close samples are to their originals, according to a stored CLIP: the cosine of the embeddings of both images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from difflab.metrics.base import ScoreMetric
from difflab.metrics.config import CLIPImageSimilarityConfig
from difflab.metrics.scores import Pictures
from difflab.pipelines.clip_judge import CLIPJudge
from difflab.pipelines.clip_metric import CLIPMetric


class CLIPImageSimilarity(CLIPMetric[CLIPImageSimilarityConfig], ScoreMetric[CLIPImageSimilarityConfig]):
    """`clip-image-similarity`, in [-1, 1]; 1 for an identical pair."""

    result_name = "clip-image-similarity"
    _judge: CLIPJudge

    def load(self, device: torch.device) -> None:
        self._judge = self.judge(device)

    def score(self, images: Tensor, pictures: Pictures) -> Tensor:
        assert pictures.original is not None, "there is something to compare with"
        ours, theirs = (self._judge(each).pool.double() for each in (images, pictures.original))
        return (ours * theirs).sum(dim=1)

    def parameters(self, pictures: Pictures) -> dict[str, Any]:
        return {**self.described(), "judge": self._judge.record.plain()}

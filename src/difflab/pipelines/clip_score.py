"""How well samples show their captions, according to a stored CLIP: the cosine of the embeddings of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from difflab.errors import UserError
from difflab.metrics.base import SampleFacts, Samples
from difflab.metrics.config import CLIPScoreConfig, Convention
from difflab.metrics.oracle_results import sha256_of_texts
from difflab.metrics.protocol import Result
from difflab.pipelines.clip_judge import CLIPJudge
from difflab.pipelines.clip_metric import CLIPMetric

PREFIX = "A photo depicts "
"""Before every caption in CLIPScore (Hessel et al. 2021, section 3; jmhessel/clipscore, clipscore.py)."""


class CLIPScore(CLIPMetric[CLIPScoreConfig]):
    """`clip-score-<convention>` for each convention, the mean over the samples, with its standard error.

    With `clipscore`, and data that has further captions of every image, also `clip-score-refclipscore`: the harmonic
    mean of CLIPScore and the largest cosine of the caption with another one of the same image, or 0 (Hessel et al.
    2021, section 3).
    """

    keeps = frozenset({"pool", "captions", "references"})

    def extractor(self, device: torch.device) -> CLIPJudge:
        return self.judge(device)

    def check_samples(self, facts: SampleFacts) -> None:
        super().check_samples(facts)
        if facts.uncaptioned is not None:
            raise UserError(f"{self.key} compares each sample with its caption, but {facts.uncaptioned}")

    def results(self, samples: Samples) -> list[Result]:
        assert samples.features is not None
        if samples.captions is None:
            raise UserError(f"{self.key}: the caption of each sample is not known")
        judge, images = self.extractor(samples.device), samples.features.pool.double()
        found: list[Result] = []
        for convention in self.config.conventions:
            prefix = PREFIX if convention == "clipscore" else ""
            prefixed = [prefix + caption for caption in samples.captions]
            texts = judge.texts(prefixed)
            scores = score(convention, (images * texts).sum(dim=1))
            parameters = {"prefix": prefix, "captions": sha256_of_texts(samples.captions)}
            warnings = _remarks(judge, samples.captions, prefixed)
            found.append(self._result(samples, convention, scores, parameters, warnings))
            if convention == "clipscore" and samples.references is not None and all(samples.references):
                references = [[PREFIX + text for text in others] for others in samples.references]
                nearest = _nearest(judge, texts, references)
                parameters["references"] = sha256_of_texts([text for others in references for text in others])
                both = harmonic_mean(scores, nearest.clamp(min=0))
                found.append(self._result(samples, "refclipscore", both, parameters, warnings))
        return found

    def _result(
        self, samples: Samples, name: str, scores: Tensor, parameters: dict[str, Any], warnings: Sequence[str]
    ) -> Result:
        error = float(scores.std()) / math.sqrt(len(scores)) if len(scores) > 1 else None
        return samples.result(
            f"clip-score-{name}",
            float(scores.mean()),
            {**parameters, **self.described()},
            spread=error,
            warnings=warnings,
        )


def score(convention: Convention, cosine: Tensor) -> Tensor:
    """Scores [n] by a named convention, of the cosines of images with their captions [n]: 100 cos (Nichol et al. 2021),
    cos (Saharia et al. 2022), 2.5 max(cos, 0) (Hessel et al. 2021, section 3).
    """
    if convention == "glide":
        return 100 * cosine
    return cosine if convention == "imagen" else 2.5 * cosine.clamp(min=0)


def harmonic_mean(a: Tensor, b: Tensor) -> Tensor:
    """Of values >= 0, [n] each; 0 where both are."""
    return 2 * a * b / (a + b).clamp(min=torch.finfo(a.dtype).tiny)


def _nearest(judge: CLIPJudge, texts: Tensor, references: Sequence[Sequence[str]]) -> Tensor:
    """The largest cosine of each text [n, dim] with one of its references, float64 [n]."""
    others = judge.texts([text for each in references for text in each]).split([len(each) for each in references])
    return torch.stack([(each @ text).amax() for each, text in zip(others, texts, strict=True)])


def _remarks(judge: CLIPJudge, captions: Sequence[str], prefixed: Sequence[str]) -> list[str]:
    lines = []
    if truncated := sum(map(judge.is_truncated, prefixed)):
        lines.append(
            f"{truncated} of {len(captions)} captions have more than {judge.context_length} tokens, of which the CLIP "
            "sees the first"
        )
    if empty := sum(not caption.strip() for caption in captions):
        lines.append(f"{empty} of {len(captions)} captions are empty, so that their scores mean nothing")
    return lines

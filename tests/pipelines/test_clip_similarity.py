"""The cosine of the CLIP embeddings of samples and originals, beside open_clip's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from difflab.errors import UserError
from difflab.metrics.config import CLIPImageSimilarityConfig
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.paired import Pairs
from difflab.metrics.protocol import Result
from pipelines.test_clip_score import embedded, images, judge

__all__ = ["judge"]


def measured(run: str, shown: Tensor, originals: Tensor) -> Result:
    pairs = Pairs(lambda indices: {"original": originals[indices]}, tuple(shown.shape[1:]))
    evaluator = Evaluator({"closeness": CLIPImageSimilarityConfig(clip=run)}, n=len(shown), pairs=pairs)
    for rows in (list(range(1, len(shown))), [0]):
        evaluator.update(shown[rows], torch.tensor(rows))
    (result,) = evaluator.compute()
    return result


def test_it_is_the_cosine_of_both_embeddings_by_open_clip(judge: tuple[str, torch.nn.Module, Path]) -> None:
    run, network, _ = judge
    shown, originals = images(8)[:4], images(8)[4:]
    found = measured(run, shown, originals)
    ours, theirs = (embedded(network, each, ["a"])[0].double() for each in (shown, originals))
    cosines = (ours * theirs).sum(dim=1)
    assert found.metric == "clip-image-similarity"
    assert found.value == pytest.approx(float(cosines.mean()), abs=1e-5)
    assert found.spread == pytest.approx(float(cosines.std()) / math.sqrt(4), abs=1e-5)
    assert found.protocol.parameters["judge"]["name"] == "clip"
    assert len(found.protocol.parameters["compared_with"]) == 16


def test_an_identical_pair_has_1(judge: tuple[str, torch.nn.Module, Path]) -> None:
    assert measured(judge[0], images(2), images(2)).value == pytest.approx(1.0, abs=1e-6)
    grey = images(2)[:, :1]
    assert measured(judge[0], grey, grey).value == pytest.approx(1.0, abs=1e-6)


def test_without_originals_it_is_refused(judge: tuple[str, torch.nn.Module, Path]) -> None:
    with pytest.raises(UserError, match=r"^metrics\.closeness compares each sample with its original"):
        Evaluator({"closeness": CLIPImageSimilarityConfig(clip=judge[0])}, n=2)

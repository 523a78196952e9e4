"""What is found of the latents of an autoencoder, beside closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from difflab.metrics.base import Samples
from difflab.metrics.config import CodebookConfig, KLMetricConfig
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.latents_kept import MadeOf
from difflab.metrics.protocol import GivenRecord, ReconstructionRecord, ReferenceRecord, Result

METRICS = {"codebook": CodebookConfig(), "kl": KLMetricConfig()}
ORIGINALS = ReferenceRecord(name="shapes", content_hash="abc", split="val", preparation="none", n=4)


def measured(codes: torch.Tensor, kl: torch.Tensor, *, size: int, batch: int = 4) -> dict[str, Result]:
    evaluator = Evaluator(METRICS, n=len(kl), originals=ORIGINALS, label="val")
    for rows in torch.arange(len(kl)).split(batch):
        pixels = torch.zeros(len(rows), 3, 8, 8, dtype=torch.uint8)
        evaluator.update(pixels, rows, made_of=MadeOf(pixels, kl[rows], codes[rows], size))
    return {result.name: result for result in evaluator.compute()}


def test_codes_that_are_used_equally_often_count_as_many() -> None:
    codes = torch.tensor([[[0, 1]], [[2, 3]], [[0, 1]], [[2, 3]]])
    found = measured(codes, torch.tensor([1.0, 2.0, 3.0, 6.0]), size=16)
    assert list(found) == ["codebook-perplexity@val-4", "codebook-used@val-4", "kl@val-4"]
    assert found["codebook-perplexity@val-4"].value == pytest.approx(4)
    assert found["codebook-used@val-4"].value == 4 / 16
    assert found["codebook-used@val-4"].details == {"used": 4, "places": 8}
    kl = found["kl@val-4"]
    assert kl.value == 3
    assert kl.spread == pytest.approx(math.sqrt(14 / 3) / 2)
    assert kl.protocol.reference == ORIGINALS


def test_the_perplexity_is_of_the_whole_set_whatever_the_batch() -> None:
    codes = torch.tensor([[[0, 0]], [[0, 1]], [[1, 1]], [[1, 0]], [[0, 0]], [[0, 0]]])
    share = torch.tensor([8 / 12, 4 / 12])
    expected = math.exp(-float((share * share.log()).sum()))
    for batch in (1, 4, 6):
        found = measured(codes, torch.zeros(6), size=2, batch=batch)
        assert found["codebook-perplexity@val-6"].value == pytest.approx(expected)


def test_an_image_given_twice_is_noticed() -> None:
    evaluator = Evaluator({"kl": KLMetricConfig()}, n=2)
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    for _ in range(2):
        evaluator.update(pixels, torch.tensor([0]), made_of=MadeOf(pixels, torch.zeros(1)))
    with pytest.raises(ValueError, match="2 samples were given, 1 different ones"):
        evaluator.compute()


def test_images_that_are_not_there_are_left_out() -> None:
    evaluator = Evaluator({"kl": KLMetricConfig()}, n=3)
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    evaluator.update(pixels, torch.tensor([2, 0]), made_of=MadeOf(pixels, torch.tensor([4.0, 2.0])))
    (found,) = evaluator.compute(torch.tensor([2, 0]))
    assert (found.name, found.value, found.protocol.n) == ("kl@2", 3, 2)


def test_a_distance_of_reconstructions_has_a_name_of_its_own() -> None:
    how = ReconstructionRecord(
        posterior="mode", seed=None, tile=None, weights="raw", rounding="truncate", precision="float32", device="cpu"
    )
    named = {"rfid": how, "fid": GivenRecord(name="theirs", content_hash="abc")}
    for name, sampling in named.items():
        assert Samples(n=2, device=torch.device("cpu"), sampling=sampling).distance("fid") == name

"""Perceptual distances as metrics."""

from __future__ import annotations

import pytest
import torch

from difflab.config.parts import FrozenConfig
from difflab.errors import UserError
from difflab.images import to_float
from difflab.metrics.config import LPIPSMetricConfig, PerceptualConfig
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.latents_kept import MadeOf
from difflab.metrics.paired import Pairs
from difflab.networks.perceptual.build import build_perceptual
from difflab.networks.perceptual.config import Lite0Config
from difflab.parts.loading import load_frozen
from difflab.pipelines.perceptual import PerceptualMetric
from networks.perceptual.test_distance import built, files, fixture  # noqa: F401 - fixtures


def pixels(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator)


def test_it_is_the_mean_of_the_distance_that_training_has() -> None:
    made, originals = pixels(0), pixels(1)
    made[0] = originals[0]
    evaluator = Evaluator({"perceptual": PerceptualConfig()}, n=3, pairs=Pairs(shape=(3, 32, 32)))
    for rows in (slice(0, 2), slice(2, 3)):
        index = torch.arange(3)[rows]
        evaluator.update(made[rows], index, made_of=MadeOf(originals[rows], torch.zeros(len(index))))
    (found,) = evaluator.compute()
    distance = build_perceptual(Lite0Config())
    assert distance is not None
    load_frozen(distance)
    with torch.no_grad():
        each = distance.eval()(to_float(made), to_float(originals)).double()
    assert float(each[0]) == pytest.approx(0, abs=1e-6)
    assert found.name == "perceptual-lite0@3"
    assert found.value == pytest.approx(float(each.mean()), rel=1e-5)
    assert found.spread == pytest.approx(float(each.std()) / 3**0.5, rel=1e-4)
    assert len(str(found.protocol.parameters["network_sha256"])) == 64


def test_weights_that_are_not_there_are_named_with_their_key() -> None:
    evaluator = Evaluator({"mine": LPIPSMetricConfig()}, n=3, pairs=Pairs())
    with pytest.raises(UserError, match=r"metrics\.mine\.network: weights/vgg16-397923af\.pth does not exist: give"):
        evaluator.load_extractors()


def test_images_that_are_too_small_do_not_suit_it() -> None:
    metric = PerceptualMetric(PerceptualConfig(), "perceptual")
    assert metric.unsuited(None, 32) is None
    assert metric.unsuited(None, 31) == "compares images of at least 32 pixels per side, not 31"


def test_lpips_is_called_so_and_knows_its_files(files: dict[str, FrozenConfig]) -> None:  # noqa: F811
    config = LPIPSMetricConfig(**files)
    evaluator = Evaluator({"lpips": config}, n=3, pairs=Pairs(shape=(3, 32, 32)))
    made, originals = pixels(0), pixels(1)
    evaluator.update(made, torch.arange(3), made_of=MadeOf(originals, torch.zeros(3)))
    (found,) = evaluator.compute()
    with torch.no_grad():
        each = built(kind="lpips", **files)(to_float(made), to_float(originals))
    assert found.name == "lpips@3"
    assert found.value == pytest.approx(float(each.mean()), rel=1e-5)
    assert {"network_sha256", "channel_weights_sha256"} <= found.protocol.parameters.keys()
    assert [path.name for path in evaluator.metrics["lpips"].files] == ["vgg.safetensors", "lin.safetensors"]

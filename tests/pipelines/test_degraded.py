"""Low-resolution images that are degraded at random: one and the same for whoever asks for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from difflab.config.data import DataConfig
from difflab.images import Downsampling, as_float, resize, to_uint8
from difflab.pipelines.pairing import low_resolution_of, pairs_of
from difflab.pipelines.resizing import ResizingStage
from difflab.requests.data_split import DataSplit
from difflab.seeding import sample_seeds
from pipelines.conftest import UPSAMPLER, configuration

DEGRADED = (*UPSAMPLER, "conditioning.low_res.degradation=bsr_light")


@pytest.fixture
def data(tiny_shapes: Path) -> DataConfig:
    return DataConfig(path=str(tiny_shapes), image_size=16, batch_size=4)


def test_what_is_compared_is_what_is_enlarged(pipeline_of, data) -> None:
    pipeline = pipeline_of(*DEGRADED, data=data)
    pairs = pairs_of(pipeline, 3)
    assert pairs.downsampling == Downsampling(8, "area")
    small = pairs.of([3, 12])["low_res"]
    assert small.dtype == torch.uint8
    # The split has 12 images: sample 12 is of the first one again, degraded anew.
    assert not torch.equal(pairs.of([0])["low_res"][0], small[1])
    assert not torch.equal(pairs_of(pipeline, 4).of([3])["low_res"][0], small[0])
    made = low_resolution_of(configuration(*DEGRADED).model())
    assert made is not None
    images = DataSplit(data, "val", ["image"])([3, 0], 0)["image"]
    assert torch.equal(made(images, sample_seeds(3, [3, 12])), small)


def test_a_sample_is_of_its_low_resolution_image_in_any_batch(pipeline_of, data, tmp_path: Path) -> None:
    pipeline = pipeline_of(*DEGRADED, data=data)
    pairs = pairs_of(pipeline, 3)
    drawn = pipeline.draw([3, 5], 3)
    torch.testing.assert_close(pipeline.draw([5], 3)[0], drawn[1], atol=1e-5, rtol=0)
    # Given as files, the same images give the same samples.
    small = torch.stack([pairs.of([index])["low_res"][0] for index in range(6)])
    np.savez(tmp_path / "small.npz", small.permute(0, 2, 3, 1).numpy())
    given = pipeline_of(*DEGRADED, asked={"low_res": str(tmp_path / "small.npz")})
    torch.testing.assert_close(given.draw([3, 5], 3), drawn, atol=1e-6, rtol=0)
    # Others do not, so that the condition counts.
    assert not torch.allclose(given.draw([3, 5], 3), given.draw([9, 5], 3), atol=1e-3)


def test_a_plain_resize_enlarges_the_same(pipeline_of, data) -> None:
    pipeline = pipeline_of(*DEGRADED, data=data)
    small = pairs_of(pipeline, 7).of([2, 0])["low_res"]
    stage = pipeline.stages["single"]
    pipeline.stages["single"] = pipeline.last = ResizingStage(stage.conditioners, stage.shape, filter="bicubic")
    assert torch.equal(pipeline([2, 0], 7), to_uint8(resize(as_float(small), 16, "bicubic")))


def test_guidance_and_the_null_see_the_same_image(pipeline_of, data) -> None:
    dropped = (*DEGRADED, "conditioning.low_res.drop_rate=0.1")
    guided = (*dropped, "guidance=classifier_free", "guidance.scale=2")
    plain, strong = pipeline_of(*dropped, data=data), pipeline_of(*guided, data=data)
    assert torch.equal(pairs_of(plain, 1).of([0])["low_res"], pairs_of(strong, 1).of([0])["low_res"])
    assert torch.isfinite(strong.draw([0], 1)).all()

"""What the samples of a pipeline are compared with: originals, and what they enlarge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from difflab.config.data import DataConfig
from difflab.images import Downsampling, as_float
from difflab.pipelines.pairing import pairs_of
from difflab.pipelines.resizing import ResizingStage
from difflab.requests.data_split import DataSplit
from drawn_clip import DIM, export_clip
from pipelines.conftest import UPSAMPLER

BASE = ("data.image_size=8", "network.attention_resolutions=[4]")
AREA = Downsampling(8, "area")


@pytest.fixture
def data(tiny_shapes: Path) -> DataConfig:
    return DataConfig(path=str(tiny_shapes), image_size=16, batch_size=4)


@pytest.fixture
def small(tmp_path: Path) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "small.npz", pixels)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_images_of_a_data_split_are_the_originals_and_made_smaller_what_is_enlarged(pipeline_of, data) -> None:
    pairs = pairs_of(pipeline_of(*UPSAMPLER, data=data), 0)
    assert (pairs.unpaired, pairs.enlarges_nothing, pairs.shape, pairs.downsampling) == (None, None, (3, 16, 16), AREA)
    batch = pairs.of([3, 12])
    # The split has 12 images: sample 12 is of the first one again.
    originals = DataSplit(data, "val", ["image"])([3, 0], 0)["image"]
    assert torch.equal(batch["original"], originals)
    assert torch.equal(batch["low_res"], AREA(originals))


def test_the_filter_is_the_models(pipeline_of, data) -> None:
    bicubic = pairs_of(pipeline_of(*UPSAMPLER, "conditioning.low_res.downsample=bicubic", data=data), 0)
    assert bicubic.downsampling == Downsampling(8, "bicubic")


def test_what_is_given_to_be_enlarged_has_no_original(pipeline_of, data, small, tmp_path: Path) -> None:
    asked = {"low_res": str(tmp_path / "small.npz")}
    pairs = pairs_of(pipeline_of(*UPSAMPLER, asked=asked, data=data), 0)
    assert pairs.unpaired is not None
    assert "low_res was given without it" in pairs.unpaired
    assert torch.equal(pairs.of([2, 0])["low_res"], small[[2, 0]])


def test_originals_may_be_given_alone_or_beside_it(pipeline_of, small, tmp_path: Path) -> None:
    large = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "large.npz", large)
    originals = torch.from_numpy(large).permute(0, 3, 1, 2)
    alone = pairs_of(pipeline_of(*UPSAMPLER, asked={"images": str(tmp_path / "large.npz")}), 0)
    beside = {"images": str(tmp_path / "large.npz"), "low_res": str(tmp_path / "small.npz")}
    both = pairs_of(pipeline_of(*UPSAMPLER, asked=beside), 0)
    assert torch.equal(alone.of([1])["low_res"], AREA(originals[[1]]))
    assert torch.equal(both.of([1])["low_res"], small[[1]])
    for pairs in (alone, both):
        assert pairs.unpaired is None
        assert torch.equal(pairs.of([1])["original"], originals[[1]])


def test_a_model_that_enlarges_nothing_has_no_pairs(pipeline_of, data) -> None:
    pairs = pairs_of(pipeline_of(data=data), 0)
    assert pairs.unpaired == pairs.enlarges_nothing == "this model enlarges nothing: evaluate an upsampler"


def test_what_is_varied_or_filled_is_the_original(pipeline_of, data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    export_clip(Path("clip"))
    varied = ("conditioning=clip_image", "conditioning.clip_image.weights.path=clip", "network.context_channels=128")
    filled = ("conditioning=masked_image", "network.concat_channels=4")
    originals = DataSplit(data, "val", ["image"])([3, 0], 0)["image"]
    for options in (varied, filled):
        pairs = pairs_of(pipeline_of(*options, data=data), 0)
        assert (pairs.unpaired, pairs.shape, pairs.downsampling) == (None, (3, 16, 16), None)
        assert pairs.enlarges_nothing == "this model enlarges nothing: evaluate an upsampler"
        batch = pairs.of([3, 12])
        assert batch.keys() == {"original"}
        assert torch.equal(batch["original"], originals)


def test_what_is_given_without_its_image_has_no_original(pipeline_of, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    export_clip(Path("clip"))
    np.save("embeddings.npy", np.zeros((2, DIM), np.float32))
    varied = ("conditioning=clip_image", "conditioning.clip_image.weights.path=clip", "network.context_channels=128")
    pairs = pairs_of(pipeline_of(*varied, asked={"embeddings": "embeddings.npy"}), 0)
    assert pairs.unpaired is not None
    assert "the images that samples are drawn from are not known: give images=FOLDER" in pairs.unpaired


def test_a_plain_resize_has_the_pairs_of_the_upsampler(pipeline_of, data) -> None:
    pipeline = pipeline_of(*UPSAMPLER, data=data)
    before = pairs_of(pipeline, 0).of([0])
    stage = pipeline.stages["single"]
    pipeline.stages["single"] = ResizingStage(stage.conditioners, stage.shape, filter="bicubic")
    after = pairs_of(pipeline, 0)
    assert after.downsampling == AREA
    assert torch.equal(after.of([0])["low_res"], before["low_res"])


def test_what_a_stage_drew_is_handed_to_who_compares(cascade_of) -> None:
    cascade = cascade_of(base=BASE, upsampler=UPSAMPLER)
    pairs = pairs_of(cascade, 3)
    assert pairs.unpaired is not None
    assert "are samples of the stage before" in pairs.unpaired
    assert (pairs.enlarges_nothing, pairs.downsampling, pairs.of([0])) == (None, AREA, {})
    handed: list[torch.Tensor] = []
    drawn = cascade.drawn(cascade.request([0, 5], 3), 3, handed.append)
    assert torch.equal(drawn, cascade([0, 5], 3))
    base = cascade_of(base=BASE).draw([0, 5], 3)
    assert len(handed) == 1
    assert torch.equal(handed[0], base)


def test_a_cascade_of_upsamplers_is_compared_at_its_last_size_and_with_what_its_first_stage_enlarges(
    cascade_of, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "large.npz", pixels)
    first = (*UPSAMPLER, "conditioning.low_res.size=4", "data.image_size=8", "network.attention_resolutions=[4]")
    cascade = cascade_of(first=first, second=UPSAMPLER, asked={"images": str(tmp_path / "large.npz")})
    pairs = pairs_of(cascade, 0)
    assert (pairs.shape, pairs.downsampling, pairs.unpaired) == ((3, 16, 16), Downsampling(4, "area"), None)
    batch = pairs.of([0, 1])
    originals = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    assert torch.equal(batch["original"], originals)
    assert torch.equal(batch["low_res"], Downsampling(4, "area")(as_float(originals)))
    handed: list[torch.Tensor] = []
    assert cascade.drawn(cascade.request([0], 0), 0, handed.append).shape == (1, 3, 16, 16)
    assert not handed

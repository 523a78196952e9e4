from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difflab.config.model import ModelConfig
from difflab.errors import UserError
from difflab.images import to_float
from difflab.pipelines.low_res import ArchiveLowRes, DataLowRes, FolderLowRes, open_low_res
from pipelines.conftest import UPSAMPLER, configuration

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def model() -> ModelConfig:
    return ModelConfig.of(configuration(*UPSAMPLER))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, arr_0=PIXELS, arr_1=np.array([4, 0, 2]))
    return path


def test_an_archive_is_taken_in_turn_with_its_classes(archive: Path) -> None:
    source = ArchiveLowRes(archive)
    images = source([1, 4])["low_res"]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], torch.from_numpy(PIXELS[1]).permute(2, 0, 1))
    assert source.labels([0, 1, 2, 3]) == [4, 0, 2, 4]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name, pixels in zip(("b.png", "a.png", "c.png"), PIXELS, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    source = FolderLowRes(tmp_path, channels=3)
    assert torch.equal(source([0, 3])["low_res"][1], torch.from_numpy(PIXELS[1]).permute(2, 0, 1))
    assert source.labels([0]) is None


def test_a_data_set_gives_whole_images_and_their_classes(tiny_shapes: Path) -> None:
    data = configuration(*UPSAMPLER, f"data.path={tiny_shapes}").data
    source = DataLowRes(data, "val")
    assert source([0, 1])["image"].shape == (2, 3, 16, 16)
    assert source.name == "tiny/val"
    assert source.labels([0, 12]) == [source.labels([0])[0]] * 2


def test_upsampling_draws_from_the_small_images(pipeline_of, archive: Path) -> None:
    pipeline = pipeline_of(*UPSAMPLER, low_res=ArchiveLowRes(archive))
    drawn = pipeline([0, 1], 0)
    assert drawn.shape == (2, 3, 16, 16)
    given = torch.from_numpy(PIXELS[:2]).permute(0, 3, 1, 2)
    assert torch.equal(pipeline([0, 1], 0, low_res=given), drawn)
    assert torch.equal(pipeline([0, 1], 0, low_res=to_float(given)), drawn)
    assert not torch.equal(pipeline([0, 1], 0, low_res=given.flip(0)), drawn)
    # Sample 3 has image 0 again, but noise of its own.
    assert not torch.equal(pipeline([3], 0)[0], drawn[0])


def test_an_upsampler_without_small_images_says_what_it_wants(pipeline_of) -> None:
    with pytest.raises(UserError, match=r"^this model enlarges 8x8 images: give them as low_res=\.\.\.$"):
        pipeline_of(*UPSAMPLER)([0], 0)


def test_classes_of_the_small_images_are_followed(pipeline_of, archive: Path) -> None:
    pipeline = pipeline_of(*UPSAMPLER, "conditioning=class_low_res", low_res=ArchiveLowRes(archive))
    assert pipeline.labels([0, 1, 2], seed=0) == [4, 0, 2]
    drawn = pipeline([0, 1], 0)
    assert torch.equal(pipeline([0, 1], 0, classes=[4, 0]), drawn)
    assert not torch.equal(pipeline([0, 1], 0, classes=[1, 1]), drawn)


def test_mistakes_are_named(model: ModelConfig, tmp_path: Path, archive: Path) -> None:
    def refused(path: object, of: ModelConfig = model) -> str:
        with pytest.raises(UserError) as error:
            open_low_res(None if path is None else str(path), of, None, "val")
        assert "\n" not in str(error.value)
        return str(error.value)

    assert refused(None).startswith("this model enlarges 8x8 images: give an archive or a folder")
    assert refused(tmp_path / "nothing") == (
        f"low_res={tmp_path / 'nothing'} does not exist: give an archive (.npz) or a folder of images"
    )
    large = tmp_path / "large.npz"
    np.savez(large, arr_0=np.zeros((2, 10, 10, 3), dtype=np.uint8))
    assert refused(large) == f"low_res={large} holds 10x10 images; this model enlarges 8x8 to 16x16"
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, arr_0=np.zeros((2, 8, 8), dtype=np.float32))
    assert "arr_0 is float32 [2, 8, 8], not uint8 [n, H, W, C]" in refused(wrong)
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused(tmp_path / "empty")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    assert "a.png cannot be read as an image" in refused(tmp_path / "broken")
    plain = ModelConfig.of(configuration())
    assert refused(archive, plain) == f"low_res={archive}: this model enlarges nothing; leave low_res out"

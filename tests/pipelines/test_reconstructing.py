"""Images through an autoencoder and back: whole or in tiles, from the mode or from a sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from difflab.conditioning.base import ConditionerSet
from difflab.config.data import DataConfig
from difflab.errors import UserError
from difflab.pipelines.reconstructing import ReconstructionPipeline, refuse_unencodable
from difflab.tasks.autoencoder.config import AutoencoderModelConfig
from difflab.tasks.build import Model
from difflab.types import Batch
from tasks.autoencoder.small_autoencoders import small_network


def model(kind: str = "kl", **options: Any) -> Model:
    torch.manual_seed(0)
    network = small_network(kind, **options)
    config = AutoencoderModelConfig(experiment="custom", image_size=16, channels=3, network=network.config)
    return Model(config, network.eval(), ConditionerSet({}))


def images(n: int, side: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)
    return {"image": pixels, "index": torch.arange(n) * 3}


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_tiles_give_what_whole_images_give(kind: str) -> None:
    network = model(kind)
    batch = images(2, side=32)
    whole, made_of = ReconstructionPipeline(network)(batch, 0)
    tiled, of_tiles = ReconstructionPipeline(network, tile=8)(batch, 0)
    assert int((whole.int() - tiled.int()).abs().max()) <= 1
    torch.testing.assert_close(made_of.kl, of_tiles.kl, rtol=1e-4, atol=1e-4)
    assert torch.equal(made_of.originals, batch["image"])
    if kind == "vq":
        assert made_of.codes is not None
        assert of_tiles.codes is not None
        assert torch.equal(made_of.codes, of_tiles.codes)
        assert made_of.codebook_size == 16


def test_a_sample_depends_on_the_seed_and_the_index_alone() -> None:
    pipeline = ReconstructionPipeline(model(), "sample")
    batch = images(3)
    whole = pipeline(batch, 5)[0]
    alone = pipeline({key: value[2:] for key, value in batch.items()}, 5)[0]
    assert int((whole[2:].int() - alone.int()).abs().max()) <= 1
    moved = pipeline({**batch, "index": batch["index"] + 1}, 5)[0]
    for other in (pipeline(batch, 6)[0], moved, ReconstructionPipeline(pipeline.model)(batch, 5)[0]):
        assert not torch.equal(whole, other)


def test_what_is_not_finite_is_named_with_its_index() -> None:
    broken = model()
    parameter = broken.network.get_parameter("decoder.conv_out.bias")
    with torch.no_grad():
        parameter[1] = torch.inf
    line = r"reconstructions 0, 3 are not finite: the weights themselves are not finite \(network\.decoder\.conv_out"
    with pytest.raises(UserError, match=line):
        ReconstructionPipeline(broken)(images(2), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 1}, "takes images of 3 channels, the data has 1: set data.channels=3"),
        ({"image_size": 17}, "images of 17x17 have no latent: their sides are no multiple of 2; crop them, as with "),
    ],
)
def test_other_data_is_refused(changes: dict[str, Any], message: str) -> None:
    data = DataConfig.model_validate({"path": "data", "image_size": 16, "batch_size": 1, **changes})
    with pytest.raises(UserError, match=message):
        refuse_unencodable(ReconstructionPipeline(model()), data)


def test_images_of_another_size_than_in_training_are_taken() -> None:
    refuse_unencodable(ReconstructionPipeline(model()), DataConfig(path="data", image_size=24, batch_size=1))

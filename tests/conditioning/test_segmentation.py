"""Maps of classes: latent diffusion's spatial rescaler, and what makes it a condition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.segmentation.conditioner import SpatialRescalerConditioner
from difflab.conditioning.segmentation.config import SpatialRescalerConditionerConfig
from difflab.conditioning.segmentation.rescaler import SpatialRescaler
from golden_fixtures import load


@pytest.mark.parametrize("name", ["ldm_rescaler_bicubic", "ldm_rescaler_bilinear_mapped"])
def test_the_maps_are_latent_diffusion_s(name: str) -> None:
    fixture = load("latent", name)
    args = fixture.spec["args"]
    channels = (args["in_channels"], args["out_channels"]) if "out_channels" in args else None
    rescaler = SpatialRescaler(args["n_stages"], args["method"], channels, args.get("multiplier", 0.5))
    renamed = {"channel_mapper.weight": "mapping.weight"}
    rescaler.load_state_dict({renamed[key]: value for key, value in fixture.state_dict().items()})
    fixture.check_close("out", rescaler(fixture.input("x")))


def conditioner_of(image_size: int = 4, **options: Any) -> SpatialRescalerConditioner:
    config = SpatialRescalerConditionerConfig.model_validate(
        {"kind": "spatial_rescaler", "classes": 3, "stages": 1, **options}
    )
    torch.manual_seed(0)
    made = build_conditioners({"map": config}, embedding_dim=4, image_size=image_size)["map"]
    assert isinstance(made, SpatialRescalerConditioner)
    return made


def test_maps_of_another_size_than_the_latent_are_refused() -> None:
    config = SpatialRescalerConditionerConfig.model_validate({"kind": "spatial_rescaler", "classes": 3, "stages": 1})
    config.refuse_other_factor("map", 2)
    with pytest.raises(ValueError) as error:
        config.refuse_other_factor("map", 4)
    assert str(error.value) == (
        "conditioning.map.stages=1 makes maps 2 times smaller, but the model diffuses latents, 4 times smaller than "
        "the image: set conditioning.map.stages=2"
    )
    with pytest.raises(ValueError, match="diffuses images as they are: "):
        config.refuse_other_factor("map", 1)


def batch_of(*maps: torch.Tensor) -> dict[str, Any]:
    return {"index": torch.arange(len(maps)), "segmentation": torch.stack(maps).to(torch.uint8)}


def test_a_place_has_the_shares_of_the_classes_of_its_pixels() -> None:
    halves = torch.zeros(8, 8, dtype=torch.uint8)
    halves[:, 5:] = 2
    made = conditioner_of()(batch_of(halves)).concat
    assert made is not None
    assert made.shape == (1, 3, 4, 4)
    assert torch.equal(made[0, 0, 0], torch.tensor([1.0, 1.0, 0.5, 0.0]))
    assert torch.equal(made[0, 2, 0], torch.tensor([0.0, 0.0, 0.5, 1.0]))
    assert (made[0, 1] == 0).all()


def test_a_dropped_map_is_zeros() -> None:
    conditioner = conditioner_of(channels=2, drop_rate=0.1)
    maps = batch_of(torch.ones(8, 8), torch.ones(8, 8))
    made = conditioner(maps, torch.tensor([True, False])).concat
    assert made is not None
    assert (made[0] == 0).all()
    assert made[1].abs().min() > 0
    with pytest.raises(ValueError, match="cannot drop it"):
        conditioner_of()(maps, torch.tensor([True, False]))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.zeros(8, 5), "segmentation is 5x8, this model reads maps whose sides are multiples of 2"),
        (torch.full((8, 8), 3), r"segmentation has class 3, which is not in 0\.\.2"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(maps: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conditioner_of()(batch_of(maps))


def test_maps_of_another_size_are_read_if_they_are_those_of_their_images() -> None:
    conditioner = conditioner_of()
    large = batch_of(torch.zeros(12, 16))
    made = conditioner(large).concat
    assert made is not None
    assert made.shape == (1, 3, 6, 8)
    with pytest.raises(ValueError, match="segmentation is 16x12, of images of 8x8 pixels"):
        conditioner(large | {"image": torch.zeros(1, 3, 8, 8)})

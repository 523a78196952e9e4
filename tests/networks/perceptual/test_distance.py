"""Perceptual distances: LPIPS against the official arithmetic on drawn weights, and what all of them have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor

from difflab.config.axes import PERCEPTUAL
from difflab.config.parts import FrozenConfig
from difflab.errors import UserError
from difflab.networks.perceptual.build import build_perceptual
from difflab.networks.perceptual.config import PerceptualBase
from difflab.networks.perceptual.distance import PerceptualDistance, gram_matrix, style_distance
from difflab.networks.perceptual.features import LITE0_CHANNELS
from difflab.parts.loading import load_frozen
from difflab.parts.selection import written
from golden_fixtures import Fixture, load


def built(**options: Any) -> PerceptualDistance:
    """A distance of these options, with its weights."""
    config = TypeAdapter(PerceptualBase).validate_python(PERCEPTUAL[options["kind"]].config(**options))
    distance = build_perceptual(config)
    assert distance is not None
    load_frozen(distance)
    return distance


@pytest.fixture(scope="module")
def fixture() -> Fixture:
    return load("latent", "ldm_lpips_drawn")


@pytest.fixture(scope="module")
def files(fixture: Fixture, tmp_path_factory: pytest.TempPathFactory) -> dict[str, FrozenConfig]:
    """The drawn weights, as torchvision and LPIPS have them in files."""
    folder = tmp_path_factory.mktemp("lpips")
    state = fixture.state_dict()
    vgg = {f"features.{key.split('.', 2)[2]}": value for key, value in state.items() if key.startswith("net.")}
    save_file({**vgg, "classifier.0.bias": torch.zeros(2)}, folder / "vgg.safetensors")
    save_file({key: value for key, value in state.items() if key.startswith("lin")}, folder / "lin.safetensors")
    return {
        "network": FrozenConfig(path=str(folder / "vgg.safetensors")),
        "channel_weights": FrozenConfig(path=str(folder / "lin.safetensors")),
    }


def test_lpips_is_the_official_one(fixture: Fixture, files: dict[str, FrozenConfig]) -> None:
    distance, a, b = built(kind="lpips", **files), fixture.input("a"), fixture.input("b")
    fixture.check_close("value", distance(a, b).view(-1, 1, 1, 1))
    fixture.check_close("same", distance(a, a).view(-1, 1, 1, 1))
    fixture.check_close("feature_mean", torch.stack([found.mean() for found in distance.network(a)]))
    assert not written(distance), "nothing of it is stored with a model"
    torch.testing.assert_close(distance.train()(a, b), distance.eval()(a, b))


def test_dropout_is_there_in_training_alone_and_only_if_asked_for(
    fixture: Fixture, files: dict[str, FrozenConfig]
) -> None:
    distance, a, b = built(kind="lpips", dropout=True, **files), fixture.input("a"), fixture.input("b")
    fixture.check_close("value", distance.eval()(a, b).view(-1, 1, 1, 1))
    distance.train()
    torch.manual_seed(0)
    first = distance(a, b)
    assert not torch.equal(first, distance(a, b))
    torch.manual_seed(0)
    assert torch.equal(first, distance(a, b))


@pytest.mark.parametrize("missing", ["network", "channel_weights"])
def test_weights_that_are_not_there_are_refused_in_one_line(missing: str, files: dict[str, FrozenConfig]) -> None:
    with pytest.raises(UserError, match=r"network|channel_weights: gone.pth does not exist") as error:
        built(kind="lpips", **{**files, missing: FrozenConfig(path="gone.pth")})
    assert "\n" not in str(error.value)


def pictures(side: int = 64) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, side, side, generator=draw) * 2 - 1
    return image, (image + 0.3 * torch.randn(image.shape, generator=draw)).clamp(-1, 1)


def test_lite0_needs_no_download_and_grows_with_the_noise() -> None:
    distance = built(kind="lite0")
    image, noisy = pictures()
    near = distance(image.lerp(noisy, 0.1), image)
    far = distance(noisy, image)
    assert far.shape == (2,)
    assert bool((near > 0).all())
    assert bool((far > 2 * near).all())
    assert bool((far < 2).all()), "1 - cos"
    torch.testing.assert_close(distance(image, image), torch.zeros(2), atol=1e-6, rtol=0)
    assert [found.shape[1] for found in distance.network(image)] == list(LITE0_CHANNELS)
    assert [found.shape[2] for found in distance.network(image)] == [32, 16, 8, 4, 2]


def test_lite0_features_are_those_of_the_package() -> None:
    distance = built(kind="lite0")
    image, _ = pictures(96)
    network = distance.network.network.module
    seen: list[Tensor] = []
    network._blocks[15].register_forward_hook(lambda _, __, out: seen.append(out))
    pixels = (image + 1) * 127.5
    network((pixels - 127) / 128)
    found = distance.network(image)[-1]
    torch.testing.assert_close(found, seen[0], atol=1e-4, rtol=1e-4)


def test_channels_may_have_learned_weights(tmp_path: Path) -> None:
    state = {f"lin{i}.model.1.weight": torch.full((1, c, 1, 1), 0.1) for i, c in enumerate(LITE0_CHANNELS)}
    save_file(state, tmp_path / "lin.safetensors")
    weighted = built(kind="lite0", channel_weights={"path": str(tmp_path / "lin.safetensors")})
    image, noisy = pictures()
    # Uniform ones are 1 / (2 * depths).
    torch.testing.assert_close(weighted(noisy, image), built(kind="lite0")(noisy, image))


def test_gradients_reach_the_images_alone_and_are_not_zero() -> None:
    image, noisy = (one.requires_grad_() for one in pictures())
    built(kind="lite0", style=0.5)(noisy, image).sum().backward()
    assert image.grad is None
    assert noisy.grad is not None
    assert bool(noisy.grad.flatten(1).abs().sum(dim=1).gt(0).all())


def test_grey_images_count_as_three_equal_channels() -> None:
    distance = built(kind="lite0")
    image, noisy = (one[:, :1] for one in pictures())
    torch.testing.assert_close(distance(noisy, image), distance(noisy.repeat(1, 3, 1, 1), image.repeat(1, 3, 1, 1)))


def test_style_does_not_see_where_things_are() -> None:
    features = torch.randn(2, 5, 4, 6)
    rolled = features.roll((1, 2), dims=(2, 3))
    torch.testing.assert_close(style_distance(rolled, features), torch.zeros(2), atol=1e-8, rtol=0)
    flat = features[0].reshape(5, 24)
    torch.testing.assert_close(gram_matrix(features)[0], flat @ flat.T / (5 * 24))
    image, noisy = pictures()
    plain, styled = built(kind="lite0"), built(kind="lite0", style=2.0)
    extra = 2.0 * sum(style_distance(a, b) for a, b in zip(plain.network(noisy), plain.network(image), strict=True))
    torch.testing.assert_close(styled(noisy, image), plain(noisy, image) + extra)


def test_the_smallest_images_have_features_at_every_depth(files: dict[str, FrozenConfig]) -> None:
    for kind, given in (("lite0", {}), ("lpips", files)):
        distance, side = built(kind=kind, **given), PERCEPTUAL[kind].config.smallest_side
        image = torch.zeros(1, 3, side, side)
        assert distance.network(image)[-1].shape[2:] == (1, 1)
        with pytest.raises(RuntimeError):
            distance.network(image[..., 1:, 1:])


def test_none_compares_nothing() -> None:
    config = PERCEPTUAL["none"].config()
    assert isinstance(config, PerceptualBase)
    assert build_perceptual(config) is None

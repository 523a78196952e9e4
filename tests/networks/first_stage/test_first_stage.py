"""A first stage: which weights are its own, how latents are scaled, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from difflab.config.parts import FrozenConfig
from difflab.networks.autoencoder.config import AutoencoderConfig, KLConfig, VQConfig
from difflab.networks.autoencoder.latents import DiagonalGaussian
from difflab.networks.autoencoder.model import Autoencoder
from difflab.networks.first_stage.build import mirrored_field, moments_field, moments_sha256
from difflab.networks.first_stage.config import FirstStageConfig
from difflab.networks.first_stage.model import FirstStage, LatentStatistics
from difflab.parts.loading import load_frozen

KL = AutoencoderConfig(
    kind="autoencoder",
    base_channels=4,
    channel_mult=[1, 2],
    blocks_per_level=1,
    z_channels=3,
    latent_channels=3,
    middle_attention=False,
    regularizer=KLConfig(kind="kl"),
    norm_groups=2,
)
VQ = KL.model_copy(update={"regularizer": VQConfig(kind="vq", codes=8)})


@pytest.fixture(params=["kl", "vq"])
def architecture(request: pytest.FixtureRequest) -> AutoencoderConfig:
    return KL if request.param == "kl" else VQ


def stored(folder: Path, architecture: AutoencoderConfig) -> tuple[Autoencoder, FrozenConfig]:
    torch.manual_seed(0)
    network = Autoencoder(architecture)
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    save_file({**state, "conditioners.other": torch.zeros(1)}, folder / "model.safetensors")
    return network.eval(), FrozenConfig(path=str(folder / "model.safetensors"))


def first_stage(folder: Path, architecture: AutoencoderConfig, **options) -> tuple[FirstStage, Autoencoder]:
    network, weights = stored(folder, architecture)
    part = FirstStage(FirstStageConfig(weights=weights, architecture=architecture, **options))
    load_frozen(part)
    return part, network


def images(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_latents_are_those_of_the_autoencoder_shifted_and_scaled(
    tmp_path: Path, architecture: AutoencoderConfig
) -> None:
    part, network = first_stage(tmp_path, architecture, scale=[2.0, 4.0, 0.5], shift=[0.1, 0.0, -0.3])
    with torch.no_grad():
        posterior = network.encode(images())
    noise = torch.randn(3, 3, 4, 4)
    scale, shift = torch.tensor([2.0, 4.0, 0.5]).view(3, 1, 1), torch.tensor([0.1, 0.0, -0.3]).view(3, 1, 1)
    moments = part.moments(images())
    torch.testing.assert_close(part.latents(moments, None), (posterior.mode() - shift) * scale)
    torch.testing.assert_close(part.latents(moments, noise), (posterior.sample(noise) - shift) * scale)
    torch.testing.assert_close(part.unscaled(part.scaled(noise)), noise)
    with torch.no_grad():
        torch.testing.assert_close(part.decode(part.scaled(noise)), network.decode(noise), atol=1e-5, rtol=1e-4)


def test_only_scale_and_shift_belong_to_the_model_and_nothing_is_trained(tmp_path: Path) -> None:
    part, _ = first_stage(tmp_path, KL, scale=0.18215)
    assert set(part.state_dict()) == {"scale", "shift"}
    assert part.scale.tolist() == pytest.approx([0.18215] * 3)
    assert part.shift.tolist() == [0, 0, 0]
    assert list(part.parameters()) == []
    assert part.is_scaled


def test_full_precision_under_autocast(tmp_path: Path) -> None:
    part, _ = first_stage(tmp_path, KL, scale=1.0)
    alone = part.moments(images())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(part.moments(images()), alone)
        assert part.decode(alone[:, :3]).dtype == torch.float32


def test_statistics_are_those_of_all_samples(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    moments = torch.randn(6, 4, 5, 5, generator=generator)
    moments[:, 2:] = 0.5 * moments[:, 2:] - 1
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    parts = [LatentStatistics(2, sampled=True) for _ in range(2)]
    parts[0].add(DiagonalGaussian(moments[:4]), weight[:4])
    parts[1].add(DiagonalGaussian(moments[4:]), weight[4:])
    mean, deviation = LatentStatistics.of_sums(parts[0].sums + parts[1].sums)
    counted = DiagonalGaussian(moments[weight > 0].repeat(2000, 1, 1, 1))
    drawn = counted.sample(torch.randn(counted.mean.shape, generator=generator)).double()
    torch.testing.assert_close(mean, drawn.mean((0, 2, 3)), atol=5e-3, rtol=0)
    torch.testing.assert_close(deviation, drawn.std((0, 2, 3)), atol=5e-3, rtol=0)
    of_modes = LatentStatistics(2, sampled=False)
    of_modes.add(DiagonalGaussian(moments), weight)
    means = moments[weight > 0, :2].double()
    expected = means.mean((0, 2, 3)), means.std((0, 2, 3), correction=0)
    torch.testing.assert_close(LatentStatistics.of_sums(of_modes.sums), expected)


def test_measured_scaling_gives_zero_mean_and_unit_deviation(tmp_path: Path) -> None:
    part, _ = first_stage(tmp_path, KL)
    assert not part.is_scaled
    part.set_scaling(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 2.0, 4.0]))
    assert part.is_scaled
    assert part.scale.tolist() == [2.0, 0.5, 0.25]
    assert part.shift.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("mean", "deviation", "why"), [(float("nan"), 1.0, "are not finite"), (0.0, 0.0, "is the same everywhere")]
)
def test_latents_that_nothing_can_be_learned_of_are_refused(
    tmp_path: Path, mean: float, deviation: float, why: str
) -> None:
    part, _ = first_stage(tmp_path, KL)
    with pytest.raises(ValueError, match=why):
        part.set_scaling(torch.full((3,), mean), torch.full((3,), deviation))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"shift": 1.0}, "shift is given without scale"),
        ({"scale": [1.0, 2.0]}, "scale has 2 numbers, but latents have 3 channels"),
        ({"scale": 0.0}, "greater than 0"),
    ],
)
def test_impossible_scalings_are_refused(options: dict, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        FirstStageConfig(weights=FrozenConfig(path="a"), architecture=KL, **options)


def test_images_without_a_latent_are_refused() -> None:
    config = FirstStageConfig(weights=FrozenConfig(path="a"), architecture=KL)
    assert config.latent_shape(8, 12) == (3, 4, 6)
    with pytest.raises(ValueError, match=r"image_size=9 is not a multiple of 2, by which the first stage makes"):
        config.refuse_images(3, 9)
    with pytest.raises(ValueError, match=r"takes images of 3 channels, but data\.channels=1"):
        config.refuse_images(1, 8)


def test_moments_are_known_by_weights_and_architecture_alone(tmp_path: Path) -> None:
    _, weights = stored(tmp_path, KL)
    config = FirstStageConfig(weights=weights, architecture=KL)
    sha256 = moments_sha256(config)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "model.safetensors").rename(tmp_path / "elsewhere" / "model.safetensors")
    same = config.model_copy(update={"weights": FrozenConfig(path=str(moved)), "scale": 2.0, "latent": "mode"})
    assert moments_sha256(same) == sha256
    eps = same.model_copy(update={"architecture": KL.model_copy(update={"norm_eps": 1e-5})})
    assert moments_sha256(eps) != sha256
    assert moments_field(sha256) == f"latent_moments_{sha256[:8]}"
    assert mirrored_field(moments_field(sha256)) != moments_field(sha256)

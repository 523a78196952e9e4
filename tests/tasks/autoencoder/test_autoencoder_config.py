"""The configuration of autoencoder training, and what it refuses."""

from __future__ import annotations

import pytest

from difflab.commands.composing import compose_and_validate
from difflab.config.train import TrainConfig
from difflab.errors import UserError
from difflab.tasks.autoencoder.build import build_module
from difflab.tasks.autoencoder.config import AutoencoderTrainConfig

KL = "experiment=autoencoder/kl_f4_shapes64_adversarial"
VQ = (KL, "network=autoencoder_small_vq", "restart_codes_every=50")


def config_of(*overrides: str) -> AutoencoderTrainConfig:
    config, _ = compose_and_validate("train", TrainConfig, overrides)
    assert isinstance(config, AutoencoderTrainConfig)
    return config


def test_the_discriminator_has_the_autoencoders_optimizer_unless_it_is_given_its_own() -> None:
    config = config_of(KL, "optimizer.lr=1e-3")
    assert config.discriminator is not None
    assert config.discriminator.optimizer == config.optimizer
    own = config_of(KL, "discriminator.optimizer.lr=1e-5", "discriminator.optimizer.betas=[0.1,0.2]").discriminator
    assert own is not None
    assert (own.optimizer.lr, own.optimizer.betas) == (1e-5, [0.1, 0.2])
    assert config_of(KL, "discriminator=null").discriminator is None


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ([KL, "data.image_size=66"], ["image_size=66 is not a multiple of 4"]),
        (
            [KL, "data.image_size=16"],
            ["perceptual=lite0 needs images of at least 32", "not 16", "=none"],
        ),
        (
            [KL, "perceptual=none", "data.image_size=8"],
            ["discriminator.layers=2 needs images of at least 12", "not 8"],
        ),
        ([KL, "restart_codes_every=10"], ["restart_codes_every=10", "no codebook"]),
        ([KL, "callbacks=default"], ["callbacks.sample_grid", "callbacks=autoencoder"]),
        ([KL, "network=unet_small"], ["task=autoencoder cannot train kind=unet", "of kind autoencoder"]),
        ([KL, "discriminator.layers=0"], ["discriminator.layers=0"]),
        ([KL, "perceptual=vgg"], ["perceptual=vgg", "lite0", "lpips"]),
        (
            ["experiment=ddpm/shapes32", "+callbacks.reconstruction_grid={n: 4}"],
            ["callbacks.reconstruction_grid is for autoencoders", "callbacks.reconstruction_grid=null"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else "",
)
def test_a_mistake_is_one_line_that_names_the_fix(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        compose_and_validate("train", TrainConfig, overrides)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_codebook_that_an_epoch_cannot_fill_is_said() -> None:
    config = config_of(*VQ, "network.regularizer.codes=5000")
    assert config.remarks(20) == []  # of 16x16 places each
    (line,) = config.remarks(19)
    assert "a codebook of 5000 codes, but an epoch has only 4864 places to use one (19 images, 16x16 each)" in line
    assert "136 codes or more stay unused; give network.regularizer.codes a smaller number" in line
    assert config_of(KL).remarks(1) == []


def test_the_module_is_what_the_configuration_says() -> None:
    module = build_module(config_of(*VQ, "perceptual=none", "discriminator.norm=actnorm"))
    assert module.error.distance is None
    assert not module.error.summed
    assert module.term == "codebook"
    assert module.restart_codes_every == 50
    assert module.discriminator is not None
    assert any(name.endswith("initialized") for name, _ in module.discriminator.named_buffers())
    kl = build_module(config_of(KL))
    assert (kl.error.summed, kl.term, kl.regularizer_weight) == (True, "kl", 3e-4)
    assert kl.error.distance is not None

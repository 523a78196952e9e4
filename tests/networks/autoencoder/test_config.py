"""Configurations of autoencoders: what they say of themselves, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from difflab.config.groups import choices_of
from difflab.interop.presets import network_choice
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.build import build_network
from networks.autoencoder.autoencoder_fixtures import SMALL

GIVEN: dict[str, Any] = {**SMALL, "z_channels": 4, "latent_channels": 4, "regularizer": {"kind": "kl"}}
CHOICES = [name for name in choices_of("network") if name.startswith(("kl_f", "vq_f", "vqgan_f"))]


def config(**values: Any) -> AutoencoderConfig:
    return AutoencoderConfig.model_validate({**GIVEN, **values})


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_has_the_f_of_its_name(name: str) -> None:
    found = network_choice(name)
    assert isinstance(found, AutoencoderConfig)
    kind, f, *rest = name.split("_")
    assert found.downsampling == found.size_multiple == int(f.removeprefix("f"))
    assert found.regularizer.kind == kind.removesuffix("gan")
    for said in rest:
        if said.startswith("d"):
            assert found.latent_channels == int(said[1:])
        elif said != "noattn":
            assert found.regularizer.codebook_size == int(said.removeprefix("n"))
    assert found.middle_attention == ("noattn" not in rest)


def test_there_are_all_rows_of_the_table() -> None:
    assert len(CHOICES) == 18


def test_one_network_is_for_images_of_all_sizes() -> None:
    found = config(channel_mult=[1, 2, 2], attention_factors=[4])
    assert found.takes_any_size
    assert found.architecture(64) == found.architecture(256)
    sizes = [build_network(found, image_size=size, learned_variance=False).state_dict() for size in (16, 64)]
    assert [value.shape for value in sizes[0].values()] == [value.shape for value in sizes[1].values()]
    with pytest.raises(ValueError, match="image_size=30 is not a multiple of 4, by which"):
        build_network(found, image_size=30, learned_variance=False)


def test_architectures_are_equal_where_trained_networks_are() -> None:
    one = config(attention_type="linear", middle_attention=False)
    assert one.architecture(8) == config(middle_attention=False, dropout=0.1, checkpoint_activations=True).architecture(
        8
    )
    assert one.architecture(8) != config(attention_type="linear").architecture(8)
    assert config(regularizer={"kind": "vq", "codes": 8}).architecture(8) != config().architecture(8)
    again = config(regularizer={"kind": "vq", "codes": 8, "beta": 1.0, "beta_on": "commitment"})
    assert again.architecture(8) == config(regularizer={"kind": "vq", "codes": 8}).architecture(8)
    assert config(tanh_output=True).untold == {"norm_groups": 4, "norm_eps": 1e-6, "tanh_output": True}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attention_factors": [4]}, r"attention_factors has 4, but the levels of this network are at \[1, 2\]"),
        ({"attention_factors": [3]}, r"attention_factors has 3, but the levels of this network are at \[1, 2\]"),
        ({"norm_groups": 3}, "a level of 8 channels cannot be normalised in norm_groups=3 groups"),
        ({"regularizer": {"kind": "vq"}}, "codes"),
        ({"regularizer": {"kind": "vae"}}, "'kl', 'vq'"),
        ({"attention_type": "none"}, "'vanilla' or 'linear'"),
        ({"channel_mult": []}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**values)

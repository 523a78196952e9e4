from __future__ import annotations

import pytest

from difflab.conditioning.config import ClassConditionerConfig, LowResConditionerConfig
from difflab.errors import UserError
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.guided import GUIDED
from difflab.interop.layout import Layout, Target
from difflab.interop.pesser import PESSER
from difflab.networks.config import UNetConfig, UNetEncoderConfig

SMALL = UNetConfig(base_channels=32, channel_mult=[1, 2, 2], blocks_per_level=1)
ADM = SMALL.model_copy(update={"time_embedding": "adm", "norm_eps": 1e-5})
CLASSIFIER = UNetEncoderConfig(
    kind="unet_encoder", base_channels=32, channel_mult=[1], blocks_per_level=1, classes=3, pool="adaptive"
)
CLASSES = ClassConditionerConfig(kind="class", classes=5, drop_rate=0.1)
LOW_RES = LowResConditionerConfig(kind="low_res", size=8)


def test_a_key_map_covers_network_and_conditioners() -> None:
    keymap = GUIDED.keymap(Target(ADM, 32, True, {"told": CLASSES}))
    assert keymap.shapes["network.conv_out.weight"] == (6, 32, 3, 3)
    assert keymap.shapes["network.time_embed.linear1.weight"] == (128, 32)
    # Five classes and the null class.
    assert keymap.shapes["conditioners.told.embedding.weight"] == (6, 128)
    assert keymap.official_shapes["label_emb.weight"] == (6, 128)


def test_a_low_resolution_image_has_no_weights() -> None:
    network = ADM.model_copy(update={"concat_channels": 3})
    with_image = GUIDED.keymap(Target(network, 32, True, {"low_res": LOW_RES}))
    assert with_image.shapes == GUIDED.keymap(Target(network, 32, True)).shapes


def test_conditioners_that_a_layout_cannot_hold_are_named() -> None:
    with pytest.raises(UserError, match=r"^layout pesser cannot hold told, a conditioner of kind class; use"):
        PESSER.keymap(Target(SMALL, 32, conditioning={"told": CLASSES}))
    with pytest.raises(UserError, match=r"^layout diffusers cannot hold low_res, a conditioner of kind low_res"):
        DIFFUSERS.keymap(Target(SMALL, 32, conditioning={"low_res": LOW_RES}))
    with pytest.raises(UserError, match=r"^layout guided cannot hold other, a second conditioner of kind class"):
        GUIDED.keymap(Target(ADM, 32, conditioning={"told": CLASSES, "other": CLASSES}))


def test_a_network_that_does_not_fit_its_size_is_a_user_error() -> None:
    with pytest.raises(UserError, match="image size 30 is not a multiple of 4"):
        Target(SMALL, 30).meta_network()
    with pytest.raises(UserError, match="attention_resolutions has 5"):
        Target(SMALL.model_copy(update={"attention_resolutions": [5]}), 32).meta_network()


@pytest.mark.parametrize("layout", [PESSER, DIFFUSERS], ids=lambda layout: layout.name)
def test_a_classifier_is_no_network_of_most_codes(layout: object) -> None:
    with pytest.raises(UserError, match="has no network of kind unet_encoder; use another layout"):
        layout.keymap(Target(CLASSIFIER, 32))


@pytest.mark.parametrize(
    "change",
    [
        {"patch_size": 2},
        {"attention_heads": 2},
        {"adaptive_norm": True},
        {"resample": "symmetric_conv"},
        {"time_embedding": "adm"},
    ],
)
def test_what_a_layout_cannot_express_is_named(change: dict[str, object]) -> None:
    (key,) = change
    with pytest.raises(UserError, match=f"pesser/pytorch_diffusion has no network with {key}="):
        PESSER.keymap(Target(SMALL.model_copy(update=change), 32))


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"dropout": 0.5, "init": "adm", "checkpoint_activations": True}, set()),
        ({"blocks_per_level": [1, 1, 1]}, set()),
        ({"channel_mult": [1, 2, 4]}, {"widths"}),
        ({"attention_resolutions": [16]}, {"attention_resolutions", "heads"}),
        ({"attention_heads": None, "attention_head_channels": 16}, {"heads"}),
        ({"attention_heads": None, "attention_head_channels": 64}, set()),
        ({"norm_eps": 1e-5}, {"norm_eps"}),
    ],
)
def test_what_makes_another_architecture(change: dict[str, object], differs: set[str]) -> None:
    one, other = (Target(network, 32).architecture() for network in (SMALL, SMALL.model_copy(update=change)))
    assert {key for key, value in one.items() if other[key] != value} == differs


def test_what_is_around_the_network_makes_another_architecture() -> None:
    one = Target(SMALL, 32).architecture()
    for other in (Target(SMALL, 64), Target(SMALL, 32, True), Target(SMALL, 32, conditioning={"told": CLASSES})):
        assert other.architecture() != one


@pytest.mark.parametrize(("layout", "stem"), [(PESSER, "first_level"), (GUIDED, "base")])
def test_a_stem_that_a_layout_has_not_is_named(layout: Layout, stem: str) -> None:
    wide = (SMALL if layout is PESSER else ADM).model_copy(update={"channel_mult": [2, 1, 2], "stem": stem})
    if layout is GUIDED:
        wide = wide.model_copy(update={"resample": "symmetric_conv"})
    with pytest.raises(UserError, match=rf"begins with a convolution of .* channels, this network .* \(stem={stem}\)"):
        layout.keymap(Target(wide, 32))
    # With a first multiplier of 1 both are one network.
    layout.keymap(Target(wide.model_copy(update={"channel_mult": [1, 2, 2]}), 32))


def test_the_stem_makes_an_architecture_where_it_makes_a_width() -> None:
    for mult, same in (([1, 2, 2], True), ([2, 1, 2], False)):
        one, other = (
            Target(SMALL.model_copy(update={"channel_mult": mult, "stem": stem}), 32).architecture()
            for stem in ("base", "first_level")
        )
        assert (one == other) == same

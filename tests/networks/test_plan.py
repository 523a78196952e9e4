from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from difflab.networks.attention import AttentionSpec
from difflab.networks.blocks import ResBlockSpec
from difflab.networks.config import TransformerConfig, UNetBase, UNetConfig, UNetEncoderConfig
from difflab.networks.count import meta_network
from difflab.networks.places import places
from difflab.networks.plan import EncoderPlan, UNetPlan, plan_encoder, plan_unet
from difflab.networks.pools import AttentionPoolSpec, SpatialPoolSpec
from difflab.networks.spatial_transformer import SpatialTransformerSpec

CONFIG = UNetConfig(
    base_channels=32, channel_mult=[1, 2, 2], blocks_per_level=2, attention_resolutions=[8], attention_heads=2
)


def test_the_plan_lists_the_blocks_in_running_order() -> None:
    plan = plan_unet(CONFIG, image_size=32, learned_variance=True)
    assert plan.out_channels == 6
    assert plan.size_multiple == 4
    keys = [place.key for place in places(plan)]
    assert keys[:4] == ["encoder.0.block.0", "encoder.0.block.1", "encoder.0.down.0", "encoder.1.block.0"]
    assert keys[-1] == "decoder.0.block.2"
    assert [key for key in keys if "attention" in key] == [
        "encoder.2.attention.0",
        "encoder.2.attention.1",
        "middle.attention.0",
        "decoder.2.attention.0",
        "decoder.2.attention.1",
        "decoder.2.attention.2",
    ]
    network = meta_network(CONFIG, image_size=32, learned_variance=True)
    modules = {name for name, _ in network.named_modules()}
    assert set(keys) <= modules


def test_the_middle_may_go_without_attention() -> None:
    cfg = CONFIG.model_copy(update={"middle_attention": False})
    keys = [place.key for place in places(plan_unet(cfg, image_size=32, learned_variance=False))]
    assert [key for key in keys if key.startswith("middle")] == ["middle.block.0", "middle.block.1"]


def test_the_decoder_may_have_another_number_of_heads() -> None:
    cfg = CONFIG.model_copy(update={"decoder_attention_heads": 4})
    heads = [
        (place.side, place.spec.heads)
        for place in places(plan_unet(cfg, image_size=32, learned_variance=False))
        if isinstance(place.spec, AttentionSpec)
    ]
    assert heads == [("encoder", 2)] * 2 + [("middle", 2)] + [("decoder", 4)] * 3


CLASSIFIER = UNetEncoderConfig(
    kind="unet_encoder",
    classes=7,
    pool="attention",
    base_channels=32,
    channel_mult=[1, 2, 2],
    blocks_per_level=2,
    attention_resolutions=[8],
    attention_heads=None,
    attention_head_channels=16,
)


def classifier(**change: object) -> EncoderPlan:
    return plan_encoder(CLASSIFIER.model_copy(update=change), image_size=32)


def test_a_classifier_is_the_first_half_of_the_unet_and_a_pool() -> None:
    half = CLASSIFIER.model_dump(exclude={"kind", "classes", "pool"})
    whole = plan_unet(UNetConfig(**half), image_size=32, learned_variance=False)
    plan = classifier()
    assert (plan.encoder, plan.middle, plan.embedding) == (whole.encoder, whole.middle, whole.embedding)
    assert [place.key for place in places(plan)] == [place.key for place in places(whole) if place.side != "decoder"]
    assert plan.pool == AttentionPoolSpec(64, 7, plan.norm, heads=4, grid=8, image_size=32)


def test_what_the_spatial_pools_see() -> None:
    # The first convolution, two blocks and a halving, twice, then two blocks; and the middle.
    features = 32 + 3 * 32 + 3 * 64 + 2 * 64 + 64
    assert classifier(pool="spatial").pool == SpatialPoolSpec(features, 7, norm=None)
    assert classifier(pool="spatial_v2").pool == SpatialPoolSpec(features, 7, norm=classifier().norm)


def test_a_classifier_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="64 channels cannot be divided by attention_head_channels=24"):
        classifier(attention_head_channels=24, attention_resolutions=[], middle_attention=False)
    with pytest.raises(ValueError, match="image size 30 is not a multiple of 4"):
        plan_encoder(CLASSIFIER, image_size=30)


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        ({}, 30, "image size 30 is not a multiple of 4"),
        ({"attention_resolutions": [12]}, 32, r"attention_resolutions has 12, .* grids are \[32, 16, 8\]"),
        ({"attention_heads": 3}, 32, "64 channels cannot be divided by attention_heads=3"),
        ({"decoder_attention_heads": 3}, 32, "divided by decoder_attention_heads=3"),
        ({"attention_heads": None, "attention_head_channels": 48}, 32, "divided by attention_head_channels=48"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_unet(CONFIG.model_copy(update=change), image_size=size, learned_variance=False)


def widths_of(plan: UNetPlan) -> list[tuple[str, int, int]]:
    """(key, in, out) of every residual block in running order."""
    specs = ((place.key, place.spec) for place in places(plan))
    return [(key, spec.in_channels, spec.out_channels) for key, spec in specs if isinstance(spec, ResBlockSpec)]


def test_the_first_convolution_of_ddpm_is_as_wide_as_multiplier_1() -> None:
    """pesser's Model with ch=32, ch_mult=(2, 1, 2), by its code: conv_in is ch wide, skips and head follow."""
    cfg = CONFIG.model_copy(update={"channel_mult": [2, 1, 2], "blocks_per_level": 1})
    plan = plan_unet(cfg, image_size=32, learned_variance=False)
    assert (plan.stem_channels, plan.head_channels, plan.embedding.channels) == (32, 64, 128)
    assert widths_of(plan) == [
        ("encoder.0.block.0", 32, 64),
        ("encoder.1.block.0", 64, 32),
        ("encoder.2.block.0", 32, 64),
        ("middle.block.0", 64, 64),
        ("middle.block.1", 64, 64),
        ("decoder.2.block.0", 64 + 64, 64),
        ("decoder.2.block.1", 64 + 32, 64),
        ("decoder.1.block.0", 64 + 32, 32),
        ("decoder.1.block.1", 32 + 64, 32),
        ("decoder.0.block.0", 32 + 64, 64),
        ("decoder.0.block.1", 64 + 32, 64),
    ]


@pytest.mark.parametrize("family", ["ddpm", "adm", "sr3"])
@pytest.mark.parametrize("mult", [[0.5, 1], [1, 2], [2, 1, 2]])
def test_the_first_convolution_is_that_of_the_family(family: Any, mult: list[float]) -> None:
    """ADM: int(channel_mult[0] * model_channels); DDPM, SR3: the base width. Its classifiers as its networks."""
    options: dict[str, Any] = {"base_channels": 64, "channel_mult": mult, "blocks_per_level": 1}
    unet = UNetConfig(time_embedding=family, **options)
    encoder = UNetEncoderConfig(kind="unet_encoder", classes=3, pool="spatial", time_embedding=family, **options)
    expected = int(64 * mult[0]) if family == "adm" else 64
    for plan in (plan_unet(unet, image_size=32, learned_variance=False), plan_encoder(encoder, image_size=32)):
        assert plan.stem_channels == expected
        assert plan.embedding.channels == 256
    state = meta_network(unet, image_size=32, learned_variance=False).state_dict()
    assert state["conv_in.weight"].shape == (expected, 3, 3, 3)
    assert state["conv_out.weight"].shape == (3, int(64 * mult[0]), 3, 3)


def test_the_stem_can_be_said() -> None:
    options: dict[str, Any] = {"base_channels": 64, "channel_mult": [2], "blocks_per_level": 1}
    assert UNetConfig(stem="first_level", **options).stem_channels == 128
    assert UNetConfig(stem="base", time_embedding="adm", **options).stem_channels == 64
    with pytest.raises(ValidationError, match="level of 40 channels cannot be normalised"):
        UNetConfig(**options | {"base_channels": 40, "channel_mult": [0.8]})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"concat_channels": 3},
        {"context_channels": 8},
        {"context_channels": 8, "attention_resolutions": []},
        {"context_channels": 8, "middle_attention": False},
    ],
)
def test_the_blocks_read_what_the_configuration_says(options: dict[str, Any]) -> None:
    config = CONFIG.model_copy(update=options)
    plan = plan_unet(config, image_size=32, learned_variance=False)
    assert plan.reads == set(config.reads.fields)
    assert ("tokens" in plan.reads) == ("context_channels" in options)


def test_tokens_that_no_block_has_keys_of_are_not_read() -> None:
    nowhere = CONFIG.model_copy(update={"attention_resolutions": [], "middle_attention": False, "context_channels": 8})
    assert plan_unet(nowhere, image_size=32, learned_variance=False).reads == {"vector", "concat"}


def test_the_blocks_of_a_classifier_read_what_the_configuration_says() -> None:
    options = CONFIG.model_dump(include=set(UNetBase.model_fields) - {"kind"})
    config = UNetEncoderConfig(kind="unet_encoder", classes=3, pool="adaptive", **options)
    assert plan_encoder(config, image_size=32).reads == set(config.reads.fields) == {"vector"}


TRANSFORMING = CONFIG.model_copy(
    update={"context_channels": 8, "transformer": TransformerConfig(depth=[1, 0, 3]), "attention_resolutions": [16, 8]}
)


def test_transformer_blocks_take_the_place_of_each_attention() -> None:
    plan = plan_unet(TRANSFORMING, image_size=32, learned_variance=False)
    found = {place.key: place.spec for place in places(plan) if place.spec.name in ("attention", "transformer")}
    depths = {
        key: spec.depth if isinstance(spec, SpatialTransformerSpec) else 0
        for key, spec in found.items()
        if key.endswith(".0")
    }
    assert depths == {
        "encoder.1.attention.0": 0,
        "encoder.2.transformer.0": 3,
        "middle.transformer.0": 3,
        "decoder.2.transformer.0": 3,
        "decoder.1.attention.0": 0,
    }
    assert plan.reads == {"vector", "concat", "tokens", "token_mask"}


def test_how_files_store_the_layers_around_the_blocks_is_not_the_architecture() -> None:
    stored = TransformerConfig(depth=[1, 0, 3], projection="linear")
    assert TRANSFORMING.architecture(32) == TRANSFORMING.model_copy(update={"transformer": stored}).architecture(32)
    deeper = TransformerConfig(depth=[1, 0, 2])
    assert TRANSFORMING.architecture(32) != TRANSFORMING.model_copy(update={"transformer": deeper}).architecture(32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transformer": {"depth": [1, 2]}}, "transformer.depth has 2 entries and channel_mult 3"),
        ({"transformer": {}, "qkv_bias": False}, "qkv_bias=False does not apply to transformer blocks"),
        ({"transformer": {}, "residual_scale": 0.5}, "residual_scale=0.5 does not apply to transformer blocks"),
    ],
)
def test_options_that_do_not_apply_to_transformers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UNetConfig.model_validate(CONFIG.model_dump() | options)

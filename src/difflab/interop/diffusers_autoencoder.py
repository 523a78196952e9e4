"""The configuration of diffusers' `AutoencoderKL` and `VQModel`, to and from ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from difflab.errors import UserError
from difflab.interop.config_files import ConfigFile, Count
from difflab.interop.diffusers_levels import attended_levels
from difflab.interop.layout import Target
from difflab.interop.native import validated
from difflab.networks.autoencoder.config import AutoencoderConfig

KL, VQ = "AutoencoderKL", "VQModel"
CLASSES = (KL, VQ)

_DOWN = ("DownEncoderBlock2D", "AttnDownEncoderBlock2D")
_UP = ("UpDecoderBlock2D", "AttnUpDecoderBlock2D")
"""Blocks of a level without and with attention."""
_LATENT_CHANNELS = {KL: 4, VQ: 3}
"""The library's default of each class."""
_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "norm_type": "group",
    "lookup_from_codebook": False,
}


class AutoencoderFile(ConfigFile):
    """config.json of either class, with the library's defaults."""

    in_channels: Count = 3
    out_channels: Count = 3
    down_block_types: list[str] = Field(default_factory=lambda: [_DOWN[0]])
    up_block_types: list[str] = Field(default_factory=lambda: [_UP[0]])
    block_out_channels: list[Count] = Field(default_factory=lambda: [64], min_length=1)
    layers_per_block: Count = 1
    latent_channels: Count | None = None
    norm_num_groups: Count = 32
    sample_size: Count | list[Count] = 32
    scaling_factor: Annotated[float, Field(gt=0)] = 0.18215
    mid_block_add_attention: bool = True
    num_vq_embeddings: Count = 256
    vq_embed_dim: Count | None = None


def from_diffusers_autoencoder(path: Path, content: Mapping[str, Any]) -> Target:
    """The network of a config.json at `path`, and the size of its images.

    Raises UserError naming the file and the key if our autoencoder is not theirs.
    """
    kind = content["_class_name"]
    c = validated(AutoencoderFile, content, path)
    for key, value in _FIXED.items():
        if content.get(key, value) != value:
            raise UserError(f"{path}: {key}={content[key]!r} is not supported (only {value!r})")
    if c.in_channels != c.out_channels:
        raise UserError(f"{path}: out_channels={c.out_channels}, but in_channels={c.in_channels}: not supported")
    size = c.sample_size if isinstance(c.sample_size, int) else _only(path, c.sample_size)
    base, widths = c.block_out_channels[0], c.block_out_channels
    if any(width % base for width in widths):
        raise UserError(f"{path}: block_out_channels={widths} are not multiples of the first: not supported")
    z_channels = c.latent_channels or _LATENT_CHANNELS[kind]
    regularizer = {"kind": "kl"} if kind == KL else {"kind": "vq", "codes": c.num_vq_embeddings}
    network = {
        "kind": "autoencoder",
        "channels": c.in_channels,
        "base_channels": base,
        "channel_mult": [width // base for width in widths],
        "blocks_per_level": c.layers_per_block,
        "attention_factors": [2**level for level in attended_levels(path, c, _DOWN, _UP)],
        "middle_attention": c.mid_block_add_attention,
        "z_channels": z_channels,
        "latent_channels": z_channels if kind == KL else c.vq_embed_dim or z_channels,
        "regularizer": regularizer,
        "norm_groups": c.norm_num_groups,
    }
    return Target(validated(AutoencoderConfig, network, path), size)


def to_diffusers_autoencoder(config: AutoencoderConfig, image_size: int) -> dict[str, Any]:
    """The config.json from which diffusers builds this network; UserError if it has none such."""
    if config.channel_mult[0] != 1:
        raise UserError(
            f"diffusers' autoencoders begin with a convolution as wide as their first level, not with channel_mult="
            f"{config.channel_mult}; use another layout"
        )
    codes = config.regularizer.codebook_size
    is_vq = codes is not None
    if not is_vq and config.z_channels != config.latent_channels:
        raise UserError(
            f"diffusers' {KL} has as many z_channels as latent_channels, not {config.z_channels} and "
            f"{config.latent_channels}; use another layout"
        )
    attended = [level in config.attended_levels for level in range(len(config.widths))]
    content: dict[str, Any] = {
        "_class_name": VQ if is_vq else KL,
        "act_fn": "silu",
        "in_channels": config.channels,
        "out_channels": config.channels,
        "down_block_types": [_DOWN[attends] for attends in attended],
        "up_block_types": [_UP[attends] for attends in reversed(attended)],
        "block_out_channels": config.widths,
        "layers_per_block": config.blocks_per_level,
        "latent_channels": config.z_channels,
        "norm_num_groups": config.norm_groups,
        "sample_size": image_size,
        "scaling_factor": 1.0,
        "mid_block_add_attention": config.middle_attention,
        "force_upcast": not is_vq,
    }
    if is_vq:
        of_codebook = {"num_vq_embeddings": codes, "vq_embed_dim": config.latent_channels}
        return content | of_codebook | {"norm_type": "group", "lookup_from_codebook": False}
    unused = {"shift_factor": None, "latents_mean": None, "latents_std": None}
    return content | unused | {"use_quant_conv": True, "use_post_quant_conv": True}


def _only(path: Path, sizes: Sequence[int]) -> int:
    if len(set(sizes)) != 1:
        raise UserError(f"{path}: sample_size={list(sizes)}; set it to the image size in pixels")
    return sizes[0]

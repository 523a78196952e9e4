"""The configuration of diffusers' `UNet2DConditionModel`, to and from ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from difflab.conditioning.config import ClassConditionerConfig, ConditioningConfig
from difflab.errors import UserError
from difflab.interop.config_files import ConfigFile, Count
from difflab.interop.diffusers_config import CLASS_CONDITIONER, NORMS, PADDING, TIME
from difflab.interop.diffusers_levels import attended_levels, require_levels
from difflab.interop.layout import Target
from difflab.interop.native import validated
from difflab.networks.config import TransformerConfig, UNetConfig

CONDITION = "UNet2DConditionModel"

_DOWN, _UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
"""Blocks of a level without and with transformer blocks."""
_FIXED: dict[str, Any] = {
    "center_input_sample": False,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "mid_block_scale_factor": 1,
    "mid_block_only_cross_attention": None,
    "act_fn": "silu",
    "only_cross_attention": False,
    "dual_cross_attention": False,
    "cross_attention_norm": None,
    "attention_type": "default",
    "num_attention_heads": None,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "addition_embed_type": None,
    "class_embeddings_concat": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
}
"""Keys that difflab has nothing for, with the values that its networks have. `upcast_attention` is left out: it is the
precision of a computation."""
_PROJECTION = "projection"
"""The class_embed_type of an embedding that two layers project."""


class ConditionUNetFile(ConfigFile):
    """config.json of `UNet2DConditionModel`, with the library's defaults."""

    sample_size: Count | list[Count] | None = None
    in_channels: Count = 4
    out_channels: Count = 4
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    down_block_types: list[str] = Field(default_factory=lambda: [_DOWN[1]] * 3 + [_DOWN[0]])
    up_block_types: list[str] = Field(default_factory=lambda: [_UP[0]] + [_UP[1]] * 3)
    block_out_channels: list[Count] = Field(default_factory=lambda: [320, 640, 1280, 1280], min_length=1)
    layers_per_block: Count | list[Count] = 2
    downsample_padding: int = 1
    dropout: float = 0.0
    norm_num_groups: Count = 32
    norm_eps: float = 1e-5
    cross_attention_dim: Count | list[Count] | None = 1280
    transformer_layers_per_block: Count | list[Count] = 1
    attention_head_dim: Count | list[Count] = 8
    use_linear_projection: bool = False
    class_embed_type: str | None = None
    num_class_embeds: Count | None = None
    projection_class_embeddings_input_dim: Count | None = None
    resnet_time_scale_shift: str = "default"


def from_condition_config(path: Path, content: Mapping[str, Any]) -> Target:
    """The network that diffusers would build from a config.json at `path`.

    Raises UserError naming the file and the key if our UNet cannot represent it.
    """
    c = validated(ConditionUNetFile, content, path)
    for key, value in _FIXED.items():
        if content.get(key, value) not in (value, [value] * len(c.block_out_channels)):
            raise UserError(f"{path}: {key}={content[key]!r} is not supported (only {value!r})")
    size = _size(path, c)
    joined = c.in_channels - c.out_channels
    if joined < 0:
        raise UserError(f"{path}: out_channels={c.out_channels} are more than in_channels={c.in_channels}")
    network = {
        "kind": "unet",
        "channels": c.out_channels,
        "concat_channels": joined,
        "base_channels": c.block_out_channels[0],
        "channel_mult": [width / c.block_out_channels[0] for width in c.block_out_channels],
        "blocks_per_level": c.layers_per_block,
        "attention_resolutions": [size // 2**level for level in attended_levels(path, c, _DOWN, _UP)],
        **_heads(path, c),
        "dropout": c.dropout,
        "adaptive_norm": _chosen(path, "resnet_time_scale_shift", c.resnet_time_scale_shift, NORMS),
        "resample": _chosen(path, "downsample_padding", c.downsample_padding, {n: way for way, n in PADDING.items()}),
        "time_embedding": _time_embedding(path, c),
        "norm_groups": c.norm_num_groups,
        "norm_eps": c.norm_eps,
        "init": "adm",
        "context_channels": _context(path, c),
        "pooled_channels": _pooled(path, c),
        "transformer": {
            "depth": c.transformer_layers_per_block,
            "projection": "linear" if c.use_linear_projection else "convolution",
        },
    }
    conditioning: ConditioningConfig = {}
    if c.num_class_embeds is not None:
        conditioning[CLASS_CONDITIONER] = ClassConditionerConfig(kind="class", classes=c.num_class_embeds)
    return Target(validated(UNetConfig, network, path), size, conditioning=conditioning)


def to_condition_config(target: Target) -> dict[str, Any]:
    """The config.json from which diffusers builds this network; UserError if it has none such."""
    cfg, transformer = _unet_of(target)
    if cfg.widths[0] != cfg.base_channels:
        raise UserError(
            f"diffusers' {CONDITION} embeds time in the width of its first level, {cfg.widths[0]}, not in "
            f"base_channels={cfg.base_channels}: it has no channel_mult that starts with {cfg.channel_mult[0]:g}"
        )
    for option, value, known in (("time_embedding", cfg.time_embedding, TIME), ("resample", cfg.resample, PADDING)):
        if value not in known:
            raise UserError(f"diffusers' {CONDITION} has no {option}={value}")
    if target.learned_variance:
        raise UserError(f"diffusers has no pipeline for a {CONDITION} that learns its variance")
    shift, flip = TIME[cfg.time_embedding]
    grids = [target.image_size // 2**level for level in range(len(cfg.widths))]
    attended = [grid in cfg.attention_resolutions for grid in grids]
    rows = [shape[0] for shape in target.conditioner_shapes().values()]
    return {
        "_class_name": CONDITION,
        **_FIXED,
        "sample_size": target.image_size,
        "in_channels": cfg.channels + cfg.concat_channels,
        "out_channels": cfg.channels,
        "flip_sin_to_cos": flip,
        "freq_shift": shift,
        "down_block_types": [_DOWN[attends] for attends in attended],
        "up_block_types": [_UP[attends] for attends in reversed(attended)],
        "block_out_channels": cfg.widths,
        "layers_per_block": cfg.blocks_per_level,
        "downsample_padding": PADDING[cfg.resample],
        "dropout": cfg.dropout,
        "norm_num_groups": cfg.norm_groups,
        "norm_eps": cfg.norm_eps,
        # Without tokens, the second attention of a block sees the places again.
        "cross_attention_dim": cfg.context_channels,
        "transformer_layers_per_block": transformer.depth,
        "attention_head_dim": _head_dim(cfg),
        "use_linear_projection": transformer.projection == "linear",
        "class_embed_type": None if cfg.pooled_channels is None else _PROJECTION,
        "num_class_embeds": rows[0] if rows else None,
        "projection_class_embeddings_input_dim": cfg.pooled_channels,
        "resnet_time_scale_shift": "scale_shift" if cfg.adaptive_norm else "default",
        "upcast_attention": False,
    }


def _unet_of(target: Target) -> tuple[UNetConfig, TransformerConfig]:
    cfg = target.network
    assert isinstance(cfg, UNetConfig), "the layout refuses other networks"
    assert cfg.transformer is not None, "the layout refuses other networks"
    return cfg, cfg.transformer


def _head_dim(cfg: UNetConfig) -> int | list[int]:
    """The number of heads at each level, which the library calls their width."""
    if cfg.attention_heads is not None:
        if cfg.decoder_attention_heads not in (None, cfg.attention_heads):
            raise UserError(
                f"diffusers' {CONDITION} has as many heads in its decoder as in its encoder, not "
                f"decoder_attention_heads={cfg.decoder_attention_heads}"
            )
        return cfg.attention_heads
    assert cfg.attention_head_channels is not None, "one of the two is given"
    return [max(1, width // cfg.attention_head_channels) for width in cfg.widths]


def _heads(path: Path, c: ConditionUNetFile) -> dict[str, Any]:
    """Our two options: the number of heads, if it is the same at all levels, or else their width."""
    if isinstance(c.attention_head_dim, int) or len(set(c.attention_head_dim)) == 1:
        number = c.attention_head_dim if isinstance(c.attention_head_dim, int) else c.attention_head_dim[0]
        return {"attention_heads": number, "attention_head_channels": None}
    require_levels(path, c, "attention_head_dim", c.attention_head_dim)
    widths = {width / heads for width, heads in zip(c.block_out_channels, c.attention_head_dim, strict=True)}
    if len(widths) > 1:
        raise UserError(
            f"{path}: attention_head_dim={c.attention_head_dim} heads at block_out_channels={c.block_out_channels} are "
            "neither equally many nor equally wide at all levels: not supported"
        )
    return {"attention_heads": None, "attention_head_channels": int(widths.pop())}


def _size(path: Path, c: ConditionUNetFile) -> int:
    sizes = set(c.sample_size) if isinstance(c.sample_size, list) else {c.sample_size}
    if len(sizes) != 1 or (size := sizes.pop()) is None:
        raise UserError(f"{path}: sample_size={c.sample_size}; set it to the places per side of a latent")
    return size


def _context(path: Path, c: ConditionUNetFile) -> int | None:
    widths = set(c.cross_attention_dim) if isinstance(c.cross_attention_dim, list) else {c.cross_attention_dim}
    if len(widths) > 1:
        raise UserError(f"{path}: cross_attention_dim={c.cross_attention_dim} differs between levels: not supported")
    return widths.pop()


def _pooled(path: Path, c: ConditionUNetFile) -> int | None:
    if c.class_embed_type is None:
        return None
    if c.class_embed_type != _PROJECTION or c.num_class_embeds is not None:
        raise UserError(
            f"{path}: class_embed_type={c.class_embed_type!r} with num_class_embeds={c.num_class_embeds} is not "
            f"supported (only null, or {_PROJECTION!r} without classes)"
        )
    if c.projection_class_embeddings_input_dim is None:
        raise UserError(f"{path}: class_embed_type={_PROJECTION!r} needs projection_class_embeddings_input_dim")
    return c.projection_class_embeddings_input_dim


def _time_embedding(path: Path, c: ConditionUNetFile) -> str:
    for name, pair in TIME.items():
        if pair == (c.freq_shift, c.flip_sin_to_cos):
            return name
    raise UserError(f"{path}: freq_shift={c.freq_shift} with flip_sin_to_cos={c.flip_sin_to_cos} is not supported")


def _chosen(path: Path, key: str, value: Any, known: Mapping[Any, Any]) -> Any:
    if value not in known:
        raise UserError(f"{path}: {key}={value!r} is not supported (only {', '.join(map(repr, known))})")
    return known[value]

"""The layout of diffusers' `UNet2DModel`: keys, and its configuration to and from ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from difflab.config.network import UNetConfig
from difflab.errors import UserError
from difflab.interop.keymap import Entry, Fused, Shapes, both
from difflab.interop.layout import Layout, Target
from difflab.networks.attention import AttentionSpec
from difflab.networks.places import Place, places
from difflab.networks.plan import UNetPlan

_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "embed": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "shortcut": "conv_shortcut",
}
_RESAMPLERS = {"down": "downsamplers", "up": "upsamplers"}
_OLDER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_TIME = {"ddpm": (1, False), "adm": (0, True), "sr3": (0, False)}
"""Our time embedding -> freq_shift, flip_sin_to_cos."""
_PADDING = {"asymmetric_conv": 0, "symmetric_conv": 1}
"""Our resampling -> downsample_padding."""
_FIXED: dict[str, Any] = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "attn_norm_num_groups": None,
    "class_embed_type": None,
    "num_class_embeds": None,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "resnet_time_scale_shift": "default",
}
_DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "add_attention": True,
}
"""What the library takes for a key that config.json leaves out."""


def modern_attention_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Attention keys of files written before diffusers 0.17 (query, key, value, proj_attn) under today's names."""
    renamed = {}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        parent, _, layer = module.rpartition(".")
        old = ".attentions." in name and layer in _OLDER_NAMES
        renamed[f"{parent}.{_OLDER_NAMES[layer]}.{leaf}" if old else name] = value
    return renamed


def _entries(plan: UNetPlan, shapes: Shapes) -> list[Entry]:
    last = len(plan.encoder) - 1
    entries = [
        *both("time_embedding.linear_1", "time_embed.linear1"),
        *both("time_embedding.linear_2", "time_embed.linear2"),
        *both("conv_in", "conv_in"),
        *both("conv_norm_out", "norm_out"),
        *both("conv_out", "conv_out"),
    ]
    for place in places(plan):
        official = _official_prefix(place, last)
        if isinstance(place.spec, AttentionSpec):
            entries += both(f"{official}.group_norm", f"{place.key}.norm")
            entries += both([f"{official}.to_{name}" for name in "qkv"], f"{place.key}.qkv", Fused(3))
            entries += both(f"{official}.to_out.0", f"{place.key}.out")
            continue
        for ours, theirs in (_BLOCK | {"conv": "conv"}).items():
            if f"{place.key}.{ours}.weight" in shapes:
                entries += both(f"{official}.{theirs}", f"{place.key}.{ours}")
    return entries


def _official_prefix(place: Place, last: int) -> str:
    kind = "attentions" if isinstance(place.spec, AttentionSpec) else _RESAMPLERS.get(place.spec.name, "resnets")
    if place.side == "middle":
        return f"mid_block.{kind}.{place.number}"
    if place.side == "encoder":
        return f"down_blocks.{place.level}.{kind}.{place.number}"
    return f"up_blocks.{last - place.level}.{kind}.{place.number}"


DIFFUSERS = Layout(
    name="diffusers",
    code="diffusers' UNet2DModel",
    entries=_entries,
    requires={
        "patch_size": 1,
        "concat_channels": 0,
        "context_channels": None,
        "adaptive_norm": False,
        "residual_scale": 1.0,
        "skip_scale": 1.0,
    },
    marker="down_blocks.0.resnets.0.norm1.weight",
)


def to_diffusers_config(target: Target) -> dict[str, Any]:
    """The config.json that makes diffusers build this network; UserError when `UNet2DModel` cannot be it."""
    cfg = target.network
    attended = [
        any(spec.name == "attention" for step in level for spec in step.blocks) for level in target.plan().encoder
    ]
    if len(set(cfg.depths)) > 1:
        raise UserError(f"diffusers' UNet2DModel has one layers_per_block, not blocks_per_level={cfg.depths}")
    if cfg.resample not in _PADDING:
        raise UserError(f"diffusers' UNet2DModel has no resample={cfg.resample}")
    shift, flip = _TIME[cfg.time_embedding]
    return {
        "_class_name": "UNet2DModel",
        **_FIXED,
        "sample_size": target.image_size,
        "in_channels": cfg.channels,
        "out_channels": target.plan().out_channels,
        "freq_shift": shift,
        "flip_sin_to_cos": flip,
        "down_block_types": ["AttnDownBlock2D" if attends else "DownBlock2D" for attends in attended],
        "up_block_types": ["AttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(attended)],
        "block_out_channels": cfg.widths,
        "layers_per_block": cfg.depths[0],
        "downsample_padding": _PADDING[cfg.resample],
        "dropout": cfg.dropout,
        "attention_head_dim": _head_dim(cfg, attended),
        "norm_num_groups": cfg.norm_groups,
        "norm_eps": cfg.norm_eps,
        "add_attention": cfg.middle_attention,
    }


def _head_dim(cfg: UNetConfig, attended: list[bool]) -> int | None:
    if cfg.attention_heads == 1 or cfg.attention_heads is None:
        return cfg.attention_head_channels
    widths = {width for width, attends in zip(cfg.widths, attended) if attends}
    widths |= {cfg.widths[-1]} if cfg.middle_attention else set()
    if len(widths) > 1:
        raise UserError(
            f"diffusers' UNet2DModel has one head width, not attention_heads={cfg.attention_heads} at widths "
            f"{sorted(widths)}; use attention_head_channels"
        )
    return widths.pop() // cfg.attention_heads if widths else None


def from_diffusers_config(config: Mapping[str, Any]) -> Target:
    """The network that diffusers would build from a `UNet2DModel` config.json.

    Raises UserError that names the key where the network is one that the UNet here cannot be.
    """
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise UserError(f"config.json: _class_name is {config['_class_name']!r}; only UNet2DModel is read")
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise UserError(f"config.json: {key}={config[key]!r} is not supported (only {value!r})")
    c = {key: config.get(key, value) for key, value in _DEFAULTS.items()}
    widths, size = c["block_out_channels"], c["sample_size"]
    if not isinstance(size, int):
        raise UserError(f"config.json: sample_size={size!r}; set it to the image size in pixels")
    attended = [name == "AttnDownBlock2D" for name in c["down_block_types"]]
    expected_up = ["AttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(attended)]
    if not all(name in ("DownBlock2D", "AttnDownBlock2D") for name in c["down_block_types"]):
        raise UserError(f"config.json: down_block_types={c['down_block_types']} are not all (Attn)DownBlock2D")
    if list(c["up_block_types"]) != expected_up:
        raise UserError(f"config.json: up_block_types={c['up_block_types']} do not mirror down_block_types")
    if c["out_channels"] not in (c["in_channels"], 2 * c["in_channels"]):
        raise UserError(f"config.json: out_channels={c['out_channels']} is neither in_channels nor twice that")
    network = UNetConfig(
        channels=c["in_channels"],
        base_channels=widths[0],
        channel_mult=[width / widths[0] for width in widths],
        blocks_per_level=c["layers_per_block"],
        attention_resolutions=[size // 2**level for level, attends in enumerate(attended) if attends],
        attention_heads=1 if c["attention_head_dim"] is None else None,
        attention_head_channels=c["attention_head_dim"],
        middle_attention=c["add_attention"],
        dropout=float(c["dropout"]),
        resample=_resample(c),
        time_embedding=_time_embedding(c),
        norm_groups=c["norm_num_groups"],
        norm_eps=float(c["norm_eps"]),
    )
    return Target(network, size, learned_variance=c["out_channels"] != c["in_channels"])


def _resample(c: Mapping[str, Any]) -> Any:
    for name, padding in _PADDING.items():
        if c["downsample_padding"] == padding:
            return name
    raise UserError(f"config.json: downsample_padding={c['downsample_padding']!r} is neither 0 nor 1")


def _time_embedding(c: Mapping[str, Any]) -> Any:
    for name, pair in _TIME.items():
        if pair == (c["freq_shift"], c["flip_sin_to_cos"]):
            return name
    raise UserError(
        f"config.json: freq_shift={c['freq_shift']} with flip_sin_to_cos={c['flip_sin_to_cos']} is not supported"
    )

"""The configuration of diffusers' `UNet2DModel`, to and from ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from difflab.conditioning.config import ClassConditionerConfig, ConditioningConfig
from difflab.errors import UserError
from difflab.interop.layout import Target
from difflab.networks.config import UNetConfig

CLASS_CONDITIONER = "class_label"
"""The name here of a folder's class embedding, as in conf/conditioning/class.yaml."""

TIME = {"ddpm": (1, False), "adm": (0, True), "sr3": (0, False)}
"""Our time embedding -> freq_shift, flip_sin_to_cos."""
PADDING = {"asymmetric_conv": 0, "symmetric_conv": 1}
"""Our resampling by convolution -> downsample_padding."""
_PLAIN = {"conv": ("DownBlock2D", "UpBlock2D"), "resnet": ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")}
"""How a level without attention resamples -> its blocks in the encoder and the decoder."""
_ATTENDING = ("AttnDownBlock2D", "AttnUpBlock2D")
NORMS = {"default": False, "scale_shift": True}
"""resnet_time_scale_shift -> our adaptive_norm."""
_FIXED: dict[str, Any] = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "class_embed_type": None,
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
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "num_class_embeds": None,
}
"""The defaults of diffusers for keys that config.json omits."""


def to_diffusers_config(target: Target) -> dict[str, Any]:
    """The config.json from which diffusers builds this network; UserError if `UNet2DModel` cannot represent it."""
    cfg = target.network
    assert isinstance(cfg, UNetConfig), "the layout refuses other networks"
    resampling = _resampling(cfg)
    attended = [width > 0 for width in _attended_widths(target)]
    if cfg.time_embedding not in TIME:
        raise UserError(f"diffusers' UNet2DModel has no time_embedding={cfg.time_embedding}")
    shift, flip = TIME[cfg.time_embedding]
    down, up = _PLAIN[resampling]
    rows = [shape[0] for shape in target.conditioner_shapes().values()]
    return {
        "_class_name": "UNet2DModel",
        **_FIXED,
        "sample_size": target.image_size,
        "in_channels": cfg.channels,
        "out_channels": cfg.channels * (2 if target.learned_variance else 1),
        "freq_shift": shift,
        "flip_sin_to_cos": flip,
        "down_block_types": [_ATTENDING[0] if attends else down for attends in attended],
        "up_block_types": [_ATTENDING[1] if attends else up for attends in reversed(attended)],
        "block_out_channels": cfg.widths,
        "layers_per_block": cfg.depths[0],
        "downsample_padding": PADDING.get(cfg.resample, 1),
        "downsample_type": resampling,
        "upsample_type": resampling,
        "dropout": cfg.dropout,
        "attention_head_dim": _head_dim(target),
        "norm_num_groups": cfg.norm_groups,
        # With scale_shift the middle attention has no norm by default.
        "attn_norm_num_groups": cfg.norm_groups if cfg.adaptive_norm else None,
        "norm_eps": cfg.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if cfg.adaptive_norm else "default",
        "add_attention": cfg.middle_attention,
        "num_class_embeds": rows[0] if rows else None,
    }


def _resampling(cfg: UNetConfig) -> str:
    if len(set(cfg.depths)) > 1:
        raise UserError(f"diffusers' UNet2DModel has one layers_per_block, not blocks_per_level={cfg.depths}")
    if cfg.widths[0] != cfg.base_channels:
        raise UserError(
            f"diffusers' UNet2DModel embeds time in the width of its first level, {cfg.widths[0]}, not in "
            f"base_channels={cfg.base_channels}: it has no channel_mult that starts with {cfg.channel_mult[0]:g}"
        )
    if cfg.resample == "residual":
        return "resnet"
    if cfg.resample not in PADDING:
        raise UserError(f"diffusers' UNet2DModel has no resample={cfg.resample}")
    return "conv"


def _attended_widths(target: Target) -> list[int]:
    """The width of each level that has attention, 0 for the others."""
    cfg = target.network
    assert isinstance(cfg, UNetConfig), "the layout refuses other networks"
    grids = [target.image_size // 2**level for level in range(len(cfg.widths))]
    return [width if grid in cfg.attention_resolutions else 0 for grid, width in zip(grids, cfg.widths, strict=True)]


def _head_dim(target: Target) -> int | None:
    cfg = target.network
    assert isinstance(cfg, UNetConfig), "the layout refuses other networks"
    if cfg.attention_heads == 1 or cfg.attention_heads is None:
        return cfg.attention_head_channels
    widths = {width for width in _attended_widths(target) if width}
    widths |= {cfg.widths[-1]} if cfg.middle_attention else set()
    if len(widths) > 1:
        raise UserError(
            f"diffusers' UNet2DModel has one head width, not attention_heads={cfg.attention_heads} at widths "
            f"{sorted(widths)}; use attention_head_channels"
        )
    return widths.pop() // cfg.attention_heads if widths else None


def from_diffusers_config(config: Mapping[str, Any]) -> Target:
    """The model that diffusers would build from a `UNet2DModel` config.json.

    Raises UserError naming the key if our UNet cannot represent the network.
    """
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise UserError(
            f"config.json: _class_name is {config['_class_name']!r}; read are UNet2DModel, AutoencoderKL and VQModel"
        )
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise UserError(f"config.json: {key}={config[key]!r} is not supported (only {value!r})")
    c = {key: config.get(key, value) for key, value in _DEFAULTS.items()}
    widths, size = c["block_out_channels"], c["sample_size"]
    if not isinstance(size, int):
        raise UserError(f"config.json: sample_size={size!r}; set it to the image size in pixels")
    if c["out_channels"] not in (c["in_channels"], 2 * c["in_channels"]):
        raise UserError(f"config.json: out_channels={c['out_channels']} is neither in_channels nor twice that")
    attended = [name == _ATTENDING[0] for name in c["down_block_types"]]
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
        adaptive_norm=_adaptive_norm(c),
        resample=_resample(c),
        time_embedding=_time_embedding(c),
        norm_groups=c["norm_num_groups"],
        norm_eps=float(c["norm_eps"]),
    )
    conditioning: ConditioningConfig = {}
    if c["num_class_embeds"] is not None:
        conditioning[CLASS_CONDITIONER] = ClassConditionerConfig(kind="class", classes=c["num_class_embeds"])
    return Target(network, size, c["out_channels"] != c["in_channels"], conditioning)


def _adaptive_norm(c: Mapping[str, Any]) -> bool:
    name, groups = c["resnet_time_scale_shift"], c["attn_norm_num_groups"]
    if name not in NORMS:
        raise UserError(f"config.json: resnet_time_scale_shift={name!r} is not supported (only {', '.join(NORMS)})")
    expected = (c["norm_num_groups"],) if NORMS[name] else (c["norm_num_groups"], None)
    if c["add_attention"] and groups not in expected:
        raise UserError(
            f"config.json: attn_norm_num_groups={groups!r} with resnet_time_scale_shift={name!r} is not supported "
            f"(only {c['norm_num_groups']})"
        )
    return NORMS[name]


def _resample(c: Mapping[str, Any]) -> Any:
    """Our name for the resampling of the levels, which must be the same in all of them."""
    down, up = list(c["down_block_types"]), list(c["up_block_types"])
    if [name == _ATTENDING[0] for name in down] != [name == _ATTENDING[1] for name in reversed(up)]:
        raise UserError(f"config.json: up_block_types={up} do not mirror down_block_types")
    # The last block of each side does not resample.
    found = {
        *_ways(down, 0, "down_block_types", c["downsample_type"]),
        *_ways(up, 1, "up_block_types", c["upsample_type"]),
    }
    if len(found) > 1:
        raise UserError(
            f"config.json: down_block_types={down} with downsample_type={c['downsample_type']!r} and up_block_types="
            f"{up} with upsample_type={c['upsample_type']!r} resample in more than one way"
        )
    if found == {"resnet"}:
        return "residual"
    for name, padding in PADDING.items():
        if c["downsample_padding"] == padding:
            return name
    raise UserError(f"config.json: downsample_padding={c['downsample_padding']!r} is neither 0 nor 1")


def _ways(names: Sequence[str], side: int, key: str, attending: str) -> set[str]:
    ways = {plain[side]: way for way, plain in _PLAIN.items()} | {_ATTENDING[side]: attending}
    for name in names:
        if ways.get(name) not in _PLAIN:
            raise UserError(
                f"config.json: {key} has {name}, resampling {ways.get(name)!r}; known are {', '.join(ways)}"
            )
    return {ways[name] for name in names[:-1]}


def _time_embedding(c: Mapping[str, Any]) -> Any:
    for name, pair in TIME.items():
        if pair == (c["freq_shift"], c["flip_sin_to_cos"]):
            return name
    raise UserError(
        f"config.json: freq_shift={c['freq_shift']} with flip_sin_to_cos={c['flip_sin_to_cos']} is not supported"
    )

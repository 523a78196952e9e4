"""The keys of autoencoders: CompVis' (latent-diffusion, taming-transformers, Stable Diffusion) and diffusers'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from difflab.interop.keymap import Entry, Fused, both
from difflab.networks.attention import AttentionSpec
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.autoencoder.linear_attention import LinearAttentionSpec
from difflab.networks.autoencoder.plan import plan_decoder, plan_encoder
from difflab.networks.blocks import ResBlockSpec
from difflab.networks.places import numbered
from difflab.networks.plan import Level
from difflab.networks.registry import BlockSpec

Side = Literal["encoder", "decoder"]
SIDES: tuple[Side, ...] = ("encoder", "decoder")

_NORMS_AND_CONVS = ("norm1", "conv1", "norm2", "conv2")
_ORDER = ("block", "attention", "down", "up")


@dataclass(frozen=True)
class _Place:
    """A block: on which side, at which level (None in the middle), the number of its kind there, our key."""

    side: Side
    level: int | None
    number: int
    key: str
    spec: BlockSpec


def compvis_entries(config: AutoencoderConfig) -> list[Entry]:
    """The entries of CompVis' files, layers in the order of their state dicts; our keys without `network.`."""
    entries: list[Entry] = []
    for side in SIDES:
        entries += both(f"{side}.conv_in", f"{side}.conv_in")
        for place in _places(config, side):
            entries += _compvis_block(place, _compvis_name(place))
        entries += [*both(f"{side}.norm_out", f"{side}.norm_out"), *both(f"{side}.conv_out", f"{side}.conv_out")]
    return entries + _of_latent(config)


def diffusers_entries(config: AutoencoderConfig) -> list[Entry]:
    """The entries of diffusers' `AutoencoderKL` or `VQModel`; our keys without `network.`."""
    entries: list[Entry] = []
    for side in SIDES:
        entries += both(f"{side}.conv_in", f"{side}.conv_in")
        for place in _places(config, side):
            entries += _diffusers_block(place, _diffusers_name(place, len(config.widths) - 1))
        entries += [*both(f"{side}.conv_norm_out", f"{side}.norm_out"), *both(f"{side}.conv_out", f"{side}.conv_out")]
    return entries + _of_latent(config)


def _of_latent(config: AutoencoderConfig) -> list[Entry]:
    entries = [*both("quant_conv", "quant_conv"), *both("post_quant_conv", "post_quant_conv")]
    if config.regularizer.codebook_size is not None:
        entries.insert(0, Entry(("quantize.embedding.weight",), "regularizer.embedding.weight"))
    return entries


def _places(config: AutoencoderConfig, side: Side) -> Iterator[_Place]:
    """Every block of a side, in the order of CompVis' state dicts: the decoder's middle comes first, levels begin with
    the full size, and in a level all residual blocks come before all attention."""
    plan = plan_encoder(config) if side == "encoder" else plan_decoder(config)
    levels: list[tuple[int | None, Level]] = list(enumerate(plan.levels))
    levels.insert(0 if side == "decoder" else len(levels), (None, plan.middle))
    for level, steps in levels:
        prefix = f"{side}.middle" if level is None else f"{side}.levels.{level}"
        found = [
            _Place(side, level, number, f"{prefix}.{name}.{number}", spec)
            for step, names in zip(steps, numbered(steps), strict=True)
            for spec, (name, number) in zip(step.blocks, names, strict=True)
        ]
        yield from found if level is None else sorted(found, key=lambda place: _ORDER.index(place.spec.name))


def _compvis_name(place: _Place) -> str:
    kinds = {"block": "block", "attention": "attn", "down": "downsample", "up": "upsample"}
    kind = kinds[place.spec.name]
    if place.level is None:
        return f"{place.side}.mid.{kind}_{place.number + 1}"
    level = f"{place.side}.{'down' if place.side == 'encoder' else 'up'}.{place.level}"
    return f"{level}.{kind}" if kind.endswith("sample") else f"{level}.{kind}.{place.number}"


def _compvis_block(place: _Place, official: str) -> list[Entry]:
    key, spec = place.key, place.spec
    if isinstance(spec, LinearAttentionSpec):
        qkv = Entry((f"{official}.to_qkv.weight",), f"{key}.qkv.weight", Fused(1, pointwise=2))
        return [qkv, *both(f"{official}.to_out", f"{key}.out", Fused(1, pointwise=2))]
    if isinstance(spec, AttentionSpec):
        return [
            *both(f"{official}.norm", f"{key}.norm"),
            *both([f"{official}.{name}" for name in "qkv"], f"{key}.qkv", Fused(3, pointwise=2)),
            *both(f"{official}.proj_out", f"{key}.out", Fused(1, pointwise=2)),
        ]
    return _convolutions(place, official, "nin_shortcut")


def _diffusers_name(place: _Place, last: int) -> str:
    kinds = {"block": "resnets", "attention": "attentions", "down": "downsamplers", "up": "upsamplers"}
    kind = f"{kinds[place.spec.name]}.{place.number}"
    if place.level is None:
        return f"{place.side}.mid_block.{kind}"
    if place.side == "encoder":
        return f"encoder.down_blocks.{place.level}.{kind}"
    return f"decoder.up_blocks.{last - place.level}.{kind}"


def _diffusers_block(place: _Place, official: str) -> list[Entry]:
    if isinstance(place.spec, AttentionSpec):
        return [
            *both(f"{official}.group_norm", f"{place.key}.norm"),
            *both([f"{official}.to_{name}" for name in "qkv"], f"{place.key}.qkv", Fused(3)),
            *both(f"{official}.to_out.0", f"{place.key}.out"),
        ]
    return _convolutions(place, official, "conv_shortcut")


def _convolutions(place: _Place, official: str, shortcut: str) -> list[Entry]:
    """The entries of a residual block or of a convolution that halves or doubles the grid."""
    spec = place.spec
    if not isinstance(spec, ResBlockSpec):
        return both(f"{official}.conv", f"{place.key}.conv")
    entries = [entry for name in _NORMS_AND_CONVS for entry in both(f"{official}.{name}", f"{place.key}.{name}")]
    if spec.in_channels != spec.out_channels:
        entries += both(f"{official}.{shortcut}", f"{place.key}.shortcut")
    return entries

"""The PyTorch port of DDPM's released models (pesser/pytorch_diffusion; the files of its `ckpt_util.py`)."""

from __future__ import annotations

from difflab.interop.keymap import Entry, Fused, Shapes, both
from difflab.interop.unet_layout import UNetLayout
from difflab.interop.unet_words import Places
from difflab.networks.attention import AttentionSpec
from difflab.networks.places import Place, places
from difflab.networks.plan import UNetPlan

_SIDES = {"encoder": "down", "decoder": "up"}
_RESAMPLERS = {"down": "downsample", "up": "upsample"}
_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "embed": "temb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "shortcut": "nin_shortcut",
}


def _entries(plan: UNetPlan, shapes: Shapes) -> list[Entry]:
    entries = [
        *both("temb.dense.0", "time_embed.linear1"),
        *both("temb.dense.1", "time_embed.linear2"),
        *both("conv_in", "conv_in"),
        *both("norm_out", "norm_out"),
        *both("conv_out", "conv_out"),
    ]
    for place in places(plan):
        official = _official_prefix(place)
        if isinstance(place.spec, AttentionSpec):
            entries += both(f"{official}.norm", f"{place.key}.norm")
            entries += both([f"{official}.{name}" for name in "qkv"], f"{place.key}.qkv", Fused(3, pointwise=2))
            entries += both(f"{official}.proj_out", f"{place.key}.out", Fused(1, pointwise=2))
        elif place.spec.name in _RESAMPLERS:
            entries += both(f"{official}.conv", f"{place.key}.conv")
        else:
            for ours, theirs in _BLOCK.items():
                if f"{place.key}.{ours}.weight" in shapes:
                    entries += both(f"{official}.{theirs}", f"{place.key}.{ours}")
    return entries


def _official_prefix(place: Place) -> str:
    kind = "attn" if isinstance(place.spec, AttentionSpec) else "block"
    if place.side == "middle":
        return f"mid.{kind}_{place.number + 1}"
    side = f"{_SIDES[place.side]}.{place.level}"
    if place.spec.name in _RESAMPLERS:
        return f"{side}.{_RESAMPLERS[place.spec.name]}"
    return f"{side}.{kind}.{place.number}"


PESSER = UNetLayout(
    name="pesser",
    code="pesser/pytorch_diffusion",
    entries=_entries,
    requires={
        "patch_size": 1,
        "pad": False,
        "concat_channels": 0,
        "context_channels": None,
        "pooled_channels": None,
        "transformer": None,
        "attention_heads": 1,
        "decoder_attention_heads": None,
        "middle_attention": True,
        "adaptive_norm": False,
        "resample": "asymmetric_conv",
        "time_embedding": "ddpm",
        "norm_groups": 32,
        "norm_eps": 1e-6,
        "embedding_mult": 4,
        "embedding_activation": True,
        "qkv_bias": True,
        "residual_scale": 1.0,
        "skip_scale": 1.0,
    },
    stem="base",
    places=Places("conv_in.weight", "conv_out.weight", "up."),
    marker="temb.dense.0.weight",
)

"""The keys of diffusers' `UNet2DModel`; its configuration is in `diffusers_config`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from difflab.interop.keymap import Entry, Fused, Shapes, both
from difflab.interop.transformer_keys import transformer_entries
from difflab.interop.unet_layout import UNetLayout, class_embedding
from difflab.interop.unet_words import Places
from difflab.networks.attention import AttentionSpec
from difflab.networks.places import Place, places
from difflab.networks.plan import UNetPlan
from difflab.networks.spatial_transformer import SpatialTransformerSpec

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


def modern_attention_names(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Renames attention keys of files from before diffusers 0.17 (query, key, value, proj_attn) to today's names."""
    renamed = {}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        parent, _, layer = module.rpartition(".")
        old = ".attentions." in name and layer in _OLDER_NAMES
        renamed[f"{parent}.{_OLDER_NAMES[layer]}.{leaf}" if old else name] = value
    same = renamed.keys() == state.keys()
    return renamed, [] if same else ["took the attention keys of older diffusers files (query, key, value, proj_attn)"]


def diffusers_entries(plan: UNetPlan, shapes: Shapes, *, linear: bool = False) -> list[Entry]:
    """The entries of a network; linear: how the layers around transformer blocks are stored."""
    last = len(plan.encoder) - 1
    entries = [
        *both("time_embedding.linear_1", "time_embed.linear1"),
        *both("time_embedding.linear_2", "time_embed.linear2"),
        *_of_pooled(shapes),
        *both("conv_in", "conv_in"),
        *both("conv_norm_out", "norm_out"),
        *both("conv_out", "conv_out"),
    ]
    for place in places(plan):
        official = _official_prefix(place, last)
        if isinstance(place.spec, SpatialTransformerSpec):
            entries += transformer_entries(place.spec, official, place.key, linear=linear)
            continue
        if isinstance(place.spec, AttentionSpec):
            entries += both(f"{official}.group_norm", f"{place.key}.norm")
            entries += both([f"{official}.to_{name}" for name in "qkv"], f"{place.key}.qkv", Fused(3))
            entries += both(f"{official}.to_out.0", f"{place.key}.out")
            continue
        for ours, theirs in (_BLOCK | {"conv": "conv"}).items():
            if f"{place.key}.{ours}.weight" in shapes:
                entries += both(f"{official}.{theirs}", f"{place.key}.{ours}")
    return entries


def _of_pooled(shapes: Shapes) -> list[Entry]:
    """The two layers of a pooled embedding, where there are some."""
    if "pooled_embed.linear1.weight" not in shapes:
        return []
    layers = (
        ("class_embedding.linear_1", "pooled_embed.linear1"),
        ("class_embedding.linear_2", "pooled_embed.linear2"),
    )
    return [entry for theirs, ours in layers for entry in both(theirs, ours)]


def _official_prefix(place: Place, last: int) -> str:
    attends = isinstance(place.spec, AttentionSpec | SpatialTransformerSpec)
    kind = "attentions" if attends else _RESAMPLERS.get(place.spec.name, "resnets")
    if place.side == "middle":
        return f"mid_block.{kind}.{place.number}"
    if place.side == "encoder":
        return f"down_blocks.{place.level}.{kind}.{place.number}"
    return f"up_blocks.{last - place.level}.{kind}.{place.number}"


DIFFUSERS = UNetLayout(
    name="diffusers",
    code="diffusers' UNet2DModel",
    entries=diffusers_entries,
    requires={
        "patch_size": 1,
        "pad": False,
        "concat_channels": 0,
        "context_channels": None,
        "pooled_channels": None,
        "transformer": None,
        "embedding_mult": 4,
        "embedding_activation": True,
        "qkv_bias": True,
        "residual_scale": 1.0,
        "skip_scale": 1.0,
        "decoder_attention_heads": None,
    },
    stem="base",
    places=Places("conv_in.weight", "conv_out.weight", "up_blocks.", classes="class_embedding.weight"),
    marker="down_blocks.0.resnets.0.norm1.weight",
    beside=("time_embedding.linear_1.weight",),
    # The same with transformer blocks is a UNet2DConditionModel.
    absent=("mid_block.attentions.0.transformer_blocks.0.norm1.weight",),
    conditioners={"class": class_embedding("class_embedding")},
    modern=modern_attention_names,
)

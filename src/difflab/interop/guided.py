"""The networks of improved-diffusion and guided-diffusion (openai), which share one key layout.

Their attention stacks query, key and value in one of two orders that the file does not reveal, so there are two
layouts; only `64x64_diffusion` has the newer one. The class embedding of a conditional model (`label_emb.weight`)
belongs to a conditioner here. A classifier's attention pool has the newer order in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from difflab.interop.keymap import Entry, Fused, HeadsFirst, Shapes, both
from difflab.interop.transformer_keys import transformer_entries
from difflab.interop.unet_layout import UNetLayout, class_embedding, without_weights
from difflab.interop.unet_words import Places
from difflab.networks.attention import AttentionSpec
from difflab.networks.places import Place, places
from difflab.networks.plan import BackbonePlan, EncoderPlan
from difflab.networks.pools import AdaptivePoolSpec, AttentionPoolSpec, PoolSpec
from difflab.networks.spatial_transformer import SpatialTransformerSpec

_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "embed": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "shortcut": "skip_connection",
}
_RESAMPLERS = {"encoder": "op", "decoder": "conv"}


def unet_entries(*, newer_order: bool = False, linear: bool = False) -> Callable[[BackbonePlan, Shapes], list[Entry]]:
    """The entries of a network: a function of its plan and the shapes of its weights.

    newer_order: of the rows of attentions. linear: how the layers around transformer blocks are stored.
    """

    def entries(plan: BackbonePlan, shapes: Shapes) -> list[Entry]:
        found = [
            *both("time_embed.0", "time_embed.linear1"),
            *both("time_embed.2", "time_embed.linear2"),
            *_of_pooled(shapes),
            *both("input_blocks.0.0", "conv_in"),
            *(_of_pool(plan.pool) if isinstance(plan, EncoderPlan) else _of_head()),
        ]
        for place, official in _official_prefixes(plan):
            if isinstance(place.spec, SpatialTransformerSpec):
                found += transformer_entries(place.spec, official, place.key, linear=linear)
                continue
            if isinstance(place.spec, AttentionSpec):
                order = Fused(1, pointwise=1) if newer_order else HeadsFirst(place.spec.heads)
                found += both(f"{official}.norm", f"{place.key}.norm")
                found += both(f"{official}.qkv", f"{place.key}.qkv", order)
                if place.spec.context_channels is not None:
                    # Keys and values of the tokens (GLIDE); its attention has the older order.
                    context = HeadsFirst(place.spec.heads, parts=2)
                    found += both(f"{official}.encoder_kv", f"{place.key}.context_kv", context)
                found += both(f"{official}.proj_out", f"{place.key}.out", Fused(1, pointwise=1))
                continue
            leaves = _BLOCK | ({"conv": _RESAMPLERS[place.side]} if place.side != "middle" else {})
            for ours, theirs in leaves.items():
                if f"{place.key}.{ours}.weight" in shapes:
                    found += both(f"{official}.{theirs}", f"{place.key}.{ours}")
        return found

    return entries


def _of_pooled(shapes: Shapes) -> list[Entry]:
    """The two layers of a pooled embedding, where there are some."""
    if "pooled_embed.linear1.weight" not in shapes:
        return []
    return [*both("label_emb.0.0", "pooled_embed.linear1"), *both("label_emb.0.2", "pooled_embed.linear2")]


def _of_head() -> list[Entry]:
    return [*both("out.0", "norm_out"), *both("out.2", "conv_out")]


def _of_pool(pool: PoolSpec) -> list[Entry]:
    if isinstance(pool, AdaptivePoolSpec):
        return [*both("out.0", "pool.norm"), *both("out.3", "pool.out", Fused(1, pointwise=2))]
    if isinstance(pool, AttentionPoolSpec):
        return [
            *both("out.0", "pool.norm"),
            Entry(("out.2.positional_embedding",), "pool.position"),
            *both("out.2.qkv_proj", "pool.qkv", Fused(1, pointwise=1)),
            *both("out.2.c_proj", "pool.out", Fused(1, pointwise=1)),
        ]
    if pool.norm is None:
        return [*both("out.0", "pool.hidden"), *both("out.2", "pool.out")]
    return [*both("out.0", "pool.hidden"), *both("out.1", "pool.norm"), *both("out.3", "pool.out")]


def _official_prefixes(plan: BackbonePlan) -> Iterator[tuple[Place, str]]:
    """Flat indices: a step of the encoder is one input block; in the decoder an upsampler joins the block before."""
    counts = {"encoder": 1, "decoder": 0}
    position = 0
    for place in places(plan):
        if place.side == "middle":
            yield place, f"middle_block.{place.position}"
            continue
        if place.position == 0 and place.skip:
            counts[place.side] += 1
            position = 0
        side, offset = ("input_blocks", 1) if place.side == "encoder" else ("output_blocks", 1)
        yield place, f"{side}.{counts[place.side] - offset}.{position}"
        position += 1


_REQUIRES = {
    "patch_size": 1,
    "pad": False,
    "context_channels": None,
    "pooled_channels": None,
    "transformer": None,
    "middle_attention": True,
    "time_embedding": "adm",
    "norm_groups": 32,
    "norm_eps": 1e-5,
    "embedding_mult": 4,
    "embedding_activation": True,
    "qkv_bias": True,
    "residual_scale": 1.0,
    "skip_scale": 1.0,
}


def _layout(name: str, newer_order: bool) -> UNetLayout:
    return UNetLayout(
        name=name,
        code="openai/guided-diffusion",
        entries=unet_entries(newer_order=newer_order),
        requires=_REQUIRES,
        stem="first_level",
        places=Places(
            stem="input_blocks.0.0.weight",
            head="out.2.weight",
            decoder="output_blocks.",
            logits=("out.2.c_proj.weight", "out.3.weight", "out.2.weight"),
            classes="label_emb.weight",
        ),
        marker="input_blocks.0.0.weight",
        # The same network with a text transformer beside it is GLIDE's; with transformer blocks it is CompVis'.
        absent=("transformer_proj.weight", "middle_block.1.transformer_blocks.0.norm1.weight"),
        networks=("unet", "unet_encoder"),
        # The low-resolution image of an upsampler is enlarged and concatenated to x, without weights.
        conditioners={"class": class_embedding("label_emb"), "low_res": without_weights},
        order=("time_embed", "label_emb", "input_blocks", "middle_block", "output_blocks", "out"),
    )


GUIDED = _layout("guided", newer_order=False)
GUIDED_NEW_ORDER = _layout("guided-new-order", newer_order=True)

"""The keys of a U-Net's transformer blocks, which CompVis' codes and diffusers call alike."""

from __future__ import annotations

from difflab.interop.keymap import Entry, Fused, both
from difflab.networks.spatial_transformer import SpatialTransformerSpec

_CONVOLUTION = Fused(1, pointwise=2)


def transformer_entries(spec: SpatialTransformerSpec, official: str, ours: str, *, linear: bool) -> list[Entry]:
    """The entries of one spatial transformer.

    official, ours: the prefixes of its keys. linear: whether the layers around its blocks are stored as linear layers;
    they are convolutions of 1x1 otherwise.
    """
    around = None if linear else _CONVOLUTION
    entries = [*both(f"{official}.norm", f"{ours}.norm"), *both(f"{official}.proj_in", f"{ours}.proj_in", around)]
    for number in range(spec.depth):
        entries += _block(f"{official}.transformer_blocks.{number}", f"{ours}.blocks.{number}")
    return [*entries, *both(f"{official}.proj_out", f"{ours}.proj_out", around)]


def _block(official: str, ours: str) -> list[Entry]:
    self_attention, cross_attention = f"{ours}.self_attention", f"{ours}.cross_attention"
    return [
        _weight([f"{official}.attn1.to_{name}" for name in "qkv"], f"{self_attention}.qkv"),
        *both(f"{official}.attn1.to_out.0", f"{self_attention}.out"),
        *both(f"{official}.ff.net.0.proj", f"{ours}.feed_forward.hidden"),
        *both(f"{official}.ff.net.2", f"{ours}.feed_forward.out"),
        _weight([f"{official}.attn2.to_q"], f"{cross_attention}.query"),
        _weight([f"{official}.attn2.to_{name}" for name in "kv"], f"{cross_attention}.key_value"),
        *both(f"{official}.attn2.to_out.0", f"{cross_attention}.out"),
        *(entry for number in "123" for entry in both(f"{official}.norm{number}", f"{ours}.norm{number}")),
    ]


def _weight(official: list[str], ours: str) -> Entry:
    return Entry(tuple(f"{name}.weight" for name in official), f"{ours}.weight", Fused(len(official)))

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from difflab.interop.keymap import KeyMap, shapes_of
from difflab.interop.transformer_keys import transformer_entries
from difflab.networks.layers import NormSpec
from difflab.networks.registry import build_block, register
from difflab.networks.spatial_transformer import SpatialTransformer, SpatialTransformerSpec, TransformerBlock
from difflab.types import Conditioning
from golden_fixtures import Fixture, load

GOLDEN = ["ldm_spatial_transformer", "ldm_spatial_transformer_selfattn", "ldm_spatial_transformer_small_signal"]
SPEC = SpatialTransformerSpec(channels=8, heads=2, depth=2, norm=NormSpec(4, 1e-6), context_channels=5)


def official_transformer(fixture: Fixture) -> SpatialTransformer:
    """The transformer of a fixture, with its weights."""
    c = fixture.spec["args"]
    assert c["n_heads"] * c["d_head"] == c["in_channels"], "heads as wide as the features together"
    spec = SpatialTransformerSpec(c["in_channels"], c["n_heads"], c["depth"], NormSpec(32, 1e-6), c.get("context_dim"))
    transformer = SpatialTransformer(spec)
    entries = transformer_entries(spec, "official", "ours", linear=False)
    keymap = KeyMap("compvis", entries, {f"ours.{k}": s for k, s in shapes_of(transformer.state_dict()).items()})
    official = {f"official.{key}": value for key, value in fixture.state_dict().items()}
    state = keymap.from_official(official)
    transformer.load_state_dict({key.removeprefix("ours."): value for key, value in state.items()})
    return transformer.eval()


@pytest.mark.parametrize("name", GOLDEN)
def test_every_part_gives_what_the_official_one_gives(name: str) -> None:
    fixture = load("latent", name)
    inputs = fixture.spec["inputs"]
    transformer = official_transformer(fixture)
    block = transformer.blocks[0]
    assert isinstance(block, TransformerBlock)
    tokens = fixture.input("tokens")
    context = fixture.input("context") if "context" in inputs else None
    with torch.inference_mode():
        places = block.norm2(tokens)
        seen = places if context is None else context
        fixture.check_close("out", transformer(fixture.input("x"), None, None, context))
        fixture.check_close("attn1", block.self_attention(block.norm1(tokens)))
        fixture.check_close("attn2", block.cross_attention(places, seen))
        fixture.check_close("ff", block.feed_forward(block.norm3(tokens)))
        fixture.check_close("block", block(tokens, None, None, context))
        if "mask" in inputs:
            fixture.check_close("attn2_masked", block.cross_attention(places, seen, fixture.input("mask")))


def test_tokens_that_are_masked_change_nothing() -> None:
    torch.manual_seed(0)
    transformer = SpatialTransformer(SPEC)
    nn.init.normal_(transformer.proj_out.weight)
    h, tokens = torch.randn(2, 8, 3, 4), torch.randn(2, 4, 5)
    mask = torch.tensor([[True, True, False, False], [True, True, True, False]])
    others = torch.where(mask[..., None], tokens, torch.randn_like(tokens))
    cond, masked = Conditioning(tokens=tokens, token_mask=mask), Conditioning(tokens=others, token_mask=mask)
    out = transformer(h, None, cond, tokens)
    torch.testing.assert_close(out, transformer(h, None, masked, others))
    assert not torch.allclose(out, transformer(h, None, None, others))


def test_it_needs_its_tokens() -> None:
    with pytest.raises(ValueError, match=r"pass Conditioning\.tokens"):
        SpatialTransformer(SPEC)(torch.zeros(1, 8, 2, 2), None, None, None)


def test_a_new_one_is_the_identity_where_last_layers_are_zero() -> None:
    transformer = SpatialTransformer(SPEC)
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    h = torch.randn(1, 8, 2, 2)
    assert torch.equal(transformer(h, None, None, torch.randn(1, 3, 5)), h)


@dataclass(frozen=True)
class _ShiftSpec:
    name: str = "shift"
    checkpoint: bool = False
    reads: tuple[str, ...] = ("grounding",)


@register(_ShiftSpec)
class _Shift(nn.Module):
    """Adds the mean of the grounding tokens to every place."""

    def __init__(self, spec: _ShiftSpec) -> None:
        super().__init__()

    def forward(self, x: Tensor, emb: Tensor | None, cond: Conditioning | None, context: Tensor | None) -> Tensor:
        assert cond is not None
        assert cond.grounding is not None
        return x + cond.grounding.mean(dim=1, keepdim=True)


def test_a_layer_between_the_two_attentions_sees_the_grounding() -> None:
    spec = SpatialTransformerSpec(8, 2, 1, NormSpec(4, 1e-6), 5, grounding=_ShiftSpec())
    assert set(spec.reads) == {"tokens", "token_mask", "grounding"}
    transformer = build_block(spec)
    block = transformer.get_submodule("blocks.0")
    assert isinstance(block, TransformerBlock)
    x, tokens, grounding = torch.randn(2, 6, 8), torch.randn(2, 3, 5), torch.randn(2, 4, 8)
    cond = Conditioning(tokens=tokens, grounding=grounding)
    # What follows the first attention, by hand.
    after = x + block.self_attention(block.norm1(x)) + grounding.mean(dim=1, keepdim=True)
    after = after + block.cross_attention(block.norm2(after), tokens)
    torch.testing.assert_close(block(x, None, cond, tokens), after + block.feed_forward(block.norm3(after)))

"""A network as data: its blocks in order, derived from the flat options of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from difflab.config.axes import POOLS, RESAMPLINGS
from difflab.networks.attention import AttentionSpec
from difflab.networks.blocks import ResBlockSpec
from difflab.networks.config import UNetBase, UNetConfig, UNetEncoderConfig
from difflab.networks.embedding import EmbeddingSpec
from difflab.networks.layers import NormSpec
from difflab.networks.pools import Features
from difflab.networks.registry import BlockSpec
from difflab.networks.spatial_transformer import SpatialTransformerSpec


@dataclass(frozen=True)
class Step:
    """Blocks applied in order. In the encoder, `skip` stores the output for the decoder or the pool; in the decoder, it
    concatenates the most recently stored output before the first block."""

    blocks: tuple[BlockSpec, ...]
    skip: bool


Level = tuple[Step, ...]
"""The steps at one resolution, including resampling; their order is the order of execution."""


@dataclass(frozen=True)
class BackbonePlan:
    """The encoder and the middle. Levels are listed by resolution, full size first."""

    channels: int
    patch_size: int
    size_multiple: int
    pad: bool
    embedding: EmbeddingSpec
    stem_channels: int
    encoder: tuple[Level, ...]
    middle: Level
    norm: NormSpec
    init: str

    @property
    def levels(self) -> tuple[Level, ...]:
        """All levels of both sides."""
        return (*self.encoder, self.middle)

    @property
    def reads(self) -> frozenset[str]:
        """The fields of `Conditioning` that the time embedding or a block reads."""
        return frozenset({"vector"}.union(*(spec.reads for level in self.levels for s in level for spec in s.blocks)))


@dataclass(frozen=True)
class UNetPlan(BackbonePlan):
    """A whole UNet. Levels are listed by resolution, full size first, also in the decoder."""

    concat_channels: int
    context_channels: int | None
    pooled_channels: int | None
    out_channels: int
    decoder: tuple[Level, ...]
    head_channels: int
    skip_scale: float

    @property
    def levels(self) -> tuple[Level, ...]:
        return (*super().levels, *self.decoder)

    @property
    def reads(self) -> frozenset[str]:
        # Also for 0 channels: their number is checked elsewhere.
        pooled = () if self.pooled_channels is None else ("pooled",)
        return super().reads.union(("concat",), pooled)


@dataclass(frozen=True)
class EncoderPlan(BackbonePlan):
    """The encoder and the middle of a UNet, and a pool that computes logits from their features."""

    pool: Any


@dataclass(frozen=True)
class _Blocks:
    """Creates the block specifications of one configuration."""

    cfg: UNetBase
    attended: frozenset[int]
    context_channels: int | None = None
    decoder_heads: int | None = None
    transformer_depths: Sequence[int] = ()
    transformer_norm: NormSpec | None = None

    @property
    def norm(self) -> NormSpec:
        return NormSpec(self.cfg.norm_groups, self.cfg.norm_eps)

    def residual(
        self, in_channels: int, out_channels: int, resample: Literal["down", "up"] | None = None
    ) -> ResBlockSpec:
        cfg = self.cfg
        return ResBlockSpec(
            in_channels=in_channels,
            out_channels=out_channels,
            embedding_channels=cfg.embedding_channels,
            norm=self.norm,
            dropout=cfg.dropout,
            adaptive_norm=cfg.adaptive_norm,
            resample=resample,
            scale=cfg.residual_scale,
            name=resample or "block",
            checkpoint=cfg.checkpoint_activations,
        )

    def heads(self, channels: int, decoder: bool = False) -> int:
        """Returns the number of attention heads at this width."""
        cfg = self.cfg
        counts = {"attention_heads": cfg.attention_heads, "attention_head_channels": cfg.attention_head_channels}
        if decoder and self.decoder_heads is not None:
            counts = {"decoder_attention_heads": self.decoder_heads}
        name, divisor = next((name, count) for name, count in counts.items() if count is not None)
        if channels % divisor:
            raise ValueError(
                f"a level of {channels} channels cannot be divided by {name}={divisor}; change one of them"
            )
        return channels // divisor if name == "attention_head_channels" else divisor

    def attention(self, level: int, channels: int, decoder: bool = False) -> BlockSpec:
        heads, checkpoint = self.heads(channels, decoder), self.cfg.checkpoint_activations
        if self.transformer_norm is not None and (depth := self.transformer_depths[level]):
            return SpatialTransformerSpec(
                channels, heads, depth, self.transformer_norm, self.context_channels, checkpoint=checkpoint
            )
        return AttentionSpec(
            channels,
            heads,
            self.norm,
            self.context_channels,
            self.cfg.residual_scale,
            self.cfg.qkv_bias,
            checkpoint=checkpoint,
        )

    def stage(self, level: int, in_channels: int, out_channels: int, decoder: bool = False) -> Step:
        block = self.residual(in_channels, out_channels)
        attends = level in self.attended
        return Step((block, self.attention(level, out_channels, decoder)) if attends else (block,), skip=True)

    def down(self, channels: int) -> Step:
        return Step((RESAMPLINGS.load(self.cfg.resample).down(self, channels),), skip=True)

    def up(self, channels: int) -> Step:
        return Step((RESAMPLINGS.load(self.cfg.resample).up(self, channels),), skip=False)

    def middle(self, channels: int) -> Step:
        first, last = self.residual(channels, channels), self.residual(channels, channels)
        between = (self.attention(-1, channels),) if self.cfg.middle_attention else ()
        return Step((first, *between, last), skip=False)


def plan_unet(cfg: UNetConfig, *, image_size: int, learned_variance: bool) -> UNetPlan:
    """Returns the UNet plan of a configuration, for square images of `image_size` pixels.

    Raises ValueError if image_size, an attention resolution or the heads do not fit the levels.
    """
    blocks = _Blocks(
        cfg,
        _attended_levels(cfg, image_size),
        cfg.context_channels,
        cfg.decoder_attention_heads,
        cfg.transformer_depths,
        None if cfg.transformer is None else NormSpec(cfg.norm_groups, cfg.transformer.norm_eps),
    )
    backbone, kept = _plan_backbone(blocks)
    h = kept[-1]
    decoder: list[Level] = []
    for level in range(len(cfg.widths) - 1, -1, -1):
        steps = []
        for _ in range(cfg.depths[level] + 1):
            steps.append(blocks.stage(level, h + kept.pop(), cfg.widths[level], decoder=True))
            h = cfg.widths[level]
        if level > 0:
            steps.append(blocks.up(h))
        decoder.insert(0, tuple(steps))
    return UNetPlan(
        **vars(backbone),
        concat_channels=cfg.concat_channels,
        context_channels=cfg.context_channels,
        pooled_channels=cfg.pooled_channels,
        out_channels=cfg.channels * (2 if learned_variance else 1),
        decoder=tuple(decoder),
        head_channels=h,
        skip_scale=cfg.skip_scale,
    )


def plan_encoder(cfg: UNetEncoderConfig, *, image_size: int) -> EncoderPlan:
    """Returns the plan of a classifying encoder, for square images of `image_size` pixels.

    Raises ValueError if image_size, an attention resolution or the heads do not fit the levels.
    """
    blocks = _Blocks(cfg, _attended_levels(cfg, image_size))
    backbone, kept = _plan_backbone(blocks)
    width = kept[-1]
    features = Features(
        width=width,
        total=sum(kept) + width,
        classes=cfg.classes,
        norm=blocks.norm,
        heads=blocks.heads,
        grid=cfg.padded(image_size) // cfg.size_multiple,
        image_size=image_size,
    )
    return EncoderPlan(**vars(backbone), pool=POOLS.builder(cfg.pool)(features))


def _plan_backbone(blocks: _Blocks) -> tuple[BackbonePlan, list[int]]:
    """Returns the encoder and the middle, and the widths of the skip features: the stem's, then every step's."""
    cfg = blocks.cfg
    kept, encoder = [cfg.stem_channels], []
    for level, (width, depth) in enumerate(zip(cfg.widths, cfg.depths, strict=True)):
        steps = []
        for _ in range(depth):
            steps.append(blocks.stage(level, kept[-1], width))
            kept.append(width)
        if level < len(cfg.widths) - 1:
            steps.append(blocks.down(width))
            kept.append(width)
        encoder.append(tuple(steps))
    backbone = BackbonePlan(
        channels=cfg.channels,
        patch_size=cfg.patch_size,
        size_multiple=cfg.size_multiple,
        pad=cfg.pad,
        embedding=EmbeddingSpec(
            cfg.base_channels,
            4 * cfg.base_channels,
            cfg.embedding_channels,
            cfg.time_embedding,
            cfg.embedding_activation,
        ),
        stem_channels=cfg.stem_channels,
        encoder=tuple(encoder),
        middle=(blocks.middle(kept[-1]),),
        norm=blocks.norm,
        init=cfg.init,
    )
    return backbone, kept


def _attended_levels(cfg: UNetBase, image_size: int) -> frozenset[int]:
    padded = cfg.padded(image_size)
    if padded % cfg.size_multiple:
        raise ValueError(
            f"image size {image_size} is not a multiple of {cfg.size_multiple}, which this UNet needs: set "
            "network.pad=true, or choose another size"
        )
    grids = [padded // cfg.patch_size // 2**level for level in range(len(cfg.channel_mult))]
    for resolution in cfg.attention_resolutions:
        if resolution not in grids:
            raise ValueError(
                f"attention_resolutions has {resolution}, but at {image_size} pixels with patch_size={cfg.patch_size} "
                f"this UNet's grids are {grids}"
            )
    return frozenset(grids.index(resolution) for resolution in cfg.attention_resolutions)

"""The UNet as data: which blocks, in which order, and how the flat options of a configuration become that list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from difflab.config.network import UNetConfig
from difflab.networks.attention import AttentionSpec
from difflab.networks.blocks import ResBlockSpec
from difflab.networks.embedding import EmbeddingSpec
from difflab.networks.layers import NormSpec
from difflab.networks.registry import BlockSpec
from difflab.networks.resample import DownSpec, UpSpec

_EMBEDDINGS: dict[str, tuple[Literal["sin_cos", "cos_sin"], int]] = {
    "ddpm": ("sin_cos", 1),
    "adm": ("cos_sin", 0),
    "sr3": ("sin_cos", 0),
}


@dataclass(frozen=True)
class Step:
    """Blocks applied in order. In the encoder `skip` keeps the output for the decoder; in the decoder it joins the
    newest output still kept before the first block."""

    blocks: tuple[BlockSpec, ...]
    skip: bool


Level = tuple[Step, ...]
"""The steps at one resolution, resampling included: where it stands among them is the order of resampling."""


@dataclass(frozen=True)
class UNetPlan:
    """A whole UNet. Levels are listed by resolution, full size first, in the encoder and in the decoder."""

    channels: int
    concat_channels: int
    context_channels: int | None
    out_channels: int
    patch_size: int
    size_multiple: int
    embedding: EmbeddingSpec
    stem_channels: int
    encoder: tuple[Level, ...]
    middle: Level
    decoder: tuple[Level, ...]
    head_channels: int
    norm: NormSpec
    skip_scale: float
    init: Literal["ddpm", "adm"]


@dataclass(frozen=True)
class _Blocks:
    """Makes the block specifications of one configuration."""

    cfg: UNetConfig
    attended: frozenset[int]

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

    def attention(self, channels: int) -> AttentionSpec:
        cfg = self.cfg
        name = "attention_heads" if cfg.attention_heads else "attention_head_channels"
        divisor = cfg.attention_heads or cfg.attention_head_channels or 1
        if channels % divisor:
            raise ValueError(
                f"a level of {channels} channels cannot be divided by {name}={divisor}; change one of them"
            )
        heads = cfg.attention_heads or channels // divisor
        return AttentionSpec(
            channels, heads, self.norm, cfg.context_channels, cfg.residual_scale, checkpoint=cfg.checkpoint_activations
        )

    def stage(self, level: int, in_channels: int, out_channels: int) -> Step:
        block = self.residual(in_channels, out_channels)
        blocks = (block, self.attention(out_channels)) if level in self.attended else (block,)
        return Step(blocks, skip=True)

    def down(self, channels: int) -> Step:
        block: BlockSpec
        if self.cfg.resample == "residual":
            block = self.residual(channels, channels, "down")
        elif self.cfg.resample == "pool":
            block = DownSpec(channels, "pool")
        else:
            block = DownSpec(channels, "asymmetric" if self.cfg.resample == "asymmetric_conv" else "symmetric")
        return Step((block,), skip=True)

    def up(self, channels: int) -> Step:
        residual = self.cfg.resample == "residual"
        block = self.residual(channels, channels, "up") if residual else UpSpec(channels, self.cfg.resample != "pool")
        return Step((block,), skip=False)

    def middle(self, channels: int) -> Step:
        first, last = self.residual(channels, channels), self.residual(channels, channels)
        between = (self.attention(channels),) if self.cfg.middle_attention else ()
        return Step((first, *between, last), skip=False)


def plan_unet(cfg: UNetConfig, *, image_size: int, learned_variance: bool) -> UNetPlan:
    """The UNet of a configuration, for square images of `image_size` pixels.

    Raises ValueError when image_size, an attention resolution or the heads do not fit the levels.
    """
    widths, depths, last = cfg.widths, cfg.depths, len(cfg.widths) - 1
    blocks = _Blocks(cfg, _attended_levels(cfg, image_size))
    kept, encoder = [widths[0]], []
    h = widths[0]
    for level, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        steps = []
        for _ in range(depth):
            steps.append(blocks.stage(level, h, width))
            h = width
            kept.append(h)
        if level < last:
            steps.append(blocks.down(h))
            kept.append(h)
        encoder.append(tuple(steps))
    middle = (blocks.middle(h),)
    decoder: list[Level] = []
    for level in range(last, -1, -1):
        steps = []
        for _ in range(depths[level] + 1):
            steps.append(blocks.stage(level, h + kept.pop(), widths[level]))
            h = widths[level]
        if level > 0:
            steps.append(blocks.up(h))
        decoder.insert(0, tuple(steps))
    order, shift = _EMBEDDINGS[cfg.time_embedding]
    return UNetPlan(
        channels=cfg.channels,
        concat_channels=cfg.concat_channels,
        context_channels=cfg.context_channels,
        out_channels=cfg.channels * (2 if learned_variance else 1),
        patch_size=cfg.patch_size,
        size_multiple=cfg.size_multiple,
        embedding=EmbeddingSpec(cfg.base_channels, cfg.embedding_channels, order, shift),
        stem_channels=widths[0],
        encoder=tuple(encoder),
        middle=middle,
        decoder=tuple(decoder),
        head_channels=h,
        norm=blocks.norm,
        skip_scale=cfg.skip_scale,
        init=cfg.init,
    )


def _attended_levels(cfg: UNetConfig, image_size: int) -> frozenset[int]:
    if image_size % cfg.size_multiple:
        raise ValueError(f"image size {image_size} is not a multiple of {cfg.size_multiple}, which this UNet needs")
    grids = [image_size // cfg.patch_size // 2**level for level in range(len(cfg.channel_mult))]
    for resolution in cfg.attention_resolutions:
        if resolution not in grids:
            raise ValueError(
                f"attention_resolutions has {resolution}, but at {image_size} pixels with patch_size={cfg.patch_size} "
                f"this UNet's grids are {grids}"
            )
    return frozenset(grids.index(resolution) for resolution in cfg.attention_resolutions)

"""Encoder and decoder as data: their blocks in order, derived from the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from difflab.networks.attention import AttentionSpec
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.autoencoder.linear_attention import LinearAttentionSpec
from difflab.networks.blocks import ResBlockSpec
from difflab.networks.layers import NormSpec
from difflab.networks.plan import Level, Step
from difflab.networks.registry import BlockSpec
from difflab.networks.resample import DownSpec, UpSpec


@dataclass(frozen=True)
class SidePlan:
    """One side: an encoder or a decoder. Levels are listed by resolution, full size first, on both sides.

    in_channels, out_channels: of its first and its last convolution.
    stem_channels:             outputs of the first convolution.
    head_channels:             inputs of the last norm and the last convolution.
    """

    in_channels: int
    stem_channels: int
    levels: tuple[Level, ...]
    middle: Level
    head_channels: int
    out_channels: int
    norm: NormSpec


def plan_encoder(config: AutoencoderConfig) -> SidePlan:
    """The encoder: levels from full size down, then the middle."""
    blocks = _Blocks(config)
    h, levels = config.base_channels, []
    for level, width in enumerate(config.widths):
        steps = []
        for _ in range(config.blocks_per_level):
            steps.append(blocks.stage(level, h, width))
            h = width
        if level < len(config.widths) - 1:
            steps.append(Step((DownSpec(h, "asymmetric", checkpoint=config.checkpoint_activations),), skip=False))
        levels.append(tuple(steps))
    outputs = config.z_channels * config.regularizer.moments_per_channel
    stem = config.base_channels
    return SidePlan(config.channels, stem, tuple(levels), blocks.middle(h), h, outputs, blocks.norm)


def plan_decoder(config: AutoencoderConfig) -> SidePlan:
    """The decoder: the middle, then levels up to full size, each with one block more than in the encoder."""
    blocks = _Blocks(config)
    stem = h = config.widths[-1]
    levels: list[Level] = []
    for level, width in reversed(list(enumerate(config.widths))):
        steps = []
        for _ in range(config.blocks_per_level + 1):
            steps.append(blocks.stage(level, h, width))
            h = width
        if level > 0:
            steps.append(Step((UpSpec(h, checkpoint=config.checkpoint_activations),), skip=False))
        levels.insert(0, tuple(steps))
    return SidePlan(config.z_channels, stem, tuple(levels), blocks.middle(stem), h, config.channels, blocks.norm)


@dataclass(frozen=True)
class _Blocks:
    """Creates the block specifications of one configuration."""

    config: AutoencoderConfig

    @property
    def norm(self) -> NormSpec:
        return NormSpec(self.config.norm_groups, self.config.norm_eps)

    def residual(self, in_channels: int, out_channels: int) -> ResBlockSpec:
        config = self.config
        return ResBlockSpec(
            in_channels=in_channels,
            out_channels=out_channels,
            embedding_channels=None,
            norm=self.norm,
            dropout=config.dropout,
            checkpoint=config.checkpoint_activations,
        )

    def attention(self, channels: int) -> BlockSpec:
        checkpoint = self.config.checkpoint_activations
        if self.config.attention_type == "linear":
            return LinearAttentionSpec(channels, checkpoint=checkpoint)
        return AttentionSpec(channels, heads=1, norm=self.norm, checkpoint=checkpoint)

    def stage(self, level: int, in_channels: int, out_channels: int) -> Step:
        block = self.residual(in_channels, out_channels)
        attends = level in self.config.attended_levels
        return Step((block, self.attention(out_channels)) if attends else (block,), skip=False)

    def middle(self, channels: int) -> Level:
        first, last = self.residual(channels, channels), self.residual(channels, channels)
        between = (self.attention(channels),) if self.config.middle_attention else ()
        return (Step((first, *between, last), skip=False),)

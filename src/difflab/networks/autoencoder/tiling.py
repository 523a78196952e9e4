"""Encoding and decoding of large images tile by tile, in bounded memory and with the result of whole images.

Levels whose features are large run on tiles, one block after the other; levels with attention, and those whose features
are small, on the whole image. Each tile has a border as wide as its convolutions reach, which is cut off again, so that
there are no seams to blend. The statistics of a norm are those of the whole image: they are measured in a pass over the
tiles, up to this norm, before the next. Since the features between the blocks are kept whole, a block is computed one
and a half times. Those of the full size would be too large for that: level 0, of n norms, is computed as one, about
n / 2 + 1 times.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

import torch
from torch import Tensor, nn

from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.autoencoder.freed_memory import return_freed_memory
from difflab.networks.autoencoder.latents import Posterior
from difflab.networks.autoencoder.model import Autoencoder
from difflab.networks.autoencoder.shared_norms import SharedNorms
from difflab.networks.autoencoder.sides import Stage

TILE = 256
"""Pixels per side of a tile of the image, without its border."""


@torch.no_grad()
def encode_in_tiles(network: Autoencoder, x: Tensor, *, tile: int = TILE) -> Posterior:
    """`network.encode(x)`, without gradients, with the levels of large features in tiles.

    x: [B, C, H, W] in [-1, 1]. tile: pixels per side of a tile of the image, a multiple of f.
    Raises ValueError as `encode` does, and for other tiles.
    """
    network.refuse_other_images(x)
    encoder = network.encoder
    levels = [(level, encoder.stages(level)) for level in range(len(network.config.widths))]
    h = _Tiles(network.config, x.shape[2], x.shape[3], tile).through(encoder, levels, x)
    return network.posterior(network.quant_conv(encoder.end(h)))


@torch.no_grad()
def decode_in_tiles(network: Autoencoder, z: Tensor, *, tile: int = TILE, quantize: bool = True) -> Tensor:
    """`network.decode(z)`, without gradients, with the levels of large features in tiles.

    z: [B, latent_channels, h, w]. tile: as in `encode_in_tiles`.
    Raises ValueError as `decode` does, and for other tiles.
    """
    decoder, f = network.decoder, network.downsampling
    tiles = _Tiles(network.config, z.shape[2] * f, z.shape[3] * f, tile)
    levels = [(level, decoder.stages(level)) for level in reversed(range(len(network.config.widths)))]
    levels[-1][1].append(decoder.head())
    return tiles.through(decoder, levels, decoder.begin(network.decodable(z, quantize=quantize)))


@dataclass(frozen=True)
class _Box:
    """A part of an image, in pixels."""

    top: int
    left: int
    bottom: int
    right: int

    def of(self, h: Tensor, factor: int, whole: _Box | None = None) -> Tensor:
        """This part of features [B, C, H, W] of the image, or of its part `whole`, that are `factor` times smaller."""
        top, left = (0, 0) if whole is None else (whole.top, whole.left)
        rows = slice((self.top - top) // factor, (self.bottom - top) // factor)
        return h[:, :, rows, slice((self.left - left) // factor, (self.right - left) // factor)]

    def factor_of(self, h: Tensor) -> int:
        """The factor by which features of this part are smaller than it."""
        return (self.bottom - self.top) // h.shape[2]


@dataclass(frozen=True)
class _Canvas:
    """Features [B, C, height, width] of a whole image in a buffer that may be larger.

    room: how many rows and columns the buffer has above them and on the left.
    """

    buffer: Tensor
    height: int
    width: int
    room: int = 0

    @classmethod
    def empty(cls, part: Tensor, height: int, width: int, room: int) -> _Canvas:
        """For features of the kind of `part`."""
        return cls(part.new_empty(*part.shape[:2], height + room, width + room), height, width, room)

    @property
    def features(self) -> Tensor:
        room = self.room
        return self.buffer[:, :, room : room + self.height, room : room + self.width]

    def moved(self, by: int) -> _Canvas:
        """The features that lie so many places further up and to the left."""
        return replace(self, room=self.room - by)


@dataclass(frozen=True)
class _Tiles:
    """The tiles of an image of height x width pixels at each level.

    Raises ValueError for tiles that do not end where all levels have a place to end at.
    """

    config: AutoencoderConfig
    height: int
    width: int
    tile: int

    def __post_init__(self) -> None:
        f = self.config.downsampling
        if self.tile < 1 or self.tile % f:
            raise ValueError(f"tile={self.tile} is no multiple of {f}, by which latents are smaller")

    def through(self, side: nn.Module, levels: Sequence[tuple[int, list[Stage]]], h: Tensor) -> Tensor:
        """The features h of the image after the stages of some levels; side: what has them."""
        canvas = _Canvas(h, h.shape[2], h.shape[3])
        del h  # the features before a level are as large as some of its own, and not needed to its end
        for level, stages in levels:
            if self._fit(level):
                whole = reduce(lambda h, stage: stage.run(h), stages, canvas.features)
                canvas = _Canvas(whole, whole.shape[2], whole.shape[3])
                continue
            for stage, room in _with_room([reduce(Stage.then, stages)] if level == 0 else stages):
                with SharedNorms(side) as norms:
                    if stage.alike and canvas.room >= _border(stage):
                        canvas = self._run(norms, stage, canvas, level, into=canvas.moved(_border(stage)))
                    else:
                        canvas = self._run(norms, stage, canvas, level, room=room)
                return_freed_memory(canvas.buffer.device)
        return canvas.features

    def _run(
        self,
        norms: SharedNorms,
        stage: Stage,
        canvas: _Canvas,
        level: int,
        *,
        into: _Canvas | None = None,
        room: int = 0,
    ) -> _Canvas:
        """The features after a stage.

        into: where to write them. This may be the same buffer, moved by the border of the tiles: from the top left to
            the bottom right, a tile is then written where nothing lies that reaches one of those that follow. Otherwise
            a new buffer with `room`.
        """
        h, complete = canvas.features, False
        while not complete:
            for inner, outer in self._boxes(_border(stage) << level):
                output = norms.output(
                    partial(stage.run, outer.of(h, self.height // canvas.height)),
                    lambda part, inner=inner, outer=outer: inner.of(part, outer.factor_of(part), outer),
                )
                if output is None:
                    continue
                factor, complete = outer.factor_of(output), True
                if into is None:
                    into = _Canvas.empty(output, self.height // factor, self.width // factor, room)
                inner.of(into.features, factor).copy_(inner.of(output, factor, outer))
            norms.share()
        assert into is not None, "an image has a tile"
        return into

    def _fit(self, level: int) -> bool:
        """Whether a level runs on the whole image: if it attends, or has no more numbers than a tile at level 0."""
        numbers = (self.height >> level) * (self.width >> level) * self.config.widths[level]
        return level in self.config.attended_levels or numbers <= self.tile**2 * self.config.widths[0]

    def _boxes(self, border: int) -> Iterator[tuple[_Box, _Box]]:
        """Yields each tile, alone and with its border, as far as the image goes."""
        rows, columns = self._spans(self.height, border), self._spans(self.width, border)
        for (top, bottom), (upper, lower) in rows:
            for (left, right), (first, last) in columns:
                yield _Box(top, left, bottom, right), _Box(upper, first, lower, last)

    def _spans(self, side: int, border: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Where the tiles of a side begin and end, alone and with their border.

        At an edge of the image, where there is no border, that of the other side is wider. Tiles of one size need
        features of one size, which find their place in memory where the last ones were.
        """
        spans = []
        for start in range(0, side, self.tile):
            outer = max(min(start - border, side - self.tile - 2 * border), 0)
            spans.append(((start, min(start + self.tile, side)), (outer, min(outer + self.tile + 2 * border, side))))
        return spans


def _border(stage: Stage) -> int:
    """How many places around a tile it needs: an even number, for where the next level has half as many."""
    return stage.convolutions + stage.convolutions % 2


def _with_room(stages: Sequence[Stage]) -> Iterator[tuple[Stage, int]]:
    """Each stage with the room that its output needs for those after it to work in place."""
    for number, stage in enumerate(stages, start=1):
        yield stage, sum(map(_border, itertools.takewhile(lambda later: later.alike, stages[number:])))

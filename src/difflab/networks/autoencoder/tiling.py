"""Encoding and decoding of large images tile by tile, in bounded memory and with the result of whole images.

The finest levels, whose features are the largest, run on tiles, one level after the other; levels with attention, and
those whose features are small, on the whole image. Each tile has a border as wide as the convolutions of its level
reach, which is cut off again, so that there are no seams to blend. The statistics of a norm are those of the whole
image: they are measured in a pass over the tiles, up to this norm, before the next. A level of n norms is therefore
computed about n / 2 + 1 times: this saves memory, not time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.autoencoder.latents import Posterior
from difflab.networks.autoencoder.model import Autoencoder
from difflab.networks.autoencoder.shared_norms import SharedNorms

TILE = 256
"""Pixels per side of a tile of the image, without its border."""


@torch.no_grad()
def encode_in_tiles(network: Autoencoder, x: Tensor, *, tile: int = TILE) -> Posterior:
    """`network.encode(x)`, without gradients, with the levels of large features in tiles.

    x: [B, C, H, W] in [-1, 1]. tile: pixels per side of a tile of the image, a multiple of f.
    Raises ValueError as `encode` does, and for other tiles.
    """
    network.refuse_other_images(x)
    encoder, config = network.encoder, network.config
    size, last = _Size(x.shape[2], x.shape[3]), len(config.widths) - 1
    h = x
    for level in range(last + 1):
        if _fits(config, size, level, tile):
            h = encoder.level(h, level)
            continue
        fine = _Fine(
            lambda part, level=level: encoder.level(part, level),
            [encoder.levels[level]],
            before=2**level,
            after=2 ** min(level + 1, last),
            # Two convolutions of each block, the strided one, and at the full size the first of all.
            reach=2**level * (2 * config.blocks_per_level + 2) + 1,
        )
        h = fine.in_tiles(h, size, tile)
    return network.posterior(network.quant_conv(encoder.end(h)))


@torch.no_grad()
def decode_in_tiles(network: Autoencoder, z: Tensor, *, tile: int = TILE, quantize: bool = True) -> Tensor:
    """`network.decode(z)`, without gradients, with the levels of large features in tiles.

    z: [B, latent_channels, h, w]. tile: pixels per side of a tile of the image, a multiple of f.
    Raises ValueError as `decode` does, and for other tiles.
    """
    decoder, config, f = network.decoder, network.config, network.downsampling
    size, last = _Size(z.shape[2] * f, z.shape[3] * f), len(config.widths) - 1
    h = decoder.begin(network.decodable(z, quantize=quantize))
    for level in range(last, -1, -1):
        run: Callable[[Tensor], Tensor] = lambda part, level=level: decoder.level(part, level)  # noqa: E731
        modules: list[nn.Module] = [decoder.levels[level]]
        if level == 0:
            run = lambda part: decoder.output(decoder.activated(decoder.level(part, 0)))  # noqa: E731
            modules.append(decoder.norm_out)
        if _fits(config, size, level, tile):
            h = run(h)
            continue
        # Two convolutions of each block, the one that follows the doubling, and at the full size the last of all.
        reach = 2**level * (2 * (config.blocks_per_level + 1) + 1) + 1
        h = _Fine(run, modules, before=2 ** min(level + 1, last), after=2**level, reach=reach).in_tiles(h, size, tile)
    return h


def _fits(config: AutoencoderConfig, size: _Size, level: int, tile: int) -> bool:
    """Whether a level runs on the whole image: if it attends, or its features are no larger than a tile's at level 0.

    Raises ValueError for tiles that do not end where all levels have a pixel to end at.
    """
    if tile < 1 or tile % config.downsampling:
        raise ValueError(f"tile={tile} is no multiple of {config.downsampling}, by which latents are smaller")
    numbers = (size.height >> level) * (size.width >> level) * config.widths[level]
    return level in config.attended_levels or numbers <= tile * tile * config.widths[0]


@dataclass(frozen=True)
class _Size:
    """Of a whole image, in pixels."""

    height: int
    width: int


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
class _Fine:
    """A level that runs in tiles.

    run:     the level, on features of any size.
    modules: those with its norms.
    before, after: the factors by which its input and its output are smaller than the image.
    reach:   how many pixels of the image away it looks, at most.
    """

    run: Callable[[Tensor], Tensor]
    modules: list[nn.Module]
    before: int
    after: int
    reach: int

    def in_tiles(self, h: Tensor, size: _Size, tile: int) -> Tensor:
        """run(h) for the features h of an image."""
        result: Tensor | None = None
        with SharedNorms(self.modules) as norms:
            while norms.lack_statistics:
                for inner, outer in self._tiles(size, tile):
                    norms.measure(
                        lambda outer=outer: self.run(outer.of(h, self.before)),
                        lambda part, inner=inner, outer=outer: inner.of(part, outer.factor_of(part), outer),
                    )
                norms.share()
            for inner, outer in self._tiles(size, tile):
                part = inner.of(self.run(outer.of(h, self.before)), self.after, outer)
                if result is None:
                    result = part.new_empty(*part.shape[:2], size.height // self.after, size.width // self.after)
                inner.of(result, self.after).copy_(part)
        assert result is not None, "an image has a tile"
        return result

    def _tiles(self, size: _Size, tile: int) -> Iterator[tuple[_Box, _Box]]:
        """Yields each tile, alone and with its border, as far as the image goes."""
        multiple = max(self.before, self.after)
        border = -(-self.reach // multiple) * multiple
        for top in range(0, size.height, tile):
            for left in range(0, size.width, tile):
                bottom, right = min(top + tile, size.height), min(left + tile, size.width)
                around = (max(top - border, 0), max(left - border, 0))
                ends = min(bottom + border, size.height), min(right + border, size.width)
                yield _Box(top, left, bottom, right), _Box(*around, *ends)

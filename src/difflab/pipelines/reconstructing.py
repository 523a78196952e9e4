"""Reconstructs images with an autoencoder: whole or in tiles, from the mode of their latents or from a sample."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from difflab.config.data import DataConfig
from difflab.diffusion.noise import SampleNoise
from difflab.errors import UserError
from difflab.images import Rounding, as_float, to_uint8
from difflab.metrics.latents_kept import MadeOf
from difflab.networks.autoencoder.model import Autoencoder
from difflab.networks.autoencoder.tiling import decode_in_tiles, encode_in_tiles
from difflab.pipelines.finite import first_broken_weight, named
from difflab.seeding import stream_seed
from difflab.tasks.build import Model
from difflab.types import Batch


@dataclass(frozen=True)
class ReconstructionPipeline:
    """Images to their latents and back.

    model: a stored autoencoder. posterior: the mode of a latent, or a sample, whose noise depends on the seed and the
        index of the image alone. tile: pixels per side of tiles; None for whole images.
    rounding: the conversion to uint8. autocast: dtype of the network's arithmetic, None for float32.

    Raises UserError for a sample of latents without a distribution, and for tiles that are no multiple of f.
    """

    model: Model
    posterior: Literal["mode", "sample"] = "mode"
    tile: int | None = None
    rounding: Rounding = "truncate"
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.posterior == "sample" and not self.diverges:
            raise UserError(
                "posterior=sample, but the latents of this autoencoder have no distribution (it has a codebook): leave "
                "posterior out"
            )
        f = self.network.downsampling
        if self.tile is not None and self.tile % f:
            raise UserError(
                f"tile={self.tile} is no multiple of {f}, by which latents are smaller: give "
                f"tile={multiple(self.tile, f)}"
            )

    @property
    def network(self) -> Autoencoder:
        # Models that reconstruct have the network of one.
        return cast("Autoencoder", self.model.network)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def codes(self) -> int | None:
        """The size of the codebook; None without one."""
        codebook = self.network.regularizer.codebook
        return None if codebook is None else len(codebook)

    @property
    def diverges(self) -> bool:
        """Whether latents have a distribution, which diverges from the standard normal."""
        return self.network.config.has_variance

    def __call__(self, batch: Batch, seed: int) -> tuple[Tensor, MadeOf]:
        """batch: `image` uint8 [B, C, H, W], `index` int64 [B], and perhaps `json`, on any device.

        Returns the reconstructions uint8 [B, C, H, W] and what they were made of, on the device of the model.
        Raises UserError for reconstructions that are not finite.
        """
        pixels = batch["image"].to(self.device)
        index = batch["index"].tolist()
        with torch.no_grad(), self._arithmetic():
            made, kl, codes = self._passed(as_float(pixels), [stream_seed(seed, "posterior", i) for i in index])
        finite = made.isfinite().flatten(1).all(dim=1) & kl.isfinite()
        if not bool(finite.all()):
            self._refuse_broken([i for i, fine in zip(index, finite.tolist(), strict=True) if not fine])
        made_of = MadeOf(pixels, kl, codes, self.codes, batch.get("json"))
        return to_uint8(made, self.rounding), made_of

    def _passed(self, x: Tensor, seeds: list[int]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Reconstructions [B, C, H, W], the divergence of latents [B], and codes [B, h, w] if there is a codebook."""
        network, f = self.network, self.network.downsampling
        noise = None
        if self.posterior == "sample":
            noise = SampleNoise(seeds, x.device).randn((network.latent_channels, x.shape[2] // f, x.shape[3] // f))
        if self.tile is None:
            found = network(x, noise)
            return found.images.float(), found.posterior.kl(), found.codes
        posterior = encode_in_tiles(network, x, tile=self.tile)
        regularized = network.regularizer(posterior, noise)
        images = decode_in_tiles(network, regularized.latent, tile=self.tile, quantize=False)
        return images.float(), posterior.kl(), regularized.codes

    def _arithmetic(self) -> contextlib.AbstractContextManager[object]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    def _refuse_broken(self, indices: list[int]) -> None:
        broken = first_broken_weight([("network", self.network)])
        advice = "" if self.autocast is None else "set precision=32-true, or "
        fix = f"the weights themselves are not finite ({broken}): " if broken is not None else advice
        raise UserError(f"{named(indices, 'reconstruction')} not finite: {fix}take another checkpoint")


def refuse_unencodable(pipeline: ReconstructionPipeline, data: DataConfig) -> None:
    """Raises UserError if an autoencoder does not take the images of a data set."""
    channels, f = pipeline.model.config.channels, pipeline.network.downsampling
    if data.channels != channels:
        raise UserError(
            f"the autoencoder takes images of {channels} channel{'' if channels == 1 else 's'}, the data has "
            f"{data.channels}: set data.channels={channels}, or choose other data"
        )
    if data.image_size % f:
        raise UserError(
            f"images of {data.image_size}x{data.image_size} have no latent: their sides are no multiple of {f}; crop "
            f"them, as with data.image_size={multiple(data.image_size, f)} data.crop=adm"
        )


def multiple(size: int, f: int) -> int:
    """The largest multiple of f up to `size`, at least f."""
    return max(size // f, 1) * f

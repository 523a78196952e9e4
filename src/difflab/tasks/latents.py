"""The latents on which a model is trained: encoded from images or read, sampled, and scaled by measured statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from difflab.diffusion.noise import SampleNoise
from difflab.errors import UserError
from difflab.images import to_float
from difflab.networks.first_stage.build import PREFIX, moments_field, moments_sha256
from difflab.networks.first_stage.model import FirstStage, LatentStatistics
from difflab.seeding import stream_seed
from difflab.types import Batch


class TrainedLatents:
    """Batches -> the scaled latents [B, C, h, w] of their images.

    field: of a batch, with the moments of its images, if a data set has them.
    encoded: whether it has to have them, as in `FirstStageConfig`.
    """

    def __init__(self, first_stage: FirstStage) -> None:
        self.first_stage = first_stage
        self.encoded = first_stage.config.encoded
        self._sha256 = moments_sha256(first_stage.config)
        self.field = moments_field(self._sha256)
        self._sampled = first_stage.config.latent == "sample" and first_stage.config.autoencoder.has_variance

    @property
    def cached(self) -> Mapping[str, str]:
        """The field that is read if a data set has it, and the hash of the encoder that made it."""
        return {} if self.encoded == "never" else {self.field: self._sha256}

    @property
    def required(self) -> tuple[str, ...]:
        """The field, if a data set has to have it."""
        return (self.field,) if self.encoded == "always" else ()

    def refuse_others(self, fields: Mapping[str, str], where: str) -> None:
        """Raises UserError if a data set has latents, but of other first stages.

        fields: what encoders added to it, {name: encoder in words}. where: the data set.
        """
        others = [by for name, by in fields.items() if name.startswith(PREFIX)]
        if self.encoded != "never" and others and self.field not in fields:
            raise UserError(
                f"{where} has latents of {others[0]}, not of this one, whose encoder is {self._sha256[:8]}: give that "
                "first stage, encode the data set with this one (`difflab data encode`), or have its images encoded in "
                "training (first_stage.encoded=never)"
            )

    def __call__(self, batch: Batch, seeds: Sequence[int]) -> Tensor:
        """Latents of a batch; those of a posterior are drawn from a stream of each sample's seed."""
        moments = self.moments(batch)
        shape = (self.first_stage.config.autoencoder.latent_channels, *moments.shape[2:])
        noise = None
        if self._sampled:
            noise = SampleNoise([stream_seed(seed, "posterior") for seed in seeds], moments.device).randn(shape)
        return self.first_stage.latents(moments, noise)

    def moments(self, batch: Batch) -> Tensor:
        """The moments of a batch's images, float32 [B, M, h, w], as its data set has them, or encoded now."""
        stored = batch.get(self.field)
        return self.first_stage.moments(to_float(batch["image"])) if stored is None else stored.float()

    @torch.no_grad()
    def measure(self, batches: Iterable[Batch], device: torch.device, add_up: Callable[[Tensor], Tensor]) -> None:
        """Measures mean and deviation of every channel, and scales latents by them from now on.

        batches: this process's share of the images. add_up: adds a tensor over all processes.

        Raises UserError if latents are not finite or do not vary.
        """
        statistics = LatentStatistics(len(self.first_stage.scale), sampled=self._sampled)
        for batch in batches:
            on_device = {key: batch[key].to(device) for key in ("image", self.field) if key in batch}
            posterior = self.first_stage.posterior(self.moments(on_device))
            statistics.add(posterior, batch["weight"])
        mean, deviation = statistics.of_sums(add_up(statistics.sums))
        try:
            self.first_stage.set_scaling(mean, deviation)
        except ValueError as error:
            raise UserError(f"first_stage: {error}") from error

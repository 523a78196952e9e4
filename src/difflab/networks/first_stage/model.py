"""A frozen autoencoder whose scaled latents are the images of a diffusion model (Rombach et al. 2022, section 3.2)."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.autoencoder.latents import Posterior
from difflab.networks.autoencoder.model import Autoencoder
from difflab.networks.first_stage.config import FirstStageConfig
from difflab.networks.frozen import Frozen, OfAnotherFile

_IN_A_MODEL = "network."


class StoredAutoencoder(OfAnotherFile):
    """The network of a stored autoencoder; its file has the names of a whole model."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.network = Autoencoder(config)

    def own_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in state.items() if name.startswith(_IN_A_MODEL)}


class FirstStage(nn.Module):
    """Images [B, C, H, W] in [-1, 1] to scaled latents [B, latent_channels, H/f, W/f], scale * (z - shift), and back.

    The autoencoder works in full precision, also under autocast: in training as in `difflab data encode`.

    State-dict keys: scale and shift, [latent_channels], which are zero until they are measured; the autoencoder is a
    frozen part.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        self.config = config
        # As text, which can be hashed: equal ones are loaded once.
        self.autoencoder = Frozen(config.weights, _empty, json.dumps(config.autoencoder.plain(), sort_keys=True))
        channels = config.autoencoder.latent_channels
        scale, shift = torch.zeros(channels), torch.zeros(channels)
        if not config.is_measured:
            scale, shift = torch.tensor(config.factors("scale")), torch.tensor(config.factors("shift"))
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    @property
    def is_scaled(self) -> bool:
        """Whether scale and shift are known."""
        return bool((self.scale > 0).all())

    @property
    def network(self) -> Autoencoder:
        """The autoencoder with its weights."""
        module = self.autoencoder.module
        assert isinstance(module, StoredAutoencoder)
        return module.network

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] -> the moments of their posterior, float32 [B, moments_channels, h, w]."""
        with torch.autocast(images.device.type, enabled=False):
            return self.network.encode(images.float()).moments

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] -> the scaled mode of their posterior, float32 [B, latent_channels, h, w]."""
        return self.latents(self.moments(images), None)

    def posterior(self, moments: Tensor) -> Posterior:
        """Moments -> the posterior that they describe, before scaling."""
        return self.network.posterior(moments)

    def latents(self, moments: Tensor, noise: Tensor | None) -> Tensor:
        """Moments -> scaled latents [B, latent_channels, h, w]: by standard normal `noise`, or the mode without it."""
        posterior = self.posterior(moments)
        return self.scaled(posterior.mode() if noise is None else posterior.sample(noise))

    def scaled(self, latents: Tensor) -> Tensor:
        """Latents of the autoencoder -> latents of the diffusion model."""
        return (latents - _per_channel(self.shift)) * _per_channel(self.scale)

    def unscaled(self, latents: Tensor) -> Tensor:
        """Latents of the diffusion model -> latents of the autoencoder."""
        return latents / _per_channel(self.scale) + _per_channel(self.shift)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, latent_channels, h, w] -> images [B, C, f h, f w], about in [-1, 1]; with a codebook,
        through its nearest vectors."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.network.decode(self.unscaled(latents.float()))

    def set_scaling(self, mean: Tensor, deviation: Tensor) -> None:
        """Scales latents to zero mean and unit deviation in every channel.

        mean, deviation: [latent_channels]. Raises ValueError for one that is not finite, or no deviation.
        """
        if not bool(torch.isfinite(mean).all() and torch.isfinite(deviation).all()):
            raise ValueError("the latents of the training data are not finite: take another first stage")
        if not bool((deviation > 0).all()):
            raise ValueError("a channel of the latents is the same everywhere, so that nothing can be learned of it")
        self.shift.copy_(mean)
        self.scale.copy_(1 / deviation)


class LatentStatistics:
    """Mean and deviation of every channel of latents over many images, of a sample of each posterior or of its mode.

    The deviation of samples needs none: their variance is that of the means plus the mean variance.
    """

    def __init__(self, channels: int, *, sampled: bool) -> None:
        self.sampled = sampled
        self.sums = torch.zeros(3, channels, dtype=torch.float64)
        """Of every channel: how many numbers, their sum, and that of their squares."""

    def add(self, posterior: Posterior, weight: Tensor) -> None:
        """Adds the latents of B images; weight [B] is 1, or 0 for one that does not count."""
        mean = posterior.mean.double().cpu()
        squares = mean.square()
        if self.sampled:
            squares = squares + posterior.std.double().cpu().square()
        each = weight.double().cpu().view(-1, 1, 1, 1)
        number = (each * torch.ones_like(mean)).sum((0, 2, 3))
        self.sums += torch.stack([number, (each * mean).sum((0, 2, 3)), (each * squares).sum((0, 2, 3))])

    @staticmethod
    def of_sums(sums: Tensor) -> tuple[Tensor, Tensor]:
        """`sums`, added over all processes, -> mean and deviation, float64 [channels]."""
        number, total, squares = sums.unbind()
        mean = total / number
        return mean, (squares / number - mean.square()).clamp_min(0).sqrt()


def _empty(architecture: str) -> StoredAutoencoder:
    return StoredAutoencoder(AutoencoderConfig.model_validate(json.loads(architecture)))


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)

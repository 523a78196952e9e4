"""Autoencoders: images to a small latent and back (VQGAN; latent diffusion, Rombach et al. 2022, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from difflab.config.axes import REGULARIZERS
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.autoencoder.latents import Posterior
from difflab.networks.autoencoder.plan import plan_decoder, plan_encoder
from difflab.networks.autoencoder.regularizer import Regularizer
from difflab.networks.autoencoder.sides import Decoder, Encoder


@dataclass(frozen=True)
class Reconstruction:
    """All that a loss needs of one pass through an autoencoder.

    images:         [B, C, H, W].
    features:       [B, D, H, W], the input of the decoder's last convolution.
    posterior:      the distribution of the latent.
    regularization: [B], without its weight: the divergence of the posterior, or the codebook loss.
    codes:          int64 [B, h, w], the numbers of the codes; None without a codebook.
    """

    images: Tensor
    features: Tensor
    posterior: Posterior
    regularization: Tensor
    codes: Tensor | None


class Autoencoder(nn.Module):
    """Encodes images [B, C, H, W] in [-1, 1] as latents [B, latent_channels, H/f, W/f]; the sides are multiples of f.

    downsampling:     the factor f.
    latent_channels:  channels of a latent.
    moments_channels: channels of the moments of its distribution: twice as many, or as many with a codebook.

    State-dict keys: encoder.*, decoder.*, quant_conv.*, post_quant_conv.*, and with a codebook
    regularizer.embedding.weight.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.downsampling, self.latent_channels = config.downsampling, config.latent_channels
        self.moments_channels = config.moments_channels
        encoder, decoder = plan_encoder(config), plan_decoder(config)
        self.encoder, self.decoder = Encoder(encoder), Decoder(decoder, config.tanh_output)
        self.quant_conv = nn.Conv2d(encoder.out_channels, config.moments_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.z_channels, 1)
        regularizer = REGULARIZERS.builder(config.regularizer)(config.regularizer, channels=config.latent_channels)
        assert isinstance(regularizer, Regularizer)
        self.regularizer = regularizer

    def last_layer_gradient(self, features: Tensor, gradient: Tensor) -> Tensor:
        """The gradient of a loss at the weight of the decoder's last convolution, where adversarial losses are weighed
        against others (VQGAN, eq. 7).

        features: [B, D, H, W] of a `Reconstruction`; gradient: of the loss at its images, [B, C, H, W]. -> the shape of
        the weight. Neither changes, and no other layer is passed backwards.
        """
        weight = self.decoder.conv_out.weight.detach().requires_grad_()
        with torch.enable_grad(), torch.autocast(features.device.type, enabled=False):
            images = self.decoder.output(features.detach().to(weight.dtype), weight)
            (found,) = torch.autograd.grad(images, weight, gradient.to(weight.dtype))
        return found

    def encode(self, x: Tensor) -> Posterior:
        """Images [B, C, H, W] in [-1, 1] -> the distribution of their latents.

        Raises ValueError for another number of channels, or sides that are no multiples of f.
        """
        self.refuse_other_images(x)
        return self.posterior(self.quant_conv(self.encoder(x)))

    def posterior(self, moments: Tensor) -> Posterior:
        """Moments [B, moments_channels, h, w], as `encode(x).moments`, -> the distribution that they describe."""
        return self.regularizer.posterior(moments)

    def decode(self, z: Tensor, *, quantize: bool = True) -> Tensor:
        """Latents [B, latent_channels, h, w] -> images [B, C, f h, f w], about in [-1, 1].

        quantize: whether each place of a latent is first replaced by the nearest vector of the codebook, if there is
            one; the latents of latent diffusion are those before quantisation.
        Raises ValueError for another number of channels.
        """
        return self.decoder(self.decodable(z, quantize=quantize))

    def decodable(self, z: Tensor, *, quantize: bool = True) -> Tensor:
        """The input of the decoder [B, z_channels, h, w] for latents [B, latent_channels, h, w]; see `decode`."""
        if z.ndim != 4 or z.shape[1] != self.latent_channels:
            raise ValueError(f"this autoencoder decodes latents [B, {self.latent_channels}, h, w], got {list(z.shape)}")
        if quantize:
            z = self.regularizer.decodable(z)
        return self.post_quant_conv(z.to(self.post_quant_conv.weight.dtype))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Images [B, C, H, W] in [-1, 1] through the latent and back.

        noise: standard normal [B, latent_channels, H/f, W/f], by which latents are sampled; None takes their mode. A
            codebook has no use for it.
        """
        posterior = self.encode(x)
        regularized = self.regularizer(posterior, noise)
        features = self.decoder.features(self.decodable(regularized.latent, quantize=False))
        images = self.decoder.output(features)
        return Reconstruction(images, features, posterior, regularized.loss, regularized.codes)

    def refuse_other_images(self, x: Tensor) -> None:
        """Raises ValueError unless x is [B, C, H, W] with the channels and a size that the encoder takes."""
        channels, f = self.config.channels, self.downsampling
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"this autoencoder takes images [B, {channels}, H, W], got {list(x.shape)}")
        if x.shape[2] % f or x.shape[3] % f:
            raise ValueError(f"image height and width must be multiples of {f}, got {x.shape[2]}x{x.shape[3]}")


def build(config: AutoencoderConfig, *, image_size: int, learned_variance: bool) -> Autoencoder:
    """Builds the network of a configuration; see `build_network`. Images have no variance.

    Raises ValueError if the images are no multiple of f.
    """
    config.refuse_size(image_size)
    return Autoencoder(config)

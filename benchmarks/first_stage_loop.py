"""The training loop of an adversarial autoencoder that one would write by hand, around modules that exist already."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.config.optimizer import OptimizerConfig
from difflab.errors import UserError
from difflab.networks.autoencoder.model import Autoencoder
from difflab.tasks.autoencoder.config import AutoencoderTrainConfig, DiscriminatorConfig


class AdversarialLoop:
    """VQGAN's step (Esser et al. 2021): the autoencoder against a discriminator with the adaptive weight, then the
    discriminator. Nothing is logged, saved or checked.

    network:   an autoencoder; distance: its perceptual distance, None for none.
    images:    uint8 [B, C, H, W] batches that lie on the network's device already; the loop goes round and round.
    autocast:  the type of the networks' arithmetic, None for float32.

    As in difflab, the gradients of both losses are taken at the reconstructions once, and passed on from there.
    Raises UserError for a configuration that would make the loop more than this.
    """

    def __init__(
        self,
        network: Autoencoder,
        distance: nn.Module | None,
        discriminator: nn.Module,
        images: Sequence[Tensor],
        config: AutoencoderTrainConfig,
        *,
        autocast: torch.dtype | None = None,
    ) -> None:
        options = _plain(config)
        self.network, self.distance, self.discriminator = network.train(), distance, discriminator.train()
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.batches = itertools.cycle(images)
        self.pixel_error = {"l1": F.l1_loss, "l2": F.mse_loss}[config.pixel_loss]
        self.perceptual_weight, self.adversarial_weight = config.perceptual_weight, options.weight
        regularizer = config.autoencoder.regularizer
        self.summed, self.regularizer_weight = regularizer.summed, regularizer.weight
        self.optimizer = _optimizer(config.optimizer, self.parameters)
        self.discriminators = list(discriminator.parameters())
        self.discriminator_optimizer = _optimizer(options.optimizer, self.discriminators)
        self.gradient_clip, self.autocast = config.trainer.gradient_clip, autocast

    def step(self) -> None:
        """One batch, optimised by both."""
        images = next(self.batches).float().div_(127.5).sub_(1.0)
        sides = [side // self.network.downsampling for side in images.shape[2:]]
        noise = torch.randn(len(images), self.network.latent_channels, *sides, device=self.device)
        minimised, reconstructions = self.loss(images, noise)
        minimised.backward()
        self._update(self.optimizer, self.parameters)
        self.discriminator_loss(images, reconstructions).backward()
        self._update(self.discriminator_optimizer, self.discriminators)

    def loss(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What has the gradient of the autoencoder's loss, up to a constant, and the reconstructions [B, C, H, W]."""
        with self._forward():
            found = self.network(images, noise)
        y = found.images.detach().float().requires_grad_()
        with self._forward():
            error = self.pixel_error(y, images, reduction="none").flatten(1).mean(dim=1)
            if self.distance is not None:
                error = error + self.perceptual_weight * self.distance(y, images)
            nll = error.mean() * (images[0].numel() if self.summed else 1)
            (of_nll,) = torch.autograd.grad(nll, y)
            (of_g,) = torch.autograd.grad(-self.discriminator(y).mean(), y)
        norms = [self.network.last_layer_gradient(found.features, gradient).norm() for gradient in (of_nll, of_g)]
        weight = self.adversarial_weight * (norms[0] / (norms[1] + 1e-4)).clamp(0.0, 1e4)
        passed_on = (found.images * (of_nll + weight * of_g)).sum()
        return passed_on + self.regularizer_weight * found.regularization.mean(), y.detach()

    def discriminator_loss(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """The hinge loss of both, [B, C, H, W]."""
        with self._forward():
            real, fake = self.discriminator(images), self.discriminator(reconstructions)
        return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())

    def _update(self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> None:
        if self.gradient_clip:
            nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _forward(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)


def _optimizer(config: OptimizerConfig, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.kind]
    betas, eps, decay = (config.betas[0], config.betas[1]), config.eps, config.weight_decay
    return kind(parameters, lr=config.lr, betas=betas, eps=eps, weight_decay=decay, fused=True)


def _plain(config: AutoencoderTrainConfig) -> DiscriminatorConfig:
    options = config.discriminator
    if options is None:
        raise UserError("the bare loop trains against a discriminator, from the start; benchmark another experiment")
    plain = {
        "discriminator.start": (options.start, 0),
        "discriminator.loss": (options.loss, "hinge"),
        "discriminator.recompute": (options.recompute, False),
        "log_variance": (config.log_variance, 0.0),
        "learn_log_variance": (config.learn_log_variance, False),
        "restart_codes_every": (config.restart_codes_every, None),
        "trainer.accumulate": (config.trainer.accumulate, 1),
        "callbacks.ema": (config.callbacks.ema, None),
    }
    for key, (value, known) in plain.items():
        if value != known:
            said = {None: "null", False: "false"}.get(known, known)
            raise UserError(f"the bare loop knows only {key}={said}; benchmark another experiment, or set it")
    return options

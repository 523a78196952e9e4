"""The autoencoder LightningModule: reconstructions, against a discriminator from some batch on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from difflab.config.optimizer import OptimizerConfig
from difflab.diffusion.noise import SampleNoise
from difflab.images import to_float
from difflab.networks.autoencoder.model import Autoencoder, Reconstruction
from difflab.seeding import stream_seed
from difflab.tasks.autoencoder.adversary import Adversary, against
from difflab.tasks.autoencoder.codebook import CodeCounts, restart_dead_codes, usage_means
from difflab.tasks.autoencoder.likelihood import Errors, ReconstructionLoss
from difflab.tasks.stepping import ONLY, Optimized, Part
from difflab.tasks.training_module import StepTerms, TrainingModule
from difflab.tasks.windows import MeanWindow
from difflab.types import Batch

AUTOENCODER, DISCRIMINATOR = "autoencoder", "discriminator"

FOUGHT = ("g", "d", "d_weight", "logits_real", "logits_fake")
JUDGED = ("d", "logits_real", "logits_fake")

_log = logging.getLogger(__name__)


class AutoencoderModule(TrainingModule):
    """Trains an autoencoder on nll + regularizer_weight * regularization + weight * g, where g is the loss against the
    discriminator, and the discriminator on the same batches; each has its own optimizer.

    network:   images [B, C, H, W] in [-1, 1] -> `Reconstruction`.
    error:     the nll.
    adversary: from `adversary.start` batches on; None trains without one.
    term:      the name under which the regularization is logged.
    restart_codes_every: steps between two restarts of dead codes; None for none.

    A part of a batch has its own adaptive weight, and the discriminator's batch normalization its own statistics.
    Logs `loss` (in validation without the adversarial part), `nll`, `rec` (the error of pixels), `perceptual`, and the
    regularization; from the start of the adversary on `g` and `d` (the two losses), `d_weight` (the adaptive weight
    times its factor), `logits_real` and `logits_fake`; of a codebook, over all samples between two lines,
    `perplexity` and `codes_used`, a share.
    """

    def __init__(
        self,
        network: Autoencoder,
        optimizer: OptimizerConfig,
        *,
        error: ReconstructionLoss,
        adversary: Adversary | None,
        term: str,
        regularizer_weight: float,
        restart_codes_every: int | None = None,
        seed: int,
        max_steps: int,
        accumulate: int = 1,
        gradient_clip: float = 0.0,
    ) -> None:
        perceptual = () if error.distance is None else ("perceptual",)
        logged = ("loss", "nll", "rec", *perceptual, term)
        super().__init__(
            optimizer,
            seed=seed,
            max_steps=max_steps,
            accumulate=accumulate,
            gradient_clip=gradient_clip,
            window=MeanWindow(logged),
            validation_window=MeanWindow(logged),
        )
        self.network, self.error, self.adversary = network, error, adversary
        self.discriminator = None if adversary is None else adversary.discriminator
        self.term, self.regularizer_weight, self.restart_codes_every = term, regularizer_weight, restart_codes_every
        self.fought, self.judged = MeanWindow(FOUGHT), MeanWindow(JUDGED)
        codebook = network.regularizer.codebook
        size = 0 if codebook is None else len(codebook)
        self.codes, self.validated_codes, self.codes_since_restart = (CodeCounts(size) for _ in range(3))

    def optimized(self) -> Mapping[str, Optimized]:
        own = Optimized((self.network, self.error), self.optimizer_config)
        if self.adversary is None:
            return {ONLY: own}
        theirs = Optimized((self.adversary.discriminator,), self.adversary.optimizer)
        return {AUTOENCODER: own, DISCRIMINATOR: theirs}

    def training_only(self) -> Sequence[nn.Module]:
        return (self.error,) if self.discriminator is None else (self.error, self.discriminator)

    def networks(self) -> Sequence[nn.Module]:
        return (self.network,) if self.discriminator is None else (self.network, self.discriminator)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] through the mode of their latent and back; about in [-1, 1]."""
        return self.network(images).images

    # -- the step -----------------------------------------------------------------------------------------------------

    @property
    def is_fought(self) -> bool:
        """Whether the discriminator takes part in this step."""
        return self.adversary is not None and self.train_step >= self.adversary.start

    def optimize(self, batch: Batch) -> Tensor:
        optimizer = ONLY if self.adversary is None else AUTOENCODER
        done: list[_Done] = []
        for part in self.parts(batch):
            images, found = self._passed(part.batch, part.seeds)
            terms, fought = self._minimised(images, found)
            self.add_gradients(terms.minimised, part, optimizer)
            done.append(_Done(part, images, found.images.detach(), found.posterior.mode().detach(), terms, fought))
            self._count(found.codes, self.codes, self.codes_since_restart)
        self.update(optimizer)
        if self.adversary is not None and self.is_fought:
            self._update_discriminator(self.adversary, done)
        for one in done:
            self.record(one.terms)
        self._restart_codes(torch.cat([one.latents for one in done]))
        return torch.stack([one.terms.minimised.detach() for one in done]).mean()

    def _passed(self, batch: Batch, seeds: Sequence[int]) -> tuple[Tensor, Reconstruction]:
        images = to_float(batch["image"])
        if self.network.regularizer.codebook is not None:
            return images, self.network(images)
        sides = (side // self.network.downsampling for side in images.shape[2:])
        noise = SampleNoise(seeds, self.device).randn((self.network.latent_channels, *sides))
        return images, self.network(images, noise)

    def _minimised(self, images: Tensor, found: Reconstruction) -> tuple[StepTerms, dict[str, Tensor]]:
        """The loss, and the values to be logged of the adversary, if it takes part."""
        if self.adversary is None or not self.is_fought:
            values = self._values(self.error(found.images, images), found.regularization)
            return StepTerms(values["loss"].mean(), values), {}
        fought = against(
            self.adversary,
            self.error,
            found.images,
            images,
            lambda gradient: self.network.last_layer_gradient(found.features, gradient),
        )
        values = self._values(fought.errors, found.regularization)
        values["loss"] = values["loss"] + fought.weight * fought.g
        # Has the gradient of the loss, which `against` has computed back to the reconstructions, and its value.
        passed_on = (found.images * fought.gradient).sum() + self.regularizer_weight * found.regularization.mean()
        if fought.of_log_variance is not None:
            passed_on = passed_on + self.error.log_variance * fought.of_log_variance
        minimised = values["loss"].mean().detach() + (passed_on - passed_on.detach())
        return StepTerms(minimised, values), {"g": fought.g, "d_weight": fought.weight.expand(len(images))}

    def _values(self, errors: Errors, regularization: Tensor) -> dict[str, Tensor]:
        loss = errors.nll + self.regularizer_weight * regularization
        values = {"loss": loss, "nll": errors.nll, "rec": errors.pixel, self.term: regularization}
        return values if errors.perceptual is None else {**values, "perceptual": errors.perceptual}

    def _update_discriminator(self, adversary: Adversary, done: Sequence[_Done]) -> None:
        for one in done:
            reconstructions = one.reconstructions
            if adversary.recompute:
                with torch.no_grad():
                    reconstructions = self._passed(one.part.batch, one.part.seeds)[1].images
            judged = self._judged(adversary, one.images, reconstructions)
            self.add_gradients(judged["d"].mean(), one.part, DISCRIMINATOR)
            values = {name: value.detach() for name, value in (one.fought | judged).items()}
            self.fought.add(values, None, torch.isfinite(values["d"]))
        self.update(DISCRIMINATOR)

    def _judged(self, adversary: Adversary, images: Tensor, reconstructions: Tensor) -> dict[str, Tensor]:
        """The discriminator's loss and mean logits of each image, [B] each."""
        real, fake = (adversary.discriminator(x.float()) for x in (images, reconstructions))
        means = {"logits_real": real.flatten(1).mean(dim=1), "logits_fake": fake.flatten(1).mean(dim=1)}
        return {"d": adversary.loss(real, fake), **means}

    def _count(self, codes: Tensor | None, *counts: CodeCounts) -> None:
        if codes is not None:
            for one in counts:
                one.add(codes)

    def _restart_codes(self, latents: Tensor) -> None:
        codebook, every, step = self.network.regularizer.codebook, self.restart_codes_every, self.train_step + 1
        if codebook is None or every is None or self.step_skipped or step % every:
            return
        counts = self._summed(self.codes_since_restart.pop())
        restarted = restart_dead_codes(codebook, counts, latents, stream_seed(self.seed, "codes", step))
        if restarted:
            _log.info("step %d: %d of %d codes were not used and begin anew", step, restarted, len(codebook))

    # -- validation and means -----------------------------------------------------------------------------------------

    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        """The loss without the adversary. In validation the discriminator and the codes are looked at, too."""
        images, found = self._passed(batch, seeds)
        if not training:
            weight = batch["weight"].to(self.device)
            if self.adversary is not None and self.is_fought:
                self.judged.add(self._judged(self.adversary, images, found.images), None, weight)
            self._count(None if found.codes is None else found.codes[weight > 0], self.validated_codes)
        values = self._values(self.error(found.images, images), found.regularization)
        return StepTerms(values["loss"].mean(), values)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.judged.pop()
        self.validated_codes.pop()

    def validation_means(self) -> dict[str, float]:
        judged = self.judged.means(self._over_all_ranks(self.judged), "val")
        return {**super().validation_means(), **judged, **self._usage(self.validated_codes.counts(), "val")}

    def training_means(self) -> dict[str, float]:
        fought = self.fought.means(self._over_all_ranks(self.fought), "train")
        self.fought.pop()
        return {**super().training_means(), **fought, **self._usage(self.codes.pop(), "train")}

    def _usage(self, counts: Tensor, prefix: str) -> dict[str, float]:
        return usage_means(self._summed(counts), prefix) if len(counts) else {}

    def _summed(self, counts: Tensor) -> Tensor:
        total = self.trainer.strategy.reduce(counts.to(self.device, copy=True), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def task_state(self) -> dict[str, Any]:
        counted = {"codes": self.codes, "codes_since_restart": self.codes_since_restart}
        return {
            "fought": self._over_all_ranks(self.fought).cpu(),
            **{name: self._summed(one.counts()).cpu() for name, one in counted.items()},
        }

    def load_task_state(self, state: dict[str, Any]) -> None:
        if self.global_rank == 0:
            self.fought.restore(state["fought"])
            self.codes.restore(state["codes"])
            self.codes_since_restart.restore(state["codes_since_restart"])


@dataclass(frozen=True)
class _Done:
    """What a part of a batch leaves behind; `fought` are values to be logged of the adversary."""

    part: Part
    images: Tensor
    reconstructions: Tensor
    latents: Tensor
    terms: StepTerms
    fought: dict[str, Tensor]

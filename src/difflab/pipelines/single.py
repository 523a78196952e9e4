"""One trained model put together for sampling: network, conditioners, sampler and guidance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.class_label import ClassConditioner
from difflab.config.guidance import GuidanceConfig
from difflab.config.sampler import SamplerConfig
from difflab.diffusion.build import build_guidance, build_sampler, build_threshold
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import GaussianProcess
from difflab.errors import UserError, user_errors
from difflab.images import Rounding, to_uint8
from difflab.seeding import stream_seed
from difflab.types import Conditioning, StepHook


class SinglePipeline:
    """Draws samples of one model. Sample i of seed s has the same noise whatever the batch it is drawn in.

    shape: of one sample, (C, H, W).
    autocast: dtype of the network's arithmetic, None for full precision; the sampler always works in float32.
    """

    def __init__(
        self,
        network: nn.Module,
        conditioners: ConditionerSet,
        process: GaussianProcess,
        shape: tuple[int, ...],
        *,
        sampler: SamplerConfig,
        guidance: GuidanceConfig,
        rounding: Rounding = "truncate",
        autocast: torch.dtype | None = None,
    ) -> None:
        self.network = network
        self.conditioners = conditioners
        self.shape = shape
        self.guidance = guidance
        self.sampler_config = sampler
        with user_errors("sampler"):
            self.sampler = build_sampler(sampler)
            self.process = self.sampler.respace(process)
        self.rounding: Rounding = rounding
        self.autocast = autocast

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def draw(
        self, indices: Sequence[int], seed: int, *, classes: Sequence[int] | None = None, hook: StepHook | None = None
    ) -> Tensor:
        """float32 [len(indices), C, H, W], nominally in [-1, 1], on the model's device.

        classes: one per sample for a class-conditional model; drawn uniformly from (seed, index) when None.
        """
        training = self.network.training
        self.network.eval()
        try:
            noise = SampleNoise([stream_seed(seed, "sample", i) for i in indices], self.device)
            start = noise.randn(self.shape)
            denoiser = NetworkDenoiser(
                self._network,
                self.process,
                self._conditioning(indices, seed, classes),
                guidance=build_guidance(self.guidance),
                threshold=build_threshold(self.guidance),
                rederive_eps=self.guidance.rederive_eps,
            )
            return self.sampler(denoiser, self.process, start, noise, hook)
        finally:
            self.network.train(training)

    def __call__(self, indices: Sequence[int], seed: int, classes: Sequence[int] | None = None) -> Tensor:
        """The same as uint8 [len(indices), C, H, W]."""
        return to_uint8(self.draw(indices, seed, classes=classes), self.rounding)

    def labels(self, indices: Sequence[int], seed: int) -> list[int] | None:
        """The classes that `draw` takes when it is given none, or None for a model without classes."""
        classes = self._class_count()
        return None if classes is None else [stream_seed(seed, "class", i) % classes for i in indices]

    def _network(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        with torch.autocast(x.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            return self.network(x, time, conditioning).float()

    def check_classes(self, classes: Sequence[int]) -> None:
        """Raises UserError for classes that this model does not have."""
        count = self._class_count()
        if count is None:
            raise UserError("this model has no classes: leave classes=null")
        wrong = next((label for label in classes if not 0 <= label < count), None)
        if wrong is not None:
            raise UserError(f"class {wrong} is not in 0..{count - 1}, the classes of this model")

    def _conditioning(self, indices: Sequence[int], seed: int, classes: Sequence[int] | None) -> Conditioning | None:
        if classes is not None:
            self.check_classes(classes)
        labels = self.labels(indices, seed) if classes is None else list(classes)
        if labels is None:
            return None
        return self.conditioners.conditioning({"label": torch.tensor(labels, device=self.device)})

    def _class_count(self) -> int | None:
        return next((c.classes for _, c in self.conditioners.named() if isinstance(c, ClassConditioner)), None)

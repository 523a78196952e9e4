"""Drawing the same images with difflab's pipeline and with diffusers' network and scheduler in a loop by hand."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.devices import Way
from benchmarks.peer import PeerNetwork, class_conditioner
from difflab.compiling import Compilation
from difflab.config.guidance import GuidanceConfig
from difflab.config.request import RequestConfig
from difflab.config.sampler import SamplerConfig
from difflab.devices import Accelerator, on_cuda_only, sampling_autocast
from difflab.diffusion.guidance.config import ClassifierFreeGuidance
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.samplers.config import DDIMConfig
from difflab.errors import UserError
from difflab.interop.diffusers_scheduler import to_scheduler_config
from difflab.pipelines.base import Pipeline
from difflab.pipelines.build import pipeline_of
from difflab.pipelines.diffusing import DiffusingStage
from difflab.requests.base import labels_of
from difflab.seeding import stream_seed
from difflab.tasks.build import Model

Drawer = Callable[[], Tensor]
"""Draws one batch, float32 [B, C, H, W] in [-1, 1]."""

SEED = 0


@dataclass(frozen=True)
class Drawing:
    """What every contender draws: a batch of one model, DDIM steps, classifier-free guidance of a scale."""

    model: Model
    accelerator: Accelerator
    steps: int
    batch: int
    scale: float

    @property
    def device(self) -> torch.device:
        return torch.device(self.accelerator)

    @property
    def ddim(self) -> DDIMConfig:
        """Steps 0, r, 2r, ... and no noise, which both libraries have alike."""
        return DDIMConfig(kind="ddim", steps=self.steps, spacing="leading")

    @property
    def guidance(self) -> ClassifierFreeGuidance:
        """x0 is clipped to [-1, 1] and eps follows it, the default of every experiment."""
        return ClassifierFreeGuidance(kind="classifier_free", scale=self.scale)

    def pipeline(
        self, way: Way, sampler: SamplerConfig | None = None, guidance: GuidanceConfig | None = None
    ) -> Pipeline:
        """difflab's pipeline, with a network of its own, laid out the way that is asked for."""
        model = self.model
        compilation = Compilation(way.compile, self.batch, self.batch, self.device.type)
        stage = DiffusingStage(
            replace(way, compile=False).placed(copy.deepcopy(model.network), self.device),
            copy.deepcopy(model.conditioners).to(self.device),
            model.process,
            model.config.shape,
            sampler=sampler or self.ddim,
            guidance=guidance or self.guidance,
            autocast=way.autocast,
            compilation=compilation,
        )
        return pipeline_of({"single": stage}, RequestConfig())

    def ours(self, way: Way, guidance: GuidanceConfig | None = None) -> Drawer:
        """A batch as `difflab sample` draws it."""
        pipeline = self.pipeline(way, guidance=guidance)
        return lambda: pipeline.draw(range(self.batch), SEED)

    def theirs(self, way: Way, peer: PeerNetwork) -> Drawer:
        """The same images by the loop that the examples of diffusers have."""
        unet = way.placed(copy.deepcopy(peer), self.device).eval()
        scheduler = self._scheduler()
        labels = self._numbers()
        shape = self.model.config.shape

        @torch.inference_mode()
        def draw() -> Tensor:
            x = SampleNoise([stream_seed(SEED, "sample", i) for i in range(self.batch)], self.device).randn(shape)
            scheduler.set_timesteps(self.steps)
            for t in scheduler.timesteps:
                inputs = scheduler.scale_model_input(torch.cat([x, x]) if self._guided else x, t)
                with torch.autocast(self.device.type, way.autocast, enabled=way.autocast is not None):
                    out = unet(inputs, t, labels)
                # Of a learned variance DDIM makes no use.
                eps = out[:, : shape[0]].float()
                if self._guided:
                    conditional, unconditional = eps.chunk(2)
                    eps = unconditional + self.scale * (conditional - unconditional)
                x = scheduler.step(eps, t, x, use_clipped_model_output=self.guidance.rederive_eps).prev_sample
            return x

        return draw

    @property
    def _guided(self) -> bool:
        return self.scale != 1.0

    def _numbers(self) -> Tensor | None:
        """The classes of the batch, then as often the null class where guidance asks for it."""
        conditioner = class_conditioner(self.model.conditioners)
        if conditioner is None:
            return None
        labels = labels_of(self.pipeline(Way()).request(range(self.batch), SEED)) or []
        null = [conditioner.classes] * len(labels) if self._guided else []
        return torch.tensor([*labels, *null], device=self.device)

    def _scheduler(self) -> Any:
        from diffusers import DDIMScheduler

        config = to_scheduler_config(
            self.model.config.model_copy(update={"guidance": self.guidance, "sampler": self.ddim})
        )
        ancestral_only = ("_class_name", "variance_type")
        return DDIMScheduler(**{key: value for key, value in config.items() if key not in ancestral_only})


class NetworkClock:
    """Sums up the seconds inside a network while it is watched, with all that it queued on the device."""

    def __init__(self, synchronise: Callable[[], object]) -> None:
        self._synchronise = synchronise
        self.seconds = 0.0

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Inside, every call of `network` counts."""
        handles = [network.register_forward_pre_hook(self._begin), network.register_forward_hook(self._end)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, *_: object) -> None:
        self._synchronise()
        self._began = time.perf_counter()

    def _end(self, *_: object) -> None:
        self._synchronise()
        self.seconds += time.perf_counter() - self._began


def default_way(accelerator: Accelerator) -> Way:
    """How `difflab sample` runs a network when nothing is said."""
    bf16 = sampling_autocast("auto", accelerator) is not None
    return Way(bf16=bf16, channels_last=on_cuda_only("auto", accelerator))


def fill_zero_layers(module: nn.Module) -> None:
    """Draw the layers that training starts at zero: the images of drawn weights then depend on the whole network."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)


def require_same_images(ours: Tensor, theirs: Tensor, tolerance: float) -> float:
    """The largest difference of two batches. Raises UserError where it is above `tolerance`."""
    difference = float((ours - theirs).abs().max())
    if not difference <= tolerance:
        raise UserError(f"diffusers draws other images than difflab: they differ by {difference:.1e}; report it")
    return difference


def levels_apart(images: Tensor, others: Tensor) -> tuple[float, float]:
    """The largest and the mean difference of two batches in [-1, 1], in 8-bit levels before rounding."""
    levels = 127.5 * (images.clamp(-1, 1) - others.clamp(-1, 1)).abs()
    return float(levels.max()), float(levels.mean())

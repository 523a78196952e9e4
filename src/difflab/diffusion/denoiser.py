"""A network, its process and its guidance combined into the single call that a sampler makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from difflab.diffusion.base_process import Levels, Process
from difflab.diffusion.guidance.base import Guidance, NetworkInput, combine_all, prepare_all
from difflab.diffusion.thresholding import Threshold
from difflab.types import Conditioning, Denoised, Network, NoiseLevel, StepContext


class NetworkDenoiser:
    """A denoiser made from a network: (x [B, C, ...], StepContext) -> Denoised.

    Order within a step: prepare -> network -> process.predict -> combine -> threshold. The sampler then replaces the
    known region (`KnownRegion`), computes the posterior and applies the shifts of the guidance.

    process:      the process that the sampler steps on: `sampler.respace(process)`. Steps on a row of its table use the
                  coefficients of that row, other steps those of their level.
    conditioning: the network's conditioning, with B rows.
    threshold:    keeps x0 in range; None outside pixel space.
    rederive_eps: after x0 has changed, eps is recomputed from it (ADM, GLIDE). False keeps the network's eps
                  (diffusers' `use_clipped_model_output=False`).
    one_batch:    evaluate all inputs of its own network in one batch. False evaluates them one after the other: the
                  same predictions up to rounding, slower, in less memory.

    Raises ValueError if a step names a row whose level differs in `process`.
    """

    def __init__(
        self,
        network: Network,
        process: Process,
        conditioning: Conditioning | None = None,
        *,
        guidance: Sequence[Guidance] = (),
        threshold: Threshold | None = None,
        rederive_eps: bool = True,
        one_batch: bool = True,
    ) -> None:
        self.network = network
        self.process = process
        self.conditioning = conditioning
        self.guidance = tuple(guidance)
        self.threshold = threshold
        self.rederive_eps = rederive_eps
        self.one_batch = one_batch

    def on(self, process: Process) -> NetworkDenoiser:
        """Returns the same denoiser on another (respaced) process."""
        return NetworkDenoiser(
            self.network,
            process,
            self.conditioning,
            guidance=self.guidance,
            threshold=self.threshold,
            rederive_eps=self.rederive_eps,
            one_batch=self.one_batch,
        )

    def __call__(self, x: Tensor, step: StepContext) -> Denoised:
        self._check_row(step)
        inputs, counts = prepare_all(self.guidance, x, self.conditioning, step)
        denoised = combine_all(self.guidance, self._predict(inputs, step), counts, step)
        return self._keep_in_range(denoised, x, step)

    def at_levels(self, x: Tensor, levels: Sequence[NoiseLevel], rows: Tensor | None = None) -> Denoised:
        """Returns the network's own prediction for x [b, ...], with a separate level for every sample.

        rows: int64 [b], which samples of the batch these are; None for all of them, in order.
        Gradients with respect to x are kept if they are enabled. Raises ValueError if the denoiser has guidance or a
        threshold.
        """
        if self.guidance or self.threshold is not None:
            raise ValueError("guidance and thresholds are not supported with a separate level per sample: remove them")
        conditioning = self.conditioning if self.conditioning is None or rows is None else self.conditioning[rows]
        each = Levels.of(levels, x)
        times = torch.tensor([self.process.time_at(level) for level in levels], dtype=torch.float32, device=x.device)
        output = self.network(self.process.input_at(x, each), times, conditioning).to(x.dtype)
        return self.process.predict_at(output, x, each)

    def _predict(self, inputs: Sequence[NetworkInput], step: StepContext) -> list[Denoised]:
        own = [one for one in inputs if one.denoiser is None]
        together = self.one_batch and len(own) > 1
        outputs = iter(self._run_together(own, step.level) if together else [self._run(one, step.level) for one in own])
        return [
            self._read(next(outputs), one.x, step) if one.denoiser is None else one.denoiser(one.x, step)
            for one in inputs
        ]

    def _read(self, output: Tensor, x: Tensor, step: StepContext) -> Denoised:
        """Converts the network's output to x0 and eps."""
        if step.table_index is None:
            return self.process.predict_at(output, x, step.level)
        assert self.process.table is not None, "checked at the start of the step"
        return self.process.table.predict(output, x, step.table_index)

    def _check_row(self, step: StepContext) -> None:
        row, table = step.table_index, self.process.table
        if row is None:
            return
        if table is None or row >= len(table) or table.level(row) != step.level:
            raise ValueError(
                f"row {row} of the denoiser's process has a different noise level from the sampler's: "
                "build the denoiser with sampler.respace(process)"
            )

    def _run_together(self, inputs: Sequence[NetworkInput], level: NoiseLevel) -> list[Tensor]:
        conditions = [one.conditioning for one in inputs if one.conditioning is not None]
        if conditions and len(conditions) != len(inputs):
            raise ValueError("guidance prepared some inputs with conditioning and some without; give it to all")
        conditioning = Conditioning.cat(conditions) if conditions else None
        joined = NetworkInput(torch.cat([one.x for one in inputs]), conditioning)
        return list(self._run(joined, level).split([len(one.x) for one in inputs]))

    def _run(self, one: NetworkInput, level: NoiseLevel) -> Tensor:
        time = self.process.time_at(level)
        times = torch.full((len(one.x),), time, dtype=torch.float32, device=one.x.device)
        return self.network(self.process.input_at(one.x, level), times, one.conditioning).to(one.x.dtype)

    def _keep_in_range(self, denoised: Denoised, x: Tensor, step: StepContext) -> Denoised:
        if self.threshold is None:
            return denoised
        x0 = self.threshold(denoised.x0)
        eps = (x - step.level.alpha * x0) / step.level.sigma if self.rederive_eps else denoised.eps
        return dataclasses.replace(denoised, x0=x0, eps=eps)

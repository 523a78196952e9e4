"""The likelihood pipeline: one trained model with its conditioners, and the method that computes bits per dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from difflab.compiling import Compilation
from difflab.config.likelihood import BoundConfig, MethodConfig, ODEConfig
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.likelihood import bits_per_dim
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.ode_likelihood import Adaptive, FixedSteps, Solver, ode_bits_per_dim, sigma_ends
from difflab.diffusion.thresholding import StaticThreshold
from difflab.errors import UserError, user_errors
from difflab.images import as_float
from difflab.metrics.likelihood import Measured
from difflab.pipelines.finite import first_broken_weight, named
from difflab.seeding import stream_seed
from difflab.tasks.build import NoisedModel
from difflab.types import Batch


class LikelihoodPipeline:
    """Computes bits per dimension of images, each with its own conditioning and nothing dropped.

    The noise of an image depends on the seed and its index alone, not on the batch.
    autocast: dtype of the network's arithmetic, None for float32.
    compilation: whether the network is compiled, None for not; never for the ODE, which differentiates the network.

    Raises UserError if the model has no likelihood by this method.
    """

    def __init__(
        self,
        model: NoisedModel,
        method: MethodConfig,
        *,
        autocast: torch.dtype | None = None,
        compilation: Compilation | None = None,
    ) -> None:
        if model.first_stage is not None:
            raise UserError(
                "this model diffuses latents, and their likelihood is not that of images: measure samples "
                "(`difflab evaluate`)"
            )
        if isinstance(method, BoundConfig):
            if model.process.table is None:
                raise UserError(
                    "method=bound adds up the steps of a table, and this model was trained in continuous time: "
                    "use method=ode"
                )
        else:
            with user_errors("method"):
                sigma_ends(model.process, method.sigma_min, method.sigma_max)
        self.model = model
        self.method = method
        self.autocast = autocast
        self.compilation = compilation or Compilation()

    @property
    def device(self) -> torch.device:
        return next(self.model.network.parameters()).device

    @property
    def steps(self) -> int:
        """The number of terms of the bound, 0 for the ODE."""
        table = self.model.process.table
        return table.num_timesteps if self.method.kind == "bound" and table is not None else 0

    @property
    def sigmas(self) -> list[float]:
        """sigma / alpha of the bound's terms, in increasing order."""
        table = self.model.process.table
        assert table is not None, "checked at construction"
        return [table.level(t).edm_sigma for t in range(self.steps)]

    def record(self) -> dict[str, Any]:
        """The method, with the actual ends of the ODE and without options that have no effect."""
        if isinstance(self.method, BoundConfig):
            return self.method.model_dump(mode="json")
        unused = {"steps"} if self.method.solver == "dopri5" else {"rtol", "atol"}
        low, high = sigma_ends(self.model.process, self.method.sigma_min, self.method.sigma_max)
        return {**self.method.model_dump(mode="json", exclude=unused), "sigma_min": low, "sigma_max": high}

    def __call__(self, batch: Batch, seed: int) -> Measured:
        """batch: `image` uint8 [B, C, H, W], `index` int64 [B] and the conditioners' fields, on any device.

        Raises UserError if the likelihood of an image is not finite.
        """
        seeds = [stream_seed(seed, "likelihood", i) for i in batch["index"].tolist()]
        with user_errors():
            self.model.conditioners.check(batch)
        moved = {key: value.to(self.device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        clips = isinstance(self.method, BoundConfig) and self.method.clip_denoised
        with torch.no_grad():
            denoiser = NetworkDenoiser(
                self.compilation.network(self.model.network, self.autocast, rows=len(seeds), calls=self.steps),
                self.model.process,
                self.model.conditioners.conditioning(moved, seeds=seeds),
                threshold=StaticThreshold(1.0) if clips else None,
            )
            x0 = as_float(moved["image"])
            if isinstance(self.method, ODEConfig):
                found = self._by_ode(denoiser, x0, seeds, self.method)
            else:
                found = self._by_bound(denoiser, x0, seeds)
        self._refuse_non_finite(found, batch["index"].tolist())
        return found

    def _refuse_non_finite(self, found: Measured, indices: Sequence[int]) -> None:
        bad = ~torch.isfinite(found.total)
        if not bool(bad.any()):
            return
        where = ""
        if found.terms is not None and not bool(torch.isfinite(found.terms.vb).all()):
            # The terms are computed from the last row down.
            step = int((~torch.isfinite(found.terms.vb)).any(0).nonzero()[0])
            where = f" from step {step + 1} of {self.steps} on"
        broken = first_broken_weight([("network", self.model.network), ("conditioners", self.model.conditioners)])
        if broken is not None:
            fix = f"the weights themselves are not finite ({broken}): take another checkpoint"
        elif self.autocast is not None:
            fix = "set precision=32-true"
        else:
            fix = f"{_option_left(self.method)}take another checkpoint"
        which = named([index for index, row in zip(indices, bad.tolist()) if row], "image")
        raise UserError(f"{which} of a likelihood that is not finite{where}: {fix}")

    def _by_bound(self, denoiser: NetworkDenoiser, x0: Tensor, seeds: Sequence[int]) -> Measured:
        table = self.model.process.table
        assert table is not None, "checked at construction"
        found = bits_per_dim(denoiser, table, x0, SampleNoise(seeds, self.device))
        evaluations = torch.full((len(x0),), table.num_timesteps)
        return Measured(found.total, found.prior, torch.zeros_like(found.total), evaluations, found)

    def _by_ode(self, denoiser: NetworkDenoiser, x0: Tensor, seeds: Sequence[int], method: ODEConfig) -> Measured:
        with user_errors("method"):
            found = ode_bits_per_dim(
                denoiser,
                x0,
                SampleNoise(seeds, self.device),
                solver=_solver(method),
                trace=method.trace,
                probes=method.probes,
                sigma_min=method.sigma_min,
                sigma_max=method.sigma_max,
            )
        several = method.probes > 1
        variance = found.total.var(dim=1) / method.probes if several else torch.zeros_like(found.prior)
        return Measured(found.total.mean(dim=1), found.prior, variance, found.evaluations)


def _option_left(method: BoundConfig | ODEConfig) -> str:
    """What may give a finite number besides another checkpoint."""
    if isinstance(method, BoundConfig):
        return "" if method.clip_denoised else "set method.clip_denoised=true, or "
    return "" if method.solver == "dopri5" else "set more method.steps, or "


def _solver(method: ODEConfig) -> Solver:
    if method.solver == "dopri5":
        return Adaptive(method.rtol, method.atol)
    return FixedSteps(method.steps, method.solver)

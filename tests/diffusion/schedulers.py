"""diffusers' schedulers in our words, and a run of ours recorded as one of theirs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from difflab.diffusion.base_process import Process
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.noise import NoiseSource
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.schedules import linear_betas, quad_betas, zero_terminal_snr
from difflab.types import Denoised, Denoiser, Network, NoiseLevel, StepContext
from diffusion.fakes import Mixture

PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


def process_of(constructor: dict[str, Any]) -> GaussianProcess:
    """Our process for a scheduler's constructor arguments."""
    make = quad_betas if constructor["beta_schedule"] == "scaled_linear" else linear_betas
    betas = make(1000, constructor["beta_start"], constructor["beta_end"])
    if constructor.get("rescale_betas_zero_snr"):
        betas = zero_terminal_snr(betas)
    return GaussianProcess(
        betas,
        prediction=PREDICTIONS[constructor.get("prediction_type", "epsilon")],
        variance=constructor.get("variance_type", "fixed_small"),
        posterior_clip="floor",
    )


def grid_of(constructor: dict[str, Any], steps: int, process: GaussianProcess, family: str) -> Grid:
    """Our grid for set_timesteps of the `dpm` family (DPM-Solver, UniPC) or the `sigma` family (Euler, Heun, LMS)."""
    final = "lowest" if constructor.get("final_sigmas_type") == "sigma_min" else "clean"
    low, high = process.sigma_range
    if constructor.get("use_karras_sigmas"):
        snap = "time" if family == "dpm" else "none"
        return Grid(steps, "karras", sigma_min=low, sigma_max=high, snap=snap, final=final)
    if constructor.get("use_exponential_sigmas"):
        return Grid(steps, "exponential", sigma_min=low, sigma_max=high, final=final)
    names = {
        "dpm": {"linspace": "linspace_inner", "leading": "leading_inner", "trailing": "trailing"},
        "sigma": {"linspace": "fractional", "leading": "leading", "trailing": "trailing"},
    }[family]
    spacing = names[constructor.get("timestep_spacing", "linspace")]
    offset = constructor.get("steps_offset", 0)
    return Grid(steps, spacing, steps_offset=offset, final=final, interpolate="linear")


def first_scale(constructor: dict[str, Any], level: NoiseLevel) -> float:
    """init_noise_sigma of the sigma family: the highest noise, or with spacing leading what x / alpha has in all."""
    return 1.0 / level.alpha if constructor.get("timestep_spacing") == "leading" else level.edm_sigma


class Recorded:
    """A denoiser that keeps what it was asked."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.xs: list[Tensor] = []
        self.levels: list[NoiseLevel] = []

    def __call__(self, x: Tensor, step: StepContext) -> Denoised:
        self.xs.append(x)
        self.levels.append(step.level)
        return self.denoiser(x, step)


class Run:
    """One walk of a sampler, kept as a scheduler's calls of `step`, one per network call.

    timesteps, sigmas: of the network calls, sigmas with the end of the last step.
    samples:           what each call of step returned, in x; `in_z` in x / alpha.
    x0:                the prediction of the first step.
    """

    def __init__(
        self,
        sampler: LevelSampler,
        process: GaussianProcess,
        mixture: dict[str, Any],
        predicts: str,
        start: Tensor,
        noise: NoiseSource,
        wrap: Any = None,
    ) -> None:
        recorded = Recorded(NetworkDenoiser(Mixture(mixture, predicts), sampler.respace(process)))
        x0s: list[Tensor] = []
        denoiser = recorded if wrap is None else wrap(recorded, start, sampler.levels(process)[0])
        last = sampler(denoiser, process, start, noise, lambda step, x, denoised: x0s.append(denoised.x0))
        end = sampler.levels(process)[-1]
        levels = [*recorded.levels, end]
        self.timesteps = [level.timestep for level in recorded.levels]
        self.sigmas = [level.edm_sigma for level in levels]
        self.samples = [*recorded.xs[1:], last]
        self.in_z = [x / level.alpha for x, level in zip(self.samples, levels[1:], strict=True)]
        self.x0 = x0s[0]


def their_run(
    scheduler: Any,
    steps: int,
    network: Network,
    start: Tensor,
    ours: Process,
    sigmas: list[float],
    image: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """The last sample of a diffusers scheduler, in float64; `start` is unit noise.

    Its tables are float32, which the wide steps at high noise make visible. They are held against ours, given as the
    noise of every step and of the end, and replaced by them. With an image it runs as diffusers' image-to-image does.
    """
    assert isinstance(ours, GaussianProcess)
    table = torch.as_tensor(ours.alphas_cumprod)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), table, rtol=2e-5, atol=0)
    scheduler.alphas_cumprod = table
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "sigmas"):
        sigmas = torch.tensor(sigmas, dtype=torch.float64)
        torch.testing.assert_close(scheduler.sigmas.double(), sigmas, rtol=1e-6, atol=0)
        scheduler.sigmas = sigmas
    first = (steps - min(int(steps * strength), steps)) * scheduler.order
    timesteps = scheduler.timesteps[first:]
    if image is None:
        x = start * scheduler.init_noise_sigma
    else:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        x = scheduler.add_noise(image, start, timesteps[:1].repeat(len(image)))
    for t in timesteps:
        out = network(scheduler.scale_model_input(x, t), torch.as_tensor(t)[None], None)
        x = scheduler.step(out, t, x).prev_sample
    return x

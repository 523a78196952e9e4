"""The process and the samplers of latent diffusion, Stable Diffusion and generative-models, number for number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance.base import Guidance
from difflab.diffusion.guidance.classifier_free import ClassifierFree
from difflab.diffusion.known_region import KnownRegion
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ddim import DDIMSampler, posterior_std
from difflab.diffusion.samplers.dpm_solver_pp import DPMSolverPPSampler
from difflab.diffusion.samplers.euler import EulerSampler, HeunSampler
from difflab.diffusion.samplers.part import Part
from difflab.diffusion.samplers.plms import PLMSSampler
from difflab.diffusion.schedules import cosine_betas, linear_betas, quad_betas
from difflab.diffusion.thresholding import StaticThreshold
from difflab.types import Conditioning, Denoised, StepContext
from golden_fixtures import Fixture, draw, load

TABLES = {
    "betas": "betas",
    "alphas_cumprod": "alphas_cumprod",
    "alphas_cumprod_prev": "alphas_cumprod_prev",
    "posterior_variance": "posterior_variance",
    "posterior_mean_coef1": "posterior_mean_coef1",
    "posterior_mean_coef2": "posterior_mean_coef2",
}
"""Tables that both have, by their official names."""


def process_of(schedule: dict[str, Any], **options: Any) -> GaussianProcess:
    """The process of an official schedule; their `linear` has evenly spaced square roots."""
    assert schedule["beta_schedule"] == "linear"
    return GaussianProcess(
        quad_betas(schedule["timesteps"], schedule["linear_start"], schedule["linear_end"]), **options
    )


class ClosedForm:
    """The fixtures' network: eps(x, t, c) = s[t] x + 0.1 sin(2 x + c + 0.01 t), s = sqrt(1 - alpha_bar)."""

    def __init__(self, process: GaussianProcess) -> None:
        self.s = torch.as_tensor(np.sqrt(1 - process.alphas_cumprod), dtype=torch.float32)

    def __call__(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        shape = (-1, *(1,) * (x.ndim - 1))
        c = 0.0 if conditioning is None else conditioning.vector.reshape(shape)
        t = time.reshape(shape)
        return self.s[time.long()].reshape(shape) * x + 0.1 * torch.sin(2 * x + c + 0.01 * t)


class Named:
    """Noise drawn by rule, in a given order, times a factor."""

    def __init__(self, seed: int, names: Sequence[str], factor: float = 1.0) -> None:
        self.seed, self.names, self.factor = seed, list(names), factor

    def randn_like(self, x: Tensor) -> Tensor:
        name = self.names.pop(0)
        return self.factor * torch.as_tensor(draw(self.seed, f"input:{name}", tuple(x.shape), "input"))


class Kept:
    """A hook that keeps x and the predicted x0 of every step."""

    def __init__(self) -> None:
        self.x: list[Tensor] = []
        self.x0: list[Tensor] = []

    def __call__(self, step: StepContext, x: Tensor, denoised: Denoised) -> None:
        self.x.append(x.clone())
        self.x0.append(denoised.x0.clone())


def guided(fixture: Fixture) -> tuple[Conditioning | None, Guidance | None]:
    """The condition of a fixture, and its guidance."""
    if "c" not in fixture.spec["inputs"]:
        return None, None
    c, uc = (Conditioning(vector=fixture.input(name).reshape(-1, 1)) for name in ("c", "uc"))
    return c, ClassifierFree(fixture.spec["args"]["guidance"], null=uc)


def run(
    fixture: Fixture, sampler: Any, noise: Named, part: Part | None = None, x: Tensor | None = None
) -> tuple[Tensor, Kept]:
    base = process_of(fixture.spec["args"]["schedule"])
    process = sampler.respace(base)
    assert [round(t) for t in process.timestep_map] == fixture.spec["actual_timesteps"]
    condition, guidance = guided(fixture)
    options = {} if guidance is None else {"guidance": [guidance]}
    denoiser = NetworkDenoiser(ClosedForm(base), process, condition, **options)
    kept = Kept()
    start = fixture.input("x_T") if x is None else x
    return sampler(denoiser, process, start, noise, kept, part), kept


@pytest.mark.parametrize("name", ["ldm_ddim10_eta0", "ldm_ddim10_eta1", "ldm_ddim10_cfg3", "ldm_ddim7_eta05_temp_quad"])
def test_ddim(name: str) -> None:
    fixture = load("latent", name)
    args = fixture.spec["args"]
    spacing = "ldm_quad" if args.get("discretize") == "quad" else "ldm_uniform"
    sampler = DDIMSampler(steps=args["steps"], spacing=spacing, eta=args["eta"], final_level="first")
    # Their temperature multiplies the noise of every step.
    noise = Named(fixture.spec["seed"], [f"step_noise_{i}" for i in range(args["steps"])], args.get("temperature", 1.0))
    final, kept = run(fixture, sampler, noise)
    fixture.check_close("final", final)
    fixture.check_close("x_inter", torch.stack([fixture.input("x_T"), *kept.x]))
    fixture.check_close("pred_x0", torch.stack([fixture.input("x_T"), *kept.x0]))


@pytest.mark.parametrize("name", ["ldm_plms10", "ldm_plms10_cfg"])
def test_plms(name: str) -> None:
    fixture = load("latent", name)
    sampler = PLMSSampler(Grid(fixture.spec["args"]["steps"], "ldm_uniform"), final_level="first")
    base = process_of(fixture.spec["args"]["schedule"])
    condition, guidance = guided(fixture)
    options = {} if guidance is None else {"guidance": [guidance]}
    process = sampler.respace(base)
    denoiser, kept = NetworkDenoiser(ClosedForm(base), process, condition, **options), Kept()
    final = sampler(denoiser, process, fixture.input("x_T"), Named(0, []), kept)
    fixture.check_close("final", final)
    fixture.check_close("x_inter", torch.stack([fixture.input("x_T"), *kept.x]))


def test_a_known_region_is_noised_anew_before_every_step() -> None:
    fixture = load("latent", "ldm_ddim10_masked")
    steps = fixture.spec["args"]["steps"]
    sampler = DDIMSampler(steps=steps, spacing="ldm_uniform", eta=1.0, final_level="first")
    known = fixture.input("mask") > 0
    noise = Named(fixture.spec["seed"], ["q_noise_0"])
    # Theirs replaces them before the first step too, ours from the second on: there, they are noise in any case.
    base = process_of(fixture.spec["args"]["schedule"])
    x = base.q_sample(fixture.input("x0"), 901, noise.randn_like(fixture.input("x0")))
    x = torch.where(known, x, fixture.input("x_T"))
    noise.names = ["step_noise_0", *(name for i in range(1, steps) for name in (f"q_noise_{i}", f"step_noise_{i}"))]
    part = Part(region=KnownRegion(fixture.input("x0"), ~known, "x_t"))
    final, _ = run(fixture, sampler, noise, part, x)
    # Theirs leaves what the last step made of known pixels, ours are those of the image.
    anew = (~known).expand_as(final)
    expected = torch.as_tensor(fixture.arrays["final"])
    torch.testing.assert_close(final[anew], expected[anew], atol=5e-5, rtol=2e-4)
    assert torch.equal(final[~anew], fixture.input("x0")[~anew])


def test_the_timesteps_and_sigmas_of_ddim() -> None:
    fixture = load("latent", "ldm_ddim_tables")
    base = process_of(fixture.spec["args"]["schedule"])
    for kind, steps in fixture.spec["args"]["timesteps"]:
        theirs = [round(float(t)) for t in fixture.arrays[f"timesteps_{kind}_{steps}"]]
        # A timestep that their list repeats changes nothing when it is taken again; here it is not.
        ours = sorted(set(theirs)) if kind == "quad" else theirs
        if len(ours) == steps or kind == "quad":
            assert DDIMSampler(steps=len(ours), spacing=f"ldm_{kind}").respace(base).timestep_map == ours
        else:
            # More steps than asked for: refused, with the numbers near that there are.
            with pytest.raises(ValueError, match=f"takes {len(ours)} of 1000 steps instead of {steps}"):
                DDIMSampler(steps=steps, spacing=f"ldm_{kind}").respace(base)
    for kind, steps, eta in fixture.spec["args"]["sigmas"]:
        sampler = DDIMSampler(steps=steps, spacing=f"ldm_{kind}", eta=eta, final_level="first")
        contexts = list(sampler.contexts(sampler.respace(base)))[::-1]
        label = f"{kind}_{steps}_eta{eta}"
        fixture.check_close(f"alphas_{label}", torch.tensor([step.level.alpha**2 for step in contexts]))
        fixture.check_close(f"alphas_prev_{label}", torch.tensor([step.next_level.alpha**2 for step in contexts]))
        sigmas = [eta * posterior_std(step.level, step.next_level) for step in contexts]
        fixture.check_close(f"sigmas_{label}", torch.tensor(sigmas))


def test_the_schedules_by_their_official_names() -> None:
    fixture = load("latent", "ldm_beta_schedules")
    steps, (start, end) = fixture.spec["args"]["common"]["n_timestep"], fixture.spec["args"]["linear"]
    fixture.check_close("linear", quad_betas(steps, start, end))
    fixture.check_close("sqrt_linear", linear_betas(steps, start, end))
    fixture.check_close("sqrt", np.sqrt(linear_betas(steps, start, end)))
    fixture.check_close("cosine", cosine_betas(steps))


@pytest.mark.parametrize("name", ["ldm_schedule_default_0015_0195", "ldm_schedule_sd", "ldm_schedule_vposterior_x0"])
def test_the_tables_of_a_schedule(name: str) -> None:
    fixture = load("latent", name)
    args = fixture.spec["args"]
    process = process_of(args["schedule"], variance="interpolated", variance_mix=0.0)
    compared = 0
    for theirs, ours in TABLES.items():
        if theirs == "posterior_variance" and args.get("v_posterior"):
            continue
        table = np.asarray(getattr(process, ours))
        fixture.check_close(theirs, table if theirs in args["full"] else table[args["indices"]])
        compared += 1
    assert compared >= 5


@pytest.mark.parametrize("name", ["ldm_process_eps", "ldm_process_x0"])
def test_the_process(name: str) -> None:
    fixture = load("latent", name)
    args = fixture.spec["args"]
    prediction = args.get("parameterization", "eps")
    process = process_of(args["schedule"], prediction=prediction)
    x0, noise, xt, t = (fixture.input(key) for key in ("x0", "noise", "xt", "t"))
    fixture.check_close("q_sample", process.q_sample(x0, t, noise))
    mean, variance, log_variance = process.q_mean_variance(x0, t)
    fixture.check_close("q_mean", mean)
    fixture.check_close("q_var", variance.reshape(-1, 1, 1, 1))
    fixture.check_close("q_logvar", log_variance.reshape(-1, 1, 1, 1))
    fixture.check_close("x0_from_eps", process.x0_from_eps(noise, xt, t))
    fixture.check_close("post_mean", process.q_posterior_mean_variance(x0, xt, t)[0])
    if not args.get("v_posterior"):
        _, post_variance, post_log_variance = process.q_posterior_mean_variance(x0, xt, t)
        fixture.check_close("post_var", post_variance.reshape(-1, 1, 1, 1))
        # Of the last step, which adds no noise, theirs is the logarithm of 1e-20 and ours that of the step before.
        expected = torch.as_tensor(fixture.arrays["post_logvar"]).flatten()[1:]
        torch.testing.assert_close(post_log_variance.flatten()[1:].float(), expected, atol=1e-4, rtol=2e-4)
    output = ClosedForm(process)(xt, t.float())
    denoised = process.predict(output, xt, t)
    fixture.check_close("p_mean", process.reverse_mean_variance(denoised, xt, t)[0])
    clipped = Denoised(StaticThreshold(1.0)(denoised.x0), denoised.eps, denoised.log_variance)
    fixture.check_close("p_mean_clip", process.reverse_mean_variance(clipped, xt, t)[0])


def test_velocities() -> None:
    fixture = load("latent", "sd2_v_process")
    process = process_of(fixture.spec["args"]["schedule"], prediction="v")
    x0, noise, t = fixture.input("x0"), fixture.input("noise"), fixture.input("t")
    xt = process.q_sample(x0, t, noise)
    fixture.check_close("xt", xt)
    fixture.check_close("v", process.target(x0, noise, xt, t))
    denoised = process.predict(fixture.input("v_pred"), xt, t)
    fixture.check_close("x0_from_v", denoised.x0)
    fixture.check_close("eps_from_v", denoised.eps)


class Formula:
    """A network that is a x + 0.1 sin(2 x + c + 0.01 t)."""

    def __init__(self, a: float) -> None:
        self.a = a
        self.times: list[float] = []

    def __call__(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        self.times.append(float(time[0]))
        shape = (-1, *(1,) * (x.ndim - 1))
        assert conditioning is not None
        assert conditioning.vector is not None
        return self.a * x + 0.1 * torch.sin(2 * x + conditioning.vector.reshape(shape) + 0.01 * time.reshape(shape))


def drawn_by(
    sampler: Any, process: GaussianProcess, network: Formula, fixture: Fixture, scale: float, x: Tensor
) -> Tensor:
    """A run with classifier-free guidance on the fixture's conditions."""
    c, uc = (Conditioning(vector=fixture.input(name).reshape(-1, 1)) for name in ("c", "uc"))
    denoiser = NetworkDenoiser(network, sampler.respace(process), c, guidance=[ClassifierFree(scale, null=uc)])
    return sampler(denoiser, sampler.respace(process), x, Named(0, []))


@pytest.mark.parametrize("name", ["sd_dpm_solver_2m_10", "sd_dpm_solver_2m_20"])
def test_dpm_solver(name: str) -> None:
    fixture = load("latent", name)
    args = fixture.spec["args"]
    process = process_of({"timesteps": 1000, "beta_schedule": "linear", **args["schedule"]})
    # Even in time from the last row to the first, where it ends.
    sampler = DPMSolverPPSampler(Grid(args["steps"] + 1, "fractional", final="lowest"))
    network = Formula(0.5)
    final = drawn_by(sampler, process, network, fixture, args["guidance"], fixture.input("x_T"))
    fixture.check_close("final", final)
    fixture.check_close("model_times", torch.tensor(network.times))


def test_the_samplers_of_generative_models() -> None:
    fixture = load("latent", "sgm_process_eps")
    args = fixture.spec["args"]
    table = args["discretization"]
    schedule = {"timesteps": table["num_timesteps"], "beta_schedule": "linear"}
    process = process_of({**schedule, "linear_start": table["linear_start"], "linear_end": table["linear_end"]})
    counts = (*args["steps"], args["run_steps"])
    rows = {steps: np.linspace(999, 0, steps, endpoint=False).astype(int) for steps in counts}
    for steps in args["steps"]:
        fixture.check_close(f"sigmas_{steps}", np.append(process.sigmas[rows[steps]], 0.0))
    sigmas = process.sigmas[rows[args["run_steps"]]].tolist()
    grid = Grid(None, "listed", sigmas=sigmas)
    x = fixture.input("x")
    for name, sampler in (
        ("euler", EulerSampler(grid)),
        ("heun", HeunSampler(grid)),
        ("dpmpp2m", DPMSolverPPSampler(grid, lower_order_final=False)),
    ):
        fixture.check_close(name, drawn_by(sampler, process, Formula(0.3), fixture, args["cfg"], x))
        # Theirs scales its start in place, and the next run began with that.
        x = x * (1 + sigmas[0] ** 2) ** 0.5

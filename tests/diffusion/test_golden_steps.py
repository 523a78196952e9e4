"""Single steps and whole sampling loops against the official codes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance.base import Guidance
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.base import StridedSampler, ascending_steps
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.inversion import DDIMInversion
from difflab.diffusion.schedules import linear_betas
from difflab.diffusion.thresholding import StaticThreshold
from difflab.images import to_uint8
from difflab.types import StepContext
from diffusion.fakes import PREDICTIONS, VARIANCES, Checked, FakeNetwork, ReplayedNoise, context_at, official_process
from golden_fixtures import load

CLIP = StaticThreshold(1.0)


class Rows:
    """Noise for one row of a batch."""

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise

    def randn_like(self, x: Tensor) -> Tensor:
        return self.noise


class SineGradient(Guidance):
    """The fixture's stand-in for grad log p(y | x): scale (c sin x + d cos(t / 100)), t as the network sees it."""

    def __init__(self, spec: dict[str, float], process: GaussianProcess) -> None:
        self.spec = spec
        self.process = process

    def gradient(self, x: Tensor, step: StepContext) -> Tensor:
        t = torch.tensor(self.process.time_at(step.level))
        return self.spec["scale"] * (self.spec["c"] * torch.sin(x) + self.spec["d"] * torch.cos(t / 100))

    def shift_mean(self, mean: Tensor, variance: Tensor, x: Tensor, step: StepContext) -> Tensor:
        return mean + variance * self.gradient(x, step)

    def shift_eps(self, eps: Tensor, x: Tensor, step: StepContext) -> Tensor:
        return eps - step.level.sigma * self.gradient(x, step)


@pytest.mark.parametrize("name", ["p-mean-variance", "p-mean-variance-respaced"])
def test_reverse_mean_variance(name: str) -> None:
    fixture = load("diffusion", name)
    checked = Checked(fixture)
    x, t = fixture.input("x"), fixture.input("t")
    for mean in PREDICTIONS:
        for variance in VARIANCES:
            process = official_process(fixture.spec["process"], mean, variance)
            network = FakeNetwork(fixture, mean, variance)
            for clip in (True, False):
                denoiser = NetworkDenoiser(network, process, threshold=CLIP if clip else None)
                rows = [_row(denoiser, process, x, t, i) for i in range(len(t))]
                x0, mu, var, log_var = (torch.cat(part) for part in zip(*rows, strict=True))
                label = f"{mean}.{variance}.{'clip' if clip else 'noclip'}"
                checked(f"{label}.pred_xstart", x0)
                checked(f"{label}.mean", mu)
                checked(f"any.{variance}.variance", var)
                checked(f"any.{variance}.log_variance", log_var)
    c = fixture.spec["denoised_fn"]["c"]
    process = official_process(fixture.spec["process"], "EPSILON", "LEARNED_RANGE")
    network = FakeNetwork(fixture, "EPSILON", "LEARNED_RANGE")
    denoiser = NetworkDenoiser(network, process, threshold=lambda x0: CLIP(c * x0))
    rows = [_row(denoiser, process, x, t, i) for i in range(len(t))]
    checked("denoised_fn.pred_xstart", torch.cat([row[0] for row in rows]))
    checked("denoised_fn.mean", torch.cat([row[1] for row in rows]))
    checked.assert_all()


def _row(
    denoiser: NetworkDenoiser, process: GaussianProcess, x: Tensor, t: Tensor, i: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    one, row = x[i : i + 1], int(t[i])
    denoised = denoiser(one, context_at(process, row))
    mean, variance, log_variance = process.reverse_mean_variance(denoised, one, row)
    return denoised.x0, mean, variance.float().expand_as(one), log_variance.float().expand_as(one)


@pytest.mark.parametrize("name", ["p-mean-variance", "p-mean-variance-respaced"])
def test_a_batch_of_different_rows_is_the_same_as_row_by_row(name: str) -> None:
    fixture = load("diffusion", name)
    x, t = fixture.input("x"), fixture.input("t")
    for mean in PREDICTIONS:
        for variance in VARIANCES:
            process = official_process(fixture.spec["process"], mean, variance)
            out = FakeNetwork(fixture, mean, variance)(x, process.network_time(t))
            denoised = process.predict(out, x, t)
            mu, var, log_var = process.reverse_mean_variance(denoised, x, t)
            fixture.check(f"{mean}.{variance}.noclip.pred_xstart", denoised.x0)
            fixture.check(f"{mean}.{variance}.noclip.mean", mu)
            fixture.check(f"any.{variance}.variance", var.expand_as(x))
            fixture.check(f"any.{variance}.log_variance", log_var.expand_as(x))


@pytest.mark.parametrize("name", ["steps", "steps-respaced"])
def test_steps(name: str) -> None:
    fixture = load("diffusion", name)
    checked = Checked(fixture)
    x0, noise, t = (fixture.input(key) for key in ("x_start", "noise", "t"))
    process = official_process(fixture.spec["process"])
    x_t = process.q_sample(x0, t, noise)
    checked("q_sample", x_t)
    for key, value in zip(("mean", "variance", "log_variance"), process.q_mean_variance(x0, t), strict=True):
        checked(f"q_{key}", value if key == "mean" else value.flatten())
    posterior = process.q_posterior_mean_variance(x0, fixture.input("x"), t)
    for key, value in zip(("mean", "variance", "log_variance"), posterior, strict=True):
        checked(f"q_posterior_{key}", value if key == "mean" else value.flatten())

    def step(sampler: StridedSampler, mean: str, variance: str, clip: bool = True) -> Tensor:
        return _steps(fixture, sampler, mean, variance, clip)

    for variance in VARIANCES:
        checked(f"p_sample.EPSILON.{variance}", step(AncestralSampler(), "EPSILON", variance))
    for mean in PREDICTIONS:
        for eta in fixture.spec["etas"]:
            checked(f"ddim.{mean}.eta{eta}", step(DDIMSampler(eta=eta), mean, "FIXED_LARGE"))
        inversion = DDIMInversion(end="pure_noise")
        checked(f"p_sample_noclip.{mean}.FIXED_LARGE", step(AncestralSampler(), mean, "FIXED_LARGE", clip=False))
        checked(f"ddim_noclip.{mean}.eta0.0", step(DDIMSampler(eta=0.0), mean, "FIXED_LARGE", clip=False))
        checked(f"ddim_reverse.{mean}", step(inversion, mean, "FIXED_LARGE"))
        checked(f"ddim_reverse_noclip.{mean}", step(inversion, mean, "FIXED_LARGE", clip=False))
    checked.assert_all()


def _steps(fixture: Any, sampler: StridedSampler, mean: str, variance: str, clip: bool) -> Tensor:
    process = official_process(fixture.spec["process"], mean, variance)
    denoiser = NetworkDenoiser(FakeNetwork(fixture, mean, variance), process, threshold=CLIP if clip else None)
    x, noise, rows = fixture.input("x"), fixture.input("noise"), fixture.input("t").tolist()
    contexts = {step.table_index: step for step in sampler.contexts(process)}
    return torch.cat(
        [
            sampler.step(denoiser, process, x[i : i + 1], contexts[row], Rows(noise[i : i + 1]))[0]
            for i, row in enumerate(rows)
        ]
    )


def test_loops() -> None:
    fixture = load("diffusion", "loops")
    checked = Checked(fixture)
    for case in fixture.spec["cases"]:
        label, mean = case["label"], case.get("mean", "EPSILON")
        process = official_process(case["process"], mean, case["var"])
        network = FakeNetwork(fixture, mean, case["var"])
        guidance = (SineGradient(fixture.spec["fake_grad"], process),) if case.get("guided") else ()
        denoiser = NetworkDenoiser(network, process, guidance=guidance, threshold=CLIP if case["clip"] else None)
        samplers = {
            "ancestral": AncestralSampler(),
            "ddim": DDIMSampler(eta=case.get("eta", 0.0)),
            "ddim_reverse": DDIMInversion(end="pure_noise"),
        }
        kept: dict[int, Tensor] = {}
        noise = ReplayedNoise(fixture.spec["seed"])
        final = samplers[case["sampler"]](
            denoiser,
            process,
            fixture.input("x_T"),
            noise,
            lambda step, x, denoised, kept=kept: kept.__setitem__(step.index, x),
        )
        checked(f"{label}.final", final)
        checked(f"{label}.mid", kept[process.num_timesteps // 2])
        checked(f"{label}.t_seen_by_model", network.times)
        # The official loops also draw noise that they multiply by 0; ours only draws what it uses.
        unused = {"ancestral": 1, "ddim": 1 if case.get("eta") else process.num_timesteps, "ddim_reverse": 0}
        checked(f"{label}.noise_calls", noise.calls + unused[case["sampler"]])
    checked.assert_all()


def test_ddpm_steps_of_both_variances() -> None:
    fixture = load("diffusion", "ddpm-steps")
    checked = Checked(fixture)
    x, noise, t = (fixture.input(key) for key in ("x", "noise", "t"))
    spec = fixture.spec["diffusion"]
    betas = linear_betas(spec["num_diffusion_timesteps"], spec["beta_start"], spec["beta_end"])
    for name, variance in (("fixedlarge", "fixed_large"), ("fixedsmall", "fixed_small")):
        process = GaussianProcess(betas, variance=variance, posterior_clip="floor")
        denoiser = NetworkDenoiser(FakeNetwork(fixture, "EPSILON", ""), process, threshold=CLIP)
        sampler = AncestralSampler()
        samples, x0s = [], []
        for i, row in enumerate(t.tolist()):
            step = context_at(process, row)
            sample, denoised = sampler.step(denoiser, process, x[i : i + 1], step, Rows(noise[i : i + 1]))
            samples.append(sample)
            x0s.append(denoised.x0)
        checked(f"{name}.sample", torch.cat(samples))
        checked(f"{name}.pred_xstart", torch.cat(x0s))
        table = (
            process.fixed_large_log_variance if variance == "fixed_large" else process.posterior_log_variance_clipped
        )
        checked(f"{name}.logvar_at_t", table[t.numpy()])
    process = GaussianProcess(betas)
    checked("diffusion_step", process.q_step(x, t, noise))
    checked("uint8_truncated", to_uint8(fixture.input("img"), "truncate").permute(0, 2, 3, 1))
    checked.assert_all()


def test_inversion_is_the_ascending_order_of_rows() -> None:
    process = official_process({"schedule": "linear", "T": 1000, "respacing": "ddim10"})
    rows = [step.table_index for step in ascending_steps(process)]
    assert rows == list(range(10))
    assert [step.table_index for step in DDIMInversion().contexts(process)] == rows[:-1]

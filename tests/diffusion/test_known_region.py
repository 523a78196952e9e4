"""Inpainting: what is known stays to the bit, and what is drawn fits it; with every sampler."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.known_region import KnownRegion
from difflab.diffusion.levels.distributions import CosineDistribution
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import CLEAN, GaussianProcess, PreviousDenoised
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.base import Sampler
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.part import Part
from difflab.diffusion.samplers.resampling import Resampling
from difflab.diffusion.samplers.trajectory import Trajectory
from difflab.diffusion.schedules import cosine_betas, linear_betas, zero_terminal_snr
from difflab.diffusion.thresholding import StaticThreshold
from difflab.types import Denoised, NoiseLevel, StepContext
from diffusion.every_sampler import BROWNIAN, DRAWING, PROCESS, Correlated, Normals, sampler_named
from diffusion.fakes import Mixture
from diffusion.gaussian import EDM, exact

IMAGE = torch.linspace(-1.0, 1.0, 54).reshape(2, 3, 3, 3)
HALF = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
MASKS = {
    "one": HALF[None, None],
    "of_each_sample": torch.stack([HALF, HALF.T.flip(0)])[:, None],
    "of_each_channel": torch.stack([HALF, 1 - HALF, HALF.T])[None],
    "bool": HALF.bool(),
    "nothing_known": torch.ones(1, 1, 3, 3),
    "all_known": torch.zeros(1, 1, 3, 3),
}
REPLACED = ["x_t", "x0"]
DATA = Correlated([0.1, -0.1, 0.2], [[0.25, 0.2, -0.1], [0.2, 0.25, -0.05], [-0.1, -0.05, 0.2]])


def draw(sampler: Sampler, part: Part, seeds: tuple[int, ...] = (5, 6), process: Any = PROCESS) -> Tensor:
    spaced, noise = sampler.respace(process), SampleNoise(seeds)
    x = sampler.starting_std(spaced) * noise.randn((3, 3, 3))
    return sampler(exact, spaced, x, noise, None, part)


# -- what is known stays --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("replaced", REPLACED)
@pytest.mark.parametrize("kind", MASKS)
def test_known_pixels_are_the_image_to_the_bit(name: str, replaced: Any, kind: str) -> None:
    region = KnownRegion(IMAGE, MASKS[kind], replaced)
    out = draw(sampler_named(name, 6), Part(region=region))
    drawn = MASKS[kind].bool().expand_as(out)
    assert torch.equal(out[~drawn], IMAGE[~drawn])
    assert torch.isfinite(out).all()
    assert not (out[drawn] == IMAGE[drawn]).any()


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("replaced", REPLACED)
@pytest.mark.parametrize(
    "process",
    [EDM, GaussianProcess(zero_terminal_snr(linear_betas(1000)), prediction="v")],
    ids=["edm", "zero_terminal_snr"],
)
@pytest.mark.parametrize("inverted", [False, True])
def test_they_stay_with_everything_else_that_a_part_may_do(
    name: str, replaced: Any, process: Any, inverted: bool
) -> None:
    if process is EDM and name == "plms":
        pytest.skip("PLMS steps on a table")
    sampler = sampler_named(name, 12, **({} if name in ("dpm_fast", "edm_ablation") else {"spacing": "trailing"}))
    resampling = None if name in BROWNIAN or name == "dpm_fast" else Resampling(2, 2)
    region = KnownRegion(IMAGE, MASKS["one"], replaced)
    part = Part(start=0.7, image=IMAGE.flip(0), inverted=inverted, region=region, resampling=resampling)
    out = draw(sampler, part, process=process)
    known = MASKS["one"].expand_as(out) == 0
    assert torch.equal(out[known], IMAGE[known])
    assert torch.isfinite(out).all()


MODELS = {
    "learned_range": GaussianProcess(
        linear_betas(1000), prediction="eps", variance="learned_range", time_input="scaled_index"
    ),
    "x0_of_4000": GaussianProcess(cosine_betas(4000), prediction="x0"),
    "prev": GaussianProcess(linear_betas(1000), prediction="prev"),
    "edm": EDM,
    "log_snr": ContinuousProcess(CosineDistribution(), prediction="eps"),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("inverted", [False, True])
def test_they_stay_with_a_network_whatever_it_predicts(model: str, inverted: bool) -> None:
    process = MODELS[model]

    def network(x: Tensor, time: Tensor, conditioning: Any = None) -> Tensor:
        assert torch.isfinite(time).all()
        out = 0.5 * torch.tanh(x)
        return torch.cat([out, torch.zeros_like(out)], dim=1) if process.learns_variance else out

    names = {"prev": ["ancestral", "ddim"]}.get(model, DRAWING)
    for name in names:
        if name == "plms" and isinstance(process, ContinuousProcess):
            continue
        spacing = {} if name in ("dpm_fast", "edm_ablation") else {"spacing": "trailing"}
        sampler, noise = sampler_named(name, 6, **spacing), SampleNoise([5, 6])
        spaced = sampler.respace(process)
        denoiser = NetworkDenoiser(network, spaced, threshold=StaticThreshold())
        x = sampler.starting_std(spaced) * noise.randn((3, 3, 3))
        part = Part(start=0.7, image=IMAGE, inverted=inverted, region=KnownRegion(IMAGE, HALF, "x_t"))
        out = sampler(denoiser, spaced, x, noise, None, part)
        assert torch.equal(out[..., HALF == 0], IMAGE[..., HALF == 0])
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("final", [{"name": "ddim", "final_level": "first"}, {"name": "euler", "final": "lowest"}])
@pytest.mark.parametrize("replaced", REPLACED)
def test_they_stay_where_the_last_step_does_not_end_clean(final: dict[str, Any], replaced: Any) -> None:
    options = dict(final)
    out = draw(sampler_named(options.pop("name"), 6, **options), Part(region=KnownRegion(IMAGE, HALF, replaced)))
    assert torch.equal(out[..., HALF == 0], IMAGE[..., HALF == 0])


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("replaced", REPLACED)
def test_a_sample_does_not_depend_on_its_batch(name: str, replaced: Any) -> None:
    sampler, mask = sampler_named(name, 6), MASKS["of_each_sample"]
    resampling = None if name in BROWNIAN or name == "dpm_fast" else Resampling(2, 2)
    together = draw(sampler, Part(region=KnownRegion(IMAGE, mask, replaced), resampling=resampling))
    alone = Part(region=KnownRegion(IMAGE[1:], mask[1:], replaced), resampling=resampling)
    assert torch.equal(draw(sampler, alone, (6,)), together[1:])


def test_a_part_that_ends_at_a_level_has_known_pixels_with_the_noise_of_it() -> None:
    sampler = sampler_named("ddim", 10)
    process = sampler.respace(PROCESS)
    level = process.level(4)
    image = torch.full((2, 1, 100, 100), 0.7)
    noise = SampleNoise([1, 2])
    x = sampler(
        exact, process, noise.randn((1, 100, 100)), noise, None,
        Part(end=level, region=KnownRegion(image, torch.zeros(1, 1, 100, 100))),
    )  # fmt: skip
    assert float(x.mean()) == pytest.approx(level.alpha * 0.7, abs=0.03)
    assert float(x.std()) == pytest.approx(level.sigma, rel=0.03)


# -- what is drawn fits it ------------------------------------------------------------------------------------------


def inpaint(sampler: Sampler, value: float, part: dict[str, Any], n: int = 2000, replaced: Any = "x_t") -> Tensor:
    """[n, 2]: the two coordinates that are drawn where the first one is known."""
    process, noise = sampler.respace(PROCESS), Normals()
    image = torch.tensor([[value, 9.0, 9.0]], dtype=torch.float64).expand(n, 3)
    x = sampler.starting_std(process) * noise.randn_like(image)
    region = KnownRegion(image, torch.tensor([0, 1, 1]), replaced)
    return sampler(DATA, process, x, noise, None, Part(region=region, **part))[:, 1:]


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("replaced", REPLACED)
def test_what_is_drawn_follows_what_is_known(name: str, replaced: Any) -> None:
    """Replacing alone is not the conditional distribution, but leans well towards it."""
    sampler = sampler_named(name, 20)
    high, low = (inpaint(sampler, value, {}, replaced=replaced).mean(dim=0) for value in (0.9, -0.7))
    exactly = DATA.given_first(0.9)[0] - DATA.given_first(-0.7)[0]
    share = (high - low) / exactly
    assert ((share > 0.25) & (share < 1.1)).all()


def test_what_lies_under_the_mask_is_not_seen() -> None:
    sampler = sampler_named("ancestral", 10)
    others = IMAGE.clone()
    others[..., HALF == 1] = 5.0
    for replaced in REPLACED:
        both = (draw(sampler, Part(region=KnownRegion(image, HALF, replaced))) for image in (IMAGE, others))
        assert torch.equal(*both)


@pytest.mark.parametrize("name", ["ancestral", "ddim", "euler_ancestral"])
def test_repaint_with_many_resamplings_draws_from_the_conditional(name: str) -> None:
    """Mean and covariance of the drawn coordinates, given the known one, in closed form."""
    options = {"eta": 1.0} if name == "ddim" else {}
    sampler = sampler_named(name, 60, **options)
    mean, covariance = DATA.given_first(0.8)
    plain = inpaint(sampler, 0.8, {})
    out = inpaint(sampler, 0.8, {"resampling": Resampling(6, 12)})
    away, without = (float((drawn.mean(dim=0) - mean).abs().max()) for drawn in (out, plain))
    assert away < 0.1 < 0.2 < without
    assert float((torch.cov(out.T) - covariance).abs().max()) < 0.05


# -- the two ways, step by step -------------------------------------------------------------------------------------


def test_x_t_is_replaced_by_the_noised_image_after_every_step() -> None:
    """Algorithm 1 of RePaint, line by line, with the noise in its order."""
    sampler = AncestralSampler(steps=5)
    process = sampler.respace(PROCESS)
    noise, kept = SampleNoise([3, 4]), Trajectory()
    x = noise.randn((3, 3, 3))
    sampler(exact, process, x, noise, kept, Part(region=KnownRegion(IMAGE, HALF)))
    again = SampleNoise([3, 4])
    x = again.randn((3, 3, 3))
    for row in range(4, -1, -1):
        denoised = exact(x, StepContext(0, 1, process.level(row), process.level(row - 1), row))
        mean, _, log_variance = process.reverse_mean_variance(denoised, x, row)
        if row > 0:
            unknown = mean + torch.exp(0.5 * log_variance) * again.randn_like(x)
            known = process.q_sample(IMAGE, row - 1, again.randn_like(x))
        else:
            unknown, known = mean, IMAGE
        x = HALF * unknown + (1 - HALF) * known
        torch.testing.assert_close(kept.x[4 - row], x, rtol=0, atol=1e-6)


def test_diffusers_repaint_step_for_step() -> None:
    """RePaintScheduler with eta = 0 and no jumps: DDIM, and x_t replaced with noise of the same generator."""
    from diffusers import RePaintScheduler

    mixture = Mixture({"w": [0.3, 0.5, 0.2], "m": [-0.6, 0.1, 0.7], "s": [0.2, 0.1, 0.3]})
    theirs = RePaintScheduler(beta_start=0.0001, beta_end=0.02, eta=0.0)
    theirs.set_timesteps(10, jump_length=10, jump_n_sample=1)
    generator = torch.Generator().manual_seed(7)
    start = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    x, keep = start, 1 - HALF
    for t in theirs.timesteps:
        output = mixture(x, t[None])
        x = theirs.step(output, t, x, IMAGE, keep, generator=generator).prev_sample
    sampler = DDIMSampler(steps=10, spacing="leading")
    process = sampler.respace(GaussianProcess(linear_betas(1000)))

    class Generated(Normals):
        def __init__(self) -> None:
            super().__init__(7)

    denoiser = NetworkDenoiser(mixture, process, threshold=lambda x0: x0.clamp(-1, 1), rederive_eps=False)
    out = sampler(denoiser, process, start, Generated(), None, Part(region=KnownRegion(IMAGE, HALF)))
    torch.testing.assert_close(out, x, rtol=0, atol=2e-5)


def test_x0_is_replaced_after_the_threshold_and_eps_follows() -> None:
    level = PROCESS.level(300)
    x = 3.0 * torch.ones_like(IMAGE)
    region = KnownRegion(2.0 * IMAGE, HALF, "x0").like(x)
    step = StepContext(0, 1, level, CLEAN)
    inner = NetworkDenoiser(lambda x, time, conditioning=None: x, PROCESS, threshold=lambda x0: x0.clamp(-1, 1))
    plain, denoised = inner(x, step), region.around(inner)(x, step)
    known = HALF.expand_as(x) == 0
    assert torch.equal(denoised.x0[known], (2.0 * IMAGE)[known])
    assert torch.equal(denoised.x0[~known], plain.x0[~known])
    assert torch.equal(denoised.eps[~known], plain.eps[~known])
    torch.testing.assert_close(level.alpha * denoised.x0 + level.sigma * denoised.eps, x)


def test_a_prediction_of_the_mean_is_replaced_too() -> None:
    """A network that predicts the mean of x_{t-1}: the known part of the mean is that of the known x0."""
    process = GaussianProcess(linear_betas(20), prediction="prev")
    region = KnownRegion(IMAGE, HALF, "x0").like(IMAGE)

    def denoiser(x: Tensor, step: StepContext) -> PreviousDenoised:
        denoised = process.predict(0.9 * x, x, 7)
        assert isinstance(denoised, PreviousDenoised)
        return denoised

    step = StepContext(0, 1, process.level(7), process.level(6), 7)
    x = IMAGE.flip(0)
    mean = process.reverse_mean_variance(region.around(denoiser)(x, step), x, 7)[0]
    known = HALF.expand_as(x) == 0
    torch.testing.assert_close(mean[known], process.q_posterior_mean_variance(IMAGE, x, 7)[0][known])
    torch.testing.assert_close(mean[~known], (0.9 * x)[~known], rtol=1e-4, atol=1e-5)


def test_a_learned_variance_is_kept() -> None:
    def denoiser(x: Tensor, step: StepContext) -> Denoised:
        return Denoised(x, x, -2.0 * torch.ones_like(x))

    step = StepContext(0, 1, PROCESS.level(7), PROCESS.level(6), 7)
    denoised = KnownRegion(IMAGE, HALF, "x0").like(IMAGE).around(denoiser)(IMAGE.flip(0), step)
    assert torch.equal(denoised.log_variance, -2.0 * torch.ones_like(IMAGE))


def test_guidance_is_found_around_a_region() -> None:
    class Guided:
        guidance = ("one",)

        def __call__(self, x: Tensor, step: StepContext) -> Denoised:
            raise AssertionError

    asked = KnownRegion(IMAGE, HALF, "x0").like(IMAGE).around(Guided())
    assert asked.guidance == ("one",)


# -- refusals -------------------------------------------------------------------------------------------------------


def test_masks_between_0_and_1_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a mask is 1 where the image is sampled .* round values in between"):
        KnownRegion(IMAGE, 0.5 * HALF)
    with pytest.raises(ValueError, match="round values in between"):
        KnownRegion(IMAGE, torch.full((3, 3), math.nan))
    with pytest.raises(ValueError, match="replaced='x' is not one of x_t, x0"):
        KnownRegion(IMAGE, HALF, "x")
    with pytest.raises(ValueError, match=r"the known image has shape \[1, 3, 3, 3\], but x has shape \[2, 3, 3, 3\]"):
        draw(DDIMSampler(steps=3), Part(region=KnownRegion(IMAGE[:1], HALF)))
    with pytest.raises(ValueError, match=r"a mask of shape \[4, 4\] does not fit images of shape \[2, 3, 3, 3\]"):
        draw(DDIMSampler(steps=3), Part(region=KnownRegion(IMAGE, torch.ones(4, 4))))
    with pytest.raises(ValueError, match=r"a mask of shape \[1, 2, 3, 3, 3\] does not fit"):
        KnownRegion(IMAGE, torch.ones(1, 2, 3, 3, 3)).like(IMAGE)


def test_levels_without_noise_take_the_image_and_draw_nothing() -> None:
    class Nobody:
        def randn_like(self, x: Tensor) -> Tensor:
            raise AssertionError

        def brownian_like(self, x: Tensor, start: float, end: float, finest: float) -> Tensor:
            raise AssertionError

    region = KnownRegion(IMAGE, HALF).like(IMAGE)
    out = region.noised(torch.zeros_like(IMAGE), CLEAN, Nobody())
    assert torch.equal(out, IMAGE * (1 - HALF))
    assert torch.equal(region.noised(out, NoiseLevel(1.0, 0.0, 0.0), Nobody()), out)

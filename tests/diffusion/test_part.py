"""A part of the way: from a noised image, from an inverted one, to a level; with every sampler."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import CLEAN, GaussianProcess
from difflab.diffusion.samplers.base import Sampler
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.dpm_fast import orders_of
from difflab.diffusion.samplers.inversion import DDIMInversion
from difflab.diffusion.samplers.part import Part
from difflab.diffusion.samplers.resampling import Resampling
from difflab.diffusion.samplers.trajectory import Trajectory
from difflab.diffusion.schedules import cosine_betas, linear_betas, zero_terminal_snr
from difflab.types import NoiseLevel
from diffusion.every_sampler import DRAWING, MULTISTEP, PROCESS, RANDOM, Normals, sampler_named
from diffusion.gaussian import EDM, MEAN, STD, exact

IMAGE = torch.linspace(-1.0, 1.0, 8).reshape(2, 1, 2, 2)


def draw(sampler: Sampler, part: Part | None = None, seeds: tuple[int, ...] = (5, 6), hook: Any = None) -> Tensor:
    process, noise = sampler.respace(PROCESS), SampleNoise(seeds)
    x = sampler.starting_std(process) * noise.randn((1, 2, 2))
    return sampler(exact, process, x, noise, hook, part)


def steps_of(name: str, steps: int) -> int:
    return len(orders_of(steps)) if name == "dpm_fast" else steps


# -- which steps are taken ------------------------------------------------------------------------------------------


def test_start_counts_steps_as_diffusers_counts_strength() -> None:
    import diffusers

    source = Path(diffusers.__file__).parent / "pipelines/stable_diffusion/pipeline_stable_diffusion_img2img.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    rule = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "get_timesteps")
    scope: dict[str, Any] = {}
    exec(compile(ast.Module([rule], []), str(source), "exec"), scope)  # the pipeline itself needs transformers
    for steps in (1, 3, 10, 49, 50, 100):
        theirs = SimpleNamespace(scheduler=SimpleNamespace(timesteps=list(range(steps)), order=1))
        own = list(DDIMSampler(steps=steps).contexts(DDIMSampler(steps=steps).respace(PROCESS)))
        for hundredths in range(1, 101):
            kept, n = scope["get_timesteps"](theirs, steps, hundredths / 100, "cpu")
            if n == 0:
                with pytest.raises(ValueError, match=f"keeps none of {steps} steps: set "):
                    Part(start=hundredths / 100).bounds(own)
                continue
            assert Part(start=hundredths / 100).bounds(own) == (steps - n, steps)
            assert len(kept) == n
    assert Part(start=0.58).bounds(list(DDIMSampler(steps=50).contexts(PROCESS.respace(range(50)))))[0] == 50 - 28


@pytest.mark.parametrize("steps", [3, 49, 100, 999])
def test_the_share_that_the_message_names_keeps_a_step(steps: int) -> None:
    sampler = DDIMSampler(steps=steps)
    own = list(sampler.contexts(sampler.respace(PROCESS)))
    with pytest.raises(ValueError, match="keeps none") as refused:
        Part(start=0.5 / steps).bounds(own)
    named = float(str(refused.value).split("set ")[1].split(" or more")[0])
    assert Part(start=named).bounds(own)[1] > Part(start=named).bounds(own)[0]


@pytest.mark.parametrize("name", DRAWING)
def test_the_whole_is_the_same_to_the_bit_and_start_1_is_pure_noise(name: str) -> None:
    sampler = sampler_named(name)
    whole = draw(sampler)
    for part in (Part(), Part(start=1.0, image=IMAGE), Part(resampling=Resampling(3, 1))):
        assert torch.equal(draw(sampler, part), whole)


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize(("start", "end"), [(0.5, 0.0), (1.0, 0.4), (0.6, 0.3)])
def test_the_steps_are_the_samplers_own_counted_anew(name: str, start: float, end: float) -> None:
    sampler, part = sampler_named(name, 12), Part(start=start, image=IMAGE, end=end)
    process = sampler.respace(PROCESS)
    whole, kept = Trajectory(), Trajectory()
    draw(sampler, hook=whole)
    out = draw(sampler, part, hook=kept)
    n = len(whole.steps)
    first, last = n - int(n * start), n - int(n * end)
    assert [step.level for step in kept.steps] == [step.level for step in whole.steps[first:last]]
    assert [step.next_level for step in kept.steps] == [step.next_level for step in whole.steps[first:last]]
    assert [step.table_index for step in kept.steps] == [step.table_index for step in whole.steps[first:last]]
    assert [(step.index, step.n_steps) for step in kept.steps] == [(i, last - first) for i in range(last - first)]
    assert sampler.n_steps(process, part) == last - first
    assert sampler.levels(process)[first : last + 1] == [*(s.level for s in kept.steps), kept.steps[-1].next_level]
    assert torch.equal(out, kept.x[-1])
    assert torch.isfinite(kept.x).all()


def test_a_denoiser_is_told_the_count_of_the_part_also_within_a_step() -> None:
    asked: list[tuple[int, int]] = []

    def watched(x: Tensor, step: Any) -> Any:
        asked.append((step.index, step.n_steps))
        return exact(x, step)

    sampler = sampler_named("heun", 10)
    sampler(watched, PROCESS, IMAGE, SampleNoise([1, 2]), None, Part(start=0.3))
    assert asked == [(0, 3), (0, 3), (1, 3), (1, 3), (2, 3)]


# -- from a noised image --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("process", [PROCESS, EDM], ids=["table", "edm"])
def test_x_begins_as_the_image_with_the_samples_own_noise(name: str, process: Any) -> None:
    if process is EDM and name == "plms":
        pytest.skip("PLMS steps on a table")
    sampler = sampler_named(name)
    spaced, noise = sampler.respace(process), SampleNoise([5, 6])
    asked: list[tuple[Tensor, NoiseLevel]] = []

    def watched(x: Tensor, step: Any) -> Any:
        asked.append((x, step.level))
        return exact(x, step)

    x = sampler.starting_std(spaced) * noise.randn((1, 2, 2))
    sampler(watched, spaced, x, noise, None, Part(start=0.5, image=IMAGE))
    found, level = asked[0]
    eps = SampleNoise([5, 6]).randn((1, 2, 2))
    assert level == sampler.levels(spaced)[steps_of(name, 10) - int(steps_of(name, 10) * 0.5)]
    torch.testing.assert_close(found, level.alpha * IMAGE + level.sigma * eps, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DRAWING)
def test_images_of_the_data_stay_data_from_any_level(name: str) -> None:
    """x at the first level then has the right marginal, which every sampler keeps down to the data."""
    sampler = sampler_named(name, 200)
    process, noise = sampler.respace(PROCESS), Normals()
    images = MEAN + STD * noise.randn_like(torch.empty(8000, 1, dtype=torch.float64))
    x = sampler.starting_std(process) * noise.randn_like(images)
    out = sampler(exact, process, x, noise, None, Part(start=0.5, image=images))
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(out.std()) == pytest.approx(STD, rel=0.05)


@pytest.mark.parametrize("name", DRAWING)
def test_what_comes_of_one_image_is_the_closed_form(name: str) -> None:
    """Of x ~ N(a c, s^2), the flow makes N(m + d a (c - m) / r, (d s / r)^2), r^2 = a^2 d^2 + s^2; the reverse SDE
    draws x0 of p(x0 | x) instead."""
    sampler, image = sampler_named(name, 200), 1.2
    process, noise, part = sampler.respace(PROCESS), Normals(), Part(start=0.4, image=torch.full((8000, 1), image))
    x = sampler.starting_std(process) * noise.randn_like(torch.empty(8000, 1, dtype=torch.float64))
    out = sampler(exact, process, x, noise, None, part)
    n = steps_of(name, 200)
    level = sampler.levels(process)[n - int(n * 0.4)]
    a, s = level.alpha, level.sigma
    r = math.hypot(a * STD, s)
    if name in RANDOM:
        gain = a * STD**2 / r**2
        mean, std = MEAN + gain * a * (image - MEAN), math.hypot(gain * s, STD * s / r)
    else:
        mean, std = MEAN + STD * a * (image - MEAN) / r, STD * s / r
    assert float(out.mean()) == pytest.approx(mean, abs=0.02)
    assert float(out.std()) == pytest.approx(std, rel=0.06)


@pytest.mark.parametrize("name", DRAWING)
def test_a_sample_from_an_image_does_not_depend_on_its_batch(name: str) -> None:
    sampler, part = sampler_named(name), Part(start=0.6, image=IMAGE)
    together = draw(sampler, part)
    assert torch.equal(draw(sampler, Part(start=0.6, image=IMAGE[1:]), (6,)), together[1:])
    swapped = draw(sampler, Part(start=0.6, image=IMAGE.flip(0)), (6, 5))
    assert torch.equal(swapped.flip(0), together)


def test_a_level_may_be_the_start_the_first_one_too() -> None:
    sampler = DDIMSampler(steps=10)
    process = sampler.respace(PROCESS)
    assert torch.equal(
        draw(sampler, Part(start=process.level(4), image=IMAGE)), draw(sampler, Part(start=0.5, image=IMAGE))
    )
    kept = Trajectory()
    top = draw(sampler, Part(start=process.level(9), image=IMAGE), hook=kept)
    assert len(kept.steps) == 10
    assert not torch.equal(top, draw(sampler))  # the schedule ends with 0.6 % of the signal left, and that is in x


# -- from an inverted image -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ddim", "euler", "dpm_solver_pp", "heun", "plms", "lms", "unipc", "dpm_2", "dpm_fast"]
)
@pytest.mark.parametrize("start", [0.5, 1.0])
def test_inverting_and_drawing_comes_back_and_more_steps_come_closer(name: str, start: float) -> None:
    errors = []
    for steps in (50, 200):
        sampler = sampler_named(name, steps, **({"spacing": "trailing"} if name == "plms" else {}))
        out = draw(sampler, Part(start=start, image=IMAGE, inverted=True))
        errors.append(float((out - IMAGE).abs().max()))
    assert errors[1] < 0.4 * errors[0]
    assert errors[1] < 0.05


def test_ddims_own_inversion_is_the_way_up() -> None:
    """The lowest row is kept by this spacing, so both begin there: one is the other to the bit."""
    sampler, up = DDIMSampler(steps=20), DDIMInversion(steps=20)
    process = sampler.respace(PROCESS)
    noise = up(exact, process, IMAGE, SampleNoise([0, 0]))
    out = draw(sampler, Part(image=IMAGE, inverted=True))
    assert torch.equal(out, _from(sampler, process, noise))
    half = up(exact, process, IMAGE, SampleNoise([0, 0]), None, Part(end=process.level(9)))
    assert torch.equal(draw(sampler, Part(start=0.5, image=IMAGE, inverted=True)), _from(sampler, process, half, 0.5))


def _from(sampler: Sampler, process: Any, x: Tensor, start: float = 1.0) -> Tensor:
    return sampler(exact, process, x, SampleNoise([1, 2]), None, Part(start=start))


def test_the_way_up_begins_at_the_lowest_noise_also_where_no_step_does() -> None:
    """trailing keeps row 49 as its lowest of 20: taking the image for x there would lose its contrast."""
    sampler = DDIMSampler(steps=20, spacing="trailing")
    asked: list[tuple[int, int, float | None]] = []

    def watched(x: Tensor, step: Any) -> Any:
        asked.append((step.index, step.n_steps, step.level.timestep))
        return exact(x, step)

    process = sampler.respace(PROCESS)
    sampler(watched, process, IMAGE, SampleNoise([1, 2]), None, Part(start=0.2, image=IMAGE, inverted=True))
    assert asked[:4] == [(0, 4, 0.0), (1, 4, 49.0), (2, 4, 99.0), (3, 4, 149.0)]
    assert asked[4:] == [(0, 4, 199.0), (1, 4, 149.0), (2, 4, 99.0), (3, 4, 49.0)]


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize(
    "process",
    [EDM, GaussianProcess(zero_terminal_snr(linear_betas(1000)), prediction="v")],
    ids=["edm", "zero_terminal_snr"],
)
def test_every_sampler_starts_from_an_inverted_image_on_every_process(name: str, process: Any) -> None:
    if process is EDM and name == "plms":
        pytest.skip("PLMS steps on a table")
    sampler = sampler_named(name, 40, **({} if name in ("dpm_fast", "edm_ablation") else {"spacing": "trailing"}))
    spaced, noise = sampler.respace(process), SampleNoise([5, 6])
    x = sampler.starting_std(spaced) * noise.randn((1, 2, 2))
    out = sampler(exact, spaced, x, noise, None, Part(start=0.3, image=IMAGE, inverted=True))
    assert torch.isfinite(out).all()
    if name not in RANDOM:
        assert float((out - IMAGE).abs().max()) < 0.2


# -- ending at a level, and going on from there ---------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(DRAWING) - MULTISTEP))
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_two_halves_are_the_whole_to_the_bit(name: str, share: float) -> None:
    sampler = sampler_named(name)
    process = sampler.respace(PROCESS)
    levels = sampler.levels(process)
    n = len(levels) - 1
    middle = levels[n - int(n * share)]
    noise = SampleNoise([5, 6])
    x = sampler.starting_std(process) * noise.randn((1, 2, 2))
    there = sampler(exact, process, x, noise, None, Part(end=share))
    assert torch.equal(sampler(exact, process, there, noise, None, Part(start=share)), draw(sampler))
    again = SampleNoise([5, 6])
    again.randn((1, 2, 2))
    assert torch.equal(sampler(exact, process, x, again, None, Part(end=middle)), there)
    assert torch.equal(sampler(exact, process, there, again, None, Part(start=middle)), draw(sampler))


@pytest.mark.parametrize("name", sorted(MULTISTEP))
def test_two_halves_of_a_multistep_sampler_are_about_the_whole(name: str) -> None:
    sampler = sampler_named(name, 40)
    process = sampler.respace(PROCESS)
    noise = SampleNoise([5, 6])
    x = sampler.starting_std(process) * noise.randn((1, 2, 2))
    there = sampler(exact, process, x, noise, None, Part(end=0.5))
    out = sampler(exact, process, there, noise, None, Part(start=0.5))
    torch.testing.assert_close(out, draw(sampler), atol=0.05, rtol=0)


def test_x_at_the_end_has_the_noise_of_its_level() -> None:
    sampler = sampler_named("heun", 50)
    levels, noise = sampler.levels(PROCESS), Normals()
    x = noise.randn_like(torch.empty(8000, 1, dtype=torch.float64))
    out = sampler(exact, PROCESS, x, noise, None, Part(end=levels[30]))
    assert float(out.mean()) == pytest.approx(levels[30].alpha * MEAN, abs=0.02)
    assert float(out.std()) == pytest.approx(math.hypot(levels[30].alpha * STD, levels[30].sigma), rel=0.03)


def test_another_model_goes_on_from_the_level_where_the_first_one_stopped() -> None:
    """An expert for each range of the noise: both are asked within their own alone."""
    sampler = DDIMSampler(steps=10)
    process = sampler.respace(PROCESS)
    asked: list[tuple[str, float | None]] = []

    def expert(name: str) -> Any:
        def ask(x: Tensor, step: Any) -> Any:
            asked.append((name, step.level.timestep))
            return exact(x, step)

        return ask

    level, noise = PROCESS.level(process.timestep_map[4]), SampleNoise([1, 2])
    x = sampler(expert("a"), process, noise.randn((1, 2, 2)), noise, None, Part(end=level))
    sampler(expert("b"), process, x, noise, None, Part(start=level))
    rows = [float(row) for row in reversed(process.timestep_map)]
    assert asked == [*(("a", row) for row in rows[:5]), *(("b", row) for row in rows[5:])]


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 0.0}, "start=0 must be above 0 and at most 1"),
        ({"start": 1.2}, "start=1.2 must be above 0 and at most 1"),
        ({"start": math.nan}, "start=nan must be above 0"),
        ({"end": 1.0}, "end=1 must be 0 or more and below 1"),
        ({"end": -0.1}, "end=-0.1 must be 0 or more"),
        ({"inverted": True}, "inverted=true needs the image"),
    ],
)
def test_shares_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Part(**options)


def test_a_part_without_steps_or_with_a_level_that_is_not_visited_is_refused() -> None:
    sampler = DDIMSampler(steps=10)
    with pytest.raises(ValueError, match=r"start=0.3 and end=0.5 leave none of 10 steps: end further down"):
        draw(sampler, Part(start=0.3, image=IMAGE, end=0.5))
    with pytest.raises(ValueError, match=r"\(timestep 500\); next to it are .*timestep 555.*timestep 444"):
        draw(sampler, Part(start=PROCESS.level(500)))
    with pytest.raises(ValueError, match=r"start=sigma 0 keeps none of 10 steps: set 0.1 or more"):
        draw(sampler, Part(start=CLEAN))
    with pytest.raises(ValueError, match=r"end=0.05 leaves out none of 10 steps: set 0.1 or more, or 0"):
        draw(sampler, Part(end=0.05))
    with pytest.raises(ValueError, match=r"start=1 and end=sigma 157.\d+ \(timestep 999\) leave none of 10 steps"):
        draw(sampler, Part(end=PROCESS.level(999)))
    with pytest.raises(ValueError, match=r"the initial image has shape \[1, 1, 2, 2\], but x has shape \[2, 1, 2, 2\]"):
        draw(sampler, Part(start=0.5, image=IMAGE[:1]))


@pytest.mark.parametrize("name", ["heun", "dpm_solver_pp", "edm_ablation"])
def test_the_levels_that_the_message_names_are_taken(name: str) -> None:
    sampler = sampler_named(name)
    with pytest.raises(ValueError, match=r"end: .* no level with sigma 1.9 .* next to it are sigma") as refused:
        draw(sampler, Part(end=PROCESS.level_of_sigma(1.9)))
    for named in re.findall(r"are sigma (\S+) .* and sigma (\S+) ", str(refused.value))[0]:
        kept = Trajectory()
        draw(sampler, Part(end=PROCESS.level_of_sigma(float(named))), hook=kept)
        assert kept.steps[-1].next_level.edm_sigma == pytest.approx(float(named), rel=1e-5)


def test_ddim_inversion_takes_a_part_of_its_way_but_no_image() -> None:
    up = DDIMInversion(steps=10)
    process = up.respace(GaussianProcess(cosine_betas(1000), prediction="v"))
    kept = Trajectory()
    up(exact, process, IMAGE, SampleNoise([1, 2]), kept, Part(end=process.level(5)))
    assert [step.table_index for step in kept.steps] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="no image, region or jumps"):
        up(exact, process, IMAGE, SampleNoise([1, 2]), None, Part(start=0.5, image=IMAGE))

"""The sampler group."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from difflab.config.groups import choices_of, contents
from difflab.config.sampler import SamplerConfig
from difflab.diffusion.build import build_sampler
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import linear_betas

ADAPTER: TypeAdapter[Any] = TypeAdapter(SamplerConfig)
PROCESS = GaussianProcess(linear_betas(1000))


@pytest.mark.parametrize("name", choices_of("sampler"))
def test_every_choice_shows_all_its_options_and_builds(name: str) -> None:
    data = contents("sampler", name)
    assert data is not None
    config = ADAPTER.validate_python(data)
    assert config.kind == name
    assert set(data) == set(type(config).model_fields)
    sampler = build_sampler(config)
    # DPM-Solver-fast counts network calls: 20 of them are six steps of third and one of second order.
    expected = 7 if config.kind == "dpm_fast" else data["steps"] or 1000
    assert sampler.n_steps(sampler.respace(GaussianProcess(linear_betas(1000)))) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"steps": None},
        {"steps": 10, "spacing": "trailing"},
        {"steps": "10,10,20"},
        {"steps": "ddim50"},
        {"steps": [1, 2, 3]},
        {"steps": 50, "spacing": "leading", "steps_offset": 1},
    ],
)
def test_ways_to_write_steps(options: dict[str, Any]) -> None:
    config = ADAPTER.validate_python({"kind": "ancestral", **options})
    process = build_sampler(config).respace(GaussianProcess(linear_betas(1000)))
    assert process.num_timesteps in (1000, 10, 40, 50, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "ancestral", "steps": 0}, "steps=0 must be 1 or more"),
        ({"kind": "ancestral", "steps": "10,10", "spacing": "leading"}, "'10,10' needs spacing=sections"),
        ({"kind": "ancestral", "steps": "fast"}, "steps='fast' is not understood"),
        ({"kind": "ancestral", "steps": []}, "must list how many steps each section takes"),
        ({"kind": "ancestral", "steps": [3, 0]}, "must list how many"),
        ({"kind": "ancestral", "eta": 1.0}, "Extra inputs"),
        ({"kind": "ddim", "eta": -0.5}, "greater than or equal to 0"),
        ({"kind": "ddim", "steps_offset": -1}, "greater than or equal to 0"),
        ({"kind": "ddim", "steps": True}, "valid integer|valid string|valid list"),
        ({"kind": "dpm_solver_pp", "order": 4}, "less than or equal to 3"),
        (
            {"kind": "dpm_solver_pp", "prediction": "eps"},
            "prediction=eps cannot step to the clean end: set final=lowest",
        ),
        ({"kind": "dpm_solver_pp", "variant": "bh2"}, "'midpoint' or 'heun'"),
        ({"kind": "unipc", "order": 0}, "greater than or equal to 1"),
        ({"kind": "unipc", "prediction": "eps"}, "set final=lowest, or prediction=x0"),
        ({"kind": "unipc", "disable_corrector": [-1]}, "greater than or equal to 0"),
        ({"kind": "plms", "spacing": "karras"}, "Input should be 'sections', 'ddim', 'leading'"),
        ({"kind": "plms", "warm_up": "heun"}, "'improved_euler' or 'runge_kutta'"),
        ({"kind": "lms", "order": 5}, "less than or equal to 4"),
        ({"kind": "lms", "order": 0}, "greater than or equal to 1"),
        ({"kind": "lms", "eta": 1.0}, "Extra inputs"),
        ({"kind": "euler_ancestral", "eta": 1.1}, "less than or equal to 1"),
        ({"kind": "dpm_2_ancestral", "s_noise": 0}, "greater than 0"),
        ({"kind": "dpm_2", "s_churn": -1}, "greater than or equal to 0"),
        ({"kind": "heun", "s_churn": float("inf")}, "finite number"),
        ({"kind": "dpm_2", "s_tmin": 2.0, "s_tmax": 1.0}, "s_tmin=2.0 must be below s_tmax=1.0"),
        ({"kind": "edm_ablation", "s_tmin": 2.0, "s_tmax": 1.0}, "s_tmin=2.0 must be below s_tmax=1.0"),
        ({"kind": "edm_ablation", "alpha": 0.0}, "greater than 0"),
        ({"kind": "edm_ablation", "sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min=2.0 must be below"),
        ({"kind": "dpm_solver_pp_sde", "r": 1.0}, "less than 1"),
        ({"kind": "dpm_solver_pp_2m_sde", "eta": -1.0}, "greater than or equal to 0"),
        ({"kind": "dpm_fast", "steps": 0}, "greater than or equal to 1"),
        ({"kind": "dpm_fast", "sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min=2.0 must be below"),
        (
            {"kind": "heun", "steps": 1, "spacing": "listed", "sigmas": [1.0], "sigma_max": 3.0},
            r"sigma_max=3.0: spacing=listed has its own ends: leave them out \(null\), or set spacing=karras",
        ),
        (
            {"kind": "lms", "spacing": "trailing", "sigma_min": 0.1, "sigma_max": 3.0},
            "sigma_min=0.1 and sigma_max=3.0: spacing=trailing has its own ends",
        ),
        ({"kind": "heun", "spacing": "vp", "sigma_min": 0.1}, "sigma_min=0.1: spacing=vp has its own ends"),
        (
            {"kind": "dpm_fast", "steps": 3, "spacing": "listed", "sigmas": [3.0, 2.0, 1.0], "sigma_min": 0.1},
            "sigma_min=0.1: spacing=listed has its own ends: .*spacing=exponential",
        ),
        (
            {"kind": "edm_ablation", "steps": 1, "discretization": "listed", "sigmas": [3.0], "sigma_min": 0.1},
            "sigma_min=0.1: discretization=listed has its own ends: .*discretization=edm",
        ),
        (
            {"kind": "dpm_fast", "steps": 7, "spacing": "listed", "sigmas": [3.0, 2.0, 1.0]},
            "need 4 levels, but sigmas lists 3: list 4, or set steps=3 to 5",
        ),
        (
            {"kind": "dpm_fast", "steps": 7, "spacing": "listed", "sigmas": [3.0, 2.0]},
            "need 4 levels, but sigmas lists 2: list 4, or set steps=1 to 2",
        ),
        ({"kind": "dpm_fast", "steps": 7, "spacing": "listed", "sigmas": [3.0]}, "but sigmas lists 1: list 4"),
        ({"kind": "ddim", "spacing": "listed"}, "spacing=listed visits the levels in sigmas: give them"),
        ({"kind": "heun", "spacing": "listed", "sigmas": []}, "give them, as in sigmas="),
        ({"kind": "heun", "sigmas": [2.0, 1.0]}, "sigmas needs spacing=listed: set it, or leave sigmas out"),
        ({"kind": "edm_ablation", "sigmas": [2.0]}, "sigmas needs discretization=listed"),
        (
            {"kind": "ddim", "steps": 2, "spacing": "listed", "sigmas": [1.0, 1.0]},
            "sigmas has 1.0 twice: list",
        ),
        ({"kind": "plms", "steps": 2, "spacing": "listed", "sigmas": [1.0, 2.0]}, "sigmas has 2.0 behind 1.0"),
        ({"kind": "ddim", "steps": 2, "spacing": "listed", "sigmas": [1.0, "inf"]}, "sigmas has inf behind 1.0"),
        ({"kind": "ddim", "steps": 2, "spacing": "listed", "sigmas": [1.0, 0.0]}, "greater than 0"),
        ({"kind": "ddim", "steps": 2, "spacing": "listed", "sigmas": [1.0, float("nan")]}, "finite number"),
        ({"kind": "euler", "steps": 3, "spacing": "listed", "sigmas": [2.0, 1.0]}, "steps=3, but sigmas lists 2: set"),
        ({"kind": "edm_ablation", "discretization": "listed", "sigmas": [2.0, 1.0]}, "steps=18, but sigmas lists 2"),
        ({"kind": "dpm_fast", "steps": 5, "spacing": "listed", "sigmas": [2.0, 1.0]}, "calls need 3 levels, but"),
        (
            {"kind": "ddim", "steps": 1, "spacing": "listed", "sigmas": [2.0], "stride": "constant"},
            "stride=constant leaves the levels of spacing=listed",
        ),
        ({"kind": "heum"}, "does not match any of the expected tags"),
    ],
)
def test_mistakes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python(options)


def test_listed_noises_count_their_steps_and_may_begin_in_pure_noise() -> None:
    for kind in ("ddim", "plms", "heun", "dpm_solver_pp"):
        config = ADAPTER.validate_python({"kind": kind, "spacing": "listed", "sigmas": [2.0, 1], "steps": None})
        assert config.steps == 2
    pure = ADAPTER.validate_python({"kind": "ddim", "steps": 2, "spacing": "listed", "sigmas": [float("inf"), 1.0]})
    assert pure.sigmas == ["inf", 1.0]
    assert ADAPTER.validate_python(pure.plain()) == pure
    assert build_sampler(pure).sigmas == [float("inf"), 1.0]


def test_levels_that_are_listed_take_the_place_of_the_ends() -> None:
    for config in (
        {"kind": "heun", "steps": 3, "sigma_max": 3.0},
        {"kind": "dpm_fast", "steps": 1, "sigma_min": 0.1},
        {"kind": "edm_ablation", "sigma_min": 0.1, "sigma_max": 3.0},
    ):
        visiting = ADAPTER.validate_python(config).visiting([2.0, 1.0])
        assert (visiting.sigmas, visiting.sigma_min, visiting.sigma_max) == ([2.0, 1.0], None, None)


def test_calls_of_dpm_fast_say_how_many_levels_it_goes_through() -> None:
    for calls in range(1, 12):
        even = build_sampler(ADAPTER.validate_python({"kind": "dpm_fast", "steps": calls}))
        sigmas = [level.edm_sigma for level in even.levels(PROCESS)]
        config = {"kind": "dpm_fast", "steps": calls, "spacing": "listed", "sigmas": sigmas}
        assert build_sampler(ADAPTER.validate_python(config)).n_steps(PROCESS) == len(sigmas) - 1

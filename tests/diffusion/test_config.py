"""The diffusion group: every file of it composes and validates; combinations that cannot work say what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError

from difflab.commands.composing import compose_and_validate
from difflab.commands.search_path import extend_search_path
from difflab.config.axes import SCHEDULES as SCHEDULES_AXIS
from difflab.config.axes import TIMESTEP_SAMPLINGS, WEIGHTINGS
from difflab.config.diffusion import DiffusionConfig
from difflab.config.groups import choices_of
from difflab.config.registry import Registry
from difflab.config.train import TrainConfig
from difflab.diffusion.build import build_loss, build_process, build_timesteps
from difflab.diffusion.config import ContinuousDiffusionConfig, DiscreteDiffusionConfig
from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
CHOICES = sorted(path.stem for path in (CONF / "diffusion").glob("*.yaml"))
ADAPTER: TypeAdapter[Any] = TypeAdapter(DiffusionConfig)
SCHEDULES = sorted(path.stem for path in (CONF / "diffusion" / "schedule").glob("*.yaml"))


def composed(*overrides: str) -> dict[str, Any]:
    extend_search_path()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        container = OmegaConf.to_container(compose(overrides=list(overrides)), resolve=True)
    assert isinstance(container, dict)
    return container["diffusion"]


def keys_of(data: dict[str, Any], model: Any) -> None:
    assert set(data) == set(type(model).model_fields), "a YAML shows every option of its model"


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_builds(choice: str) -> None:
    data = composed(f"+diffusion={choice}")
    config = ADAPTER.validate_python(data)
    keys_of(data, config)
    process = build_process(config)
    if isinstance(config, ContinuousDiffusionConfig):
        keys_of(data["sigma_distribution"], config.sigma_distribution)
        assert isinstance(process, ContinuousProcess)
    else:
        keys_of(data["schedule"], config.schedule)
        assert process.num_timesteps == config.timesteps
    assert process.learns_variance == config.learns_variance
    build_loss(config, process)
    build_timesteps(config, process)


@pytest.mark.parametrize("axis", [SCHEDULES_AXIS, TIMESTEP_SAMPLINGS, WEIGHTINGS], ids=lambda axis: axis.group)
def test_every_choice_of_a_part_can_be_selected_by_its_file_and_by_a_word(axis: Registry) -> None:
    key = axis.group.rpartition("/")[2]
    for choice in choices_of(axis.group):
        data = composed("+diffusion=x0_cosine", f"{axis.group}={choice}")
        config = DiscreteDiffusionConfig.model_validate(data)
        keys_of(data[key], getattr(config, key))
    for kind in axis:
        data = composed("+diffusion=x0_cosine", f"diffusion.{key}={kind}")
        config = DiscreteDiffusionConfig.model_validate(data)
        assert getattr(config, key) == axis[kind].config.model_validate({"kind": kind})


def test_a_word_that_is_no_choice_is_refused_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"^diffusion\.weighting='p3' is not known; choose one of 'none', "):
        compose_and_validate("train", TrainConfig, ["experiment=ddpm/shapes32", "diffusion.weighting=p3"])
    with pytest.raises(UserError, match=r"^diffusion\.prediction='epsilon': input should be 'eps', 'x0', .* or 've'"):
        compose_and_validate("train", TrainConfig, ["experiment=ddpm/shapes32", "diffusion.prediction=epsilon"])


def test_a_chosen_weighting_brings_its_own_options_alone() -> None:
    data = composed("+diffusion=p2", "diffusion/weighting=min_snr", "diffusion.weighting.gamma=3.0")
    assert data["weighting"] == {"kind": "min_snr", "gamma": 3.0, "floor": 0.0}
    assert composed("+diffusion=p2", "diffusion/weighting=none")["weighting"] == {"kind": "none"}
    assert composed("+diffusion=edm", "diffusion/sigma_distribution=vp")["sigma_distribution"]["beta_d"] == 19.9


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_can_be_selected(schedule: str) -> None:
    data = composed("+diffusion=v_cosine", f"diffusion/schedule={schedule}")
    config = DiscreteDiffusionConfig.model_validate(data)
    keys_of(data["schedule"], config.schedule)
    build_process(config)


def test_the_papers_numbers() -> None:
    ddpm = DiscreteDiffusionConfig.model_validate(composed("+diffusion=ddpm"))
    assert (ddpm.schedule.kind, ddpm.timesteps, ddpm.prediction) == ("linear", 1000, "eps")
    assert (ddpm.variance, ddpm.posterior_clip, ddpm.loss) == ("fixed_large", "copy_second", "mse")
    assert build_process(ddpm).alphas_cumprod[-1] == pytest.approx(4.035829765e-05, rel=1e-9)
    lsun = DiscreteDiffusionConfig.model_validate(composed("+diffusion=ddpm_lsun"))
    assert (lsun.variance, lsun.posterior_clip) == ("fixed_small", "floor")
    improved = DiscreteDiffusionConfig.model_validate(composed("+diffusion=improved"))
    assert build_process(improved).network_times[-1] == 999.75


def test_the_numbers_of_continuous_time() -> None:
    edm = ContinuousDiffusionConfig.model_validate(composed("+diffusion=edm"))
    assert edm.sigma_distribution.model_dump() == {"kind": "log_normal", "mean": -1.2, "std": 1.2}
    assert (edm.prediction, edm.time_input, edm.sigma_data, edm.weighting.kind) == ("edm", "edm", 0.5, "none")
    assert build_process(edm).sigma_range == (0.002, 80.0)
    vp = build_process(ADAPTER.validate_python(composed("+diffusion=edm_vp")))
    # VPPrecond.sigma_max; its sigma_min is 9.77e-4, in float32.
    assert vp.sigma_range == pytest.approx((1.0005e-3, 152.166977), rel=1e-4)
    ve = build_process(ADAPTER.validate_python(composed("+diffusion=edm_ve")))
    assert ve.sigma_range == pytest.approx((0.02, 100.0))
    cfg = ADAPTER.validate_python(composed("+diffusion=cfg_continuous"))
    assert (cfg.prediction, cfg.time_input, cfg.variance, cfg.variance_mix) == ("eps", "log_snr", "interpolated", 0.3)
    ends = [level.log_snr for level in build_process(cfg).even_levels(256)]
    assert (len(ends), ends[0], ends[-1]) == (256, pytest.approx(-20), pytest.approx(20))


def test_a_schedule_without_terminal_signal_is_sampled_from_pure_noise_with_trailing_steps() -> None:
    process = build_process(ADAPTER.validate_python(composed("+diffusion=v_zero_snr")))
    assert process.alphas_cumprod[-1] == 0.0
    assert process.prediction.name == "v"
    trailing = DDIMSampler(steps=10, spacing="trailing").respace(process)
    assert trailing.level(len(trailing) - 1).alpha == 0.0
    assert DDIMSampler(steps=10, spacing="leading").respace(process).alphas_cumprod[-1] > 0.0


def test_p2_weighs_the_squared_error_of_eps_by_its_formula() -> None:
    config = ADAPTER.validate_python(composed("+diffusion=p2"))
    process = build_process(config)
    t, x = torch.tensor([10, 990]), torch.ones(2, 1, 1, 1)
    mse = build_loss(config, process)(torch.zeros(2, 2, 1, 1), x, x, t, x)["mse"]
    torch.testing.assert_close(mse.double(), 1 / (1 + process.snr(t)), rtol=1e-5, atol=0)


CONTINUOUS = {
    "kind": "continuous",
    "sigma_distribution": {"kind": "log_normal"},
    "prediction": "edm",
    "sigma_min": 0.1,
    "sigma_max": 9,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sigma_min": None, "sigma_max": None},
            "sigma_distribution=log_normal is unbounded: set sigma_min and sigma_max",
        ),
        ({"sigma_max": None}, "set both sigma_min and sigma_max, or neither"),
        ({"sigma_min": 10.0}, "must be below sigma_max"),
        ({"time_input": "vp"}, "time_input=vp needs sigma_distribution=vp, not log_normal"),
        ({"weighting": "edm", "loss": "l1"}, "weighting=edm weighs the squared error"),
        ({"variance": "learned_range"}, "Input should be 'fixed_small'"),
        ({"sigma_distribution": {"kind": "cosine", "log_snr_min": 20.0}}, "log_snr_min=20.0 must be below"),
        ({"timesteps": 1000}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_work_in_continuous_time_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python({**CONTINUOUS, **changes})


BASE = {
    "schedule": {"kind": "linear"},
    "timesteps": 1000,
    "prediction": "eps",
    "variance": "fixed_large",
}
BETWEEN = {"kind": "piecewise_uniform"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variance": "learned_range"}, "loss=mse does not train variance=learned_range: set loss=hybrid"),
        ({"variance": "learned", "loss": "l1"}, "loss=l1 does not train variance=learned"),
        ({"loss": "hybrid"}, "loss=hybrid needs a learned variance: set variance=learned_range"),
        (
            {"schedule": {"kind": "linear", "scale_with_steps": True}, "timesteps": 20},
            "ends at beta=1 for timesteps=20",
        ),
        ({"schedule": {"kind": "jsd"}}, "schedule jsd ends in pure noise.* set prediction to v or x0"),
        ({"schedule": {"kind": "cosine", "zero_terminal_snr": True}}, "zero_terminal_snr ends in pure noise"),
        ({"schedule": {"kind": "jsd"}, "prediction": "v", "time_input": "log_snr"}, "set time_input to index"),
        ({"schedule": {"kind": "jsd"}, "timesteps": 1}, "schedule jsd ends in pure noise.* set prediction to v or x0"),
        (
            {"schedule": {"kind": "cosine", "zero_terminal_snr": True}, "prediction": "v", "timesteps": 1},
            "needs timesteps of 2 or more",
        ),
        ({"schedule": {"kind": "linear", "beta_end": 1.5}}, "less than 1"),
        ({"schedule": {"kind": "linear", "s": 0.1}}, "Extra inputs are not permitted"),
        ({"schedule": {"kind": "cubic"}}, "does not match any of the expected tags"),
        ({"weighting": "p3"}, "'p3' found using 'kind' does not match any of the expected tags"),
        ({"weighting": "min_snr", "loss": "l1"}, "weighting=min_snr weighs the squared error"),
        ({"weighting": "min_snr", "prediction": "prev"}, "weighting=min_snr weighs the squared error"),
        ({"timesteps": 0}, "greater than or equal to 1"),
        ({"timestep_sampling": {"kind": "uniform", "history_per_term": 3}}, "Extra inputs"),
        ({"clip": True}, "Extra inputs"),
        (
            {"timestep_sampling": BETWEEN, "loss": "kl"},
            "loss=kl is a bound on steps of the table.* set loss=mse or loss=l1",
        ),
        (
            {"timestep_sampling": BETWEEN, "loss": "hybrid", "variance": "learned_range"},
            "loss=hybrid is a bound on steps of the table",
        ),
        ({"timestep_sampling": BETWEEN, "prediction": "prev"}, "prediction=prev is the mean of a step of the table"),
        ({"timestep_sampling": {**BETWEEN, "of": "beta"}}, "Input should be 'alpha_bar' or 'sqrt_alpha_bar'"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DiscreteDiffusionConfig.model_validate({**BASE, **changes})


@pytest.mark.parametrize("loss", ["kl", "rescaled_kl"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned", "learned_range"])
def test_the_bound_trains_every_variance(loss: str, variance: str) -> None:
    assert DiscreteDiffusionConfig.model_validate({**BASE, "loss": loss, "variance": variance}).loss == loss


def test_m_belongs_to_the_time_of_vp() -> None:
    vp = composed("+diffusion=edm_vp") | {"m": 500}
    process = build_process(ADAPTER.validate_python(vp))
    assert process.time_at(process.level_of_sigma(process.sigma_range[1])) == pytest.approx(499.0)
    with pytest.raises(ValidationError, match="m=500 needs time_input=vp, not time_input=edm"):
        ADAPTER.validate_python(composed("+diffusion=edm") | {"m": 500})

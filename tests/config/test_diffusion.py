"""The diffusion group: every file of it composes and validates; combinations that cannot work say what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import ValidationError

from difflab.config.diffusion import DiscreteDiffusionConfig
from difflab.diffusion.build import build_loss, build_process, build_timesteps

CONF = Path(__file__).parents[2] / "conf"
CHOICES = sorted(path.stem for path in (CONF / "diffusion").glob("*.yaml"))
SCHEDULES = sorted(path.stem for path in (CONF / "diffusion" / "schedule").glob("*.yaml"))


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        container = OmegaConf.to_container(compose(overrides=list(overrides)), resolve=True)
    assert isinstance(container, dict)
    return container["diffusion"]


def keys_of(data: dict[str, Any], model: Any) -> None:
    assert set(data) == set(type(model).model_fields), "a YAML shows every option of its model"


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_builds(choice: str) -> None:
    data = composed(f"+diffusion={choice}")
    config = DiscreteDiffusionConfig.model_validate(data)
    keys_of(data, config)
    keys_of(data["schedule"], config.schedule)
    process = build_process(config)
    assert process.num_timesteps == config.timesteps
    assert process.learns_variance == config.learns_variance
    build_loss(config, process)
    build_timesteps(config, process)


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


BASE = {
    "schedule": {"kind": "linear"},
    "timesteps": 1000,
    "prediction": "eps",
    "variance": "fixed_large",
}


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
        ({"schedule": {"kind": "jsd"}, "prediction": "v", "timesteps": 1}, "needs timesteps of 2 or more"),
        ({"schedule": {"kind": "linear", "beta_end": 1.5}}, "less than 1"),
        ({"schedule": {"kind": "linear", "s": 0.1}}, "Extra inputs are not permitted"),
        ({"schedule": {"kind": "cubic"}}, "does not match any of the expected tags"),
        ({"weighting": "p3"}, "Input should be 'none', 'min_snr', 'p2' or 'edm'"),
        ({"weighting": "min_snr", "loss": "l1"}, "weighting=min_snr weighs the squared error"),
        ({"weighting": "min_snr", "prediction": "prev"}, "weighting=min_snr weighs the squared error"),
        ({"timesteps": 0}, "greater than or equal to 1"),
        ({"timestep_sampling": {"kind": "uniform", "history_per_term": 3}}, "Extra inputs"),
        ({"clip": True}, "Extra inputs"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DiscreteDiffusionConfig.model_validate({**BASE, **changes})


@pytest.mark.parametrize("loss", ["kl", "rescaled_kl"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned", "learned_range"])
def test_the_bound_trains_every_variance(loss: str, variance: str) -> None:
    assert DiscreteDiffusionConfig.model_validate({**BASE, "loss": loss, "variance": variance}).loss == loss

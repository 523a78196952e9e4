import math

import pytest

from difflab.config.optimizer import LearningRateConfig
from difflab.optimizer import learning_rate_factor
from golden_fixtures import load

STEPS = 200


def factors(**options: object) -> list[float]:
    config = LearningRateConfig.model_validate(options)
    return [learning_rate_factor(config, step, STEPS) for step in range(STEPS)]


def test_a_constant_rate_is_the_base_rate() -> None:
    assert factors() == [1.0] * STEPS


def test_warmup_is_linear_and_its_first_step_already_moves() -> None:
    assert factors(warmup_steps=50) == pytest.approx([min(1.0, (n + 1) / 50) for n in range(STEPS)])


def test_linear_decay_would_reach_zero_after_the_last_step() -> None:
    got = factors(decay="linear")
    assert got == pytest.approx([1.0 - n / STEPS for n in range(STEPS)])
    assert learning_rate_factor(LearningRateConfig(decay="linear"), STEPS, STEPS) == 0.0


def test_cosine_decay_is_half_in_the_middle() -> None:
    got = factors(decay="cosine")
    assert got == pytest.approx([0.5 * (1 + math.cos(math.pi * n / STEPS)) for n in range(STEPS)])
    assert got[STEPS // 2] == pytest.approx(0.5)


def test_warmup_and_decay_multiply() -> None:
    both = factors(warmup_steps=20, decay="cosine")
    assert both == pytest.approx(
        [a * b for a, b in zip(factors(warmup_steps=20), factors(decay="cosine"), strict=True)]
    )


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_a_run_that_goes_on_past_its_end_never_learns_backwards(decay: str) -> None:
    config = LearningRateConfig.model_validate({"decay": decay})
    assert learning_rate_factor(config, STEPS + 50, STEPS) == pytest.approx(0.0, abs=1e-15)


LATENT_DIFFUSION: dict[str, dict[str, object]] = {
    "linear": {"warmup_steps": 10, "warmup_from": 1e-6, "decay": "linear", "decay_to": 0.1, "decay_from": "jump"},
    "cosine2": {"warmup_steps": 10, "warmup_from": 0.01, "decay": "cosine", "decay_to": 0.05, "decay_from": "warmup"},
    "cosine": {"warmup_steps": 10, "warmup_from": 0.0, "decay": "cosine", "decay_to": 0.1, "decay_from": "warmup"},
}
"""The arguments of the fixture's schedulers as our options."""


@pytest.mark.parametrize("name", LATENT_DIFFUSION)
def test_schedules_of_latent_diffusion(name: str) -> None:
    fixture = load("latent", "ldm_lr_lambdas")
    assert set(fixture.spec["args"]["schedulers"]) == set(LATENT_DIFFUSION)
    config = LearningRateConfig.model_validate(LATENT_DIFFUSION[name])
    fixture.check(name, [learning_rate_factor(config, step, 100) for step in fixture.spec["args"]["steps"]], rel=1e-6)


def test_the_released_linear_schedule_is_a_warmup_alone() -> None:
    # f_min = f_max in all of them: warm_up_steps [10000], f_start [1e-6], f_max [1.], f_min [1.].
    released = factors(warmup_steps=20, warmup_from=1e-6)
    assert released[:20] == pytest.approx([1e-6 + (1 - 1e-6) * n / 20 for n in range(20)])
    assert released[20:] == [1.0] * (STEPS - 20)


def test_a_warmup_longer_than_the_training_never_decays() -> None:
    got = factors(warmup_steps=STEPS + 10, decay="cosine", decay_from="warmup")
    assert got == pytest.approx([(n + 1) / (STEPS + 10) for n in range(STEPS)])


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"warmup_from": 1e-6}, "set warmup_steps"),
        ({"warmup_steps": 5, "decay_to": 0.1}, "set decay to linear or cosine"),
        ({"warmup_steps": 5, "decay_from": "warmup"}, "set warmup_steps, and decay to linear or cosine"),
        ({"decay": "linear", "decay_from": "jump"}, "set warmup_steps, and decay to linear or cosine"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: dict[str, object], fix: str) -> None:
    with pytest.raises(ValueError, match=fix):
        LearningRateConfig.model_validate(options)

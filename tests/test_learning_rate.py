import math

import pytest

from difflab.config.optimizer import LearningRateConfig
from difflab.optimizer import learning_rate_factor

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

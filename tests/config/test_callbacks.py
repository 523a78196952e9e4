from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import ValidationError

from difflab.config.callbacks import CallbacksConfig

CONF = Path(__file__).parents[2] / "conf"
CHOICES = sorted(path.stem for path in (CONF / "callbacks").glob("*.yaml"))


def composed(*overrides: str) -> CallbacksConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=[*overrides])
    return CallbacksConfig.model_validate(OmegaConf.to_container(config.callbacks, resolve=True))


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes(choice: str) -> None:
    config = composed(f"+callbacks={choice}")
    # A classifier is not averaged and draws nothing.
    nothing = (config.ema, config.sample_grid, config.evaluation) == (None, None, None)
    assert nothing == (choice == "classifier")


def test_the_default_file_shows_every_option_of_its_models() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        shown = OmegaConf.to_container(compose(overrides=["+callbacks=evaluation"]).callbacks)
    assert shown == CallbacksConfig.model_validate(shown).model_dump()


def test_one_callback_is_left_out_with_null() -> None:
    assert composed("+callbacks=default", "callbacks.sample_grid=null").sample_grid is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["callbacks.checkpoint=null"], "preemption needs callbacks.checkpoint"),
        (["callbacks.sample_grid.n=4"], "columns=8 exceeds n=4"),
        (["callbacks.ema.decay=1.0"], "less than 1"),
        (["+callbacks.ema.dekay=0.9"], "dekay"),
        (["callbacks.ema.half_life=500000"], "give one of them, and null for the other"),
        (["callbacks.ema.decay=null"], "give one of them, and null for the other"),
        (["callbacks.evaluation.at_end=false"], "evaluation never runs"),
        (["callbacks.preemption.exit_status=0"], "greater than or equal to 1"),
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        composed("+callbacks=evaluation", *overrides)

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
    shown: dict[str, object] = {}
    for choice in ("evaluation", "power_ema"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            part = OmegaConf.to_container(compose(overrides=[f"+callbacks={choice}"]).callbacks)
        assert part == CallbacksConfig.model_validate(part).model_dump()
        shown |= {name: options for name, options in part.items() if options is not None}
    assert shown.keys() == CallbacksConfig.model_fields.keys()


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
        (["callbacks.power_ema={sigma_rel: [0.05, 0.3]}"], "less than 0.2886"),
        (["callbacks.power_ema={sigma_rel: [0.1, 0.1]}"], "a length twice"),
        (["callbacks.power_ema={every: 3}"], "snapshot_every_steps=1000 is no multiple of every=3"),
        (["callbacks.evaluation.at_end=false"], "evaluation never runs"),
        (["callbacks.preemption.exit_status=0"], "greater than or equal to 1"),
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        composed("+callbacks=evaluation", *overrides)

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import ValidationError

from difflab.commands.search_path import extend_search_path
from difflab.conf_dir import conf_dir
from difflab.config.axes import CALLBACKS
from difflab.config.callbacks import CallbacksConfig
from difflab.config.groups import choices_of, contents

CHOICES = choices_of("callbacks")


def composed(*overrides: str) -> CallbacksConfig:
    extend_search_path()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(overrides=[*overrides])
    return CallbacksConfig.model_validate(OmegaConf.to_container(config.callbacks, resolve=True))


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_shows_every_option(choice: str) -> None:
    config = composed(f"+callbacks={choice}")
    shown = contents("callbacks", choice)
    assert shown == config.model_dump() == config.plain()
    assert tuple(shown) == tuple(CALLBACKS)
    # Classifiers and autoencoders are not averaged and draw nothing.
    nothing = not config.averages and not any(options.draws for _, options in config.active)
    assert nothing == (choice.removeprefix("large_") in ("classifier", "autoencoder"))


def test_what_is_there_where_nothing_is_said() -> None:
    assert CallbacksConfig() == composed("+callbacks=default") == CallbacksConfig.model_validate({})
    assert [name for name, options in CallbacksConfig().plain().items() if options is None] == [
        "power_ema",
        "reconstruction_grid",
        "evaluation",
    ]
    assert CallbacksConfig(ema=None).averages is False
    assert (CallbacksConfig().measured, composed("+callbacks=evaluation").measured) == ([], [512])


def test_a_grid_of_any_size_needs_no_columns() -> None:
    for n in (1, 2, 4, 7):
        grid = composed("+callbacks=default", f"callbacks.sample_grid.n={n}").sample_grid
        assert grid is not None
        assert grid.columns is None


def test_one_callback_is_left_out_with_null() -> None:
    assert composed("+callbacks=default", "callbacks.sample_grid=null").plain()["sample_grid"] is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["callbacks.checkpoint=null"], "preemption needs callbacks.checkpoint"),
        (
            ["callbacks.sample_grid.n=4", "callbacks.sample_grid.columns=8"],
            "columns=8 exceeds n=4; lower columns, or leave",
        ),
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

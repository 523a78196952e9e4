from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import ValidationError

from difflab.commands.search_path import extend_search_path
from difflab.conf_dir import conf_dir
from difflab.config.groups import choices_of
from difflab.config.logger import LoggerConfig
from difflab.tracking.wandb_environment import chosen_mode, wandb_of


def composed(*overrides: str) -> LoggerConfig:
    extend_search_path()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(overrides=[*overrides])
    return LoggerConfig.model_validate(OmegaConf.to_container(config.logger, resolve=True))


def test_choices() -> None:
    assert choices_of("logger") == ["csv", "none", "wandb"]
    assert composed("+logger=csv") == LoggerConfig(csv=True, wandb=None)
    assert composed("+logger=none") == LoggerConfig(csv=False, wandb=None)
    assert composed("+logger=wandb") == LoggerConfig()


def test_nothing_goes_to_a_server_unless_asked() -> None:
    wandb = wandb_of(composed("+logger=wandb"))
    assert wandb is not None
    assert wandb.mode is None, "the environment decides"
    assert chosen_mode(wandb, {}).mode == "offline"


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"wandb\.mode"):
        composed("+logger=wandb", "logger.wandb.mode=cloud")


@pytest.mark.parametrize("override", ["name=''", "group=''", "project=''", "tags=['']", "finish_timeout=0"])
def test_values_that_w_and_b_would_refuse_are_refused_here(override: str) -> None:
    with pytest.raises(ValidationError, match=rf"wandb\.{override.partition('=')[0]}"):
        composed("+logger=wandb", f"logger.wandb.{override}")

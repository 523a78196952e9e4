"""Imports whole latent diffusion models: pipelines of diffusers and checkpoints of CompVis' codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from difflab.errors import UserError

if TYPE_CHECKING:
    from difflab.config.model import ModelConfig
    from difflab.interop.latent.parts import LatentModel


def latent_model(path: Path, preset: str | None, which: str, given: Mapping[str, str | None]) -> LatentModel | None:
    """The latent diffusion model with its parts that is at a path; None if there is something else.

    which: the weights of a checkpoint that has averages too. given: the other options that say what weights are.
    Raises UserError for options that do not apply to it.
    """
    from difflab.interop.latent.pipeline import is_pipeline, read_pipeline

    if is_pipeline(path):
        _refuse(path, {"preset": preset, **given, "weights": None if which == "auto" else which})
        return read_pipeline(path)
    # With one of these, a part of the file is meant.
    if given["layout"] is not None or given["wrapper"] is not None:
        return None
    return _of_checkpoint(path, preset, which, given)


def model_of_experiment(preset: str) -> ModelConfig:
    """The model of an experiment. Raises UserError if there is none of that name."""
    from difflab.commands.choices import near_choices
    from difflab.commands.composing import choices_of, compose_and_validate
    from difflab.config.train import TrainConfig

    if preset not in choices_of("experiment"):
        raise UserError(f"--preset {preset} is not an experiment{near_choices(preset, choices_of('experiment'))}")
    return compose_and_validate("train", TrainConfig, [f"experiment={preset}"])[0].model()


def _of_checkpoint(path: Path, preset: str | None, which: str, given: Mapping[str, str | None]) -> LatentModel | None:
    from difflab.interop.latent.checkpoint import Which, open_checkpoint
    from difflab.interop.latent.compvis import preset_of, read_checkpoint
    from difflab.interop.latent.stored import latent_config
    from difflab.interop.latent.whole import is_latent

    if which not in get_args(Which):
        raise UserError(f"--weights {which} is not one of {', '.join(get_args(Which))}")
    checkpoint = open_checkpoint(path)
    if checkpoint is None:
        return None
    config = model_of_experiment(preset or preset_of(checkpoint))
    if not is_latent(config):
        return None
    _refuse(path, given)
    return read_checkpoint(checkpoint, latent_config(config), cast(Which, which))


def _refuse(path: Path, given: Mapping[str, str | None]) -> None:
    unused = next((option for option, value in given.items() if value is not None), None)
    if unused is not None:
        raise UserError(f"--{unused}: {path} says itself what it is: leave it out")

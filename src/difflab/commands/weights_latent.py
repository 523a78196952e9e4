"""Imports whole latent diffusion models: pipelines of diffusers and checkpoints of CompVis' codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from difflab.errors import UserError

if TYPE_CHECKING:
    from difflab.config.model import ModelConfig
    from difflab.interop.latent.parts import LatentModel


def latent_model(
    path: Path, preset: str | None, which: str, categories: Path | None, given: Mapping[str, str | None]
) -> LatentModel | None:
    """The latent diffusion model with its parts that is at a path; None if there is something else.

    which: the weights of a checkpoint that has averages too. categories: the file of the phrases of boxes.
    given: the other options that say what weights are.
    Raises UserError for options that do not apply to it.
    """
    from difflab.interop.latent.pipeline import read_pipeline
    from difflab.interop.latent.pipeline_parts import is_pipeline

    if is_pipeline(path):
        _refuse(path, {"preset": preset, **given, **_of_checkpoints_alone(which, categories)})
        return read_pipeline(path)
    # With one of these, a part of the file is meant.
    if given["layout"] is not None or given["wrapper"] is not None:
        return None
    return _of_checkpoint(path, preset, which, categories, given)


def refuse_options_of_latents(path: Path, which: str, categories: Path | None, lora: Sequence[str]) -> None:
    """Raises UserError for an option that only whole latent diffusion models have."""
    given = {**_of_checkpoints_alone(which, categories), "lora": next(iter(lora), None)}
    for option, value in given.items():
        if value is not None:
            raise UserError(f"--{option} {value}: {path} is not a whole latent diffusion model: leave it out")


def _of_checkpoints_alone(which: str, categories: Path | None) -> dict[str, str | None]:
    """The options that say what is in a checkpoint, where they are given."""
    return {
        "weights": None if which == "auto" else which,
        "categories": None if categories is None else str(categories),
    }


def model_of_experiment(preset: str) -> ModelConfig:
    """The model of an experiment. Raises UserError if there is none of that name."""
    from difflab.commands.choices import near_choices
    from difflab.commands.composing import choices_of, compose_and_validate
    from difflab.config.train import TrainConfig

    if preset not in choices_of("experiment"):
        raise UserError(f"--preset {preset} is not an experiment{near_choices(preset, choices_of('experiment'))}")
    return compose_and_validate("train", TrainConfig, [f"experiment={preset}"])[0].model()


def _of_checkpoint(
    path: Path, preset: str | None, which: str, categories: Path | None, given: Mapping[str, str | None]
) -> LatentModel | None:
    from difflab.interop.latent.categories import with_categories
    from difflab.interop.latent.checkpoint import Which, open_checkpoint
    from difflab.interop.latent.compvis import preset_of, read_checkpoint
    from difflab.interop.latent.stored import latent_config
    from difflab.interop.latent.whole import is_latent

    if which not in get_args(Which):
        raise UserError(f"--weights {which} is not one of {', '.join(get_args(Which))}")
    checkpoint = open_checkpoint(path)
    if checkpoint is None:
        if preset is not None and path.is_file() and is_latent(model_of_experiment(preset)):
            raise UserError(
                f"{path}: no checkpoint of a UNet (model.diffusion_model.*) with its first stage "
                f"(first_stage_model.*), as those of {preset} are: give the whole file"
            )
        return None
    config = model_of_experiment(preset or preset_of(checkpoint))
    if not is_latent(config):
        return None
    _refuse(path, given)
    latent = latent_config(config)
    if categories is not None:
        latent = with_categories(latent, categories)
    return read_checkpoint(checkpoint, latent, cast(Which, which))


def _refuse(path: Path, given: Mapping[str, str | None]) -> None:
    unused = next((option for option, value in given.items() if value is not None), None)
    if unused is not None:
        raise UserError(f"--{unused}: {path} says itself what it is: leave it out")

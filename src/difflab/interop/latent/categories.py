"""The phrases of boxes, which a checkpoint of a layout model does not have."""

from __future__ import annotations

from pathlib import Path

from difflab.conditioning.layout.config import LayoutConditionerConfig
from difflab.errors import UserError
from difflab.interop.native import validated
from difflab.interop.unpickle import refuse_what_is_no_file
from difflab.tasks.denoising.config import DenoisingModelConfig


def with_categories(config: DenoisingModelConfig, path: Path) -> DenoisingModelConfig:
    """The model whose boxes have the phrases of a text file, one per line, in the order of their tokens.

    Raises UserError for a model without boxes, and for a file that has no such phrases.
    """
    refuse_what_is_no_file(path)
    try:
        phrases = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise UserError(f"{path}: not a text file ({error})") from error
    if "" in phrases:
        raise UserError(f"{path}: line {phrases.index('') + 1} is empty: every line is the phrase of a token")
    named = {
        name: validated(LayoutConditionerConfig, {**one.plain(), "categories": phrases}, path)
        for name, one in config.conditioning.items()
        if isinstance(one, LayoutConditionerConfig)
    }
    if not named:
        raise UserError(f"--categories {path}: {config.experiment} is not conditioned on boxes: leave it out")
    return config.model_copy(update={"conditioning": {**config.conditioning, **named}})

"""The command that goes on from a folder of weights: what such a model is for, with all that it has to be given."""

from __future__ import annotations

from pathlib import Path

from difflab.config.model import ModelConfig


def next_command(config: ModelConfig, folder: Path) -> str:
    """Returns the command to try with the stored model in `folder`."""
    from difflab.config.model import DrawingModelConfig

    if config.use is not None:
        return f"difflab {config.use.format(run=folder)}"
    if not isinstance(config, DrawingModelConfig):
        return f"difflab weights inspect {folder}"
    given = dict.fromkeys(one.given_by for one in config.conditioning.values() if one.given_by is not None)
    return " ".join((f"difflab sample run={folder} n=4", *given))

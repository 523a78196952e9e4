"""Opens the data set of a configuration; what it lacks is answered with the command that makes it."""

from __future__ import annotations

from typing import Any

from difflab.config.data import DataConfig
from difflab.data.directory import DataDirectory
from difflab.data.making import command_of, is_made_with
from difflab.data.opening import open_data
from difflab.data.reading import MissingFieldError, ShardDataset


def open_configured(cfg: DataConfig) -> DataDirectory:
    """The shards of a configuration. Raises UserError as `open_data` does."""
    return open_data(cfg.path, cfg.keys, cfg.made_with)


def samples_of(
    cfg: DataConfig, directory: DataDirectory, split: str, fields: tuple[str, ...], **how: Any
) -> ShardDataset:
    """The samples of a split of `open_configured(cfg)`, with these fields.

    how: further arguments of `ShardDataset`.

    Raises UserError as `ShardDataset` does; for a missing field with the command that makes the data set of the
    configuration, if this one was made otherwise.
    """
    try:
        return ShardDataset(directory, split, fields=fields, **how)
    except MissingFieldError as error:
        if cfg.made_with is None or is_made_with(directory, cfg.made_with):
            raise
        command = command_of(cfg.made_with, "<another directory>")
        raise MissingFieldError(error.field, error.why, command) from None

"""The levels of diffusers' networks, which their config.json lists block by block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from difflab.errors import UserError


class LevelsFile(Protocol):
    """A config.json with a block per level on both sides, the encoder's from full size down, the decoder's back up."""

    @property
    def down_block_types(self) -> Sequence[str]: ...
    @property
    def up_block_types(self) -> Sequence[str]: ...
    @property
    def block_out_channels(self) -> Sequence[int]: ...


def require_levels(path: Path, file: LevelsFile, key: str, values: Sequence[Any]) -> None:
    """Raises UserError unless there is one of the values of `key` per level."""
    levels = len(file.block_out_channels)
    if len(values) != levels:
        raise UserError(f"{path}: {key} has {len(values)} entries and block_out_channels {levels}")


def require_blocks(path: Path, file: LevelsFile) -> None:
    """Raises UserError unless there is a block per level on both sides."""
    for key in ("down_block_types", "up_block_types"):
        require_levels(path, file, key, getattr(file, key))


def attended_levels(path: Path, file: LevelsFile, down: Sequence[str], up: Sequence[str]) -> list[int]:
    """The levels with attention, which must be the same on both sides.

    down, up: the blocks of a level without and with attention. Raises UserError for any other block.
    """
    for key, known in (("down_block_types", down), ("up_block_types", up)):
        names = getattr(file, key)
        require_levels(path, file, key, names)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UserError(f"{path}: {key} has {unknown[0]}; known are {' and '.join(known)}")
    attended = [name == down[1] for name in file.down_block_types]
    if attended != [name == up[1] for name in reversed(file.up_block_types)]:
        raise UserError(f"{path}: up_block_types={file.up_block_types} do not mirror down_block_types")
    return [level for level, attends in enumerate(attended) if attends]

"""Checkpoint files that are complete or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from typing_extensions import override

from difflab.errors import UserError
from difflab.files import replacing


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, syncs, renames. Reads with weights_only=True: nothing in a checkpoint is executed."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Raises MachineError if the machine refuses (a full disk, no permission); the old file at `path` stays."""
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO takes no storage_options")
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The checkpoint on the CPU, unless `map_location` says otherwise; `weights_only` is always on."""
        source = Path(path)
        if not source.is_file():
            raise UserError(f"checkpoint {source} does not exist; give the path of a .ckpt file or resume=never")
        return torch.load(source, map_location="cpu" if map_location is None else map_location, weights_only=True)

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)

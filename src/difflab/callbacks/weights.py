"""Exported weights: safetensors with a config.json beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from typing_extensions import override

import difflab
from difflab.callbacks.clock import train_step
from difflab.callbacks.ema import find_ema
from difflab.files import write_text
from difflab.interop.tensor_files import write_safetensors
from difflab.parts.selection import exported
from difflab.tracking.clock import ClockedLogger


class WeightsExport(Callback):
    """Writes `weights/ema.safetensors` (`raw.safetensors` in a run without EMA) with every checkpoint and at the end.

    The file holds the exported state of the module, with the averages in place of the raw parameters; its metadata has
    `train_step`, `decay` and the version of difflab, all as strings. `config.json` beside it is `config`.
    """

    def __init__(self, dirpath: Path | str, config: dict[str, Any], artifact_mark: Path | None = None) -> None:
        """artifact_mark: the file with the step whose weights were last passed to the loggers."""
        self.dirpath, self.config, self.artifact_mark = Path(dirpath), config, artifact_mark
        self._written_step: int | None = None
        self._written: Path | None = None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._written_step = None

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.write(trainer, pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.write(trainer, pl_module)
        if trainer.is_global_zero and self._written is not None:
            for logger in trainer.loggers:
                if isinstance(logger, ClockedLogger):
                    metadata = {"train_step": train_step(pl_module)}
                    logger.log_artifact(self._written, name=self._written.stem, kind="model", metadata=metadata)
            if self.artifact_mark is not None and self.artifact_mark.parent.is_dir():
                write_text(self.artifact_mark, f"{train_step(pl_module)}\n")

    def owes(self, step: int, *, at_end: bool) -> bool:
        """Whether the weights after `step` steps are not written or, `at_end`, not passed to the loggers."""
        written = [self.dirpath / f"{name}.safetensors" for name in ("ema", "raw")]
        if not any(_step_of(path) == step for path in written) or not (self.dirpath / "config.json").is_file():
            return True
        mark = self.artifact_mark
        # Without its folder no logger keeps files.
        if not at_end or mark is None or not mark.parent.is_dir():
            return False
        return not mark.is_file() or mark.read_text(encoding="utf-8", errors="replace").strip() != str(step)

    def write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the weights of the current step, once, on the first process.

        Raises MachineError if the machine refuses (a full disk); the old file stays.
        """
        step = train_step(pl_module)
        if not trainer.is_global_zero or step == self._written_step:
            return
        ema = find_ema(trainer)
        averaged = ema is not None and bool(ema.averages)
        state = ema.ema_state_dict(pl_module) if ema is not None and averaged else exported(pl_module)
        metadata = {"train_step": str(step), "difflab": difflab.__version__, "format": "pt"}
        if ema is not None and averaged:
            metadata["decay"] = str(ema.decay)
        self._written = self.dirpath / ("ema.safetensors" if averaged else "raw.safetensors")
        save_weights(self._written, state, metadata)
        write_text(self.dirpath / "config.json", json.dumps(self.config, indent=2) + "\n")
        self._written_step = step


def save_weights(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors to a safetensors file atomically. Raises MachineError if the machine refuses."""
    write_safetensors(path, state, metadata)


def _step_of(path: Path) -> int | None:
    """The step of exported weights; None if there are none, or they cannot be read."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            step = (file.metadata() or {}).get("train_step", "")
    except SafetensorError:
        return None
    return int(step) if step.isdecimal() else None

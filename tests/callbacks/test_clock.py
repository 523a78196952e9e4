"""What the clock tells the loggers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks.checkpoint import Checkpoint
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.clock import Clock
from difflab.tracking.csv import CSVLogger
from difflab.tracking.csv_rows import read_csv


class Logging(Callback):
    """Logs `name` after every batch; what it logged at a checkpoint's step comes again if `again`."""

    def __init__(self, name: str, *, again: bool) -> None:
        self.name, self.again = name, again

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.logger.log_metrics({self.name: 0.5}, step=99)

    def logs_again(self, step: int, row: Mapping[str, str]) -> bool:
        return self.again and self.name in row


def test_rows_carry_the_steps_and_the_images_and_what_comes_again_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"

    def fit(steps: int, resume: Path | None) -> list[tuple[str, str, str]]:
        callbacks = [Logging("kept", again=False), Logging("again", again=True)]
        save = Checkpoint(tmp_path, every_steps=2, at_end=False)
        run = trainer(
            tmp_path, steps, [Clock(), *callbacks, save], logger=CSVLogger(path), plugins=[AtomicCheckpointIO()]
        )
        run.fit(Tiny(), loader(9), ckpt_path=resume, weights_only=True)
        logged = [(row["train/step"], row["train/images"], next(reversed(row))) for row in read_csv(path)]
        return [row for row in logged if row[2] in ("kept", "again")]

    first = fit(3, None)
    assert first == [(f"{n}", f"{2 * n}", name) for n in (1, 2, 3) for name in ("kept", "again")]
    # Step 3 is trained again, and of step 2 the rows that are said to come again.
    assert fit(3, tmp_path / "last.ckpt") == [row for row in first if row != ("2", "4", "again")]

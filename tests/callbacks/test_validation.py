from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks.checkpoint import Checkpoint
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.clock import Clock
from difflab.callbacks.progress import Progress
from difflab.callbacks.validation import Validation
from difflab.tracking.csv import CSVLogger
from difflab.types import Batch


class Validated(Tiny):
    """Knows at which steps each held-out batch was seen."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.validated: list[tuple[int, int]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated.append((self.train_step, int(batch["numbers"][0, 0])))

    def on_validation_end(self) -> None:
        self.trainer.logger.log_metrics({"val/loss": 0.5}, step=self.train_step)


def fit(
    root: Path, steps: int, every: int = 2, resume: str | None = None, *, noted: bool = True, stream: Any = None
) -> list[int]:
    """The steps after which all three held-out batches were seen."""
    model, logger = Validated(), CSVLogger(root / "metrics.csv")
    callbacks = [
        Clock(steps),
        Checkpoint(root, every_steps=2, keep_last=9),
        Validation(every, logger.path if noted else None),
        Progress(steps, line_every_s=0.0, stream=stream or io.StringIO()),
    ]
    run = trainer(
        root, -1, callbacks, logger=logger, max_epochs=1, check_val_every_n_epoch=2, plugins=[AtomicCheckpointIO()]
    )
    ckpt_path = None if resume is None else root / resume
    run.fit(model, loader(20), DataLoader(list(loader(3)), batch_size=None), ckpt_path=ckpt_path, weights_only=True)
    steps_seen = [step for step, batch in model.validated if batch == 0]
    assert model.validated == [(step, batch) for step in steps_seen for batch in range(3)]
    return steps_seen


def test_it_validates_at_the_multiples_and_after_the_last_step(tmp_path: Path) -> None:
    assert fit(tmp_path, 5) == [2, 4, 5]


def test_it_is_shown(tmp_path: Path) -> None:
    stream = io.StringIO()
    fit(tmp_path, 3, stream=stream)
    shown = [line.split(" | ")[:2] for line in stream.getvalue().splitlines()]
    assert [step for step, what in shown if what == "validating"] == ["step 2/3", "step 3/3"]


@pytest.mark.parametrize(("noted", "again"), [(True, []), (False, [2])])
def test_every_validation_after_a_resume_is_a_whole_one(noted: bool, again: list[int], tmp_path: Path) -> None:
    fit(tmp_path, 3, noted=noted)
    assert fit(tmp_path, 6, resume="step-000002.ckpt", noted=noted) == [*again, 4, 6]


def test_the_validation_of_the_last_step_is_made_up(tmp_path: Path) -> None:
    fit(tmp_path, 3)
    lines = (tmp_path / "metrics.csv").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.csv").write_text("".join(line for line in lines if not line.startswith("3,")))
    assert fit(tmp_path, 3, resume="last.ckpt") == [3]
    assert fit(tmp_path, 3, resume="last.ckpt") == []


def test_what_it_owes_is_read_off_the_rows_of_that_step(tmp_path: Path) -> None:
    validation = Validation(2, tmp_path / "metrics.csv")
    assert validation.owes(2, at_end=False), "there is no file yet"
    (tmp_path / "metrics.csv").write_text("train/step,train/loss,val/loss\n2,0.5,0.4\n4,0.3,\n")
    assert [validation.owes(step, at_end=False) for step in (1, 2, 3, 4)] == [False, False, False, True]
    assert validation.owes(3, at_end=True)
    assert not validation.owes(2, at_end=True)
    assert not Validation(2, None).owes(4, at_end=True), "nothing says whether it was made"

"""When periodic work is done, made up and left alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks.checkpoint import Checkpoint
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.clock import EverySteps
from difflab.callbacks.periodic import Periodic


class Noting(Periodic):
    """Leaves a file for each step."""

    def __init__(self, folder: Path, every: int | None = 2, *, at_end: bool = True) -> None:
        super().__init__(every, at_end=at_end)
        self.folder, self.acted = folder, []

    def act(self, trainer: Any, pl_module: Any) -> None:
        self.acted.append(pl_module.train_step)
        (self.folder / f"{pl_module.train_step}").touch()

    def finished(self, step: int) -> bool:
        return (self.folder / f"{step}").exists()


def fit(root: Path, steps: int, noting: Noting, resume: bool = False) -> list[int]:
    save = Checkpoint(root / "ckpt", every_steps=1, keep_last=9)
    run = trainer(root, steps, [save, noting], plugins=[AtomicCheckpointIO()])
    run.fit(Tiny(), loader(20), ckpt_path=root / "ckpt" / "last.ckpt" if resume else None, weights_only=True)
    return noting.acted


@pytest.mark.parametrize(("every", "at_end", "acted"), [(2, True, [2, 4, 5]), (2, False, [2, 4]), (None, True, [5])])
def test_it_acts_at_the_multiples_and_at_the_end(every: Any, at_end: bool, acted: list[int], tmp_path: Path) -> None:
    assert fit(tmp_path, 5, Noting(tmp_path, every, at_end=at_end)) == acted


def test_what_is_there_is_not_done_again_and_what_is_missing_is(tmp_path: Path) -> None:
    fit(tmp_path, 4, Noting(tmp_path))
    assert fit(tmp_path, 6, Noting(tmp_path), resume=True) == [6]
    (tmp_path / "6").unlink()
    assert fit(tmp_path, 7, Noting(tmp_path), resume=True) == [6, 7]
    # Nothing was due at 7 but the end; training that goes on does not end there.
    (tmp_path / "7").unlink()
    assert fit(tmp_path, 8, Noting(tmp_path), resume=True) == [8]


def test_it_owes_what_is_due_and_not_there(tmp_path: Path) -> None:
    noting = Noting(tmp_path)
    assert [step for step in range(6) if noting.owes(step, at_end=False)] == [2, 4]
    assert noting.owes(5, at_end=True)
    (tmp_path / "5").touch()
    assert not noting.owes(5, at_end=True)
    assert not Noting(tmp_path, None, at_end=False).owes(6, at_end=True)


def test_nothing_falls_on_the_beginning_or_on_never() -> None:
    assert [step for step in range(7) if EverySteps(3).falls_on(step)] == [3, 6]
    assert not any(EverySteps(None).falls_on(step) for step in range(7))
    every = EverySteps(3)
    every.start(3)
    assert [every.due(step) for step in (3, 4, 6, 6)] == [False, False, True, False]


@pytest.mark.parametrize("first", [True, False])
def test_the_first_process_alone_removes_what_was_left_of_later_steps(first: bool, tmp_path: Path) -> None:
    class Forgetful(Noting):
        def forget_after(self, step: int) -> None:
            forgotten.append(step)

    forgotten: list[int] = []
    strategy = SimpleNamespace(broadcast=lambda answer: True)
    stub: Any = SimpleNamespace(is_global_zero=first, strategy=strategy)
    model = Tiny()
    model.train_step = 4
    noting = Forgetful(tmp_path)
    noting.on_train_start(stub, model)
    assert forgotten == ([4] if first else [])
    assert noting.acted == [], "the first process says that it is done"

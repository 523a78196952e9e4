from __future__ import annotations

from pathlib import Path

from difflab.checkpoints import checkpoint_name, newest_checkpoint, step_checkpoints
from difflab.tracking.rundir import RunDirectory

STEPS = (999_999, 1_000_000, 5, 10_000_000, 20)


def make(folder: Path) -> None:
    folder.mkdir()
    for step in STEPS:
        (folder / checkpoint_name(step)).touch()
    for other in ("step-1.ckpt", "step-000007.ckpt.bak", ".step-000008.ckpt.partial-1", "step-0000x9.ckpt", "a.ckpt"):
        (folder / other).touch()


def test_steps_are_numbers_and_not_texts(tmp_path: Path) -> None:
    make(tmp_path / "c")
    assert [step for step, _ in step_checkpoints(tmp_path / "c")] == sorted(STEPS)
    assert [step for step, _ in step_checkpoints(tmp_path / "c", up_to=999_999)] == [5, 20, 999_999]


def test_the_newest_is_last_and_without_it_the_one_of_the_highest_step(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert newest_checkpoint(folder) is None
    make(folder)
    assert newest_checkpoint(folder) == folder / "step-10000000.ckpt"
    (folder / "step-10000000.ckpt").unlink()
    assert RunDirectory(tmp_path).checkpoint_to_resume("auto") == folder / "step-1000000.ckpt"
    assert RunDirectory(tmp_path).checkpoint_to_resume("must") == folder / "step-1000000.ckpt"
    (folder / "last.ckpt").touch()
    assert newest_checkpoint(folder) == folder / "last.ckpt"

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from difflab.commands.limits import refusing_too_large, require_disk, require_memory
from difflab.errors import UserError
from difflab.machine import MachineError
from tiny_runs import ON_CPU, difflab, mistake

LITE = (
    "logger=none",
    "metrics=shapes",
    "metrics.fd.extractor=random",
    "metrics.kid.extractor=random",
    "metrics.kid.subset_size=8",
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["n=1000000000", "png=false"], "n=1000000000: samples.npz need at least 1,536 GB"),
        (["n=10000000000", "npz=false", "grid=false"], "n=10000000000: pictures need at least 5,120 GB"),
        (["n=1000000000000", "batch_size=1000000000", "png=false", "npz=false", "grid=false"], "lower batch_size"),
    ],
)
def test_what_the_machine_cannot_hold_is_refused_at_once(
    tiny_run: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in mistake("sample", f"run={tiny_run}", "out=drawn", *arguments, *ON_CPU)
    assert not (tmp_path / "drawn").exists()


def test_an_evaluation_that_keeps_too_much_is_refused_before_it_begins(own_run: Path) -> None:
    message = mistake("evaluate", f"run={own_run}", "n=1000000000", *LITE, *ON_CPU)
    assert "n=1000000000: what the metrics keep of the samples need" in message
    assert not (own_run / "evaluations").exists()


def test_memory_that_is_not_enough_is_one_line() -> None:
    require_memory("these", 10, 10, "lower n")
    with pytest.raises(UserError, match=r"^these need at least 2.5 MB of memory, but there are 10 kB: lower n$"):
        require_memory("these", 2_500_000, 10_000, "lower n")
    for error in (torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory")):
        with pytest.raises(UserError, match="batch_size=8 does not fit"), refusing_too_large("batch_size=8"):
            raise error
    with pytest.raises(RuntimeError, match="shapes"), refusing_too_large("batch_size=8"):
        raise RuntimeError("shapes do not match")


def test_a_disk_that_is_too_full_is_the_machines_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=100, used=70, free=30))
    require_disk("these", 30, tmp_path, "lower n")
    with pytest.raises(MachineError, match="no space left to write") as refused:
        require_disk("these", 31, tmp_path / "out", "lower n")
    assert (refused.value.status, refused.value.filename) == (1, str(tmp_path / "out"))
    # More than the disk could ever hold is the user's to mend.
    with pytest.raises(MachineError):
        require_disk("these", 100, tmp_path, "lower n")
    with pytest.raises(UserError, match="lower n"):
        require_disk("these", 101, tmp_path, "lower n")


def test_pictures_are_counted_on_the_disk_that_they_go_to(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(path: Path) -> SimpleNamespace:
        free = 0 if Path(path).name == "full" else 10**15
        return SimpleNamespace(total=10**15, used=0, free=free)

    (tmp_path / "full").mkdir()
    monkeypatch.setattr(shutil, "disk_usage", usage)
    ended = difflab("sample", f"run={tiny_run}", "n=2", "out=full/drawn", *ON_CPU)
    assert ended.status == 1
    assert "no space left to write full/drawn" in ended.err


def test_the_disk_that_is_asked_is_that_of_the_folder(tmp_path: Path) -> None:
    require_disk("these", 1, tmp_path / "not" / "yet" / "there", "lower n")
    with pytest.raises(UserError, match=r"these need .* GB, but the disk of .* has .*: lower n"):
        require_disk("these", 10**18, tmp_path / "not" / "yet", "lower n")

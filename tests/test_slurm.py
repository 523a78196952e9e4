from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "slurm").glob("*.sbatch"))


def submit(script: Path, folder: Path, *, status: int, **environment: str) -> tuple[int, list[str]]:
    """Run a script where srun ends with `status`; the exit status, and what the programs of SLURM were asked."""
    for name, body in {"srun": f"exit {status}", "scontrol": "", "sleep": ""}.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n{body}\n')
        program.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", str(script), "experiment=ddpm/shapes32", "name=two words"],
        cwd=folder,
        env={"PATH": path, "SLURM_JOB_ID": "17", **environment},
        capture_output=True,
        text=True,
    )
    assert ended.stderr == ""
    return ended.returncode, (folder / "calls").read_text().splitlines()


def test_there_are_scripts() -> None:
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_valid(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    directives = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert "#SBATCH --requeue" in directives
    assert any(line.startswith("#SBATCH --signal=USR1@") for line in directives)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_run_that_saved_and_stopped_is_queued_again(script: Path, tmp_path: Path) -> None:
    status, calls = submit(script, tmp_path, status=75)
    assert status == 75
    assert calls[0].endswith("difflab train experiment=ddpm/shapes32 name=two words")
    assert calls[1] == "scontrol requeue 17"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("status", [0, 1, 2, 137])
def test_any_other_status_passes_through(script: Path, status: int, tmp_path: Path) -> None:
    ended, calls = submit(script, tmp_path, status=status)
    assert ended == status
    assert len(calls) == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.parametrize(("count", "limit", "again"), [("49", None, True), ("50", None, False), ("2", "2", False)])
def test_it_is_not_queued_again_for_ever(
    script: Path, count: str, limit: str | None, again: bool, tmp_path: Path
) -> None:
    environment = {"SLURM_RESTART_COUNT": count} | ({} if limit is None else {"DIFFLAB_MAX_RESTARTS": limit})
    _, calls = submit(script, tmp_path, status=75, **environment)
    assert ("scontrol requeue 17" in calls) is again


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_status_is_the_one_that_training_ends_with(script: Path) -> None:
    from difflab.commands.composing import compose

    preemption = compose("train", ["experiment=ddpm/shapes32"])["callbacks"]["preemption"]
    assert f"SAVED_AND_STOPPED={preemption['exit_status']}" in script.read_text()

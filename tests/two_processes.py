"""A script run by two processes that find each other, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch

from command_line import end_programs, start_program

TESTS = Path(__file__).parent


def run_two_processes(script: Path, folder: Path, *arguments: object) -> None:
    """Run `script` with `folder` and the arguments on two ranks; what they say on standard error is in `errors.txt`."""
    # Behind the tests the sources that this process was told to take, if any.
    paths = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    port = _free_port()
    command = [sys.executable, str(script), str(folder), *map(str, arguments)]
    programs = [
        start_program(command, folder, {"PYTHONPATH": paths, **_as_torchrun_sets_it(rank, port)}) for rank in range(2)
    ]
    try:
        errors = [program.communicate(timeout=240)[1] for program in programs]
    finally:
        end_programs()
    (folder / "errors.txt").write_text("\n".join(errors))


def reports_of(folder: Path, errors: Path) -> list[dict[str, Any]]:
    """What both ranks have saved in a folder; `errors` is the file of `run_two_processes`."""
    files = [folder / f"{rank}.pt" for rank in range(2)]
    assert all(file.is_file() for file in files), errors.read_text()[-3000:]
    return [torch.load(file, weights_only=True) for file in files]


def _as_torchrun_sets_it(rank: int, port: int) -> dict[str, str]:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "two"}
    return {name: str(value) for name, value in {**ranks, **meeting}.items()}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]

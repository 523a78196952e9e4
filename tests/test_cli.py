from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from command_line import spawn_difflab
from difflab import __version__, cli
from difflab.errors import UserError
from tiny_runs import difflab, done, mistake

HEAVY = {"torch", "lightning", "wandb", "hydra", "torchvision", "numpy", "pydantic", "typer"}


def replace_doctor(monkeypatch: pytest.MonkeyPatch, main) -> None:
    """Let `main` answer for `difflab doctor`."""
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(main=main))


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(arguments: list[str]) -> None:
    ended = done(*arguments)
    lines = ended.out.splitlines()
    for name, command in cli.COMMANDS.items():
        assert any(line.split()[:1] == [name] and line.endswith(command.summary) for line in lines)
    assert ended.err == ""


def test_every_command_is_there() -> None:
    for command in cli.COMMANDS.values():
        assert callable(importlib.import_module(command.module).main)


def test_help_and_version_import_nothing_heavy() -> None:
    code = "import sys; from difflab.cli import main; main([sys.argv[1]]); print(*sys.modules)"
    for flag in ("--help", "--version"):
        ran = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True, check=True)
        assert not HEAVY & set(ran.stdout.splitlines()[-1].split())


def test_version() -> None:
    assert done("--version").out == f"difflab {__version__}\n"


def test_a_misspelt_command_gets_a_suggestion() -> None:
    message = mistake("trian")
    assert message.startswith("difflab trian: unknown command; did you mean `difflab train`?")
    assert "did you mean" not in mistake("xyzzy")
    assert all(name in mistake("xyzzy") for name in cli.COMMANDS)


def test_a_mistake_is_one_line_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(argv: Sequence[str]) -> int:
        raise UserError(f"{argv[0]} is wrong; leave it out")

    replace_doctor(monkeypatch, main)
    ended = difflab("doctor", "this")
    assert (ended.status, ended.out, ended.err) == (2, "", "difflab doctor: this is wrong; leave it out\n")


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
def test_the_status_is_the_command_s(returned: int | None, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_doctor(monkeypatch, lambda argv: returned)
    assert difflab("doctor").status == status


@pytest.mark.parametrize("error", [ValueError, RuntimeError, OSError])
def test_a_bug_keeps_its_traceback(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def main(argv: Sequence[str]) -> int:
        raise error("a bug")

    replace_doctor(monkeypatch, main)
    with pytest.raises(error, match="a bug"):
        cli.main(["doctor"])


def test_a_bug_ends_a_program_with_its_traceback_and_status_1() -> None:
    code = (
        "import sys\nfrom difflab import cli\nfrom types import SimpleNamespace\n"
        "cli.importlib.import_module = lambda name: SimpleNamespace(main=lambda argv: 1 / 0)\n"
        "sys.exit(cli.main(['doctor']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "Traceback" in ran.stderr
    assert "ZeroDivisionError" in ran.stderr


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 1), (errno.EACCES, 1), (errno.ENOTDIR, 2)])
def test_what_the_machine_refuses_is_one_line(number: int, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(argv: Sequence[str]) -> int:
        raise RuntimeError("could not write") from OSError(number, os.strerror(number), "/out/file")

    replace_doctor(monkeypatch, main)
    ended = difflab("doctor")
    assert (ended.status, ended.out, ended.err.count("\n")) == (status, "", 1)
    assert ended.err.startswith("difflab doctor: ")
    assert "/out/file" in ended.err


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_output_that_cannot_be_written_is_status_1(arguments: list[str]) -> None:
    """Also where a library (Hydra, for its help) leaves by SystemExit."""
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "difflab.cli", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (ran.returncode, ran.stderr) == (
        1,
        f"difflab {arguments[0]}: standard output cannot be written (No space left on device)\n",
    )


def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(argv: Sequence[str]) -> int:
        raise KeyboardInterrupt

    replace_doctor(monkeypatch, main)
    ended = difflab("doctor")
    assert (ended.status, ended.err) == (130, "difflab doctor: interrupted\n")


@pytest.mark.parametrize("arguments", [["--help"], ["data", "list", "--json"]])
def test_a_reader_who_goes_away_is_no_error(arguments: list[str]) -> None:
    # Buffered, as output into a pipe is: the write that fails is the last one.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "difflab.cli", *arguments],
            env=environment,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    ended = spawn_difflab(["sample", "run=nowhere"], tmp_path)
    assert ended.status == 2
    assert ended.err == (
        "difflab sample: run=nowhere does not exist: give a run directory, an exported folder or a checkpoint\n"
    )
    assert not list(tmp_path.iterdir())

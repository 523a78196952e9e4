from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from command_line import start_program
from difflab.interop.tensor_files import write_safetensors, write_torch

METADATA = {"train_step": "12", "difflab": "0.1", "decay": "0.9", "name": 'é "quoted"\n\\', "a": ""}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("write", [write_safetensors, write_torch])
def test_others_may_read_what_the_umask_lets_them(tmp_path: Path, write, umask: int) -> None:
    before = os.umask(umask)
    try:
        for _ in range(2):
            write(tmp_path / "w", {"a": torch.ones(2)})
            assert (tmp_path / "w").stat().st_mode & 0o777 == 0o666 & ~umask
    finally:
        os.umask(before)


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from pathlib import Path; from difflab.interop.tensor_files import write_safetensors; "
        f"write_safetensors(Path(sys.argv[1]), {{'b': torch.ones(3), 'a': torch.zeros(2)}}, {METADATA!r})"
    )
    names = [str(tmp_path / str(seed)) for seed in range(3)]
    programs = [
        start_program([sys.executable, "-c", program, name], tmp_path, {"PYTHONHASHSEED": str(seed)})
        for seed, name in enumerate(names)
    ]
    assert [program.wait(timeout=120) for program in programs] == [0, 0, 0]
    contents = {Path(name).read_bytes() for name in names}
    assert len(contents) == 1
    assert str(tmp_path).encode() not in contents.pop()


def test_the_metadata_is_whole_and_in_order(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "w", {"b": torch.arange(3.0), "a": torch.ones((), dtype=torch.float64)}, METADATA)
    with safe_open(tmp_path / "w", framework="pt") as file:
        assert file.metadata() == {**METADATA, "format": "pt"}
        assert torch.equal(file.get_tensor("b"), torch.arange(3.0))
        assert file.get_tensor("a").dtype == torch.float64
    content = (tmp_path / "w").read_bytes()
    places = [content.index(f'"{name}":'.encode()) for name in sorted({**METADATA, "format": ""})]
    assert places == sorted(places)


def test_tied_weights_are_written_twice(tmp_path: Path) -> None:
    tied = torch.arange(6.0).view(2, 3)
    write_safetensors(tmp_path / "w", {"a": tied, "b": tied, "c": tied.T})
    with safe_open(tmp_path / "w", framework="pt") as file:
        assert torch.equal(file.get_tensor("a"), file.get_tensor("b"))
        assert torch.equal(file.get_tensor("c"), tied.T)


@pytest.mark.slow
@pytest.mark.parametrize("writer", ["write_safetensors", "write_torch"])
def test_a_full_disk_is_an_os_error_and_leaves_the_old_file(tmp_path: Path, writer: str) -> None:
    """A limit on the size of files is the full disk that a test can make."""
    program = (
        "import resource, signal, torch; from pathlib import Path\n"
        f"from difflab.interop.tensor_files import {writer} as write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "write(Path('w'), {'a': torch.ones(1)})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write(Path('w'), {'a': torch.ones(10_000)})\n"
        "except OSError as error: print(error.errno, error.filename)\n"
    )
    process = start_program([sys.executable, "-c", program], tmp_path)
    out, err = process.communicate(timeout=120)
    assert out == f"{errno.EFBIG} w\n", err
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    assert (tmp_path / "w").stat().st_size < 4096

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from difflab.errors import UserError
from difflab.interop.unwrapping import read_weights

STATE = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.bias": torch.ones(20)}


class Trap:
    """Pickles as a command that makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


class Harmless:
    pass


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_what_torch_saved(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=not legacy)
    found = read_weights(path)
    assert same(found.state)
    assert found.format == ("torch legacy" if legacy else "torch zip")
    assert found.notes == ()


def test_reads_safetensors_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    save_file(STATE, path)
    assert same(read_weights(path).state)
    assert read_weights(path).format == "safetensors"


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, legacy: bool, nested: bool) -> None:
    path, target = tmp_path / "evil.ckpt", tmp_path / "made"
    trap = Trap(target)
    content = {**STATE, "x": trap} if not nested else {"state_dict": {**STATE}, "callbacks": [{"a": trap}]}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError) as error:
        read_weights(path)
    assert str(path) in str(error.value)
    assert f"{os.system.__module__}.system" in str(error.value)
    assert "\n" not in str(error.value)
    assert not target.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_bare_pickle_that_would_run_code_is_refused(tmp_path: Path, protocol: int) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "made"
    path.write_bytes(pickle.dumps({"x": Trap(target)}, protocol=protocol))
    with pytest.raises(UserError, match=r"would run \w+\.system"):
        read_weights(path)
    assert not target.exists()


def test_a_harmless_class_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "object.pt"
    torch.save({"a": torch.ones(1), "b": Harmless()}, path)
    with pytest.raises(UserError, match=r"would run .*Harmless; only tensors"):
        read_weights(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("keep", [0.03, 0.5, 0.98])
def test_a_truncated_file_is_one_line(tmp_path: Path, kind: str, keep: float) -> None:
    path = tmp_path / "weights.pt"
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError) as error:
        read_weights(path)
    assert str(path) in str(error.value)
    assert "fetch it again" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tar_checkpoint_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps({})
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(UserError, match="write it again as safetensors"):
        read_weights(path)


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"hello world", "neither a safetensors file")])
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "notes.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_weights(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.pt: no such file"):
        read_weights(tmp_path / "gone.pt")

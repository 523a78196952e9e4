"""Files that are damaged, misnamed or made to harm: one line each, and nothing in them runs."""

from __future__ import annotations

import errno
import io
import os
import pickle
import resource
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from difflab.errors import UserError
from difflab.interop import unpickle
from difflab.interop.native import load_export, read_json
from difflab.interop.unwrapping import read_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3)}


class Runs:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def torch_bytes(content: object = STATE, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def zipped(compression: int, content: bytes = b"\0" * 10_000_000, copies: int = 1) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for number in range(copies):
            archive.writestr(f"x/data{number or ''}.pkl", content)
    return file.getvalue()


def declaring(size: int) -> bytes:
    """A torch archive whose directory gives a member another size."""
    content = bytearray(torch_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", size)
    return bytes(content)


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    return file.getvalue()


BAD: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda _: b"",
    "one byte": lambda _: b"\x80",
    "text": lambda _: b"<html>404 Not Found</html>",
    "git lfs pointer": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "header of 2^63": lambda _: header(b'{"a":1}', 2**63),
    "header of 2^64 - 1": lambda _: header(b'{"a":1}', 2**64 - 1),
    "header beyond the file": lambda _: header(b'{"a":1}', 10**6),
    "header of brackets": lambda _: header(b'{"a":' + b"[" * 200_000),
    "header that is not UTF-8": lambda _: header(b'{"\xff\xfe":1}'),
    "header of no tensors": lambda _: header(b'{"a":1}'),
    "header of huge shapes": lambda _: header(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}'
    ) + b"\0" * 4,
    "header of an unknown type": lambda _: header(
        b'{"a":{"dtype":"F999","shape":[1],"data_offsets":[0,4]}}'
    ) + b"\0" * 4,
    "safetensors cut short": lambda _: save(STATE)[:-1],
    "torch cut short": lambda _: torch_bytes()[:-30],
    "torch legacy cut short": lambda _: torch_bytes(legacy=True)[:-3],
    "compressed zip": lambda _: zipped(zipfile.ZIP_DEFLATED),
    "zip of many copies": lambda _: zipped(zipfile.ZIP_DEFLATED, copies=30),
    "zip of no torch": lambda _: zipped(zipfile.ZIP_STORED, b"hello"),
    "zip declaring more than it has": lambda _: declaring(2**32 - 2),
    "tar": lambda _: tar(),
    "pickle that runs": lambda trace: pickle.dumps(Runs(trace), protocol=2),
    "pickle that runs, protocol 4": lambda trace: pickle.dumps({"a": Runs(trace)}, protocol=4),
    "torch that runs": lambda trace: torch_bytes({**STATE, "x": Runs(trace)}),
    "torch legacy that runs": lambda trace: torch_bytes({**STATE, "x": Runs(trace)}, legacy=True),
    "whole module": lambda _: torch_bytes(nn.Linear(2, 2)),
    "pickle of a huge bytearray": lambda _: b"\x80\x02cbuiltins\nbytearray\n\x8a\x07" + (2**50).to_bytes(7, "little")
    + b"\x85R.",
    "pickle of nothing": lambda _: b"\x80\x02.",
    "pickle of tuples in tuples": lambda _: b"\x80\x02)" + b"\x85" * 100_000 + b".",
}  # fmt: skip


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_one_line_and_run_nothing(tmp_path: Path, kind: str, name: str) -> None:
    path, trace = tmp_path / name, tmp_path / "trace"
    path.write_bytes(BAD[kind](trace))
    with pytest.raises(UserError) as error:
        read_weights(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("compressed zip", "its members would unpack to 10,000,000 bytes from a file of"),
        ("zip of many copies", "its members would unpack to 300,000,000 bytes from a file of"),
        ("zip declaring more than it has", "its members would unpack to"),
        ("tar", "a tar checkpoint of torch before 0.1.10"),
        ("torch that runs", f"refused, because reading it would run {os.system.__module__}.system"),
        ("whole module", "refused, because reading it would run torch.nn.modules.linear.Linear"),
        ("header of 2^63", "damaged safetensors file"),
        ("torch cut short", "the file is cut short or damaged"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(BAD[kind](tmp_path / "trace"))
    with pytest.raises(UserError) as error:
        read_weights(path)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("legacy", [False, True, None])
def test_a_whole_file_is_read_whatever_its_name(tmp_path: Path, name: str, legacy: bool | None) -> None:
    path = tmp_path / name
    path.write_bytes(save(STATE) if legacy is None else torch_bytes(legacy=legacy))
    found = read_weights(path)
    assert torch.equal(found.state["a.weight"], STATE["a.weight"])
    misnamed = name == "w.safetensors" and legacy is not None
    assert any("although its name says safetensors" in note for note in found.notes) == misnamed


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    for name, message in (
        ("folder.pt", "a folder, where a file is needed"),
        ("loop.pt", "a symbolic link that leads nowhere"),
        ("pipe.pt", "not a regular file"),
        ("gone.pt", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            read_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 200_000, "not valid JSON"),
        (b'{"a":' * 200_000, "not valid JSON"),
        (b'{"a": "\xff\xfe"}', "not valid JSON"),
        (b"", "not valid JSON"),
        (b'{"a": 1' + b"0" * 10_000 + b"}", "not valid JSON"),
        (b"[1]", "holds a list, not an object"),
    ],
    ids=["brackets", "braces", "latin1", "empty", "a long number", "list"],
)
def test_bad_json_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_json(tmp_path / "config.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ['{"difflab": 3, "config": {}}', '{"difflab": {"format": 1}, "config": [1]}', "{}"])
def test_a_description_of_another_shape_is_no_export(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="not a difflab export"):
        load_export(tmp_path)


@pytest.fixture(params=["safetensors", "zip", "legacy"])
def good(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "good.pt"
    if request.param == "safetensors":
        save_file(STATE, path)
    else:
        path.write_bytes(torch_bytes(legacy=request.param == "legacy"))
    return path


def test_too_many_open_files_are_no_damage(good: Path) -> None:
    read_weights(good)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    refused: list[tuple[int | None, str]] = []
    try:
        for spare in range(4):
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, hard))
            try:
                read_weights(good)
            except OSError as error:
                refused.append((error.errno, error.filename))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refused
    assert set(refused) == {(errno.EMFILE, str(good))}


def test_a_disk_that_cannot_be_read_is_no_damage(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error as each library tells it."""
    from safetensors import SafetensorError

    def fails(*args: object, **kwargs: object) -> dict[str, Tensor]:
        if unpickle._format_of(good) == "safetensors":
            raise SafetensorError("Error while deserializing header: I/O error: input/output error (os error 5)")
        raise RuntimeError(f"unable to mmap 24 bytes from file <{good}>: input/output error (5)")

    monkeypatch.setattr("torch.load", fails)
    monkeypatch.setattr("safetensors.torch.load_file", fails)
    with pytest.raises(OSError, match="input/output error") as error:
        read_weights(good)
    assert (error.value.errno, error.value.filename) == (errno.EIO, str(good))

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest
from webdataset import TarWriter

from difflab.data.tar_scan import scan_tar
from difflab.data.tar_writing import ShardFile, header_of

SAMPLES = {
    "empty": {"png": b""},
    "a block": {"png": bytes(512), "cls": b"3"},
    "text": {"txt": "ü".encode(), "json": b'{"a": 1}', "jpg": b"x" * 513},
    "large": {"png": b"y" * 30_000, "npy": b"z" * 10_240},
}


def write(path: Path) -> ShardFile:
    file = ShardFile(path)
    for number, files in enumerate(SAMPLES.values()):
        file.add(f"{number:08d}", files)
    file.close()
    return file


def test_the_bytes_are_those_of_webdataset(tmp_path: Path) -> None:
    write(tmp_path / "ours.tar")
    with (tmp_path / "theirs.tar").open("wb") as stream:
        writer = TarWriter(stream, user="", group="", mtime=0, encoder=False)
        for number, files in enumerate(SAMPLES.values()):
            writer.write({"__key__": f"{number:08d}", **files})
        writer.close()
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_table_members_and_hash_are_what_a_scan_finds(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tar")
    scan = scan_tar(tmp_path / "a.tar")
    table = file.table()
    assert table.dtype == scan.checked_table.dtype
    np.testing.assert_array_equal(table, scan.checked_table)
    content = (tmp_path / "a.tar").read_bytes()
    assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (dict(sorted(file.members.items())), len(file)) == (scan.members, len(SAMPLES))


@pytest.mark.parametrize("key", ["é", "x" * 101, "folder/" + "ü" * 90, "7"])
def test_names_that_a_plain_header_cannot_hold_have_one_of_their_own(key: str, tmp_path: Path) -> None:
    file = ShardFile(tmp_path / "a.tar")
    file.add(key, {"png": b"abc", "txt": b""})
    file.close()
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getnames() == [f"{key}.png", f"{key}.txt"]
    scan, table = scan_tar(tmp_path / "a.tar").checked_table, file.table()
    assert table["key"].tolist() == [key.encode()]
    for name in table.dtype.names:
        assert table[name].tolist() == scan[name].tolist()


@pytest.mark.parametrize(("name", "size"), [("a.png", 8 << 30)])
def test_what_a_header_cannot_say_is_refused(name: str, size: int) -> None:
    with pytest.raises(AssertionError):
        header_of(name, size)

import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from difflab.data.tar_scan import safe_key, scan_tar
from difflab.errors import UserError


def members_of(path, table, key):
    row = table[[k.decode() for k in table["key"]].index(key)]
    data = path.read_bytes()
    found = {name: row[name].tolist() for name in table.dtype.names if name != "key"}
    return {name: data[offset : offset + size] for name, (offset, size) in found.items() if offset >= 0}


def test_offsets_point_at_the_members_bytes(tmp_path, write_tar):
    path = write_tar(tmp_path / "a.tar", {"x/1.png": b"one", "x/1.cls": b"0", "x/2.jpg": b"twotwo"})
    scan = scan_tar(path)
    assert members_of(path, scan.table, "x/1") == {"png": b"one", "cls": b"0"}
    assert members_of(path, scan.table, "x/2") == {"jpg": b"twotwo"}
    assert scan.members == {"png": 1, "cls": 1, "jpg": 1}
    assert scan.ignored == 0


@pytest.mark.parametrize("fmt", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_read(tmp_path, write_tar, fmt):
    name = "d" * 90 + "/" + "ü" * 90
    path = write_tar(tmp_path / "a.tar", {f"{name}.png": b"pixels", f"{name}.txt": b"words"}, fmt)
    assert members_of(path, scan_tar(path).table, name) == {"png": b"pixels", "txt": b"words"}


def test_a_tar_of_the_tar_command_with_scattered_members_is_grouped(tmp_path):
    for name in ("b.txt", "a.txt", "b.jpg", "a.jpg"):
        (tmp_path / name).write_text(name)
    subprocess.run(["tar", "cf", "s.tar", "./b.txt", "./a.txt", "./b.jpg", "./a.jpg"], cwd=tmp_path, check=True)
    path = tmp_path / "s.tar"
    table = scan_tar(path).table
    assert members_of(path, table, "a") == {"jpg": b"a.jpg", "txt": b"a.txt"}
    assert members_of(path, table, "b") == {"jpg": b"b.jpg", "txt": b"b.txt"}


def test_links_devices_hidden_files_and_samples_without_image_are_ignored(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("etc.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("dev.png", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name in ("README", "._a.png", "__meta__.json", "only.txt", "folder/a.png"):
            tar.addfile(tarfile.TarInfo(name))
    scan = scan_tar(path)
    assert scan.table["key"].tolist() == [b"folder/a"]
    assert scan.ignored == 7


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.seg.png", ("a/b", "seg.png")),
        ("./a.JPG", ("a", "jpg")),
        ("/etc/passwd.png", ("etc/passwd", "png")),
        ("../../up.png", ("up", "png")),
        ("a/../b.png", ("a/b", "png")),
        ("c:\\x\\..\\y.png", ("c:/x/y", "png")),
        ("a\nb.png", ("a_b", "png")),
        (".hidden", ("", "")),
        ("noextension", ("", "")),
    ],
)
def test_keys_stay_below_the_directory_they_would_be_written_to(name, expected):
    assert safe_key(name) == expected


@given(st.text(alphabet="./\\a\n\x00é", max_size=12))
def test_no_name_gives_a_key_that_leaves_its_directory(name):
    parts = safe_key(name)[0].split("/")
    assert ".." not in parts
    assert parts == [""] or "" not in parts


@pytest.mark.parametrize("where", ["data", "header", "between"])
def test_a_truncated_tar_is_named(tmp_path, write_tar, where):
    path = write_tar(tmp_path / "a.tar", {"1.png": b"x" * 2000, "2.png": b"y" * 2000})
    # Each member takes a header of 512 bytes and 2048 of data.
    path.write_bytes(path.read_bytes()[: {"data": 3000, "header": 2700, "between": 2560}[where]])
    with pytest.raises(UserError, match=rf"{path}.*truncated"):
        scan_tar(path)


def test_the_same_member_twice_is_refused(tmp_path, write_tar):
    path = write_tar(tmp_path / "a.tar", [("1.png", b"x"), ("1.png", b"y")])
    with pytest.raises(UserError, match=r"holds 1.png twice"):
        scan_tar(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file, not a tar"),
        (b"\x1f\x8b" + bytes(600), "a compressed tar; unpack it"),
        (b"just text " * 100, "not a readable tar"),
    ],
)
def test_what_is_no_plain_tar_is_named(tmp_path, content, message):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        scan_tar(path)

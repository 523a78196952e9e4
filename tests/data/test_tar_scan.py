import io
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from difflab.data import tar_scan
from difflab.data.member_names import link_target, place_name, safe_key
from difflab.data.tar_scan import scan_tar
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
    assert scan.left_out == ()


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
    assert sum(kind.count for kind in scan.left_out) == 7


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
        ("._a.png", ("", "")),
        ("a.", ("", "")),
        ("22.05.png", ("22", "05.png")),
        ("v1.0/22.png", ("v1.0/22", "png")),
        ("__key__.png", ("__key__", "png")),
        ("__meta__/a.png", ("", "")),
        ("caf\udce9.png", ("caf%E9", "png")),
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
        (b"just text " * 100, "not a readable tar: it starts with b'just text just t'"),
        (b"text", "not a readable tar"),
        (b"<html>" * 200, "not a readable tar: it starts with b'<html>"),
        (b"PK\x03\x04" + bytes(600), "a zip archive; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS; fetch the file"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "a compressed tar; unpack it to a plain .tar .unzstd"),
    ],
)
def test_what_is_no_plain_tar_is_named(tmp_path, content, message):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        scan_tar(path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("22.05.png", ("22.05", "png")),
        ("d.e/1.2.3.JPG", ("d.e/1.2.3", "jpg")),
        ("a.png", ("a", "png")),
        (".hidden.png", ("", "")),
        ("a.", ("", "")),
        ("none", ("", "")),
    ],
)
def test_names_are_cut_at_the_last_dot_when_told(name, expected):
    assert safe_key(name, "last_dot") == expected


def reasons(scan):
    return {kind.reason: (kind.count, kind.example) for kind in scan.left_out}


def test_images_with_further_dots_are_counted_and_read_with_last_dot(tmp_path, write_tar):
    members = {"22.05.png": b"1", "22.06.png": b"2", "a.png": b"3", "a.5.jpg": b"4", "a.txt": b"t", "22.05.txt": b"u"}
    path = write_tar(tmp_path / "a.tar", members)
    scan = scan_tar(path)
    assert scan.table["key"].tolist() == [b"a"]
    assert reasons(scan) == {"dotted": (3, "22.05.png in a.tar"), "no_image": (1, "22.05.txt in a.tar")}
    last = scan_tar(path, "last_dot")
    assert last.table["key"].tolist() == [b"22.05", b"22.06", b"a", b"a.5"]
    assert members_of(path, last.table, "22.05") == {"png": b"1", "txt": b"u"}
    assert last.left_out == ()


def test_links_are_followed_within_the_tar_only(tmp_path):
    path = tmp_path / "a.tar"
    links = {
        "hard.png": (tarfile.LNKTYPE, "d/a.png"),
        "d/soft.png": (tarfile.SYMTYPE, "a.png"),
        "up.png": (tarfile.SYMTYPE, "d/../d/a.png"),
        "twice.png": (tarfile.SYMTYPE, "later.png"),
        "later.png": (tarfile.LNKTYPE, "blob"),
        "d/outside.png": (tarfile.SYMTYPE, "../../d/a.png"),
        "absolute.png": (tarfile.SYMTYPE, "/d/a.png"),
        "circle.png": (tarfile.SYMTYPE, "circle.png"),
    }
    with tarfile.open(path, "w") as tar:
        for name, (kind, target) in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        for name, content in (("d/a.png", b"one"), ("blob", b"two")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    scan = scan_tar(path)
    found = {key.decode(): members_of(path, scan.table, key.decode())["png"] for key in scan.table["key"]}
    assert found == {
        "d/a": b"one",
        "hard": b"one",
        "d/soft": b"one",
        "up": b"one",
        "twice": b"two",
        "later": b"two",
    }
    assert reasons(scan)["link"] == (3, "d/outside.png in a.tar")
    assert place_name("./d//a.png") == "d/a.png"
    assert link_target("d/x", "../../y", symbolic=True) == "../y"


@pytest.mark.parametrize("style", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_every_format_of_the_tar_command_is_read_with_its_links(tmp_path, style):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"pixels")
    (folder / "b.png").hardlink_to(folder / "a.png")
    (folder / "c.png").symlink_to("a.png")
    path = tmp_path / "s.tar"
    subprocess.run(["tar", f"--format={style}", "-cf", path, "-C", folder, "."], check=True)
    scan = scan_tar(path)
    assert {key: members_of(path, scan.table, key)["png"] for key in "abc"} == dict.fromkeys("abc", b"pixels")
    assert scan.left_out == ()


def test_a_file_that_tar_was_told_to_add_twice_is_there_once(tmp_path):
    (tmp_path / "a.png").write_bytes(b"pixels")
    subprocess.run(["tar", "cf", "s.tar", "a.png", "a.png"], cwd=tmp_path, check=True)
    assert scan_tar(tmp_path / "s.tar").table["key"].tolist() == [b"a"]


@pytest.mark.parametrize("options", [["--format=gnu"], *(["--format=posix", f"--sparse-version={v}"] for v in "01")])
def test_sparse_members_are_left_out_and_what_follows_is_found(tmp_path, options):
    with (tmp_path / "a.png").open("wb") as file:
        file.write(b"pixels")
        file.truncate(1_000_000)
    (tmp_path / "b.png").write_bytes(b"after")
    subprocess.run(["tar", "--sparse", *options, "-cf", "s.tar", "a.png", "b.png"], cwd=tmp_path, check=True)
    scan = scan_tar(tmp_path / "s.tar")
    assert members_of(tmp_path / "s.tar", scan.table, "b") == {"png": b"after"}
    assert reasons(scan)["sparse"][0] == 1


@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [8, 150])
def test_names_that_are_not_utf8_are_read(tmp_path, fmt, length):
    path = tmp_path / "a.tar"
    name = ("caf\xe9" + "/" + "x" * 20) * (length // 20 + 1)
    with tarfile.open(path, "w", format=fmt, encoding="latin-1", errors="strict") as tar:
        info = tarfile.TarInfo(f"{name[:length]}.png")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    scan = scan_tar(path)
    key = scan.table["key"][0].decode()
    assert key.startswith("café" if fmt == tarfile.PAX_FORMAT else "caf%E9")
    assert members_of(path, scan.table, key) == {"png": b"abc"}
    assert scan.left_out == ()


def test_extensions_that_the_table_uses_itself_do_no_harm(tmp_path, write_tar):
    path = write_tar(tmp_path / "a.tar", {"x.png": b"1", "x.key": b"2", "x.header": b"3", "x.": b"4", "x.f0": b"5"})
    scan = scan_tar(path)
    assert members_of(path, scan.table, "x") == {"png": b"1", "header": b"3", "f0": b"5"}
    assert reasons(scan) == {"unnamed": (1, "x. in a.tar"), "extension": (1, "x.key in a.tar")}


def test_a_table_has_no_more_columns_than_are_sensible(tmp_path, write_tar):
    members = {"x.png": b"1", "x.txt": b"2"} | {f"x.{i:03d}": b"" for i in range(100)}
    scan = scan_tar(write_tar(tmp_path / "a.tar", members))
    assert len(scan.members) == tar_scan.MOST_COLUMNS
    assert {"png", "txt"} <= scan.members.keys()
    assert reasons(scan) == {"extension": (38, "x.062 in a.tar")}


def test_a_name_that_would_make_every_row_as_wide_is_left_out(tmp_path, write_tar):
    path = write_tar(tmp_path / "a.tar", {"x" * 5000 + ".png": b"1", "y.png": b"2"}, tarfile.PAX_FORMAT)
    scan = scan_tar(path)
    assert scan.table["key"].tolist() == [b"y"]
    assert reasons(scan)["long"][0] == 1


def test_a_damaged_header_in_the_middle_is_no_end_of_the_tar(tmp_path, write_tar):
    path = write_tar(tmp_path / "a.tar", {"1.png": b"x", "2.png": b"y", "3.png": b"z"})
    data = bytearray(path.read_bytes())
    data[1024] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a.tar is damaged at byte 1024"):
        scan_tar(path)


def test_what_follows_the_end_of_a_tar_is_not_lost_in_silence(tmp_path, write_tar):
    path = write_tar(tmp_path / "a.tar", {"1.png": b"x"})
    path.write_bytes(path.read_bytes() + write_tar(tmp_path / "b.tar", {"2.png": b"y"}).read_bytes())
    with pytest.raises(UserError, match=r"continues after the end of the archive at byte 1024.*tar --concatenate"):
        scan_tar(path)


@pytest.mark.parametrize("blocks", [1, 2, 20])
def test_however_many_empty_blocks_end_a_tar(tmp_path, write_tar, blocks):
    path = write_tar(tmp_path / "a.tar", {"1.png": b"x"})
    path.write_bytes(path.read_bytes()[:1024] + bytes(512 * blocks))
    assert len(scan_tar(path).table) == 1
    path.write_bytes(path.read_bytes()[: 1024 + 511])
    with pytest.raises(UserError, match="truncated"):
        scan_tar(path)


def header_with(**fields):
    """A header of which some fields hold what tarfile would not write, with the right checksum."""
    block = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    for name, value in fields.items():
        start, length = {"size": (124, 12), "type": (156, 1), "name": (0, 100)}[name]
        block[start : start + length] = value.ljust(length, b"\0")
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    return bytes(block)


@pytest.mark.parametrize(
    "blocks",
    [
        [header_with(size=b"\xff" * 12)],
        [header_with(size=b"\xff" * 11 + b"\x00")],
        [header_with(size=b"\x80" + b"\x7f" * 11)],
        [header_with(type=b"L", size=b"00000000010\0"), b"x" * 512] * 2000,
        [header_with(type=b"x", size=b"00000000020\0"), b"99999999999999 size=".ljust(512, b"\0")],
        [header_with(type=b"x", size=b"00000000020\0"), b"16 GNU.sparse.map=a".ljust(512, b"\0")],
    ],
    ids=["size -1", "size -256", "size 2**88", "long names", "pax length", "pax sparse"],
)
def test_mad_headers_are_one_line(tmp_path, write_tar, blocks):
    path = tmp_path / "a.tar"
    path.write_bytes(header_with(name=b"b.png") + b"".join(blocks) + bytes(1024))
    with pytest.raises(UserError, match=rf"^{path}.*damaged") as caught:
        scan_tar(path)
    assert "\n" not in str(caught.value)


def test_the_machines_refusals_are_no_damage(tmp_path, write_tar, monkeypatch):
    path = write_tar(tmp_path / "a.tar", {"1.png": b"x"})

    def refused(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(tarfile, "open", lambda *_, **__: refused())
    with pytest.raises(OSError, match=rf"Too many open files: '{path}'"):
        scan_tar(path)


def test_the_hash_of_the_content_follows_names_and_bytes_but_not_times(tmp_path, write_tar):
    variants = [{"1.png": b"x"}, {"1.png": b"y"}, {"2.png": b"x"}, {"1.png": b"x", "1.txt": b""}]
    paths = [write_tar(tmp_path / f"{i}.tar", members) for i, members in enumerate(variants)]
    hashes = [scan_tar(path).content for path in paths]
    assert len(set(hashes)) == 4
    with tarfile.open(tmp_path / "later.tar", "w") as tar:
        info = tarfile.TarInfo("1.png")
        info.size, info.mtime = 1, 1e9
        tar.addfile(info, io.BytesIO(b"x"))
    assert scan_tar(tmp_path / "later.tar").content == hashes[0]

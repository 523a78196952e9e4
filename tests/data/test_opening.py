import errno
import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from difflab.data import opening
from difflab.data.bad_samples import BadSample
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.errors import UserError


@pytest.fixture
def plain(tmp_path, write_tar, encoded):
    """Two shards as another tool leaves them, without an index."""
    image = encoded()
    write_tar(tmp_path / "plain/00000.tar", {"a.png": image, "a.txt": b"first", "b.png": image, "b.txt": b"second"})
    write_tar(tmp_path / "plain/00001.tar", {"c.png": image, "c.txt": b"third"})
    return tmp_path / "plain"


def refuse_to_scan(path):
    raise AssertionError(f"{path} was scanned again")


def test_plain_shards_are_indexed_once_beside_them(plain, monkeypatch):
    directory = open_data(plain)
    assert directory.index.origin == "indexed"
    assert directory.split("train").samples == 3
    monkeypatch.setattr(opening, "scan_tar", refuse_to_scan)
    dataset = ShardDataset(open_data(plain), "train", fields=("caption",))
    assert [(dataset[i]["key"], dataset[i]["caption"]) for i in range(3)] == [
        ("a", "first"),
        ("b", "second"),
        ("c", "third"),
    ]


def test_where_shards_lie_read_only_the_index_goes_under_the_cache_root(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    before = sorted(plain.iterdir())
    assert len(ShardDataset(open_data(plain), "train")) == 3
    assert sorted(plain.iterdir()) == before
    assert list((tmp_path / "cache" / "data-index").glob("*/index.json"))
    monkeypatch.setattr(opening, "scan_tar", refuse_to_scan)
    assert ShardDataset(open_data(plain), "train")[2]["key"] == "c"


def test_shards_that_came_later_are_found(plain, write_tar, encoded):
    open_data(plain)
    write_tar(plain / "00002.tar", {"d.png": encoded()})
    assert open_data(plain).split("train").samples == 4


def test_shard_names_say_the_split(tmp_path, write_tar, encoded):
    for name in ("train-0.tar", "valid-0.tar", "validation-1.tar", "test-0.tar", "cc3m-train-0.tar"):
        write_tar(tmp_path / "d" / name, {f"{name[:5]}.png": encoded()})
    splits = open_data(tmp_path / "d").index.splits
    assert {name: entry.samples for name, entry in splits.items()} == {"train": 2, "val": 2, "test": 1}


def test_keys_that_shards_repeat_get_the_shards_name(tmp_path, write_tar, encoded):
    for shard in ("00", "01"):
        write_tar(tmp_path / "d" / f"{shard}.tar", {"0001.png": encoded()})
    directory = open_data(tmp_path / "d")
    assert directory.index.repeated_keys == 1
    dataset = ShardDataset(directory, "train")
    assert [dataset.key(0), dataset.key(1)] == ["00/0001", "01/0001"]


def test_shards_of_webdatasets_own_writer_are_read(tmp_path, encoded):
    (tmp_path / "w").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "w/%05d.tar"), maxcount=3, verbose=0) as writer:
        for i in range(7):
            writer.write({"__key__": f"s{i}", "jpg": encoded(fmt="JPEG"), "cls": i, "txt": f"n {i}", "json": {"i": i}})
    dataset = ShardDataset(open_data(tmp_path / "w"), "train", fields=("label", "caption", "json"))
    sample = dataset[5]
    assert (sample["label"], sample["caption"], sample["json"], sample["key"]) == (5, "n 5", {"i": 5}, "s5")


def test_img2datasets_layout_is_read(tmp_path, write_tar, encoded):
    """Shards of .jpg, .txt and .json, beside them a parquet file and a statistics file for each."""
    root = tmp_path / "laion"
    for shard in range(2):
        members = {}
        for i in range(2):
            key = f"{shard:05d}{i:04d}"
            meta = {"url": "http://example.org/a.jpg", "caption": f"c{key}", "width": 8, "height": 8, "sha256": "0"}
            members |= {f"{key}.jpg": encoded(fmt="JPEG"), f"{key}.json": json.dumps(meta).encode()}
            members |= {f"{key}.txt": f"c{key}".encode()}
        write_tar(root / f"{shard:05d}.tar", members)
        (root / f"{shard:05d}.parquet").write_bytes(b"PAR1")
        (root / f"{shard:05d}_stats.json").write_text("{}")
    dataset = ShardDataset(open_data(root), "train", fields=("caption", "json"))
    assert len(dataset) == 4
    assert dataset[3]["caption"] == dataset[3]["json"]["caption"] == "c000010001"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("train-000.tar", ": give {folder}, where it lies"),
        ("index.json", ": give {folder}, where it lies"),
        ("cat.png", "difflab data make source=folder path={folder} out="),
        ("notes.txt", ": give a directory that `difflab data make` wrote, or one of .tar files"),
    ],
)
def test_a_file_as_the_path_is_never_the_place_to_make_data_in(tmp_path, name, hint):
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="is a file, not a directory of shards") as caught:
        open_data(tmp_path / name)
    assert hint.format(folder=tmp_path) in str(caught.value)
    assert f"out={tmp_path / name}" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_directory_without_shards_is_one_line_with_the_command_that_makes_it(tmp_path, kind):
    path = tmp_path / "data"
    if kind == "empty":
        path.mkdir()
    says = {"missing": "does not exist", "empty": "holds no .tar shards"}[kind]
    with pytest.raises(UserError, match=f"{path} {says}.*difflab data make source=shapes out={path}") as caught:
        open_data(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_the_command_has_the_options_that_are_known(tmp_path, kind):
    path = tmp_path / "my data"
    if kind == "empty":
        path.mkdir()
    with pytest.raises(UserError) as caught:
        open_data(path, made_with="source=shapes objects=1 'sizes=[large]'")
    said = str(caught.value)
    assert said.endswith(f"; make it with `difflab data make source=shapes objects=1 'sizes=[large]' out='{path}'`")


@pytest.mark.parametrize("name", ["a.png", "cats/b.JPG"])
def test_a_directory_of_pictures_is_not_said_to_be_where_shards_go(tmp_path, name):
    (tmp_path / "photos/cats").mkdir(parents=True)
    (tmp_path / "photos" / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no .tar shards, but pictures") as caught:
        open_data(tmp_path / "photos")
    assert f"`difflab data make source=folder path={tmp_path}/photos out=<another directory>`" in str(caught.value)
    assert f"out={tmp_path}/photos" not in str(caught.value)


def test_a_directory_whose_writing_was_stopped_is_not_taken_for_plain_shards(tmp_path, write_tar, encoded):
    write_tar(tmp_path / "d/train-000000.tar", {"a.png": encoded()})
    Path(tmp_path / "d/.making.partial").mkdir()
    with pytest.raises(UserError, match=r"is unfinished .*run it again"):
        open_data(tmp_path / "d")


def test_a_truncated_plain_shard_is_named(plain):
    path = plain / "00001.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=r"00001.tar.*truncated"):
        open_data(plain)
    assert not (plain / "index.json").exists()


def counted(monkeypatch):
    """The names of the tars that are scanned from now on."""
    scanned = []
    scan = opening.scan_tar

    def scan_and_tell(path, *rule):
        scanned.append(path.name)
        return scan(path, *rule)

    monkeypatch.setattr(opening, "scan_tar", scan_and_tell)
    return scanned


def captions(root, **options):
    dataset = ShardDataset(open_data(root, **options), "train", fields=("caption",))
    return [dataset[i]["caption"] for i in range(len(dataset))]


def with_times_of(path, write):
    """Rebuild a tar and give it the times it had, as rsync -t and cp -p do."""
    before = path.stat()
    write()
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("keeps_its_time", [True, False])
def test_a_tar_rebuilt_with_the_same_size_is_read_anew(tmp_path, write_tar, encoded, caplog, keeps_its_time):
    path = tmp_path / "d/0.tar"
    other = write_tar(tmp_path / "d/1.tar", {"z.png": encoded(), "z.txt": b"z"})
    write_tar(path, {"a.txt": b"12", "a.png": encoded(), "b.png": encoded(), "b.txt": b"short"})
    assert captions(tmp_path / "d") == ["12", "short", "z"]

    def rebuild():
        write_tar(path, {"b.png": encoded(), "b.txt": b"a longer one", "a.png": encoded(), "a.txt": b"1"})

    with_times_of(path, rebuild) if keeps_its_time else rebuild()
    assert captions(tmp_path / "d") == ["a longer one", "1", "z"]
    assert "1 shards changed since they were indexed, 0.tar first: indexed again" in caplog.text
    assert other.is_file()


def test_a_change_in_the_middle_of_a_large_tar_is_noticed(tmp_path, write_tar, encoded):
    path, fill = tmp_path / "d/0.tar", {"0.npy": bytes(200_000)}
    write_tar(path, {**fill, "a.png": encoded(), "a.txt": b"12", "9.npy": bytes(200_000)})
    before = open_data(tmp_path / "d").index
    with_times_of(path, lambda: write_tar(path, {**fill, "a.txt": b"1", "a.png": encoded(), "9.npy": bytes(200_000)}))
    dataset = ShardDataset(open_data(tmp_path / "d"), "train", fields=("caption",))
    assert dataset[1]["caption"] == "1"
    assert dataset.directory.index.shards[0].content != before.shards[0].content


def test_a_touched_tar_is_checked_once_and_its_index_kept(plain, monkeypatch, caplog):
    before = open_data(plain).index
    scanned = counted(monkeypatch)
    os.utime(plain / "00001.tar", ns=(1, 10**18))
    after = open_data(plain).index
    assert scanned == ["00001.tar"]
    assert [shard.content for shard in after.shards] == [shard.content for shard in before.shards]
    assert caplog.text == ""
    open_data(plain)
    assert scanned == ["00001.tar"]


def test_only_the_shards_that_came_are_scanned(plain, write_tar, encoded, monkeypatch):
    open_data(plain)
    scanned = counted(monkeypatch)
    write_tar(plain / "00002.tar", {"d.png": encoded(), "d.txt": b"fourth"})
    assert captions(plain) == ["first", "second", "third", "fourth"]
    assert scanned == ["00002.tar"]
    (plain / "00000.tar").unlink()
    assert captions(plain) == ["third", "fourth"]
    assert scanned == ["00002.tar"]


def test_a_table_that_is_missing_or_foreign_is_made_anew(plain, monkeypatch):
    open_data(plain)
    (plain / "00001.offsets.npy").unlink()
    assert captions(plain) == ["first", "second", "third"]


def test_each_rule_of_keys_has_its_own_index(tmp_path, write_tar, encoded, monkeypatch):
    write_tar(
        tmp_path / "d/0.tar", {"22.05.png": encoded(), "22.05.txt": b"dots", "a.png": encoded(), "a.txt": b"none"}
    )
    assert captions(tmp_path / "d") == ["none"]
    assert captions(tmp_path / "d", keys="last_dot") == ["dots", "none"]
    monkeypatch.setattr(opening, "scan_tar", refuse_to_scan)
    assert captions(tmp_path / "d") == ["none"]
    assert captions(tmp_path / "d", keys="last_dot") == ["dots", "none"]
    assert open_data(tmp_path / "d", "last_dot").index.keys == "last_dot"


def test_what_is_left_out_is_in_the_index(tmp_path, write_tar, encoded):
    write_tar(tmp_path / "d/0.tar", {"2.5.png": encoded(), "a.png": encoded(), "b.txt": b""})
    write_tar(tmp_path / "d/1.tar", {"2.6.png": encoded(), "c.png": encoded()})
    for _ in range(2):
        directory = open_data(tmp_path / "d")
        left_out = [(kind.reason, kind.count, kind.example) for kind in directory.left_out()]
        assert left_out == [("dotted", 2, "2.5.png in 0.tar"), ("no_image", 1, "b.txt in 0.tar")]
        assert directory.index.ignored_members == 3


def test_tars_are_read_with_every_ending_that_folders_are_read_with(tmp_path, write_tar):
    pixels = np.full((8, 8, 3), (90, 99, 108), np.uint8)
    members = {}
    for ending, kind in {
        "jfif": "JPEG",
        "jpe": "JPEG",
        "BMP": "BMP",
        "tiff": "TIFF",
        "gif": "GIF",
        "avif": "AVIF",
    }.items():
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, kind)
        members |= {f"{ending}.{ending}": content.getvalue(), f"{ending}.cls": b"1"}
    write_tar(tmp_path / "d/0.tar", members)
    dataset = ShardDataset(open_data(tmp_path / "d"), "train", image_size=8, fields=("label",))
    assert len(dataset) == 6
    assert open_data(tmp_path / "d").left_out() == []
    for i in range(6):
        assert np.abs(dataset[i]["image"].numpy().transpose(1, 2, 0).astype(int) - pixels).max() <= 3


def test_a_second_image_of_a_key_is_counted(tmp_path, write_tar, encoded):
    write_tar(tmp_path / "d/0.tar", {"a.png": encoded(), "a.jpg": encoded("L", "JPEG"), "b.bmp": encoded("RGB", "BMP")})
    directory = open_data(tmp_path / "d")
    left_out = [(kind.reason, kind.count, kind.example) for kind in directory.left_out()]
    assert left_out == [("second_image", 1, "a.png in 0.tar")]
    assert len(ShardDataset(directory, "train")) == 2


def test_splits_in_sub_directories_are_read(tmp_path, write_tar, encoded):
    for name in ("train/0.tar", "train/1.tar", "val/0.tar"):
        write_tar(tmp_path / "d" / name, {"x.png": encoded(), "x.txt": name.encode()})
    dataset = ShardDataset(open_data(tmp_path / "d"), "train", fields=("caption",))
    assert [(dataset[i]["key"], dataset[i]["caption"]) for i in range(2)] == [
        ("train/0/x", "train/0.tar"),
        ("train/1/x", "train/1.tar"),
    ]
    assert open_data(tmp_path / "d").split("val").samples == 1


@pytest.mark.parametrize(("tar", "inside"), [("a/train/0.tar", "a"), ("a/b/0.tar", "a/b")])
def test_tars_deeper_down_are_named(tmp_path, write_tar, encoded, tar, inside):
    write_tar(tmp_path / "d" / tar, {"x.png": encoded()})
    with pytest.raises(UserError, match=f"holds no .tar shards, but {tmp_path}/d/{inside} does: give that as the path"):
        open_data(tmp_path / "d")
    assert open_data(tmp_path / "d" / inside).split("train").samples == 1


def test_sub_directories_that_name_no_split_are_named(tmp_path, write_tar, encoded, caplog):
    write_tar(tmp_path / "d/part0/0.tar", {"x.png": encoded()})
    with pytest.raises(UserError, match=r"d holds no .tar shards, but part0 in it does: give that as the path"):
        open_data(tmp_path / "d")
    write_tar(tmp_path / "d/0.tar", {"y.png": encoded()})
    assert open_data(tmp_path / "d").split("train").samples == 1
    assert "the tars in part0 are not read" in caplog.text


def test_names_that_are_unclear_are_refused_until_globs_choose(tmp_path, write_tar, encoded):
    for name in ("00000.tar", "00001.tar", "val-0.tar"):
        write_tar(tmp_path / "d" / name, {f"{name}.png": encoded()})
    for _ in range(2):
        directory = open_data(tmp_path / "d")
        for split in ("train", "val"):
            with pytest.raises(
                UserError, match=rf"'{split}': val-0.tar names a split and 00000.tar names none; .*\*.tar"
            ):
                directory.split(split)
            assert not directory.has_split(split)
        assert [shard.name for shard in directory.split("0*.tar").shards] == ["00000.tar", "00001.tar"]
        assert directory.has_split("val-*.tar")
    with pytest.raises(UserError, match=r"has no shards 'x\*.tar' \(it has: 00000.tar, 00001.tar, val-0.tar\)"):
        directory.split("x*.tar")
    assert not directory.has_split("x*.tar")


def test_a_glob_chooses_shards_of_made_data_too(tiny_data):
    dataset = ShardDataset(open_data(tiny_data), "train-00000[12].tar", fields=("label",))
    assert [dataset.key(0), len(dataset)] == ["00000010", 13]


def test_another_tools_index_is_left_as_it_is(plain, tmp_path, monkeypatch):
    (plain / "index.json").write_text('{"version": 2, "shards": []}')
    assert captions(plain) == ["first", "second", "third"]
    monkeypatch.setattr(opening, "scan_tar", refuse_to_scan)
    assert captions(plain) == ["first", "second", "third"]
    assert (plain / "index.json").read_text() == '{"version": 2, "shards": []}'
    assert sorted(path.name for path in plain.iterdir()) == ["00000.tar", "00001.tar", "index.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_tables_that_can_be_written_nowhere_are_kept_and_that_is_said_once(plain, monkeypatch, caplog, number):
    def refused(*_, **__):
        raise OSError(number, "refused")

    monkeypatch.setattr(opening, "write_offsets", refused)
    assert captions(plain) == ["first", "second", "third"]
    dataset = pickle.loads(pickle.dumps(ShardDataset(open_data(plain), "train", fields=("caption",))))
    monkeypatch.setattr(opening, "scan_tar", refuse_to_scan)
    assert captions(plain) == ["first", "second", "third"]
    assert dataset[2]["caption"] == "third"
    assert caplog.text.count("its index can be written neither there nor in the cache") == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOMEM])
def test_other_refusals_of_the_machine_are_not_covered_up(plain, monkeypatch, number):
    def refused(*_, **__):
        raise OSError(number, "refused")

    monkeypatch.setattr(opening, "write_offsets", refused)
    with pytest.raises(OSError, match="refused"):
        open_data(plain)


def test_a_damaged_index_in_the_cache_is_made_anew(plain, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    open_data(plain)
    (index,) = (tmp_path / "cache/data-index").glob("*/index.json")
    index.write_text("[" * 100_000)
    assert captions(plain) == ["first", "second", "third"]
    assert "is damaged; indexing the shards" in caplog.text


def test_members_that_change_behind_an_open_data_set_are_never_read_as_others(plain, write_tar, encoded):
    dataset = ShardDataset(open_data(plain), "train", fields=("caption",))
    image = encoded()
    write_tar(plain / "00000.tar", {"b.png": image, "b.txt": b"second", "a.png": image, "a.txt": b"first"})
    with pytest.raises(BadSample, match=r"00000.tar/a: the tar was changed, and has something else where its .png was"):
        dataset[0]
    assert dataset[2]["caption"] == "third"

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difflab.data.bad_files import BadFile, BadFiles
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.data.sources.folder.config import FolderSourceConfig
from difflab.data.sources.folder.listing import list_folder
from difflab.data.sources.folder.source import FolderSource, folder_splits
from difflab.data.sources.image_files import Cutting
from difflab.data.writing import write_dataset
from difflab.errors import UserError


@pytest.fixture
def photos(tmp_path, encoded):
    """Two classes; kinds of files as they come from cameras and the web, one with a caption."""
    files = {
        "cat/b.png": encoded("RGBA", size=(12, 20)),
        "cat/a.jpg": encoded("CMYK", "JPEG", size=(20, 12)),
        "dog/c.gif": encoded("P", "GIF", size=(16, 16)),
        "dog/deep/d.JPEG": encoded("L", "JPEG", size=(30, 30)),
        "dog/deep/d.txt": b"a gray dog\n",
        "dog/.hidden.png": b"no",
        "dog/notes.md": b"no",
    }
    for name, content in files.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    return tmp_path / "photos"


def test_sub_directories_are_classes_and_text_beside_an_image_its_caption(photos):
    source = FolderSource(photos)
    assert source.class_names == ["cat", "dog"]
    assert [source.sample(i)["json"]["file"] for i in range(len(source))] == [
        "cat/a.jpg",
        "cat/b.png",
        "dog/c.gif",
        "dog/deep/d.JPEG",
    ]
    assert [source.sample(i)["label"] for i in range(4)] == [0, 0, 1, 1]
    assert source.sample(3)["caption"] == "a gray dog"
    assert "caption" not in source.sample(0)


def test_files_are_stored_as_they_are_unless_cut(photos):
    source = FolderSource(photos)
    assert source.sample(0)["file"] == ("jpg", (photos / "cat/a.jpg").read_bytes())
    assert source.sample(0)["size"] == (12, 20)
    assert source.sample(2)["image"].shape == (16, 16, 3), "a shard holds no gif"
    cut = FolderSource(photos, cutting=Cutting(8, "adm"))
    assert all(cut.sample(i)["image"].shape == (8, 8, 3) for i in range(4))


def test_a_flat_folder_has_no_classes(tmp_path, encoded):
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/a.png").write_bytes(encoded())
    source = FolderSource(tmp_path / "flat")
    assert source.class_names is None
    assert "label" not in source.sample(0)


def test_a_folder_becomes_shards_with_disjoint_splits(photos, tmp_path):
    config = FolderSourceConfig(path=str(photos), resolution=8, val=1)
    index = write_dataset(folder_splits(config), tmp_path / "out")
    assert (index.image_size, index.classes) == (8, ["cat", "dog"])
    directory = open_data(tmp_path / "out")
    files = {
        split: [
            sample["json"]["file"] for sample in map(ShardDataset(directory, split, fields=("json",)).__getitem__, r)
        ]
        for split, r in (("train", range(3)), ("val", range(1)))
    }
    assert sorted(files["train"] + files["val"]) == ["cat/a.jpg", "cat/b.png", "dog/c.gif", "dog/deep/d.JPEG"]


def test_n_and_val_are_counted(photos):
    splits = folder_splits(FolderSourceConfig(path=str(photos), n=2, val=1))
    assert {name: len(source) for name, source in splits.items()} == {"train": 2, "val": 1}
    assert set(folder_splits(FolderSourceConfig(path=str(photos)))) == {"train"}
    with pytest.raises(UserError, match="holds 4 images, fewer than val=4 and n=1; ask for less"):
        folder_splits(FolderSourceConfig(path=str(photos), val=4))


@pytest.mark.parametrize(
    ("kind", "message"),
    [("missing", "does not exist"), ("file", "is a file, not a directory"), ("empty", r"holds no images \(.bmp")],
)
def test_a_folder_without_images_is_named(tmp_path, kind, message):
    path = tmp_path / "photos"
    if kind == "file":
        path.write_text("")
    elif kind == "empty":
        path.mkdir()
    with pytest.raises(UserError, match=f"image directory {path} {message}"):
        FolderSource(path)


def test_a_text_file_named_jpg_is_named(photos):
    (photos / "cat/a.jpg").write_text("this is not a picture")
    with pytest.raises(UserError, match=rf"{photos}/cat/a.jpg cannot be used: not an image "):
        FolderSource(photos).sample(0)


def test_an_image_of_the_wrong_size_is_named_with_both_sizes(photos):
    said = f"{photos}/cat/a.jpg: the image is 20x12 px, wanted is 8x8: set resolution, or crop to adm, edm, resize_s"
    with pytest.raises(BadFile, match=rf"{said}hort or pad$"):
        FolderSource(photos, cutting=Cutting(8, "none")).sample(0)


def test_images_both_in_classes_and_beside_them_are_refused(photos, encoded):
    (photos / "loose.png").write_bytes(encoded())
    with pytest.raises(UserError, match=r"1 beside them"):
        FolderSource(photos)


def test_a_caption_that_is_no_text_is_named(photos):
    (photos / "dog/deep/d.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"d.txt is not UTF-8"):
        FolderSource(photos).sample(3)


def test_a_16_bit_image_is_stored_with_8_bits_when_cut(tmp_path):
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.full((8, 8), 0x1234, dtype=np.uint16)).save(tmp_path / "deep/a.png")
    assert (FolderSource(tmp_path / "deep", cutting=Cutting(8)).sample(0)["image"] == 0x12).all()


def listed(path):
    """{reason: sorted files} of a folder."""
    return {reason: sorted(names) for reason, names in list_folder(path).left_out.items()}


def files_below(path):
    """Every file as `find -L` counts them, links to nothing and links back to a folder around them too."""
    return sum(len(names) for _, _, names in os.walk(path)) + sum(
        1 for folder, names, _ in os.walk(path) for name in names if (Path(folder) / name).is_symlink()
    )


def test_links_to_folders_and_files_are_followed(photos, tmp_path, encoded):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/one.png").write_bytes(encoded())
    (photos / "bird").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (photos / "cat/z.png").symlink_to(tmp_path / "elsewhere/one.png")
    source = FolderSource(photos)
    assert source.class_names == ["bird", "cat", "dog"]
    assert source.files[0] == "bird/one.png"
    assert source.sample(0)["label"] == 0
    assert "cat/z.png" in source.files


def test_every_file_is_a_sample_a_caption_or_named_with_its_reason(photos, encoded):
    (photos / "cat/loop").symlink_to(photos, target_is_directory=True)
    (photos / "cat/gone.png").symlink_to(photos / "nowhere.png")
    (photos / "cat/itself.png").symlink_to(photos / "cat/itself.png")
    (photos / "cat/Thumbs.db").write_bytes(b"x")
    (photos / "cat/a.TXT").write_text("upper case")
    (photos / "cat/orphan.txt").write_text("of no image")
    (photos / ".git").mkdir()
    (photos / ".git/deep.png").write_bytes(encoded())
    (photos / "cat/drawing.svg").write_text("<svg/>")
    os.mkfifo(photos / "cat/pipe.png")
    listing = list_folder(photos)
    assert listing.images == ["cat/a.jpg", "cat/b.png", "dog/c.gif", "dog/deep/d.JPEG"]
    assert listing.captions == {"cat/a.jpg": "cat/a.TXT", "dog/deep/d.JPEG": "dog/deep/d.txt"}
    assert listed(photos) == {
        "hidden": [".git/deep.png", "cat/Thumbs.db", "dog/.hidden.png"],
        "broken links": ["cat/gone.png", "cat/itself.png"],
        "links to a folder around them": ["cat/loop"],
        "not read as images": ["cat/drawing.svg", "dog/notes.md"],
        "neither files nor folders": ["cat/pipe.png"],
        "captions without an image": ["cat/orphan.txt"],
    }
    assert files_below(photos) == 4 + 2 + sum(map(len, listing.left_out.values()))


def test_a_folder_that_cannot_be_read_is_named(photos, monkeypatch):
    def refused(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", refused)
    assert listed(photos)["folders that cannot be read (Permission denied)"] == ["dog/deep"]


def test_what_the_machine_refuses_leaves_nothing_out(photos, tmp_path, monkeypatch):
    def refused(path, *_):
        if "deep" in str(path):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path)

    for owner, name in ((Path, "read_bytes"), (os, "scandir")):
        real = getattr(owner, name)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, refused)
            with pytest.raises(OSError, match=r"[Tt]oo many open files"):
                write_dataset({"train": FolderSource(photos)}, tmp_path / "out", bad=BadFiles(skip=True, total=4))


@pytest.mark.parametrize(
    "ending", ["jfif", "JPE", "avif", "bmp", "tga", "qoi", "ico", "pgm", "jp2", "apng", "DDS", "pcx"]
)
def test_every_ending_that_pillow_decodes_is_taken(tmp_path, ending):
    (tmp_path / "p").mkdir()
    size = (16, 16) if ending == "ico" else (16, 12)  # icons have sizes of their own, and some versions write no other
    image = Image.new("L" if ending == "pgm" else "RGB", size, 99 if ending == "pgm" else (90, 99, 108))
    image.save(tmp_path / f"p/a.{ending}", format={"apng": "PNG"}.get(ending))
    sample = FolderSource(tmp_path / "p").sample(0)
    stored = {"jfif": "jpg", "JPE": "jpg", "apng": "png"}
    if ending in stored:
        assert sample["file"] == (stored[ending], (tmp_path / f"p/a.{ending}").read_bytes())
    else:
        assert sample["image"].shape == (*size[::-1], 3)
        assert abs(sample["image"][0, 0].astype(int) - (99 if ending == "pgm" else np.array([90, 99, 108]))).max() <= 3


def test_images_of_one_stem_share_a_caption_and_both_count(tmp_path, encoded):
    (tmp_path / "p").mkdir()
    for name in ("a.png", "a.bmp"):
        (tmp_path / "p" / name).write_bytes(encoded(fmt=name[2:].upper()))
    (tmp_path / "p/a.Txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\n two \r\n")
    for captions, expected in (("whole", "one\n\n two"), ("first_line", "one"), ("lines", "one\ntwo")):
        source = FolderSource(tmp_path / "p", captions=captions)
        assert [source.sample(i)["caption"] for i in range(len(source))] == [expected] * 2


def test_a_name_whose_bytes_are_no_text_is_kept(tmp_path, encoded):
    (tmp_path / "p").mkdir()
    name = os.fsdecode(b"n\xff\xc3\xa9\n.png")
    (tmp_path / "p" / name).write_bytes(encoded())
    write_dataset(folder_splits(FolderSourceConfig(path=str(tmp_path / "p"))), tmp_path / "out")
    assert ShardDataset(open_data(tmp_path / "out"), "train", fields=("json",))[0]["json"] == {"file": name}
    (tmp_path / "p" / name).write_bytes(b"words")
    with pytest.raises(UserError, match=r"p/n\\udcffé\\n.png cannot be used") as error:
        FolderSource(tmp_path / "p").sample(0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("n", [None, 3])
def test_validation_images_are_no_training_images(tmp_path, encoded, seed, n):
    (tmp_path / "p").mkdir()
    for i in range(9):
        (tmp_path / f"p/{i}.png").write_bytes(encoded())
    splits = folder_splits(FolderSourceConfig(path=str(tmp_path / "p"), val=4, n=n, seed=seed))
    train, val = splits["train"].files, splits["val"].files
    assert (len(train), len(val)) == (n or 5, 4)
    assert not set(train) & set(val)
    left = splits["train"].left_out.get("not requested by n and val", [])
    assert sorted([*train, *val, *left]) == [f"{i}.png" for i in range(9)]


def make_with_bad(photos, out, **policy):
    for name in ("cat/bad1.png", "cat/bad2.jpg", "dog/bad3.webp"):
        (photos / name).write_bytes(b"words")
    bad = BadFiles(**policy)
    write_dataset(folder_splits(FolderSourceConfig(path=str(photos), resolution=8)), out, bad=bad)
    return bad


def test_all_bad_files_are_named_before_the_command_ends(photos, tmp_path):
    with pytest.raises(UserError, match=r"^3 of 7 files are bad: ") as error:
        make_with_bad(photos, tmp_path / "out")
    assert all(f"{photos}/{name}" in str(error.value) for name in ("cat/bad1.png", "cat/bad2.jpg", "dog/bad3.webp"))
    assert "bad=skip" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_first_ten_of_many_bad_files_are_named(tmp_path):
    (tmp_path / "p").mkdir()
    for i in range(14):
        (tmp_path / f"p/{i:02d}.png").write_bytes(b"words")
    with pytest.raises(UserError, match=r"14 of 14 files are bad: .*; and 4 more \(repair") as error:
        write_dataset(folder_splits(FolderSourceConfig(path=str(tmp_path / "p"))), tmp_path / "out")
    assert str(error.value).count("cannot be used") == 10


def test_bad_files_are_skipped_within_the_fraction(photos, tmp_path):
    write_dataset(folder_splits(FolderSourceConfig(path=str(photos), resolution=8)), tmp_path / "good")
    bad = make_with_bad(photos, tmp_path / "out", skip=True, max_fraction=3 / 7)
    assert len(bad.found) == 3
    directory = open_data(tmp_path / "out")
    dataset = ShardDataset(directory, "train", fields=("json", "label"))
    found = {dataset[i]["json"]["file"]: dataset[i]["label"] for i in range(len(dataset))}
    assert found == {"cat/a.jpg": 0, "cat/b.png": 0, "dog/c.gif": 1, "dog/deep/d.JPEG": 1}
    assert [dataset[i]["key"] for i in range(4)] == [f"{i:08d}" for i in range(4)]
    with pytest.raises(UserError, match=r"3 of 7 files are bad, 2 allowed: .*allow more with max_bad_fraction"):
        make_with_bad(photos, tmp_path / "few", skip=True, max_fraction=0.42)


def test_a_class_of_bad_files_keeps_its_label_and_is_named(photos, tmp_path):
    for name in ("a.jpg", "b.png"):
        (photos / "cat" / name).write_bytes(b"words")
    remarks: list[str] = []
    splits = folder_splits(FolderSourceConfig(path=str(photos)))
    index = write_dataset(splits, tmp_path / "out", bad=BadFiles(skip=True), remarks=remarks)
    assert index.classes == ["cat", "dog"]
    assert {ShardDataset(open_data(tmp_path / "out"), "train", fields=("label",))[i]["label"] for i in (0, 1)} == {1}
    assert remarks == ["1 of 2 classes without a sample (cat)"]


def test_a_split_of_bad_files_is_refused(photos, tmp_path):
    for path in photos.rglob("*.*"):
        path.write_bytes(b"words")
    with pytest.raises(UserError, match="all files of split 'train' are bad, as "):
        write_dataset(folder_splits(FolderSourceConfig(path=str(photos))), tmp_path / "o", bad=BadFiles(skip=True))


def test_what_is_unusual_is_remarked(photos, tmp_path, encoded):
    frames = [Image.new("L", (8, 8), value) for value in (10, 200)]
    frames[0].save(photos / "dog/moving.gif", save_all=True, append_images=frames[1:])
    (photos / "cat/a.txt").write_text("one\ntwo")
    (photos / "cat/b.txt").write_text("")
    remarks: list[str] = []
    write_dataset(folder_splits(FolderSourceConfig(path=str(photos))), tmp_path / "out", remarks=remarks)
    assert sorted(line.split(" (")[0] for line in remarks) == [
        "1 captions of several lines, stored whole",
        "1 empty captions",
        "1 of several frames, the first is taken",
    ]
    assert (FolderSource(photos).sample(4)["image"] == 10).all()


def test_a_changed_file_is_another_source(photos):
    def fingerprint(**options):
        return FolderSource(photos, **options).fingerprint()

    first = fingerprint()
    assert first == fingerprint()
    assert (
        len({first, fingerprint(captions="lines"), fingerprint(cutting=Cutting(8)), fingerprint(classes="none")}) == 4
    )
    (photos / "dog/deep/d.txt").write_text("another caption")
    assert fingerprint() != first


def test_directories_are_classes_as_asked(photos):
    def names(classes):
        source = FolderSource(photos, classes=classes)
        return source.class_names, [source.sample(i).get("label") for i in range(4)]

    assert names("top") == (["cat", "dog"], [0, 0, 1, 1])
    assert names("leaf") == (["cat", "dog", "dog/deep"], [0, 0, 1, 2])
    assert names("none") == (None, [None] * 4)


@pytest.mark.parametrize(("classes", "refused"), [("top", True), ("leaf", True), ("none", False)])
def test_images_beside_the_classes_are_refused_where_there_are_classes(photos, encoded, classes, refused):
    (photos / "loose.png").write_bytes(encoded())
    if refused:
        with pytest.raises(UserError, match=r"1 beside them; move those into a class, or give classes=none"):
            FolderSource(photos, classes=classes)
    else:
        assert len(FolderSource(photos, classes=classes)) == 5


def test_a_flat_folder_has_no_classes_whatever_is_asked(tmp_path, encoded):
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/a.png").write_bytes(encoded())
    assert [FolderSource(tmp_path / "flat", classes=kind).class_names for kind in ("top", "leaf", "none")] == [None] * 3


@pytest.mark.parametrize(("alpha", "margin"), [("white", 255), ("black", 0), ("drop", 255)])
def test_a_padded_image_is_whole_on_the_colour_of_alpha(tmp_path, alpha, margin):
    (tmp_path / "wide").mkdir()
    Image.new("RGB", (40, 20), (10, 20, 30)).save(tmp_path / "wide/a.png")
    image = FolderSource(tmp_path / "wide", cutting=Cutting(8, "pad", alpha)).sample(0)["image"]
    assert (image[2:6] == (10, 20, 30)).all()
    assert (image[[0, 1, 6, 7]] == margin).all()


def test_a_clear_image_is_laid_on_the_colour_of_its_margins(tmp_path):
    (tmp_path / "clear").mkdir()
    Image.new("RGBA", (8, 4), (10, 20, 30, 0)).save(tmp_path / "clear/a.png")
    for alpha, value in (("white", 255), ("black", 0)):
        assert (FolderSource(tmp_path / "clear", cutting=Cutting(8, "pad", alpha)).sample(0)["image"] == value).all()
    dropped = FolderSource(tmp_path / "clear", cutting=Cutting(8, "pad", "drop")).sample(0)["image"]
    assert (dropped[2:6] == (10, 20, 30)).all()
    assert (dropped[:2] == 255).all()

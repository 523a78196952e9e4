import numpy as np
import pytest
from PIL import Image

from difflab.config.folder import FolderSourceConfig
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.data.sources.folder import FolderSource, folder_splits
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
    cut = FolderSource(photos, resolution=8, crop="adm")
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
    with pytest.raises(UserError, match=rf"{photos}/cat/a.jpg cannot be used: not an image .*mend or remove it"):
        FolderSource(photos).sample(0)


def test_an_image_of_the_wrong_size_is_named_with_both_sizes(photos):
    with pytest.raises(UserError, match=rf"{photos}/cat/a.jpg: the image is 20x12 px, wanted is 8x8"):
        FolderSource(photos, resolution=8, crop="none").sample(0)


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
    assert (FolderSource(tmp_path / "deep", resolution=8).sample(0)["image"] == 0x12).all()

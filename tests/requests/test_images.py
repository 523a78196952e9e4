from __future__ import annotations

import dataclasses
import errno
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from difflab.config.data import DataConfig
from difflab.config.request import RequestConfig
from difflab.data.decode import decode_image
from difflab.errors import UserError
from difflab.images import to_float, to_uint8
from difflab.machine import MachineError
from difflab.requests.archives import ArchivePictures
from difflab.requests.base import Wanted
from difflab.requests.build import build_request
from difflab.requests.images import FolderPictures, open_pictures
from pipelines.conftest import UPSAMPLER

WANTED = Wanted(("low_res",), {"low_res": "image"}, sizes={"low_res": 8, "image": 16})
"""By the tiny model that enlarges 8 px to 16."""
LABELLED = dataclasses.replace(WANTED, reads=("low_res", "label"), classes=6)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, arr_0=PIXELS, arr_1=np.array([4, 0, 2]))
    return path


def test_an_archive_is_taken_in_turn_with_its_classes(archive: Path) -> None:
    source = ArchivePictures("low_res", archive)
    batch = source([1, 4, 3], 0)
    assert batch["index"].tolist() == [1, 4, 3]
    assert torch.equal(batch["low_res"][0], batch["low_res"][1])
    assert torch.equal(batch["low_res"][0], torch.from_numpy(PIXELS[1]).permute(2, 0, 1))
    assert batch["label"].tolist() == [0, 0, 4]
    assert source.record() == {"low_res": "samples.npz", "label": "samples.npz"}
    assert source.files == [archive]


def test_classes_that_nobody_reads_are_left_out(archive: Path) -> None:
    assert open_pictures("low_res", str(archive), WANTED).fields == ("low_res",)
    assert open_pictures("low_res", str(archive), LABELLED).fields == ("low_res", "label")


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name, pixels in zip(("b.png", "a.png", "c.png"), PIXELS, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    source = FolderPictures("low_res", tmp_path)
    assert torch.equal(source([0, 3], 0)["low_res"][1], torch.from_numpy(PIXELS[1]).permute(2, 0, 1))
    assert source.fields == ("low_res",)
    assert len(source) == 3


def test_one_picture_is_that_of_every_sample(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0]).save(tmp_path / "one.PNG", format="PNG")
    source = open_pictures("low_res", str(tmp_path / "one.PNG"), WANTED)
    batch = source([0, 5], 0)["low_res"]
    assert torch.equal(batch[0], torch.from_numpy(PIXELS[0]).permute(2, 0, 1))
    assert torch.equal(batch[0], batch[1])
    assert source.record() == {"low_res": "one.PNG"}
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    assert "torn.png cannot be read as an image" in refusal(tmp_path / "torn.png")


def test_upsampling_draws_from_the_small_images(pipeline_of, archive: Path) -> None:
    pipeline = pipeline_of(*UPSAMPLER, asked={"low_res": str(archive)})
    drawn = pipeline([0, 1], 0)
    assert drawn.shape == (2, 3, 16, 16)
    given = torch.from_numpy(PIXELS[:2]).permute(0, 3, 1, 2)
    index = torch.arange(2)
    assert torch.equal(to_uint8(pipeline.follow({"index": index, "low_res": given}, 0)), drawn)
    assert torch.equal(to_uint8(pipeline.follow({"index": index, "low_res": to_float(given)}, 0)), drawn)
    assert not torch.equal(to_uint8(pipeline.follow({"index": index, "low_res": given.flip(0)}, 0)), drawn)
    # Sample 3 has image 0 again, but noise of its own.
    assert not torch.equal(pipeline([3], 0)[0], drawn[0])
    assert pipeline.record()["pipeline"] == {"low_res": "samples.npz"}


def test_whole_images_are_made_smaller_as_in_training(pipeline_of, tmp_path: Path) -> None:
    large = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "large.npz", large)
    whole = pipeline_of(*UPSAMPLER, asked={"images": str(tmp_path / "large.npz")})
    assert whole.request([0], 0).keys() == {"index", "image"}
    small = torch.nn.functional.avg_pool2d(to_float(torch.from_numpy(large).permute(0, 3, 1, 2)), 2)
    told = {"index": torch.arange(2), "low_res": small}
    torch.testing.assert_close(whole.draw([0, 1], 0), whole.follow(told, 0), rtol=1e-5, atol=1e-5)


def test_classes_of_the_small_images_are_followed(pipeline_of, archive: Path) -> None:
    both = (*UPSAMPLER, "conditioning=class_low_res")
    pipeline = pipeline_of(*both, asked={"low_res": str(archive)})
    assert pipeline.request([0, 1, 2], 0)["label"].tolist() == [4, 0, 2]
    drawn = pipeline([0, 1, 2], 0)
    given = pipeline_of(*both, asked={"low_res": str(archive), "classes": [4, 0, 2]})
    assert torch.equal(given([0, 1, 2], 0), drawn)
    other = pipeline_of(*both, asked={"low_res": str(archive), "classes": [1]})
    assert other.request([0, 1], 0)["label"].tolist() == [1, 1]
    assert not torch.equal(other([0, 1, 2], 0), drawn)


def test_mistakes_are_named(tmp_path: Path, archive: Path) -> None:
    assert refusal(tmp_path / "nothing") == (
        f"low_res={tmp_path / 'nothing'} does not exist: give an archive (.npz), a folder of images or one image"
    )
    large = tmp_path / "large.npz"
    np.savez(large, arr_0=np.zeros((2, 10, 10, 3), dtype=np.uint8))
    assert refusal(large) == f"low_res={large} holds 10x10 images; this model takes 8x8 as low_res"
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, arr_0=np.zeros((2, 8, 8), dtype=np.float32))
    assert "arr_0 is float32 [2, 8, 8], not uint8 [n, H, W, C]" in refusal(wrong)
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refusal(tmp_path / "empty")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    assert "a.png cannot be read as an image" in refusal(tmp_path / "broken")


def test_a_mask_of_another_size_is_refused_by_the_key_it_was_given_to(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    wanted = Wanted(("image", "mask"), sizes={"image": 16, "mask": 16})
    with pytest.raises(UserError, match=r"^mask=.* holds 8x8 images; this model takes 16x16 as mask: set crop="):
        open_pictures("mask", str(tmp_path), wanted)
    Image.new("L", (16, 16), 200).save(tmp_path / "a.png")
    assert open_pictures("mask", str(tmp_path), wanted)([0], 0)["mask"].shape == (1, 1, 16, 16)
    with pytest.raises(UserError, match=r"^images=.*/gone does not exist"):
        open_pictures("image", str(tmp_path / "gone"), wanted, key="images")


def refusal(path: Path, wanted: Wanted = WANTED) -> str:
    with pytest.raises(UserError) as error:
        open_pictures("low_res", str(path), wanted)
    assert "\n" not in str(error.value)
    return str(error.value)


def _a(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return arrays


ARCHIVES = {
    "tall": (_a(arr_0=np.zeros((2, 10, 8, 3), np.uint8)), "holds 8x10 images; this model takes 8x8 as low_res"),
    "wide": (_a(arr_0=np.zeros((2, 8, 10, 3), np.uint8)), "holds 10x8 images; this model takes 8x8 as low_res"),
    "gray": (_a(arr_0=np.zeros((2, 8, 8, 1), np.uint8)), "with 1 channels [n, H, W, C]; this model has 3"),
    "alpha": (_a(arr_0=np.zeros((2, 8, 8, 4), np.uint8)), "with 4 channels [n, H, W, C]; this model has 3"),
    "channels first": (_a(arr_0=np.zeros((2, 3, 8, 8), np.uint8)), "arr_0 is uint8 [2, 3, 8, 8], with 8 channels"),
    "floats": (_a(arr_0=np.zeros((2, 8, 8, 3))), "arr_0 is float64 [2, 8, 8, 3], not uint8"),
    "flat": (_a(arr_0=np.zeros((8, 8, 3), np.uint8)), "arr_0 is uint8 [8, 8, 3], not uint8 [n, H, W, C]"),
    "none": (_a(arr_0=np.zeros((0, 8, 8, 3), np.uint8)), "arr_0 is uint8 [0, 8, 8, 3], not uint8"),
    "objects": (_a(arr_0=np.array([{}, {}], dtype=object)), "Object arrays cannot be loaded"),
    "another name": (_a(images=PIXELS), "it holds images; write it with np.savez"),
    "fewer classes": (_a(arr_0=PIXELS, arr_1=np.zeros(2, int)), "arr_1 is int64 [2], not one whole number for each"),
    "one-hot classes": (_a(arr_0=PIXELS, arr_1=np.eye(3, dtype=int)), "arr_1 is int64 [3, 3], not one whole number"),
    "float classes": (_a(arr_0=PIXELS, arr_1=np.zeros(3)), "arr_1 is float64 [3], not one whole number for each"),
    "negative class": (_a(arr_0=PIXELS, arr_1=np.array([0, -1, 1])), "arr_1 has class -1, which is not in 0"),
    "object classes": (_a(arr_0=PIXELS, arr_1=np.array([1, "a", None], object)), "Object arrays cannot be loaded"),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_does_not_fit_is_one_line(tmp_path: Path, kind: str) -> None:
    arrays, message = ARCHIVES[kind]
    np.savez(tmp_path / "a.npz", **arrays)
    said = refusal(tmp_path / "a.npz")
    assert said.startswith(f"low_res={tmp_path / 'a.npz'}")
    assert message in said


def test_classes_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", arr_0=PIXELS, arr_1=np.array([0, 5, 6]))
    said = refusal(tmp_path / "a.npz", LABELLED)
    assert "arr_1 has class 6, which is not in 0..5, the classes of this model" in said


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("arr_0.npy"))


def _zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0", "words")


def _damaged(path: Path) -> None:
    np.savez_compressed(path, arr_0=PIXELS)
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(bytes(data))


def _cut_short(path: Path) -> None:
    np.savez(path, arr_0=PIXELS)
    path.write_bytes(path.read_bytes()[:-40])


FILES = {
    "npy": (lambda path: path.write_bytes(_npy()), "it is one array (.npy)"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(PIXELS)), "it is a pickle"),
    "tar": (_tar, "it is no zip file"),
    "png": (lambda path: Image.fromarray(PIXELS[0]).save(path, "PNG"), "it is no zip file"),
    "zip of text": (_zip_of_text, "its members are no numpy arrays"),
    "damaged": (_damaged, "it is damaged"),
    "cut short": (_cut_short, "it is a zip file that is cut short"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
}


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, PIXELS)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", FILES)
def test_another_file_by_the_name_of_an_archive_is_one_line(tmp_path: Path, kind: str) -> None:
    write, message = FILES[kind]
    write(tmp_path / "a.npz")
    said = refusal(tmp_path / "a.npz")
    assert said.startswith(f"low_res={tmp_path / 'a.npz'} is no archive of images")
    assert message in said


def test_a_folder_is_read_as_data_is(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = np.full((8, 8), 0x1234, dtype=np.uint16)
    clear = np.dstack([PIXELS[0], np.zeros((8, 8), np.uint8)])
    Image.fromarray(deep).save(tmp_path / "a.png")
    Image.fromarray(clear).save(tmp_path / "b.PNG")
    Image.fromarray(PIXELS[0]).save(tmp_path / "c.png", exif=turned)
    Image.fromarray(PIXELS[0]).convert("CMYK").save(tmp_path / "d.jfif", "JPEG")
    Image.fromarray(PIXELS[1]).save(tmp_path / "e.bmp")
    images = FolderPictures("low_res", tmp_path)(range(5), 0)["low_res"]
    assert (images[0] == 0x12).all()
    assert (images[1] == 255).all()
    assert torch.equal(images[2], torch.from_numpy(PIXELS[0]).permute(2, 0, 1).rot90(-1, (1, 2)))
    for number, name in enumerate(["a.png", "b.PNG", "c.png", "d.jfif", "e.bmp"]):
        assert torch.equal(images[number], decode_image((tmp_path / name).read_bytes()))
    assert torch.equal(
        FolderPictures("low_res", tmp_path, 1)([4], 0)["low_res"][0], decode_image(_png(PIXELS[1]), channels=1)
    )


def test_transparent_pixels_are_laid_on_what_those_of_the_data_are(tmp_path: Path) -> None:
    clear = np.dstack([PIXELS[0], np.zeros((8, 8), np.uint8)])
    Image.fromarray(clear).save(tmp_path / "a.png")
    for alpha, value in {"white": 255, "black": 0}.items():
        data = DataConfig(path="data", image_size=16, batch_size=1, alpha=alpha)
        images = build_request(RequestConfig(low_res=str(tmp_path)), WANTED, data, "val")
        assert (images([0], 0)["low_res"] == value).all(), alpha


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_folder_of_several_sizes_or_other_shapes_is_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (9, 8)).save(tmp_path / "z.png")
    assert "holds images of several sizes: 8x8 (a.png), 9x8 (z.png); cut and resize them to one" in refusal(tmp_path)
    (tmp_path / "a.png").unlink()
    assert refusal(tmp_path).endswith("holds 9x8 images; this model takes 8x8 as low_res")


def test_every_image_of_a_folder_is_looked_at_before_anything_is_drawn(tmp_path: Path) -> None:
    for number in range(13):
        (tmp_path / f"{number:02d}.png").write_bytes(_png(PIXELS[0]))
    open_pictures("low_res", str(tmp_path), WANTED)
    for number in range(1, 13):
        (tmp_path / f"{number:02d}.png").write_bytes(_png(PIXELS[0])[:-60])
    said = refusal(tmp_path)
    assert f"{tmp_path}/01.png cannot be read as an image" in said
    assert "/10.png" in said
    assert "/11.png" not in said
    assert "and 2 more" in said


@pytest.mark.parametrize(("bad", "more"), [(10, ""), (11, "; and 1 more")])
def test_ten_bad_files_are_named_and_the_others_counted(tmp_path: Path, bad: int, more: str) -> None:
    for number in range(bad):
        (tmp_path / f"{number:02d}.png").write_bytes(b"no picture")
    said = refusal(tmp_path)
    assert said.count("cannot be read as an image") == 10
    assert said.endswith(f"{more} (repair or remove them)")
    assert ("; and" in said) == bool(more)


def test_what_is_no_image_in_a_folder_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.png").write_bytes(_png(PIXELS[0]))
    (tmp_path / "notes.md").write_text("words")
    (tmp_path / ".DS_Store").write_text("")
    assert FolderPictures("low_res", tmp_path).size == (8, 8)
    assert "files left out: hidden: 1 (.DS_Store), not read as images: 1 (notes.md)" in caplog.text


def test_of_a_drawing_the_samples_are_read_and_nothing_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, pixels in enumerate(PIXELS):
        (tmp_path / f"{number:06d}.png").write_bytes(_png(pixels))
    for name in ("grid.png", "trajectory.png"):
        (tmp_path / name).write_bytes(_png(np.zeros((9, 30, 3), dtype=np.uint8)))
    (tmp_path / "samples.npz").write_bytes(b"")
    assert "holds images of several sizes: 8x8 (000000.png), 30x9 (grid.png)" in refusal(tmp_path)
    caplog.clear()
    (tmp_path / "sample.json").write_text("{}")
    source = open_pictures("low_res", str(tmp_path), WANTED)
    assert len(source) == 3
    assert torch.equal(source([2], 0)["low_res"][0], torch.from_numpy(PIXELS[2]).permute(2, 0, 1))
    assert not caplog.text
    (tmp_path / "sample.json").rename(tmp_path / "unfinished.json")
    assert "holds an unfinished sampling run (unfinished.json)" in refusal(tmp_path)


def test_a_huge_image_is_refused_by_its_header(tmp_path: Path) -> None:
    data = bytearray(_png(PIXELS[0]))
    data[16:24] = struct.pack(">II", 16_000, 16_000)
    (tmp_path / "a.png").write_bytes(bytes(data))
    assert "claims 16000x16000 pixels, more than 178956970" in refusal(tmp_path)
    data[16:24] = struct.pack(">II", 12_000, 12_000)
    (tmp_path / "a.png").write_bytes(bytes(data))
    assert refusal(tmp_path).endswith("holds 12000x12000 images; this model takes 8x8 as low_res")


@pytest.mark.parametrize("name", ["a.npz", "folder"])
def test_what_the_machine_refuses_is_no_fault_of_the_images(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        (path / "a.png").write_bytes(_png(PIXELS[0]))
        monkeypatch.setattr(Path, "read_bytes", refused)
    else:
        np.savez(path, arr_0=PIXELS)
        monkeypatch.setattr(np, "load", refused)
    with pytest.raises(MachineError, match="too many open files, at"):
        open_pictures("low_res", str(path), WANTED)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "1"])
def test_gray_images_are_not_enlarged_by_a_model_of_colours(tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    Image.new(mode, (8, 8)).save(folder / "a.png")
    for given in (folder, folder / "a.png"):
        said = refusal(given)
        assert said == f"low_res={given} holds gray images, and this model enlarges RGB ones; give them in RGB"
    # One among coloured ones is read as such.
    Image.new("RGB", (8, 8)).save(folder / "b.png")
    assert open_pictures("low_res", str(folder), WANTED)([0], 0)["low_res"].shape == (1, 3, 8, 8)
    # What only stands in for it, or is drawn on, may be gray.
    other = Wanted(("image",), sizes={"image": 8})
    assert open_pictures("image", str(folder / "a.png"), other)([0], 0)["image"].shape == (1, 3, 8, 8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_coloured_images_are_not_enlarged_by_a_model_of_gray_ones(tmp_path: Path, mode: str) -> None:
    gray = dataclasses.replace(WANTED, channels=1)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert open_pictures("low_res", str(tmp_path), gray)([0], 0)["low_res"].shape == (1, 1, 8, 8)
    Image.new(mode, (8, 8)).save(tmp_path / "b.png")
    said = refusal(tmp_path, gray)
    assert said == f"low_res={tmp_path} has colours (b.png), and this model enlarges gray images"

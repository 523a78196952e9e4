from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difflab.errors import UserError
from difflab.forced_choice.drawn import Origin
from difflab.forced_choice.pictures import Study
from difflab.forced_choice.study import StudyOptions, open_study

NOWHERE = Origin(None, None, None)


def study(
    pictures: Path,
    *samples: str,
    originals: str | None = "originals",
    low_res: str | None = "low",
    task: int = 1,
    checks: int = 0,
    origin: Origin = NOWHERE,
) -> Study:
    def place(name: str | None) -> Path | None:
        return None if name is None else pictures / name

    given = [f"{name}={pictures / path}" for name, _, path in (one.rpartition("=") for one in samples or ("m=sharp",))]
    return open_study(StudyOptions(given, place(originals), place(low_res), origin, 1 if task == 1 else 2, checks))


def refusal(pictures: Path, *samples: str, **more) -> str:
    with pytest.raises(UserError) as error:
        study(pictures, *samples, **more)
    message = str(error.value)
    assert "\n" not in message
    return message.replace(f"{pictures}/", "")


def own(pictures: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(pictures, tmp_path / "own"))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_pictures_of_one_name_belong_together(pictures: Path) -> None:
    found = study(pictures, "sr3=sharp", "regression=smooth", checks=1)
    assert list(found.models) == ["sr3", "regression"]
    assert found.names == [f"secret-{i:02d}" for i in range(20)]
    for name in ("secret-00", "secret-13"):
        assert np.array_equal(found.models["sr3"](name), pixels(pictures / "sharp" / f"{name}.png"))
        assert np.array_equal(found.models["regression"](name), pixels(pictures / "smooth" / f"{name}.png"))
        assert np.array_equal(found.originals(name), pixels(pictures / "originals" / f"{name}.png"))
        assert found.low_res is not None
        assert np.array_equal(found.low_res(name), pixels(pictures / "low" / f"{name}.png"))
        small = Image.open(pictures / "low" / f"{name}.png")
        assert np.array_equal(found.bicubic(name), np.asarray(small.resize((16, 16), Image.Resampling.BICUBIC)))


def test_endings_may_differ_and_gray_pictures_are_rgb(pictures: Path, tmp_path: Path) -> None:
    root = own(pictures, tmp_path)
    for path in (root / "originals").iterdir():
        Image.open(path).convert("L").save(path.with_suffix(".bmp"))
        path.unlink()
    found = study(root)
    assert found.originals("secret-03").shape == found.models["m"]("secret-03").shape == (16, 16, 3)


def test_archives_belong_together_by_their_order(pictures: Path, tmp_path: Path) -> None:
    root = own(pictures, tmp_path)
    for folder in ("originals", "sharp", "low"):
        np.savez(root / f"{folder}.npz", np.stack([pixels(path) for path in sorted((root / folder).iterdir())]))
    for samples, originals, low in (
        ("m=sharp.npz", "originals", "low"),
        ("m=sharp", "originals.npz", "low.npz"),
        ("m=sharp.npz", "originals.npz", "low"),
        ("m=sharp.npz", "originals.npz", "low.npz"),
    ):
        found = study(root, samples, "other=smooth", originals=originals, low_res=low)
        for i in (0, 7):
            file = f"secret-{i:02d}.png"
            assert np.array_equal(found.models["m"](found.names[i]), pixels(root / "sharp" / file))
            assert np.array_equal(found.models["other"](found.names[i]), pixels(root / "smooth" / file))
            assert np.array_equal(found.originals(found.names[i]), pixels(root / "originals" / file))
            assert found.low_res is not None
            assert np.array_equal(found.low_res(found.names[i]), pixels(root / "low" / file))


def test_a_model_is_called_as_its_folder_unless_it_is_named(pictures: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a=b"
    shutil.copytree(pictures / "sharp", odd)
    asked = StudyOptions(
        [str(pictures / "sharp"), f"x={pictures / 'smooth'}", str(odd)], pictures / "originals", None, NOWHERE, 2, 0
    )
    assert list(open_study(asked).models) == ["sharp", "x", "a=b"]


def test_low_resolution_is_asked_for_where_it_is_needed(pictures: Path) -> None:
    assert study(pictures, low_res=None, task=2).low_res is None
    assert study(pictures, task=2).low_res is None
    assert study(pictures, task=2, checks=1).low_res is not None
    assert refusal(pictures, low_res=None) == (
        "task 1 shows the low resolution picture in the middle: give --low-res FOLDER, or --task 2"
    )
    assert refusal(pictures, low_res=None, task=2, checks=2) == (
        "checks set the original against the bicubic enlargement of the low resolution picture: give --low-res FOLDER, "
        "or --checks 0"
    )


@pytest.mark.parametrize("folder", ["sharp", "originals", "low"])
def test_every_picture_needs_its_counterpart(pictures: Path, tmp_path: Path, folder: str) -> None:
    root = own(pictures, tmp_path)
    (root / folder / "secret-04.png").unlink()
    message = refusal(root)
    assert "19" in message
    assert "20" in message
    assert "secret-04" in message
    (root / folder / "other.png").write_bytes((pictures / folder / "secret-04.png").read_bytes())
    message = refusal(root)
    assert "hold other names" in message
    assert "other" in message


def test_archives_of_another_length(pictures: Path, tmp_path: Path) -> None:
    root = own(pictures, tmp_path)
    np.savez(root / "sharp.npz", np.zeros((19, 16, 16, 3), np.uint8))
    assert refusal(root, "m=sharp.npz") == (
        "--samples=sharp.npz holds 19 pictures and --originals=originals 20: every picture needs its counterpart"
    )


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (32, 32)])
def test_another_size_would_tell(pictures: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    root = own(pictures, tmp_path)
    for path in (root / "sharp").iterdir():
        Image.open(path).resize(size).save(path)
    assert refusal(root).startswith(
        f"--samples=sharp holds {size[0]}x{size[1]} pictures and --originals=originals 16x16: the size shows"
    )


def test_pictures_of_several_sizes(pictures: Path, tmp_path: Path) -> None:
    root = own(pictures, tmp_path)
    Image.new("RGB", (8, 8)).save(root / "sharp" / "secret-04.png")
    assert "--samples=sharp holds images of several sizes" in refusal(root)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (4, 8)])
def test_low_resolution_is_smaller_and_of_one_shape(pictures: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    root = own(pictures, tmp_path)
    for path in (root / "low").iterdir():
        Image.open(path).resize(size).save(path)
    assert "which are no smaller version of the 16x16 of --originals=originals" in refusal(root)


def test_pictures_that_cannot_be_read(pictures: Path, tmp_path: Path) -> None:
    for folder in ("sharp", "originals", "low"):
        root = own(pictures, tmp_path / folder)
        whole = (root / folder / "secret-05.png").read_bytes()
        (root / folder / "secret-05.png").write_bytes(whole[: len(whole) // 2])
        assert "secret-05.png cannot be read as an image" in refusal(root)
    assert "--samples=nowhere does not exist" in refusal(pictures, "m=nowhere")
    (tmp_path / "text.npz").write_text("no archive")
    assert "is no archive of images" in refusal(tmp_path, "m=text.npz")
    assert "is one picture: give the folder" in refusal(pictures, "m=sharp/secret-00.png")


def test_two_pictures_of_one_name(pictures: Path, tmp_path: Path) -> None:
    root = own(pictures, tmp_path)
    Image.open(root / "sharp" / "secret-04.png").save(root / "sharp" / "secret-04.bmp")
    assert "holds two pictures called secret-04" in refusal(root)


def test_names_that_are_no_text_come_back_from_a_page(pictures: Path, tmp_path: Path) -> None:
    root = own(pictures, tmp_path)
    for folder in ("originals", "sharp", "low"):
        (root / folder / "secret-00.png").rename(root / folder / "a\udcff\n.png")
    found = study(root)
    assert "a\\udcff\\n" in found.names
    json.dumps(found.names, ensure_ascii=False).encode()
    assert np.array_equal(found.originals("a\\udcff\\n"), pixels(root / "originals" / "a\udcff\n.png"))


def test_two_models_of_one_name(pictures: Path) -> None:
    assert "two models are called m: name them" in refusal(pictures, "m=sharp", "m=smooth")


def test_originals_are_not_set_against_themselves(pictures: Path, tmp_path: Path) -> None:
    assert "--originals=originals is also among --samples" in refusal(pictures, "m=originals")
    root = own(pictures, tmp_path)
    shutil.copytree(root / "originals", root / "copied")
    assert "--samples=copied: these are the originals, to the bit" in refusal(root, "m=copied")


def test_originals_and_a_data_set(pictures: Path) -> None:
    for option, origin in (
        ("--run", Origin("runs/x", None, None)),
        ("--data", Origin(None, Path("data/x"), None)),
        ("--split", Origin(None, None, "val")),
    ):
        message = refusal(pictures, origin=origin)
        assert message == f"--originals and {option} both say which the originals are: leave one of them out"


def test_nothing_says_which_the_originals_are(pictures: Path) -> None:
    assert "nothing says which pictures the originals are: give --originals" in refusal(pictures, originals=None)

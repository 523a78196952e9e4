"""The folder of a drawing: whose pictures are kept, and what a stop at any point leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from difflab.commands import sample_folder
from difflab.commands.sample_folder import SampleFolder
from difflab.requests.images import FolderPictures

MADE_OF = {"config": {"seed": 0}, "processes": 1}


def images(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 4, 4).contiguous()


def drawn(path: Path, n: int, made_of: dict[str, object] = MADE_OF) -> SampleFolder:
    """A finished drawing of n samples, with a grid."""
    folder = SampleFolder(path, 3)
    folder.begin(made_of, n, png=True)
    folder.write(range(n), images(n))
    (path / "grid.png").write_bytes(b"grid")
    folder.finish({"n": n})
    return folder


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_grey_pictures_are_grey_files_and_go_on_as_such(tmp_path: Path) -> None:
    folder = SampleFolder(tmp_path, 1)
    folder.begin(MADE_OF, 2, png=True)
    folder.write(range(2), images(2)[:, :1])
    assert FolderPictures("image", tmp_path / "000001.png", None).channels == 1
    kept = folder.kept(range(2))
    assert kept is not None
    assert torch.equal(kept, images(2)[:, :1])


def test_a_smaller_drawing_leaves_nothing_of_a_larger_one(tmp_path: Path) -> None:
    drawn(tmp_path, 3)
    assert names(tmp_path) == {"000000.png", "000001.png", "000002.png", "grid.png", "sample.json"}
    SampleFolder(tmp_path, 3).begin(MADE_OF, 2, png=True)
    assert names(tmp_path) == {"unfinished.json"}


def test_pictures_of_somebody_else_stay_where_none_is_drawn_over_them(tmp_path: Path) -> None:
    for index in (0, 1, 2, 3):
        (tmp_path / f"{index:06d}.png").write_bytes(b"mine")
    SampleFolder(tmp_path, 3).begin(MADE_OF, 5, png=False)
    assert names(tmp_path) == {f"{index:06d}.png" for index in range(4)} | {"unfinished.json"}
    (tmp_path / "unfinished.json").unlink()
    SampleFolder(tmp_path, 3).begin(MADE_OF, 2, png=True)
    assert names(tmp_path) == {"000002.png", "000003.png", "unfinished.json"}


@pytest.mark.parametrize("stop", range(1, 5))
def test_a_stop_while_the_old_pictures_go_leaves_none_of_them_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    drawn(tmp_path, 3)
    unlink, count = Path.unlink, 0

    def stopping(self: Path, missing_ok: bool = False) -> None:
        nonlocal count
        count += 1
        if count == stop:
            raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    other = {"config": {"seed": 1}}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stopping)
        with pytest.raises(KeyboardInterrupt):
            SampleFolder(tmp_path, 3).begin(other, 2, png=True)
    SampleFolder(tmp_path, 3).begin(other, 2, png=True)
    assert names(tmp_path) == {"unfinished.json"}


def test_pictures_that_were_kept_are_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = SampleFolder(tmp_path, 3)
    first.begin(MADE_OF, 4, png=True)
    first.write([0, 1], images(2))
    written: list[str] = []
    save = sample_folder.save_picture
    monkeypatch.setattr(
        sample_folder, "save_picture", lambda image, path, **how: written.append(path.name) or save(image, path, **how)
    )
    again = SampleFolder(tmp_path, 3)
    again.begin(MADE_OF, 4, png=True)
    assert again.kept([1, 2]) is None
    kept = again.kept([0, 1])
    assert kept is not None
    assert torch.equal(kept, images(2))
    again.write([0, 1], kept)
    again.write([2, 3], images(2))
    assert written == ["000002.png", "000003.png"]


def test_grey_pictures_come_back_grey(tmp_path: Path) -> None:
    folder = SampleFolder(tmp_path, 1)
    folder.begin(MADE_OF, 2, png=True)
    folder.write([0, 1], images(2)[:, :1])
    kept = folder.kept([0, 1])
    assert kept is not None
    assert torch.equal(kept, images(2)[:, :1])


def test_a_drawing_is_finished_when_its_record_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two, it is complete, and neither file says otherwise."""
    folder = SampleFolder(tmp_path, 3)
    folder.begin(MADE_OF, 1, png=True)
    seen: list[set[str]] = []
    write = sample_folder.write_text

    def writing(path: Path, text: str) -> None:
        seen.append(names(tmp_path))
        write(path, text)

    monkeypatch.setattr(sample_folder, "write_text", writing)
    folder.finish({})
    assert seen == [{"unfinished.json"}]
    assert names(tmp_path) == {"sample.json"}


def test_captions_lie_beside_their_pictures_and_go_with_them(tmp_path: Path) -> None:
    folder = SampleFolder(tmp_path, 3)
    folder.begin(MADE_OF, 3, png=True)
    folder.write([0, 2], images(2), ["a “red” circle, 圆", ""])
    folder.finish({"n": 2})
    assert names(tmp_path) == {"000000.png", "000000.txt", "000002.png", "000002.txt", "sample.json"}
    assert (tmp_path / "000000.txt").read_text(encoding="utf-8") == "a “red” circle, 圆"
    assert (tmp_path / "000002.txt").read_bytes() == b""
    (tmp_path / ".000001.txt.partial-1-ab").touch()
    SampleFolder(tmp_path, 3).begin(MADE_OF, 1, png=True)
    assert names(tmp_path) == {"unfinished.json"}


def test_somebody_else_s_caption_is_not_taken_for_that_of_a_sample(tmp_path: Path) -> None:
    for name in ("000000.png", "000000.txt", "000005.png", "000005.txt"):
        (tmp_path / name).write_bytes(b"mine")
    SampleFolder(tmp_path, 3).begin(MADE_OF, 2, png=True)
    assert names(tmp_path) == {"000005.png", "000005.txt", "unfinished.json"}

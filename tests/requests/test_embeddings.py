from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from difflab.config.request import RequestConfig
from difflab.errors import UserError
from difflab.requests.base import Request, Wanted
from difflab.requests.build import build_request

WANTED = Wanted(("embedding",))


def asked(path: Path, wanted: Wanted = WANTED, **keys: object) -> Request:
    return build_request(RequestConfig(embeddings=str(path), **keys), wanted)


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4)])
def test_rows_are_taken_in_turn(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rows = np.random.default_rng(0).normal(size=shape)
    np.save(tmp_path / "e.npy", rows)
    request = asked(tmp_path / "e.npy")
    batch = request([0, 4], 0)
    assert torch.equal(batch["embedding"], torch.from_numpy(rows[[0, 1]].astype(np.float32)))
    assert request.record() == {"embedding": "e.npy"}
    assert request.files == [tmp_path / "e.npy"]


def test_other_lists_are_as_long(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.zeros((2, 4)))
    both = Wanted(("embedding", "caption"))
    with pytest.raises(UserError, match="prompts gives 3 and embeddings 2"):
        asked(tmp_path / "e.npy", both, prompts=["a", "b", "c"])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "does not exist: give an .npy file"),
        (np.zeros(4), r"is \[4\], one embedding: give \[n, ...\]"),
        (np.array([[1, np.nan]]), "holds no embeddings: not all of its numbers are finite"),
        (np.array([["a"]]), "holds no embeddings: no array of numbers"),
    ],
)
def test_what_is_no_file_of_embeddings_is_one_line(tmp_path: Path, content: np.ndarray | None, line: str) -> None:
    path = tmp_path / "e.npy"
    if content is not None:
        np.save(path, content)
    with pytest.raises(UserError, match=rf"^embeddings={path} {line}") as error:
        asked(path)
    assert "\n" not in str(error.value)


def test_files_of_other_kinds_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "e.npy").write_text("no array")
    with pytest.raises(UserError, match=r"holds no embeddings: no \.npy file"):
        asked(tmp_path / "e.npy")
    with pytest.raises(UserError, match=r"is a folder: give an \.npy file"):
        asked(tmp_path)
    with pytest.raises(UserError, match="this model reads no embedding, it is unconditional"):
        asked(tmp_path / "e.npy", Wanted())

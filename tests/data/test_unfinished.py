"""The folder of a data set in the making, interrupted at any point."""

from __future__ import annotations

from pathlib import Path

import pytest

from difflab.data import unfinished as module
from difflab.data.index import ShardEntry
from difflab.data.offset_table import offsets_path
from difflab.data.unfinished import FinishedShard, Unfinished, kept_shards, unfinished
from difflab.files import sha256_of


def made(folder: Path, number: int) -> FinishedShard:
    """A shard of the folder, tar and offset table."""
    name = module.shard_name("train", number)
    (folder / name).write_bytes(b"samples" * (number + 1))
    offsets_path(folder, name).write_bytes(b"offsets")
    path = folder / name
    entry = ShardEntry(name=name, samples=1, bytes=path.stat().st_size, sha256=sha256_of(path), members={"png": 1})
    return FinishedShard(entry=entry, split="train", read=1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_while_a_shard_is_noted_loses_none_that_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    write = module.write_text

    def interrupted(path: Path, text: str) -> None:
        if when == "after":
            write(path, text)
        raise KeyboardInterrupt

    def noted_until_interrupted(folder: Unfinished) -> None:
        folder.take_up("identity")
        folder.finish(made(folder.folder, 0))
        monkeypatch.setattr(module, "write_text", interrupted)
        with pytest.raises(KeyboardInterrupt):
            folder.finish(made(folder.folder, 1))
        monkeypatch.setattr(module, "write_text", write)
        folder.drop_what_is_not_finished()

    with unfinished(tmp_path) as folder:
        noted_until_interrupted(folder)
    noted = 2 if when == "after" else 1
    assert kept_shards(tmp_path) == noted
    with unfinished(tmp_path) as folder:
        folder.take_up("identity")
        assert [shard.entry.name for shard in folder.finished["train"]] == [f"train-00000{i}.tar" for i in range(noted)]
        left = [path.name for path in folder.folder.glob("*.tar")]
        assert sorted(left) == [f"train-00000{i}.tar" for i in range(noted)]

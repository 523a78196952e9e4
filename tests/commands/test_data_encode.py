"""`difflab data encode`: a data set with the embeddings of a CLIP of drawn weights."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.commands import data_encoding
from difflab.commands.data_encode import EncodeConfig
from difflab.config.axes import ENCODERS
from difflab.config.data import DataConfig
from difflab.data.build import build_eval_loader, build_train_loader
from difflab.data.encoded.checking import require_encoder
from difflab.data.index import INDEX_NAME, read_index
from difflab.data.opening import open_data
from difflab.data.unfinished import FOLDER_NAME
from difflab.files import sha256_of
from difflab.interop.native import WEIGHTS
from difflab.pipelines.embedding import EmbeddingPipeline
from difflab.pipelines.stored import load_stored
from drawn_clip import DIM, export_clip
from tiny_runs import difflab, done, mistake

QUICK = ("accelerator=cpu", "batch_size=16")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_clip(tmp_path_factory.mktemp("clip"), too_long="truncate")


@pytest.fixture(scope="module")
def encoded(clip: Path, tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny shapes with both embeddings in float32. To be read only."""
    out = tmp_path_factory.mktemp("encoded") / "shapes"
    done("data", "encode", tiny_shapes, f"out={out}", f"run={clip}", "dtype=float32", *QUICK)
    return out


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.is_file()}


def test_the_data_set_is_the_same_with_fields(encoded: Path, tiny_shapes: Path, clip: Path) -> None:
    before, after = read_index(tiny_shapes / INDEX_NAME), read_index(encoded / INDEX_NAME)
    assert {name: entry.samples for name, entry in after.splits.items()} == {"train": 96, "val": 12}
    assert [shard.name for shard in after.shards] == [shard.name for shard in before.shards]
    same = {"image_size", "channels", "classes", "source", "origin", "keys"}
    assert after.model_dump(include=same) == before.model_dump(include=same)
    assert {name: (field.shape, field.captions) for name, field in after.fields.items()} == {
        "image_embedding": ([DIM], None),
        "caption_embedding": ([DIM], "lines"),
    }
    assert after.fields["image_embedding"].sha256 == sha256_of(clip / WEIGHTS)
    assert done("data", "inspect", encoded, "--decode", "all").out.count(f"[{DIM}] float32") == 2
    assert not (encoded / FOLDER_NAME).exists()


def test_batches_have_the_embeddings_of_their_samples(encoded: Path, clip: Path) -> None:
    data = DataConfig(
        path=str(encoded),
        image_size=16,
        batch_size=8,
        fields=["caption", "image_embedding", "caption_embedding"],
        captions="lines",
    )
    network = EmbeddingPipeline(load_stored(clip)[0])
    batches: list[dict[str, Any]] = [
        *build_train_loader(data, seed=0, total_batches=2),
        *build_train_loader(data, seed=0, rank=1, world_size=2, total_batches=1),
        next(iter(build_eval_loader(data, split="val", batch_size=8))),
    ]
    for batch in batches:
        expected = network.raw_images(batch["image"])
        torch.testing.assert_close(batch["image_embedding"], expected, rtol=1e-5, atol=1e-6)
        texts = network.raw_texts(network.tokenizer(batch["caption"]).ids)
        torch.testing.assert_close(batch["caption_embedding"], texts, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(expected, expected.flip(0), rtol=1e-2), "the images differ"


def test_the_caption_that_is_drawn_and_its_row_are_the_same(clip: Path) -> None:
    from difflab.data.shapes import ShapesSource
    from difflab.data.writing import write_shards

    class Paraphrased(ShapesSource):
        def sample(self, index: int) -> Any:
            return {**super().sample(index), "caption": "\n".join("abcdef"[: 1 + index % 6])}

    write_shards(Paraphrased(resolution=16, n=24, seed=0), Path("lines"))
    done("data", "encode", "lines", "out=out", f"run={clip}", "fields=[caption_embedding]", "dtype=float32", *QUICK)
    fields = ["caption", "caption_embedding"]
    data = DataConfig(path="out", image_size=16, batch_size=24, fields=fields, captions="lines", workers=0)
    network = EmbeddingPipeline(load_stored(clip)[0])
    drawn = set()
    for batch in build_train_loader(data, seed=3, total_batches=3):
        texts = network.raw_texts(network.tokenizer(batch["caption"]).ids)
        torch.testing.assert_close(batch["caption_embedding"], texts, rtol=1e-5, atol=1e-6)
        drawn |= set(batch["caption"])
    assert len(drawn) > 4
    (first,) = build_eval_loader(data.model_copy(update={"captions": "first_line"}), split="train", batch_size=24)
    assert torch.equal(first["caption_embedding"], first["caption_embedding"][:1].expand(24, -1))
    whole = data.model_copy(update={"captions": "whole"})
    with pytest.raises(ValueError, match=r"captions=lines, but data.captions=whole: set data.captions=lines"):
        build_train_loader(whole, seed=0, total_batches=1)


def test_float16_is_the_default_and_rounds(encoded: Path, tiny_shapes: Path, clip: Path) -> None:
    said = done("data", "encode", tiny_shapes, "out=half", f"run={clip}", "fields=[image_embedding]", *QUICK)
    assert said.out.splitlines() == [
        "half: train 96, val 12 samples in 4 shards",
        f"image_embedding: [{DIM}] float16, clip {sha256_of(clip / WEIGHTS)[:8]}",
    ]
    found = []
    for path in ("half", encoded):
        data = DataConfig(path=str(path), image_size=16, batch_size=12, fields=["image_embedding"])
        (batch,) = build_eval_loader(data, split="val", batch_size=12)
        found.append(batch["image_embedding"])
    assert found[0].dtype == torch.float16
    assert torch.equal(found[0], found[1].half())


def test_splits_join_one_another_only_as_they_are(tiny_shapes: Path, clip: Path, encoded: Path) -> None:
    arguments = ("data", "encode", tiny_shapes, "out=parts", f"run={clip}", "dtype=float32", *QUICK)
    done(*arguments, "splits=[val]")
    assert list(read_index(Path("parts") / INDEX_NAME).splits) == ["val"]
    assert "parts already has a split 'val'" in mistake(*arguments, "splits=[val]")
    other = export_clip(Path("other"), too_long="truncate", seed=1)
    other = ("data", "encode", tiny_shapes, "out=parts", f"run={other}", "dtype=float32", *QUICK, "splits=[train]")
    assert "and would mix it with that of clip" in mistake(*other)
    assert "parts has other encoded fields" in mistake(*arguments, "splits=[train]", "fields=[image_embedding]")
    done(*arguments, "splits=[train]")
    shards = {name: digest for name, digest in hashes(encoded).items() if name != INDEX_NAME}
    assert {name: digest for name, digest in hashes(Path("parts")).items() if name != INDEX_NAME} == shards
    joined = read_index(Path("parts") / INDEX_NAME)
    assert joined.fields == read_index(encoded / INDEX_NAME).fields


def test_a_second_clip_adds_fields_of_its_own(encoded: Path, tmp_path: Path) -> None:
    other = export_clip(tmp_path / "other", too_long="truncate", seed=1)
    again = ("data", "encode", encoded, "out=both", f"run={other}", "fields=[image_embedding]", *QUICK)
    said = mistake(*again)
    assert "already has image_embedding, [8] float32, clip " in said
    assert "names of their own with prefix=..." in said
    done(*again, "prefix=other_")
    directory = open_data("both")
    assert set(directory.index.fields) == {"image_embedding", "caption_embedding", "other_image_embedding"}
    require_encoder(directory, "other_image_embedding", sha256_of(other / WEIGHTS))
    with pytest.raises(ValueError, match=r"image_embedding was computed by clip .*, but the model needs"):
        require_encoder(directory, "image_embedding", sha256_of(other / WEIGHTS))
    listed = json.loads(done("data", "list", ".", "--json").out)["data"]
    assert {entry["path"]: list(entry["encoded"].values()) for entry in listed}["both"] == [
        ["image_embedding", "caption_embedding"],
        ["other_image_embedding"],
    ]
    assert "other_image_embedding" in done("data", "list").out + done("data", "list", ".").out
    assert "array other_image_embedding [8] float16, clip" in done("data", "preview", "both", "--n", 1).out


def test_a_split_without_fields_cannot_join(encoded: Path, tmp_path: Path) -> None:
    shutil.copytree(encoded, tmp_path / "copy")
    made = ("data", "make", "shapes", "out=copy", "resolution=16", "n=0", "val=0", "test=2")
    assert "copy has image_embedding, caption_embedding of `difflab data encode`" in mistake(*made)


@pytest.fixture
def own_shapes(tiny_shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_shapes, tmp_path / "own"))


def _without_captions(folder: Path) -> None:
    from difflab.data.shapes import ShapesSource
    from difflab.data.writing import write_shards

    class Wordless(ShapesSource):
        def sample(self, index: int) -> Any:
            return {**super().sample(index), "caption": None}

    shutil.rmtree(folder)
    write_shards(Wordless(resolution=16, n=4, seed=0), folder)


def _damaged(folder: Path) -> None:
    tar = folder / "train-000001.tar"
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing key 'run'"),
        (["run=nowhere"], "run=nowhere does not exist"),
        (["run={clip}", "fields=[image]"], "fields.0='image'"),
        (["run={clip}", "splits=[]"], "is named; name some, as in splits=[train], or leave splits out"),
        (["run={clip}", "splits=[test]"], "has no split 'test' (it has: train, val)"),
        (["run={clip}", "out=own"], "out=own lies in the data set own, which stays as it is"),
        (["run={clip}", "encoder=clap"], "encoder=clap is not known; choose one of clip, first_stage, text_encoder"),
        (["run={clip}", "feilds=[a]"], "unknown key 'feilds' for encoder=clip; known: "),
        (["run={clip}", "workers=100000"], "workers=100000, but this machine has"),
        (["run={clip}", "batch_size=0"], "batch_size=0: input should be greater than or equal to 1"),
        (["run={clip}", "dtype=int8"], "dtype='int8': input should be 'float16' or 'float32'"),
        (
            ["encoder=text_encoder", "model.weights.path=no"],
            "model has no kind: set model.kind=..., one of 'bert', 't5',",
        ),
        (
            ["run={refusing}"],
            "more than context_length=12: shorten it, or give too_long=truncate (repair the data set,",
        ),
        (["run={large}"], "own holds 16 px images, the encoder takes 32: give a crop, as in crop=resize_short"),
        (["run={clip}", "path=nowhere"], "data directory nowhere does not exist"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, clip: Path, own_shapes: Path, tmp_path: Path
) -> None:
    places = {"clip": clip, "refusing": tmp_path / "refusing", "large": tmp_path / "large"}
    if "run={refusing}" in arguments:
        export_clip(places["refusing"])
    if "run={large}" in arguments:
        export_clip(places["large"], image_size=32, too_long="truncate")
    given = [argument.format(**places) for argument in arguments]
    words = dict(word.split("=", 1) for word in ("path=own", "out=o", *QUICK, *given))
    assert message in mistake("data", "encode", *(f"{key}={value}" for key, value in words.items()))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            _without_captions,
            "own has no caption (.txt files) in split 'train': encode no captions, as in fields=[image_",
        ),
        (_damaged, "train-000001.tar is damaged: its SHA-256 is not the one of the index; make the data set again"),
    ],
)
def test_data_that_cannot_be_encoded_is_one_line(spoil: Any, message: str, clip: Path, own_shapes: Path) -> None:
    spoil(own_shapes)
    assert message in difflab("data", "encode", "own", "out=o", f"run={clip}", *QUICK).last_error
    left = sorted(path.name for path in Path("o").rglob("*")) if Path("o").exists() else []
    assert not [name for name in left if name.endswith(".tar") and "000001" in name]


def test_a_model_that_embeds_nothing_is_one_line(tiny_run: Path, tiny_shapes: Path) -> None:
    assert "embeds no images or texts: give run= a CLIP" in mistake(
        "data", "encode", tiny_shapes, "out=o", f"run={tiny_run}", *QUICK
    )


def test_bad_samples_can_be_left_out(clip: Path, tmp_path: Path) -> None:
    from commands.test_data import plain_tar

    plain_tar(tmp_path / "theirs/0.tar", *(f"{i}.png" for i in range(20)))
    tar = tmp_path / "theirs/0.tar"
    content = tar.read_bytes()
    tar.write_bytes(content.replace(b"IDAT", b"XXXX", 1))
    arguments = ("data", "encode", "theirs", "out=o", f"run={clip}", "fields=[image_embedding]", *QUICK)
    assert "0.tar/0: the .png is damaged" in mistake(*arguments)
    assert "leave such samples out with bad=skip" in mistake(*arguments)
    assert not (tmp_path / "o").exists()
    refused = difflab(*arguments, "bad=skip")
    assert (refused.status, "1 of 20 samples are bad, 0 allowed: 0.tar/0: " in refused.last_error) == (2, True)
    # What is made is kept for a more tolerant command.
    said = done(*arguments, "bad=skip", "max_bad_fraction=0.1")
    assert "continuing with 0 shards; 1 are finished" in said.err
    assert said.out.splitlines()[0] == "o: train 19 samples in 1 shards"
    assert "left out: 1 samples, as 0.tar/0: " in said.out
    index = read_index(Path("o") / INDEX_NAME)
    assert (index.image_size, index.channels, index.origin) == (16, 3, "made")


def test_a_full_disk_leaves_nothing_behind(
    clip: Path, tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    arguments = ("data", "encode", tiny_shapes, "out=o", f"run={clip}", *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        ended = difflab(*arguments)
        assert (ended.status, ended.last_error) == (
            1,
            "difflab data: no space left to write o: free some space and give the same command again",
        )
    assert not (tmp_path / "o").exists()
    real = data_encoding.write_shard

    def full(target: Path, *how: Any) -> Any:
        if target.name == "train-000001.tar":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return real(target, *how)

    with monkeypatch.context() as patch:
        patch.setattr(data_encoding, "write_shard", full)
        assert "no space left to write" in difflab(*arguments).last_error
    assert [path.name for path in (tmp_path / "o").iterdir()] == [FOLDER_NAME]
    assert "continuing with 3 shards; 1 are finished" in done(*arguments).err
    alone = done("data", "encode", tiny_shapes, "out=alone", f"run={clip}", *QUICK)
    assert "continuing" not in alone.err
    assert hashes(tmp_path / "o") == hashes(tmp_path / "alone")


def test_another_encoding_starts_over(
    clip: Path, tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = data_encoding.write_shard, []

    def stopped(target: Path, *how: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(target.name)
        return real(target, *how)

    arguments = ("data", "encode", tiny_shapes, "out=o", f"run={clip}", *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(data_encoding, "write_shard", stopped)
        ended = difflab(*arguments)
    assert ended.status == 130
    assert "1 finished shards are kept; the same command continues with the others" in ended.err
    other = done(*arguments, "dtype=float32")
    assert "the shards that a stopped command left are of another encoding; starting over" in other.err
    assert read_index(tmp_path / "o" / INDEX_NAME).fields["image_embedding"].dtype == "float32"


def test_damaged_leftovers_are_made_again(
    clip: Path, tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("data", "encode", tiny_shapes, f"run={clip}", *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(data_encoding, "move_into_place", _interrupt)
        assert difflab(*arguments, "out=o").status == 130
    hidden = tmp_path / "o" / FOLDER_NAME
    (hidden / "moving.json").unlink()
    tar = hidden / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    assert "continuing with 1 shards; 3 are finished" in done(*arguments, "out=o").err
    done(*arguments, "out=alone")
    assert hashes(tmp_path / "o") == hashes(tmp_path / "alone")


def test_a_command_that_was_stopped_while_moving_goes_on(
    clip: Path, tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("data", "encode", tiny_shapes, f"run={clip}", *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(data_encoding, "move_into_place", _interrupt)
        assert difflab(*arguments, "out=o").status == 130
    hidden = tmp_path / "o" / FOLDER_NAME
    (hidden / "train-000000.tar").replace(tmp_path / "o" / "train-000000.tar")
    assert "o is unfinished" in mistake("data", "inspect", "o")
    assert "all shards are made; moving them into place" in done(*arguments, "out=o").err
    done(*arguments, "out=alone")
    assert hashes(tmp_path / "o") == hashes(tmp_path / "alone")


def _interrupt(*given: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[None]:
    from difflab.data.unfinished import unfinished

    with unfinished(tmp_path / "o", "encode"):
        yield


def test_two_commands_do_not_write_one_data_set(taken: None, clip: Path, tiny_shapes: Path) -> None:
    said = mistake("data", "encode", tiny_shapes, "out=o", f"run={clip}", *QUICK)
    assert "o is being written by `difflab data encode` already" in said


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_every_key_of_an_encoder_is_described_with_its_default(encoder: str) -> None:
    lines = done("data", "encode", f"encoder={encoder}", "help=true").out.splitlines()
    for model in (ENCODERS[encoder].config, EncodeConfig):
        for key in model.model_fields.keys() - {"kind", "encoder"}:
            (line,) = [line for line in lines if line.startswith(f"  {key}=")]
            assert len(line.strip().partition("  ")[2].strip()) > 10, line

import codecs

import numpy as np
import pytest

from difflab.config.data import DataConfig
from difflab.config.validate import validate
from difflab.data.build import build_eval_loader, build_train_loader
from difflab.data.captions import BadCaption, caption_draws, chosen_caption, decode_caption, lines_of, stored_caption
from difflab.data.writing import write_shards
from difflab.errors import UserError

TEXT = "eine Kätzin\nund ein Hund"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        f"\n\n{TEXT}\n \n".replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    ],
)
def test_marks_and_line_ends_leave_the_text(data):
    assert decode_caption(data) == TEXT


@pytest.mark.parametrize("data", [b"", b"\n \r\n", codecs.BOM_UTF8, codecs.BOM_UTF16_LE])
def test_an_empty_file_is_an_empty_caption(data):
    assert decode_caption(data) == ""
    assert chosen_caption("", "lines", 5) == chosen_caption("", "first_line") == stored_caption("", "lines") == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TEXT.encode("latin-1"), "^not UTF-8 text$"),
        (codecs.BOM_UTF16_LE + b"a", "mark of UTF-16, but is not that either"),
        ("a cat".encode("utf-16-le"), "zero bytes, as UTF-16 without its mark does"),
    ],
)
def test_other_encodings_are_named(data, message):
    with pytest.raises(BadCaption, match=message):
        decode_caption(data)


def test_a_caption_is_the_whole_file_a_line_or_a_drawn_one():
    text = "one \n\n two\n\tthree"
    assert lines_of(text) == ["one", "two", "three"]
    assert stored_caption(text, "whole") == chosen_caption(text, "whole", 1) == text
    assert stored_caption(text, "first_line") == chosen_caption(text, "first_line", 1) == "one"
    assert stored_caption(text, "lines") == "one\ntwo\nthree"
    assert [chosen_caption(text, "lines", draw) for draw in (None, 0, 1, 5)] == ["one", "one", "two", "three"]


def test_draws_are_a_function_of_seed_epoch_and_index_and_reach_every_line_alike():
    draws = caption_draws(3, 1, np.arange(9000))
    assert draws[17] == caption_draws(3, 1, np.array([17]))[0]
    assert (draws != caption_draws(3, 2, np.arange(9000))).all()
    assert (draws != caption_draws(4, 1, np.arange(9000))).all()
    assert abs(np.bincount(draws % 3) - 3000).max() < 200


class Captioned:
    """Image i has the captions `i 0` ... `i 3`, one a line."""

    class_names = None

    def __len__(self):
        return 12

    def sample(self, index):
        text = "\r\n".join(f"{index} {line}" for line in range(4))
        return {"image": np.zeros((8, 8, 3), np.uint8), "caption": f"\ufeff{text}\r\n"}


@pytest.fixture
def config(tmp_path):
    write_shards(Captioned(), tmp_path / "d")
    base = {"path": str(tmp_path / "d"), "image_size": 8, "batch_size": 4, "val_split": None, "fields": ["caption"]}
    return lambda **changes: validate(DataConfig, base | changes)


def read(loader):
    return [
        (epoch_batch, *pair) for epoch_batch, b in enumerate(loader) for pair in zip(b["index"].tolist(), b["caption"])
    ]


def test_training_draws_a_line_in_each_epoch_whoever_reads_it(config):
    cfg = config(captions="lines")
    seen = read(build_train_loader(cfg, seed=5, total_batches=24))
    assert all(caption.split()[0] == str(index) for _, index, caption in seen)
    for batch, index, caption in seen:
        assert caption.split()[1] == str(caption_draws(5, batch // 3, np.array([index]))[0] % 4)
    assert len({caption for _, index, caption in seen if index == 0}) > 1, "another one in other epochs"
    halves = [build_train_loader(cfg, seed=5, rank=rank, world_size=2, total_batches=24) for rank in range(2)]
    assert sorted(seen) == sorted(read(halves[0]) + read(halves[1]))
    stopped = build_train_loader(cfg, seed=5, total_batches=24)
    for _, _batch in zip(range(7), stopped):
        pass
    resumed = build_train_loader(cfg, seed=5, total_batches=24)
    resumed.load_state_dict(stopped.state_dict())
    assert [pair[1:] for pair in read(resumed)] == [pair[1:] for pair in seen[7 * 4 :]]


@pytest.mark.slow
def test_reading_processes_draw_the_same_lines(config):
    one, two = (config(captions="lines", workers=workers) for workers in (0, 1))
    assert read(build_train_loader(one, seed=5, total_batches=6)) == read(
        build_train_loader(two, seed=5, total_batches=6)
    )


@pytest.mark.parametrize(
    ("captions", "expected"), [("lines", "3 0"), ("first_line", "3 0"), ("whole", "3 0\n3 1\n3 2\n3 3")]
)
def test_what_is_evaluated_takes_the_first_line_or_the_whole(config, captions, expected):
    seen = read(build_eval_loader(config(captions=captions), split="train", batch_size=4))
    assert seen[3][2] == expected
    if captions != "lines":
        trained = read(build_train_loader(config(captions=captions), seed=0, total_batches=3))
        assert {pair[1]: pair[2] for pair in trained}[3] == expected


def test_choosing_lines_without_captions_is_refused():
    with pytest.raises(UserError, match="captions=lines has no effect without captions: add caption to fields"):
        validate(DataConfig, {"path": "d", "image_size": 8, "batch_size": 4, "captions": "lines"})

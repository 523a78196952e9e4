"""A UNet that follows captions trains on states that `difflab data encode` cached, as it does with the encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Done, run_difflab, tiny_training
from difflab.data.index import INDEX_NAME, read_index
from difflab.networks.text_encoders.base import TextEncoder
from run_files import find_run, losses
from text_encoder_folders import MODELS
from tiny_runs import done

WIDTH, LENGTH = 8, 18


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "bert"
    MODELS["bert"](folder)
    return folder


def train(name: str, data: Path | str, folder: Path, *overrides: str) -> Done:
    Path(name).mkdir()
    options = (
        "conditioning=text_encoder",
        f"conditioning.caption.encoder.weights={{path: {folder}, package: null}}",
        f"conditioning.caption.width={WIDTH}",
        f"conditioning.caption.context_length={LENGTH}",
        "conditioning.caption.too_long=truncate",
        f"network.context_channels={WIDTH}",
        "data.captions=lines",
        "data.fields=[caption]",
        "optimizer.lr=1e-2",
    )
    return run_difflab(tiny_training(Path(data).resolve(), *options, *overrides), Path(name).resolve())


def log_of(run: Path) -> str:
    return (run / "log.txt").read_text()


@pytest.mark.slow
def test_cached_states_give_the_losses_of_the_encoder(
    tiny_shapes: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = ("data", "encode", tiny_shapes, "encoder=text_encoder", "model.kind=bert", f"model.weights.path={folder}")
    encode = (*encode, f"context_length={LENGTH}", "too_long=truncate", "accelerator=cpu")
    done(*encode, "out=exact", "dtype=float32", "batch_size=7")
    done(*encode, "out=half")
    first = next(iter(read_index(Path("exact") / INDEX_NAME).fields.values()))
    assert (first.shape, first.has_rows) == ([LENGTH, 16], True)
    assert train("with", tiny_shapes, folder).status == 0
    calls: list[int] = []
    forward = TextEncoder.forward

    def counted(self: TextEncoder, ids, mask):
        calls.append(len(ids))
        return forward(self, ids, mask)

    monkeypatch.setattr(TextEncoder, "forward", counted)
    for name in ("exact", "half"):
        ended = train(f"on-{name}", name, folder)
        assert ended.status == 0, ended.err
        assert not calls, "the encoder is not run"
        assert "which are read in place of running the encoder" in log_of(find_run(Path(f"on-{name}")))
    expected = losses(find_run(Path("with")))
    assert losses(find_run(Path("on-exact"))) == pytest.approx(expected, rel=1e-6)
    half = losses(find_run(Path("on-half")))
    assert half == pytest.approx(expected, rel=1e-3)
    assert half != expected, "the captions have a part in it"
    dropping = train("dropping", "exact", folder, "conditioning.caption.drop_rate=0.5")
    assert dropping.status == 0, dropping.err
    assert set(calls) == {1}, "the empty caption alone is encoded"


@pytest.mark.slow
def test_states_of_another_encoder_or_of_other_captions_are_not_taken(tiny_shapes: Path, folder: Path) -> None:
    encode = ("data", "encode", tiny_shapes, "encoder=text_encoder", "model.kind=bert", "too_long=truncate")
    encode = (*encode, f"context_length={LENGTH}", "accelerator=cpu", f"model.weights.path={folder}")
    done(*encode, "out=other", "model.pooling=mean")
    assert train("with-other", "other", folder).status == 0
    assert "in place of running the encoder" not in log_of(find_run(Path("with-other")))
    done(*encode, "out=whole", "captions=whole")
    refused = train("with-whole", "whole", folder)
    assert refused.status == 2
    assert "was computed with captions=whole, but data.captions=lines: set data.captions=whole" in refused.last_error

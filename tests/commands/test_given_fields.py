"""Models that follow embeddings and boxes, through every command: the conditioners are the tests' own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from choices import add_choices
from difflab.config.axes import CONDITIONERS
from difflab.data.shapes import ShapesSource
from difflab.data.writing import write_dataset
from given_fields import KINDS
from tiny_runs import ON_CPU, TRAINING, done, mistake

pytestmark = pytest.mark.slow

MODELS = {
    "embedding": ("+conditioning.given={kind:given_embedding,width:3,drop_rate:0.1}",),
    "boxes": ("+conditioning.given={kind:given_boxes,drop_rate:0.1}", "network.context_channels=8"),
}
FAST = ("n=2", "sampler.steps=2", "png=false", *ON_CPU)


class WithEmbeddings(ShapesSource):
    """Shapes, each image with three numbers."""

    def sample(self, index: int) -> dict[str, Any]:
        return {**super().sample(index), "embedding": np.float32([index, 1, -index]) / 10}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "shapes"
    sources = {split: WithEmbeddings(resolution=16, n=12, seed=7, split=split) for split in ("train", "val")}
    write_dataset(sources, folder)
    return folder


@pytest.fixture(params=MODELS)
def trained(
    request: pytest.FixtureRequest, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path]:
    """(which, a run that drew a grid and was evaluated while it trained)."""
    add_choices(monkeypatch, CONDITIONERS, *KINDS)
    drawing = (
        "callbacks=evaluation",
        "callbacks.sample_grid.n=4",
        "callbacks.evaluation.n=4",
        "callbacks.evaluation.every_steps=3",
        "metrics=none",
        "+metrics.fd={kind:fd,extractor:random}",
    )
    every = [option for option in TRAINING if option != "callbacks.sample_grid=null"]
    done("train", *every, *MODELS[request.param], *drawing, f"data.path={data}", "output_root=.", "name=given")
    return request.param, tmp_path / "ddpm" / "shapes32" / "given"


def pixels(folder: str) -> np.ndarray:
    return np.load(Path(folder) / "samples.npz")["arr_0"]


def asked(which: str, data: Path) -> list[dict[str, Any]]:
    """The first two samples of the training split, as lines of a file."""
    from difflab.data.opening import open_data
    from difflab.data.reading import ShardDataset

    fields = ("embedding",) if which == "embedding" else ("boxes", "phrases")
    dataset = ShardDataset(open_data(data), "train", fields=fields)
    samples = [dataset.sample(i, image=False) for i in range(2)]
    if which == "embedding":
        return [{"embedding": sample["embedding"].tolist()} for sample in samples]
    with_phrases = [zip(sample["boxes"], sample["phrases"], strict=True) for sample in samples]
    return [{"boxes": [{"box": box, "phrase": phrase} for box, phrase in one]} for one in with_phrases]


def test_it_is_trained_drawn_measured_and_told_what_to_draw(trained: tuple[str, Path], data: Path) -> None:
    which, path = trained
    run = f"run={path}"
    assert list((path / "samples").glob("step-*.png"))
    assert "fd-random" in (path / "evaluations.jsonl").read_text()
    # Of the split, of a file of samples and of an array: the same fields are the same pictures.
    done("sample", run, *FAST, "out=split")
    lines = asked(which, data)
    Path("asked.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done("sample", run, *FAST, "out=lines", "request=asked.jsonl")
    assert np.array_equal(pixels("split"), pixels("lines"))
    other = [{"embedding": [9, 9, 9]}] if which == "embedding" else [{"boxes": [], "phrases": []}]
    Path("other.jsonl").write_text(json.dumps(other[0]))
    done("sample", run, *FAST, "out=other", "request=other.jsonl")
    assert not np.array_equal(pixels("split"), pixels("other"))
    if which == "embedding":
        np.save("e.npy", np.array([line["embedding"] for line in lines], dtype=np.float32))
        done("sample", run, *FAST, "out=array", "embeddings=e.npy")
        assert np.array_equal(pixels("split"), pixels("array"))
    done("sample", run, *FAST, "out=guided", "request=asked.jsonl", "guidance=classifier_free", "guidance.scale=3")
    measured = ("metrics=none", "+metrics.fd={kind:fd,extractor:random}", "logger=csv")
    done("evaluate", run, "n=4", "sampler.steps=2", *measured, "request=asked.jsonl", "out=judged", *ON_CPU)
    record = json.loads((Path("judged") / "evaluations.jsonl").read_text().splitlines()[-1])
    assert set(record["protocol"]["sampling"]["pipeline"].values()) == {"asked.jsonl"}
    ode = ("method=ode", "method.steps=2", "method.solver=heun", "logger=csv", "out=bpd")
    done("likelihood", run, "n=3", *ode, *ON_CPU)
    with (Path("bpd") / "images.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3


def test_what_it_cannot_be_told_is_one_line(trained: tuple[str, Path]) -> None:
    which, path = trained
    run = f"run={path}"

    def refused(line: dict[str, Any]) -> str:
        Path("asked.jsonl").write_text(json.dumps(line))
        return mistake("sample", run, *FAST, "request=asked.jsonl", "out=out")

    if which == "embedding":
        np.save("e.npy", np.zeros((2, 4), np.float32))
        assert "embedding is [4], this model takes [3]" in mistake("sample", run, *FAST, "embeddings=e.npy", "out=out")
        assert "embedding is [2], this model takes [3]" in refused({"embedding": [1, 2]})
        assert "reads no boxes, it reads embedding" in refused({"boxes": [[0, 0, 1, 1]]})
        assert "embeddings and request=asked.jsonl both give embedding" in mistake(
            "sample", run, *FAST, "embeddings=e.npy", f"request={_written({'embedding': [1, 2, 3]})}", "out=out"
        )
    else:
        assert "this model reads no embedding" in mistake("sample", run, *FAST, "embeddings=e.npy", "out=out")
        box = {"box": [0, 0, 1, 1], "phrase": "a"}
        assert "a sample has 4, this model is told 3 at most" in refused({"boxes": [box] * 4})
        assert "line 1: box 1 is [0, 0, 2, 1], outside of 0..1" in refused(
            {"boxes": [box, {"box": [0, 0, 2, 1], "phrase": "b"}]}
        )
        assert "line 1: box 0 has no phrase" in refused({"boxes": [{"box": [0, 0, 1, 1]}]})


def _written(line: dict[str, Any]) -> str:
    Path("asked.jsonl").write_text(json.dumps(line))
    return "asked.jsonl"


def test_data_without_the_field_is_one_line(tiny_shapes: Path, data: Path, trained: tuple[str, Path]) -> None:
    which, path = trained
    every = [*TRAINING, *MODELS[which], "output_root=other"]
    if which == "embedding":
        assert "has no embedding (.npy files) in split 'train'" in mistake("train", *every, f"data.path={tiny_shapes}")
        line = mistake("evaluate", f"run={path}", "n=2", f"data.path={tiny_shapes}", "logger=csv", *ON_CPU)
        assert "this model reads embedding, which is missing: give it, as in request=FILE.jsonl or embeddings=" in line
    else:
        cut = ("data.crop=adm", f"data.path={data}")
        assert "boxes are shares of the whole image, of which data.crop=adm may cut" in mistake("train", *every, *cut)

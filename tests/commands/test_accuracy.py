"""How well a stored classifier tells classes: found, kept and shown like any other measurement."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import difflab
from commands.test_train_classifier import trained
from difflab.diffusion.continuous_process import ContinuousProcess
from difflab.diffusion.levels.distributions import LogNormalDistribution
from difflab.diffusion.noise import SampleNoise
from difflab.images import as_float
from difflab.metrics.accuracy import AccuracyTally, Judged, mean_and_error
from difflab.metrics.protocol import Result
from difflab.pipelines.accuracy import AccuracyPipeline
from difflab.pipelines.stored import load_stored
from difflab.seeding import stream_seed
from difflab.tracking.runs import read_offline_run
from difflab.types import Batch
from tiny_runs import ON_CPU, done, mistake

QUIET = ("logger=none", *ON_CPU)


@pytest.fixture(scope="module")
def kept_run(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    return trained(tiny_shapes, folder / "runs", "trainer.max_steps=2", "trainer.val_every_steps=0")


@pytest.fixture
def run(kept_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import shutil

    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(kept_run, tmp_path / "run"))


def folder_of(run: Path) -> Path:
    (folder,) = (run / "evaluations").glob("accuracy-*")
    return folder


def records(folder: Path) -> dict[str, Result]:
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    return {result.name: result for result in map(Result.from_json, lines)}


def images(n: int, side: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)
    return {"image": pixels, "index": torch.arange(n), "label": torch.arange(n) % 6}


def test_the_means_are_of_every_image_at_every_time(run: Path) -> None:
    ended = done("accuracy", f"run={run}", "n=5", "times=3", "batch_size=2", *ON_CPU)
    folder = folder_of(run)
    found = records(folder)
    assert list(found) == ["top1@val-5", "top5@val-5", "cross-entropy@val-5"]
    with (folder / "accuracy.csv").open(newline="") as file:
        table = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    assert [row["t"] for row in table] == [0, 24, 49]
    assert [row["sigma"] for row in table] == sorted(row["sigma"] for row in table)
    for name, column in (("top1", "top1"), ("top5", "top5"), ("cross-entropy", "cross_entropy")):
        result = found[f"{name}@val-5"]
        assert result.value == pytest.approx(sum(row[column] for row in table) / 3)
        assert result.details["by_time"] == pytest.approx([row[column] for row in table])
        assert result.protocol.parameters == {
            "times": [0, 24, 49],
            "seed": 0,
            "weights": "raw",
            "precision": "float32",
            "device": "cpu",
        }
    assert found["top1@val-5"].value <= found["top5@val-5"].value <= 1
    assert "means over 3 times of the schedule: top1" in ended.out
    assert "at the last; guessing one of 6 classes gives 0.167" in ended.out
    assert ended.out.splitlines()[-1] == f"records in {folder}"
    assert (run / "evaluations.jsonl").read_text() == (folder / "evaluations.jsonl").read_text()
    logged = read_offline_run(folder)
    assert logged.summary["eval/top1@val-5"] == pytest.approx(found["top1@val-5"].value)
    assert (logged.job_type, len(logged.media["eval/accuracy_by_time"])) == ("accuracy", 1)


def test_a_batch_changes_nothing_and_a_seed_the_noise(run: Path) -> None:
    model = load_stored(run, "auto")[0]
    pipeline = AccuracyPipeline(model, 2)
    whole = pipeline(images(4), 0)
    parts = [pipeline({key: value[rows] for key, value in images(4).items()}, 0) for rows in ([0, 1, 2], [3])]
    torch.testing.assert_close(whole.cross_entropy, torch.cat([part.cross_entropy for part in parts]))
    assert not torch.equal(whole.cross_entropy, pipeline(images(4), 1).cross_entropy)


class Knowing(nn.Module):
    """Logits that name a class, whatever it sees: the true one is outdone by as many as `rank`."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = nn.Parameter(torch.tensor(float(rank)))

    def forward(self, x: torch.Tensor, time: torch.Tensor, conditioning: object = None) -> torch.Tensor:
        logits = torch.arange(6, 0, -1, dtype=torch.float32).expand(len(x), 6)
        return logits.roll(-int(self.rank), dims=1)


@pytest.mark.parametrize(("rank", "expected"), [(0, [0, 1, 2, 3, 4, 5]), (1, [1, 2, 3, 4, 5, 0])])
def test_ranks_are_those_of_the_true_class(run: Path, rank: int, expected: list[int]) -> None:
    model = load_stored(run, "auto")[0]
    object.__setattr__(model, "network", Knowing(rank))
    found = AccuracyPipeline(model, 1)(images(6), 0)
    assert found.rank[:, 0].tolist() == expected
    exact = torch.log_softmax(torch.arange(6, 0, -1).double(), 0)[torch.tensor(expected)]
    torch.testing.assert_close(found.cross_entropy[:, 0], -exact, atol=1e-6, rtol=0)


class Noting(Knowing):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__(0)
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, time: torch.Tensor, conditioning: object = None) -> torch.Tensor:
        self.seen.append(x)
        return super().forward(x, time)


def test_every_image_has_noise_of_its_own_at_every_time_in_the_scale_of_the_network(run: Path) -> None:
    process = ContinuousProcess(LogNormalDistribution(), prediction="edm", time_input="edm")
    model = load_stored(run, "auto")[0]
    network = Noting()
    object.__setattr__(model, "network", network)
    object.__setattr__(model, "process", process)
    pipeline = AccuracyPipeline(model, 4)
    assert pipeline.times == [0.0, 0.25, 0.5, 0.75]
    grey = {**images(2), "image": torch.full((2, 3, 16, 16), 127, dtype=torch.uint8)}
    pipeline(grey, 0)
    assert len(network.seen) == 4
    assert not any(torch.equal(x[0], x[1]) for x in network.seen)
    assert not torch.allclose(network.seen[1], network.seen[2])
    t, x0 = torch.full((2,), 0.75), as_float(grey["image"])
    streams = SampleNoise([stream_seed(0, "accuracy", number) for number in range(2)])
    *_, noise = [streams.randn_like(x0) for _ in range(4)]
    torch.testing.assert_close(network.seen[-1], process.network_input(process.q_sample(x0, t, noise), t))


def test_images_are_put_in_their_order_and_counted_once() -> None:
    tally = AccuracyTally()
    tally.add(torch.tensor([2, 0]), Judged(torch.tensor([[0], [4]]), torch.tensor([[0.5], [2.0]], dtype=torch.float64)))
    tally.add(torch.tensor([1]), Judged(torch.tensor([[1]]), torch.tensor([[1.0]], dtype=torch.float64)))
    found = tally.over_ranks(1)
    assert found.index.tolist() == [0, 1, 2]
    assert found.rank[:, 0].tolist() == [4, 1, 0]
    assert found.hits(2)[:, 0].tolist() == [0, 1, 1]
    mean, error = mean_and_error(found.cross_entropy)
    values = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    assert mean == pytest.approx(float(values.mean()))
    assert error == pytest.approx(float(values.std()) / 3**0.5)
    with pytest.raises(ValueError, match="no image was readable"):
        AccuracyTally().over_ranks(1)


def test_seeds_are_repetitions_of_one_accuracy(run: Path) -> None:
    ended = done("accuracy", f"run={run}", "n=2", "times=1,2", "seed=0,1", *QUIET)
    assert "4 of 4 done" in ended.err
    assert ended.out.count("0,1") == 2
    assert "cannot be compared" not in ended.err
    assert len((run / "evaluations" / "ledger.jsonl").read_text().splitlines()) == 4


def test_from_python_it_is_what_the_command_finds(run: Path) -> None:
    done("accuracy", f"run={run}", "n=3", "times=2", *QUIET)
    rows = difflab.load(run, accelerator="cpu").accuracy(n=3, times=2)
    assert {row.name: row.value for row in rows} == {name: one.value for name, one in records(folder_of(run)).items()}
    with pytest.raises(difflab.UserError, match="is a noisy classifier and draws no images"):
        difflab.load(run, accelerator="cpu").sample(n=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["times=51"], "times=51, but the schedule has 50: give times=50 or less"),
        (["n=13"], "has 12 images: give n=12 or less"),
        (["data.classes=5"], "the model has 6 classes, the data has data.classes=5"),
        (["sampler=ddim"], "accuracy is measured on the classifier alone, without guidance or a sampler"),
        (["batch_size=1,2"], "several may be given for times, split, n, seed, weights, precision"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(run: Path, arguments: list[str], message: str) -> None:
    assert message in mistake("accuracy", f"run={run}", "n=2", *arguments, *QUIET)
    assert not (run / "evaluations").exists()


def test_what_draws_tells_no_classes(own_run: Path) -> None:
    message = mistake("accuracy", f"run={own_run}", "n=2", *QUIET)
    assert "is a diffusion model and does not classify: give run= a classifier" in message


def test_a_classifier_is_not_evaluated_by_what_it_draws(run: Path) -> None:
    message = mistake("evaluate", f"run={run}", "n=2", *QUIET)
    assert "draws no images" in message
    assert f"`difflab accuracy run={run}`" in message


def test_records_are_plain(run: Path) -> None:
    done("accuracy", f"run={run}", "n=1", "times=1", *QUIET)
    (first, *_) = (folder_of(run) / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(first)["spread"] is None

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from difflab.config.base import Config
from difflab.metrics.protocol import Result, compare
from difflab.tracking.runs import read_offline_run
from tiny_runs import ON_CPU, difflab, done, mistake

RANDOM = (
    "metrics.fd.extractor=random",
    "metrics.fd.reference_n=null",
    "metrics.kid.extractor=random",
    "metrics.kid.reference_n=null",
    "metrics.kid.subset_size=4",
    "metrics.oracle=null",
)
FD = ("metrics=lite0", "metrics.fd.extractor=random", "metrics.kid=null")


def records(path: Path) -> list[Result]:
    return [Result.from_json(line) for line in path.read_text().splitlines()]


def empty_fields(config: Config, prefix: str = "") -> set[str]:
    """Dotted names of the fields that are None, through nested records."""
    found = set()
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            found |= empty_fields(value, f"{prefix}{name}.")
        elif value is None:
            found.add(f"{prefix}{name}")
    return found


def test_results_are_shown_and_kept_with_their_protocol(own_run: Path) -> None:
    ended = done("evaluate", f"run={own_run}", "n=8", "batch_size=3", "logger=csv", *RANDOM, *ON_CPU)
    found = records(own_run / "evaluations.jsonl")
    assert [result.name for result in found] == ["fd-random@8", "kid-random@8"]
    for result in found:
        assert result.name in ended.out
        assert result.protocol.hash in ended.out
        assert empty_fields(result.protocol) == {"label", "sampling.classes", "sampling.pipeline"}
        protocol = result.protocol
        assert protocol.n == 8
        assert protocol.extractor is not None
        assert len(protocol.extractor.weights_sha256) == 64
        assert protocol.reference is not None
        assert (protocol.reference.split, protocol.reference.n) == ("train", 96)
        assert len(protocol.reference.content_hash) == 64
        assert protocol.sampling is not None
        assert protocol.sampling.sampler["steps"] == 5
        assert protocol.sampling.guidance["static_limit"] == 1.25
        how = protocol.sampling.model_dump(
            include={"seed", "weights", "rounding", "precision", "device", "class_balance"}
        )
        assert how == {
            "seed": 0,
            "weights": "ema",
            "rounding": "truncate",
            "precision": "float32",
            "device": "cpu",
            "class_balance": "none",
        }
        assert protocol.versions.keys() >= {"difflab", "torch", "torch-fidelity"}
    assert found[1].protocol.parameters["subset_size"] == 4
    (folder,) = (own_run / "evaluations").glob("ddim-5-seed0-*-n8")
    assert (folder / "evaluations.jsonl").read_text() == (own_run / "evaluations.jsonl").read_text()
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "overrides.txt", "metrics.csv"}
    assert "eval/fd-random@8" in (folder / "metrics.csv").read_text()
    assert f"records in {folder}" in ended.out


def test_the_number_does_not_depend_on_the_batch_and_records_add_up(own_run: Path) -> None:
    for size in (3, 8):
        done("evaluate", f"run={own_run}", "n=8", f"batch_size={size}", "logger=none", *FD, *ON_CPU)
    done("evaluate", f"run={own_run}", "n=8", "sampler.steps=2", "logger=none", *FD, *ON_CPU)
    first, second, fewer_steps = records(own_run / "evaluations.jsonl")
    assert compare(first, second) == pytest.approx(0, abs=1e-3)
    assert first.protocol.differences(fewer_steps.protocol) == ["sampling.sampler.steps"]
    assert compare(first, fewer_steps, vary=["sampling.sampler"]) != 0


def test_the_oracle_judges_without_a_reference(own_run: Path) -> None:
    done("evaluate", f"run={own_run}", "n=4", "metrics.fd=null", "metrics.kid=null", "logger=none", *ON_CPU)
    found = records(own_run / "evaluations.jsonl")
    assert found
    assert all(result.metric.startswith("oracle") for result in found)
    assert all(result.protocol.reference is None for result in found)


def test_a_wandb_run_can_be_read_back(own_run: Path) -> None:
    done("evaluate", f"run={own_run}", "n=4", *FD, *ON_CPU)
    (folder,) = (own_run / "evaluations").glob("ddim-5-seed0-*-n4")
    logged = read_offline_run(folder)
    (result,) = records(own_run / "evaluations.jsonl")
    assert logged.summary["eval/fd-random@4"] == pytest.approx(result.value)
    assert logged.config["sampler"]["steps"] == 5
    assert logged.config["model"]["diffusion"]["timesteps"] == 50
    assert logged.exit_code == 0
    assert logged.config["run"] == {"name": "ddpm/shapes32/own", "id": None, "path": str(own_run.absolute())}
    assert (logged.name, logged.job_type) == (f"own {folder.name}", "evaluate")
    assert logged.group == "ddpm/shapes32/own"


def test_the_reference_is_computed_once(own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("evaluate", f"run={own_run}", "n=4", "logger=none", *FD, *ON_CPU)
    done(*arguments)
    cached = list((tmp_path / "cache" / "reference").iterdir())
    assert [path.name.split("-")[:3] for path in cached] == [["random", "train", "96"]]

    def computed(*_: object) -> None:
        raise AssertionError("the reference was computed again")

    monkeypatch.setattr("difflab.metrics.reference.DataReference._compute", computed)
    done(*arguments)
    with pytest.raises(AssertionError, match="computed again"):
        difflab(*arguments, "split=val")


def test_another_split_or_data_set_is_another_protocol(own_run: Path, tiny_shapes: Path) -> None:
    done("evaluate", f"run={own_run}", "n=4", "logger=none", *FD, *ON_CPU)
    done("evaluate", f"run={own_run}", "n=4", "logger=none", "split=val", *FD, *ON_CPU)
    first, second = records(own_run / "evaluations.jsonl")
    assert set(first.protocol.differences(second.protocol)) == {
        "reference.content_hash",
        "reference.n",
        "reference.split",
    }


def test_an_exported_folder_is_judged_with_data(own_run: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    done("weights", "export", own_run, "--out", "exported")
    message = mistake("evaluate", "run=exported", "n=4", "logger=none", *FD, *ON_CPU)
    assert (
        "metrics.fd compares with a data set and there is none; give data= or data.path=, or metrics.fd=null" in message
    )
    assert not (tmp_path / "exported" / "evaluations").exists()
    data = ("data=shards", f"data.path={tiny_shapes}", "data.image_size=16", "data.batch_size=4", "data.workers=0")
    done("evaluate", "run=exported", "n=4", "logger=none", *data, *FD, *ON_CPU)
    (of_export,) = records(tmp_path / "exported" / "evaluations.jsonl")
    done("evaluate", f"run={own_run}", "n=4", "logger=none", "out=of-run", *FD, *ON_CPU)
    (of_run,) = records(tmp_path / "of-run" / "evaluations.jsonl")
    assert of_export.value == pytest.approx(of_run.value)


def test_images_of_another_size_than_the_data_are_noticed(tiny_run: Path, tiny_shapes: Path) -> None:
    message = mistake("evaluate", f"run={tiny_run}", "n=4", "logger=none", "data.image_size=32", *FD, *ON_CPU)
    assert "16" in message
    assert "32" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["n=1", *FD], "metrics.fd needs at least n=2 samples, not n=1"),
        (["n=8"], "metrics.kid.subset_size=100 exceeds n=8; draw more or set metrics.kid.subset_size=8"),
        (["n=8", "metrics=fid50k"], "metrics.fid is defined at n=50000, not n=8"),
        (["n=8", *FD, "split=test"], "has no split 'test' (it has: train, val)"),
        (["n=8", *FD, "data.path=data/gone"], "data/gone"),
        (["n=8", "metrics=fids"], "metrics=fids: no such choice"),
        (["n=8", "metrics.fd.extractor=vgg"], "metrics.fd.extractor='vgg'"),
        (["n=8", *FD, "diffusion=ddpm"], "the model comes from the run"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(own_run: Path, arguments: list[str], message: str) -> None:
    assert message in mistake("evaluate", f"run={own_run}", *arguments, *ON_CPU)
    assert not (own_run / "evaluations").exists()
    assert not (own_run / "evaluations.jsonl").exists()


def test_fid_without_its_weights_says_where_to_put_them(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("this test has no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    fid = ("metrics=fid50k", "metrics.fid.n=null", "metrics.inception_score=null")
    message = mistake("evaluate", f"run={own_run}", "n=4", *fid, *ON_CPU)
    assert "the Inception weights are missing and their download failed" in message
    assert f"put weights-inception-2015-12-05-6726825d.pth in {tmp_path / 'cache' / 'weights'}" in message
    assert not (own_run / "evaluations").exists()
    monkeypatch.setenv("DIFFLAB_OFFLINE", "1")
    assert "DIFFLAB_OFFLINE is set" in mistake("evaluate", f"run={own_run}", "n=4", *fid, *ON_CPU)


def test_a_changed_record_is_noticed(own_run: Path) -> None:
    done("evaluate", f"run={own_run}", "n=4", "logger=none", *FD, *ON_CPU)
    path = own_run / "evaluations.jsonl"
    path.write_text(path.read_text().replace('"steps": 5', '"steps": 6'))
    with pytest.raises(ValueError, match="protocol_hash"):
        records(path)


@pytest.mark.parametrize("command", ["evaluate", "likelihood"])
def test_online_without_a_key_is_refused_before_anything_is_written(
    command: str, own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HOME": str(tmp_path), "WANDB_MODE": "online"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    before = sorted(own_run.rglob("*"))
    line = mistake(command, f"run={own_run}", "n=4", "logger=wandb", "accelerator=cpu")
    assert "there is no API key" in line
    assert sorted(own_run.rglob("*")) == before


@pytest.mark.slow
def test_two_protocols_in_one_folder_are_two_wandb_runs(own_run: Path, tmp_path: Path) -> None:
    def run_id(*overrides: str) -> str:
        done("evaluate", f"run={own_run}", "n=4", f"out={tmp_path / 'out'}", *FD, *ON_CPU, "logger=wandb", *overrides)
        return (tmp_path / "out/wandb/run_id").read_text()

    first = run_id()
    assert run_id("batch_size=2") == first, "the same numbers once more are a further segment"
    assert run_id("seed=1") != first

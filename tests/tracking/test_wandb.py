from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from PIL import Image

from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks.checkpoint import Checkpoint
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.clock import Clock
from difflab.callbacks.ema import EMA
from difflab.callbacks.sample_grid import SampleGrid
from difflab.callbacks.weights import WeightsExport
from difflab.config.logger import LoggerConfig
from difflab.errors import UserError
from difflab.requests.base import Listed
from difflab.tracking.build import build_loggers
from difflab.tracking.config import WandbConfig
from difflab.tracking.csv_rows import read_csv
from difflab.tracking.job import Job
from difflab.tracking.rundir import RunDirectory
from difflab.tracking.runs import OfflineRun, read_offline_run
from difflab.tracking.wandb import exit_status, wandb_run
from difflab.tracking.wandb_service import service_process

CONFIG = {"seed": 3, "network": {"channels": [32, 64], "dropout": 0.1}, "sampler": {"kind": "ddim", "eta": None}}


def generate(indices: list[int], seed: int) -> torch.Tensor:
    return torch.stack([torch.full((3, 8, 8), 10 * i + seed, dtype=torch.uint8) for i in indices])


def train(run: RunDirectory, steps: int, resume: Path | None = None) -> Tiny:
    model = Tiny()
    with build_loggers(LoggerConfig(), run, CONFIG) as loggers:
        callbacks = [
            Clock(),
            EMA(0.9),
            WeightsExport(run.weights, CONFIG),
            Checkpoint(run.checkpoints, every_steps=2),
            SampleGrid(
                run.samples,
                generate,
                every_steps=2,
                n=4,
                columns=2,
                seed=1,
                table=True,
                request=Listed("label", [7, 8, 9, 5]),
            ),
        ]
        fit = trainer(run.path, steps, callbacks, logger=loggers, plugins=[AtomicCheckpointIO()])
        fit.fit(model, loader(20), ckpt_path=resume, weights_only=True)
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, OfflineRun, OfflineRun]:
    """A run of 5 steps, resumed from step 4 and trained to step 7: the directory, what W&B had before and after."""
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "first")
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        train(run, 5)
        before = read_offline_run(run.path)
        train(run, 7, run.checkpoints / "step-000004.ckpt")
    assert not list(home.rglob("*")), "W&B wrote outside the run directory"
    return run, before, read_offline_run(run.path)


def test_the_configuration_is_the_resolved_one(trained: Any) -> None:
    assert trained[1].config == CONFIG


def test_every_promised_key_is_there_on_the_train_step_axis(trained: Any) -> None:
    _, before, _ = trained
    assert [step for step, _ in before.series("train/loss")] == [1, 2, 3, 4, 5]
    assert [step for step, _ in before.series("samples/grid.path")] == [2, 4, 5]
    assert all(row["train/images"] == 2 * row["train/step"] for row in before.history)
    assert any(m.get("name") == "train/step" for m in before.metrics)
    assert any(m.get("glob_name") == "*" and m["step_metric"] == "train/step" for m in before.metrics)


def test_w_and_b_and_the_csv_agree(trained: Any) -> None:
    run, _, after = trained
    for key in ("train/loss", "train/images"):
        in_csv = [(int(row["train/step"]), float(row[key])) for row in read_csv(run.metrics) if "train/loss" in row]
        in_wandb = [(row["train/step"], row[key]) for row in after.history if "train/loss" in row]
        assert in_csv == in_wandb
    assert [step for step, _ in in_wandb] == [1, 2, 3, 4, 5, 6, 7]


def test_images_are_the_samples(trained: Any) -> None:
    run, before, _ = trained
    files = before.media["samples/grid"]
    assert len(files) == 3
    with Image.open(files[-1]) as logged, Image.open(run.samples / "step-000005.png") as saved:
        assert logged.tobytes() == saved.tobytes()
        line = 14  # of text, below each picture
        assert logged.size == (2 + 2 * 66, 2 + 2 * (66 + line))
        assert logged.getpixel((2, 2)) == (1, 1, 1)
        assert logged.getpixel((2 + 66, 2 + 66 + line)) == (31, 31, 31)


def test_the_table_names_each_sample(trained: Any) -> None:
    _, before, _ = trained
    table = json.loads(before.tables["samples/table"][-1].read_text())
    assert table["columns"] == ["image", "index", "seed", "class"]
    assert [row[1:] for row in table["data"]] == [[0, 1, 7], [1, 1, 8], [2, 1, 9], [3, 1, 5]]


def test_the_averaged_weights_are_an_artifact(trained: Any) -> None:
    run, before, _ = trained
    (artifact,) = [a for a in before.artifacts if a["type"] == "model"]
    assert artifact["name"] == f"{before.run_id}-ema"
    assert artifact["metadata"] == {"train_step": 5}
    assert "final" in artifact["aliases"]
    (entry,) = artifact["manifest"]["contents"]
    assert entry["path"] == "ema.safetensors"
    assert Path(entry["local_path"]).is_relative_to(run.wandb)


def test_a_resumed_run_is_one_run_with_two_segments(trained: Any) -> None:
    _, before, after = trained
    assert after.run_id == before.run_id
    assert len(after.segments) == 2
    assert (before.exit_code, after.exit_code) == (0, 0)


def in_wandb(tmp_path: Path, error: BaseException | None) -> OfflineRun:
    run = RunDirectory(tmp_path / "run")

    def block() -> None:
        with wandb_run(WandbConfig(), run, CONFIG) as logger:
            assert logger is not None
            logger.log_metrics({"train/loss": float("nan")}, step=1)
            if error is not None:
                raise error

    if error is None:
        block()
    else:
        with pytest.raises(type(error)):
            block()
    return read_offline_run(run.path)


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("crash"), 1), (SystemExit(75), 75), (KeyboardInterrupt(), 130)],
)
def test_a_run_that_dies_ends_with_its_status(tmp_path: Path, error: BaseException, status: int) -> None:
    run = in_wandb(tmp_path, error)
    assert run.exit_code == status
    assert run.config == CONFIG
    assert run.history[0]["train/loss"] != run.history[0]["train/loss"], "NaN comes back as a number"


def test_exit_statuses() -> None:
    assert exit_status(UserError("x")) == 2
    assert exit_status(SystemExit(None)) == 0
    assert exit_status(SystemExit("message")) == 1


def test_a_second_run_is_refused_and_the_environment_comes_back(tmp_path: Path) -> None:
    before = dict(os.environ)
    second = wandb_run(WandbConfig(), RunDirectory(tmp_path / "b"), {})
    with wandb_run(WandbConfig(), RunDirectory(tmp_path / "a"), {}), pytest.raises(UserError, match="still open"):
        second.__enter__()
    assert {k: v for k, v in os.environ.items() if k.startswith("WANDB_")} == {
        k: v for k, v in before.items() if k.startswith("WANDB_")
    }


@pytest.mark.parametrize("config", [None, WandbConfig(mode="disabled")])
def test_no_logger_where_none_is_wanted(tmp_path: Path, config: WandbConfig | None) -> None:
    with wandb_run(config, RunDirectory(tmp_path), {}) as logger:
        assert logger is None
    assert not list(tmp_path.iterdir())


def test_reading_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no offline W&B run"):
        read_offline_run(tmp_path)


class Refusing(http.server.BaseHTTPRequestHandler):
    """A W&B server that does not know the key."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


@pytest.fixture
def refusing_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield address
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("key", "reason"), [("0" * 40, "401"), ("abc", "API key must have 40"), ("0" * 39 + "\n", "API key")]
)
def test_a_server_that_refuses_is_one_line(
    tmp_path: Path, refusing_server: str, key: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.raises(UserError) as caught, wandb_run(WandbConfig(mode="online"), RunDirectory(tmp_path / "a"), {}):
        pytest.fail("it must not begin")
    line = str(caught.value)
    assert "\n" not in line
    assert reason in line
    assert refusing_server in line
    assert "logger.wandb.mode=offline" in line
    assert key not in line
    assert wandb.run is None
    assert service_process() is None


def test_after_a_refusal_the_next_run_is_as_ever(
    tmp_path: Path, refusing_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with pytest.raises(UserError), wandb_run(WandbConfig(mode="online"), RunDirectory(tmp_path / "a"), {}):
        pytest.fail("it must not begin")
    assert in_wandb(tmp_path, None).exit_code == 0


def test_a_folder_that_cannot_be_written_is_named_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "wandb").write_text("a file")
    with pytest.raises(OSError, match=str(tmp_path / "wandb")), wandb_run(WandbConfig(), RunDirectory(tmp_path), {}):
        pytest.fail("it must not begin")


def test_a_folder_without_permission_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=str(tmp_path / "wandb")):
        wandb_run(WandbConfig(), RunDirectory(tmp_path), {}).__enter__()


def test_the_environment_names_what_the_configuration_leaves_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "WANDB_PROJECT": "theirs",
        "WANDB_NAME": "named",
        "WANDB_RUN_GROUP": "grouped",
        "WANDB_RUN_ID": "own-id",
        "WANDB_MODE": "dryrun",
    }.items():
        monkeypatch.setenv(name, value)
    run = in_wandb(tmp_path / "a", None)
    assert (run.run_id, run.project, run.name, run.group) == ("own-id", "theirs", "named", "grouped")
    given = WandbConfig(project="ours", name="n", group="g")
    with wandb_run(given, RunDirectory(tmp_path / "b"), {}, Job("job", "likelihood", group="by the job")):
        pass
    run = read_offline_run(tmp_path / "b")
    assert (run.project, run.name, run.group, run.job_type) == ("ours", "n", "g", "likelihood")


def test_variables_that_are_set_to_nothing_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_SILENT", "WANDB_RESUME", "WANDB_TAGS"):
        monkeypatch.setenv(name, "")
    directory = RunDirectory.of_run(tmp_path, "e", "a", identity={})
    with wandb_run(WandbConfig(), directory, CONFIG) as logger:
        assert logger is not None
        assert wandb.run is not None
    assert os.environ["WANDB_MODE"] == ""
    assert list(directory.wandb.glob("offline-run-*"))


def test_w_and_b_is_told_to_flush_and_to_end_in_time(tmp_path: Path) -> None:
    with wandb_run(WandbConfig(finish_timeout=7.5), RunDirectory(tmp_path), {}) as logger:
        assert logger is not None
        settings = logger.logger.run.settings  # type: ignore[attr-defined]
        assert settings.finish_timeout == 7.5
        assert settings.x_transaction_log_flush_interval == 1.0


@pytest.mark.slow
def test_leet_and_sync_take_all_runs_of_an_output_root(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run = RunDirectory(tmp_path / "runs/x" / name)
        with wandb_run(WandbConfig(), run, {}, Job.training(run, "x", tmp_path / "runs")) as logger:
            assert logger is not None
            logger.log_metrics({"loss": 1.0}, step=1)
    program = Path(sys.executable).with_name("wandb")
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    done = subprocess.run([program, "sync", "--dry-run", "runs/wandb"], capture_output=True, text=True, env=environment)
    assert "Would sync 2 run(s)" in done.stdout + done.stderr
    (first, _) = sorted((tmp_path / "runs/wandb").iterdir())
    assert read_offline_run(first).series("loss") == [(1, 1.0)]

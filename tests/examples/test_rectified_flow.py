"""The example package as pip installs it: a paper that difflab has not, by the ordinary commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from command_line import tiny_training
from rectified_flow_package import EXAMPLE

FLOW = "experiment=rectified_flow/shapes32"
SAMPLERS = ["flow_euler", "heun", "euler", "ddim", "ancestral", "dpm_solver_pp"]


def test_it_is_small_and_of_the_axes_alone() -> None:
    files = list(EXAMPLE.rglob("*.py"))
    assert len(files) <= 3
    assert sum(len(path.read_text().splitlines()) for path in files) <= 200


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put the package."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "rectified_flow"
    subprocess.run(["cp", "-r", EXAMPLE, source], check=True)
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", folder, source], check=True)
    return folder


def difflab(site: Path | None, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [*([str(site)] if site else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    program = [sys.executable, "-m", "difflab.cli", *arguments]
    return subprocess.run(
        program, cwd=cwd, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True
    )


def done(site: Path, cwd: Path, *arguments: str) -> str:
    ended = difflab(site, cwd, *arguments)
    assert ended.returncode == 0, (arguments, ended.stderr[-2000:])
    return ended.stdout + ended.stderr


@pytest.mark.slow
def test_it_is_trained_sampled_evaluated_and_compared(site: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    _, _, *training = tiny_training(tiny_shapes, "output_root=runs", "trainer.max_steps=20", "optimizer.lr=1e-3")
    training = [one for one in training if not one.startswith("diffusion")]
    told = done(site, tmp_path, "doctor")
    assert "rectified-flow" in told
    papers = ("diffusion.prediction=flow", "diffusion.weighting=none")
    done(site, tmp_path, "train", FLOW, "name=flow", *papers, *training)
    done(site, tmp_path, "train", "experiment=ddpm/shapes32", "name=demo", "diffusion.timesteps=50", *training)
    run = Path("runs/rectified_flow/shapes32/flow")
    stored = yaml.safe_load((tmp_path / run / "config.yaml").read_text())
    recorded = stored["plugins"]["difflab-rectified-flow"]
    assert recorded["version"] == "0.1.0"
    assert recorded["kinds"] == {"diffusion": "rectified_flow", "diffusion.prediction": "flow", "sampler": "flow_euler"}

    on_cpu = ("accelerator=cpu",)
    for name in SAMPLERS:
        done(
            site, tmp_path, "sample", f"run={run}", "n=2", f"sampler={name}", "sampler.steps=3", f"out={name}", *on_cpu
        )
        assert json.loads((tmp_path / name / "sample.json").read_text())
    done(site, tmp_path, "evaluate", f"run={run}", "n=4", "metrics=shapes", "metrics.kid.subset_size=4", *on_cpu)
    sweep = yaml.safe_load((EXAMPLE / "sweeps" / "beside_ddpm.yaml").read_text())
    small = {"n": 4, "metrics.kid.subset_size": 4, "logger": "none", "accelerator": "cpu"}
    sweep["parameters"] |= {key: {"value": value} for key, value in small.items()}
    sweep["parameters"]["sampler.steps"]["values"] = [1, 4]
    (tmp_path / "beside_ddpm.yaml").write_text(yaml.safe_dump(sweep))
    table = done(site, tmp_path, "sweep", "run", "beside_ddpm.yaml", "--metric", "eval/fd-lite0")
    assert "4 of 4" in table
    for drawn in ("rectified_flow/shapes32/flow", "ddpm/shapes32/demo"):
        assert (tmp_path / "runs" / drawn / "evaluations.jsonl").read_text().count("fd-lite0") >= 2

    # Where the package is not installed, a line says what is missing.
    without = difflab(None, tmp_path, "sample", f"run={run}", "n=2", "out=without", *on_cpu)
    assert without.returncode == 2
    assert "comes with difflab-rectified-flow 0.1.0, which" in without.stderr.strip().splitlines()[-1]

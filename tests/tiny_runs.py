"""Small trained runs, made once in a session; every file of tests has a copy, so that none sees what another wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from command_line import Done, run_difflab

ON_CPU = ("accelerator=cpu", "precision=32-true")
CLASSES = ("conditioning=class",)
TRAINING = (
    "experiment=ddpm/shapes32",
    # A network that every layout of weights can hold.
    "network.base_channels=32",
    "network.channel_mult=[1,2]",
    "network.patch_size=1",
    "network.attention_heads=1",
    "network.blocks_per_level=1",
    "network.norm_groups=32",
    "network.adaptive_norm=false",
    # After three steps its samples still have contrast, whatever the experiment predicts.
    "diffusion=ddpm",
    "diffusion.timesteps=50",
    "data.image_size=16",
    "data.batch_size=4",
    "optimizer.lr=1e-2",
    "optimizer.betas=[0.9,0.999]",
    "optimizer.schedule.decay=none",
    "optimizer.schedule.warmup_steps=0",
    "trainer.max_steps=3",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.val_every_steps=0",
    "callbacks.sample_grid=null",
    "logger=csv",
    # The run's own way of drawing, unlike the defaults of the groups.
    "sampler.steps=5",
    "sampler.eta=0.5",
    "guidance.static_limit=1.25",
)


def difflab(*arguments: object) -> Done:
    """Run a command in this process and the present directory."""
    return run_difflab([str(argument) for argument in arguments], Path.cwd())


def done(*arguments: object) -> Done:
    """The same, where the command has to succeed."""
    ended = difflab(*arguments)
    assert ended.status == 0, ended
    return ended


def mistake(*arguments: object) -> str:
    """The one line with which a command refuses a mistake that the user can mend."""
    ended = difflab(*arguments)
    assert ended.status == 2, ended
    assert ended.err.count("\n") == 1, ended.err
    return ended.err.strip()


@pytest.fixture(scope="module")
def tiny_run(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps, of an unconditional model."""
    return _trained(tiny_shapes, tmp_path_factory, "plain")


@pytest.fixture(scope="module")
def class_run(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with six classes."""
    return _trained(tiny_shapes, tmp_path_factory, "classes", *CLASSES)


@pytest.fixture
def own_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_run` that a test may write into."""
    return Path(shutil.copytree(tiny_run, tmp_path / "own"))


def _trained(data: Path, factory: pytest.TempPathFactory, name: str, *overrides: str) -> Path:
    root = factory.getbasetemp() / "tiny-runs"
    run = root / "ddpm" / "shapes32" / name
    if not run.exists():
        done("train", *TRAINING, f"data.path={data}", f"output_root={root}", f"name={name}", *overrides)
    return Path(shutil.copytree(run, factory.mktemp("runs") / run.relative_to(root)))

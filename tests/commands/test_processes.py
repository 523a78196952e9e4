from __future__ import annotations

import sys

import pytest
import torch

from difflab.commands.processes import Layout, Processes, layout_of, started
from difflab.errors import UserError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NUM_NODES": "2", "SLURM_NTASKS": "6"}
BATCH_SCRIPT = {"SLURM_NTASKS": "6", "SLURM_NNODES": "2", "SLURM_PROCID": "0"}


@pytest.fixture(autouse=True)
def _started_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SRUN, *BATCH_SCRIPT):
        monkeypatch.delenv(name, raising=False)


def test_auto_is_one_process_on_a_cpu_and_one_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layout_of("auto", "cpu") == layout_of(1, "cpu") == Layout(1)
    assert layout_of(3, "cpu") == Layout(3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert layout_of("auto", "cuda") == Layout(4)
    assert layout_of(2, "cuda") == Layout(2)
    with pytest.raises(UserError, match="devices=5, but torch finds 4 GPUs here; use devices=auto"):
        layout_of(5, "cuda")
    with pytest.raises(UserError, match="accelerator=mps has one device"):
        layout_of(2, "mps")


@pytest.mark.parametrize(
    ("environment", "layout"),
    [(TORCHRUN, Layout(4, 2, "torchrun")), (SRUN, Layout(3, 2, "srun")), (BATCH_SCRIPT, Layout(1))],
)
def test_a_launcher_has_decided_already(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], layout: Layout
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert layout_of(1, "cpu") == layout_of("auto", "cpu") == layout_of(layout.per_node, "cpu") == layout
    if layout.total > 1:
        with pytest.raises(UserError, match=f"devices=7, but {layout.starter} started {layout.per_node} processes"):
            layout_of(7, "cpu")


def test_one_device_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.fabric", None)
    with started(1, "cpu") as processes:
        assert processes == Processes(0, 1)
        assert processes.is_main
        processes.wait()
        with pytest.raises(UserError, match="as it was said"), processes.agreeing():
            raise UserError("as it was said")

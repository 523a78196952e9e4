from __future__ import annotations

import sys
import weakref

import pytest
import torch
import torch.distributed as dist

from difflab.commands.processes import (
    Layout,
    Processes,
    environment_of,
    layout_of,
    layout_of_training,
    leaving_together,
    started,
)
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


def test_a_training_has_the_processes_that_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layout_of_training("auto", 1, "cpu") == Layout(1)
    assert layout_of_training(3, 2, "cpu") == Layout(3, 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert layout_of_training("auto", 2, "cuda") == Layout(4, 2)
    assert layout_of_training([3, 1], 1, "cuda") == Layout(2)


@pytest.mark.parametrize(
    ("environment", "layout"), [(TORCHRUN, Layout(4, 2, "torchrun")), (SRUN, Layout(3, 2, "srun"))]
)
def test_a_training_agrees_with_its_launcher(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], layout: Layout
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for devices in ("auto", layout.per_node, list(range(layout.per_node))):
        assert layout_of_training(devices, 2, "cpu") == layout
    # As many in all, on other machines, are another layout.
    for devices, nodes in ((layout.total, 1), (1, layout.total), (layout.per_node, 1), ("auto", 3)):
        with pytest.raises(UserError, match=rf"set trainer\.devices={layout.per_node} and trainer\.num_nodes=2$"):
            layout_of_training(devices, nodes, "cpu")


def test_a_process_knows_its_rank_before_it_speaks_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NODE_RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Layout(4, 3).rank == 0
    for name, value in {
        "NODE_RANK": "2",
        "LOCAL_RANK": "1",
        "RANK": "5",
        "SLURM_PROCID": "7",
        "SLURM_LOCALID": "3",
    }.items():
        monkeypatch.setenv(name, value)
    assert Layout(4, 3).rank == 9
    assert Layout(4, 3, "torchrun").rank == 5
    assert Layout(4, 3, "srun").rank == 7


def test_slurm_is_not_asked_to_queue_again_by_lightning() -> None:
    environment = environment_of(Layout(3, 2, "srun"))
    assert type(environment).__name__ == "SLURMEnvironment"
    assert not environment.auto_requeue
    assert type(environment_of(Layout(3, 2, "torchrun"))).__name__ == "TorchElasticEnvironment"
    assert type(environment_of(Layout(3))).__name__ == "LightningEnvironment"


def test_one_device_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.fabric", None)
    with started(1, "cpu") as processes:
        assert processes == Processes(0, 1)
        assert processes.is_main
        processes.wait()
        with pytest.raises(UserError, match="as it was said"), processes.agreeing():
            raise UserError("as it was said")


def test_an_error_raised_in_a_collective_does_not_hold_the_group() -> None:
    """While anything refers to a group of gloo its connections stay open, and the other processes wait in it."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    seen: list[weakref.ref[dist.ProcessGroup]] = []

    def collective() -> None:
        group = dist.distributed_c10d._get_default_group()
        seen.append(weakref.ref(group))
        raise KeyboardInterrupt

    def communicating() -> None:
        try:
            collective()
        except KeyboardInterrupt:
            raise RuntimeError from None

    with pytest.raises(RuntimeError) as error, leaving_together():
        communicating()
    assert not dist.is_initialized()
    assert error.value.__context__ is not None
    assert seen[0]() is None

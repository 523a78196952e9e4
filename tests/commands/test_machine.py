"""What no machine has is refused at once, in a line with the machine's own number."""

from __future__ import annotations

from pathlib import Path

import pytest

from difflab.commands import machine
from difflab.commands.machine import refuse_devices, refuse_more_than_there_is, refuse_nodes
from difflab.commands.processes import layout_of
from difflab.config.data import DataConfig
from difflab.config.trainer import TrainerConfig
from difflab.data import processes
from difflab.data.processes import refuse_workers
from difflab.errors import UserError
from tiny_runs import mistake


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machine, processes):
        monkeypatch.setattr(module, "cores", lambda: 3)
    for name in (*machine.STARTED_BY_OTHERS, "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)


def test_devices_of_a_cpu_are_its_cores() -> None:
    refuse_devices("trainer.devices", 12, "cpu")
    refuse_devices("trainer.devices", "auto", "cpu")
    with pytest.raises(UserError, match=r"^trainer\.devices=13, .* 3 cores, .* use trainer\.devices=3"):
        refuse_devices("trainer.devices", 13, "cpu")
    with pytest.raises(UserError, match="chooses among GPUs"):
        refuse_devices("trainer.devices", [0, 1], "cpu")
    with pytest.raises(UserError, match="one device; use devices=1"):
        refuse_devices("devices", 2, "mps")


@pytest.mark.parametrize("devices", [5, 10**6, [4], [-1], [0, 0], []])
def test_gpus_are_counted(devices: int | list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    with pytest.raises(UserError, match="torch finds 4 GPUs here"):
        refuse_devices("trainer.devices", devices, "cuda")


def test_gpus_that_are_there_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    for devices in (4, [3, 0], "auto"):
        refuse_devices("trainer.devices", devices, "cuda")


def test_drawing_commands_refuse_them_as_well() -> None:
    with pytest.raises(UserError, match=r"^devices=1000000, but this machine has 3 cores"):
        layout_of(1_000_000, "cpu")
    assert layout_of(2, "cpu").total == 2


def test_readers_are_counted_over_all_processes() -> None:
    refuse_workers(12)
    refuse_workers(6, processes=2)
    with pytest.raises(UserError, match=r"data\.workers=13, .* 3 cores, .* use data\.workers=12 or fewer"):
        refuse_workers(13)
    with pytest.raises(UserError, match=r"data\.workers=7 for each of 2 processes, .* use data\.workers=6 or fewer"):
        refuse_workers(7, processes=2)


def test_making_data_refuses_them_before_anything_is_read(tmp_path: Path) -> None:
    made = ("data", "make", "source=folder", "path=nowhere", "out=o")
    assert mistake(*made, "workers=13") == (
        "difflab data: workers=13, but this machine has 3 cores, which at most 12 workers may share; "
        "use workers=12 or fewer"
    )
    assert "nowhere" in mistake(*made, "workers=12")
    assert not (tmp_path / "o").exists()


def test_other_machines_need_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_nodes(1)
    with pytest.raises(UserError, match="srun or torchrun"):
        refuse_nodes(2)
    monkeypatch.setenv("NODE_RANK", "0")
    refuse_nodes(2)
    monkeypatch.setenv("SLURM_NNODES", "4")
    refuse_nodes(4)
    with pytest.raises(UserError, match=r"this job has 4 machines; use trainer\.num_nodes=4"):
        refuse_nodes(5)


def test_a_training_is_looked_at_as_a_whole() -> None:
    data = DataConfig(path="x", image_size=16, batch_size=4, workers=7)
    refuse_more_than_there_is(TrainerConfig(max_steps=1, accelerator="cpu"), data)
    with pytest.raises(UserError, match="for each of 2 processes"):
        refuse_more_than_there_is(TrainerConfig(max_steps=1, accelerator="cpu", devices=2), data)
    with pytest.raises(UserError, match="srun or torchrun"):
        refuse_more_than_there_is(TrainerConfig(max_steps=1, accelerator="cpu", num_nodes=2), data)

"""Checks that this machine has the devices, nodes and cores that a configuration requests."""

from __future__ import annotations

import os

from difflab.config.data import DataConfig
from difflab.config.trainer import TrainerConfig
from difflab.data.processes import PER_CORE, cores, refuse_workers
from difflab.errors import UserError

STARTED_BY_OTHERS = ("SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "NODE_RANK", "GROUP_RANK")


def refuse_more_than_there_is(trainer: TrainerConfig, data: DataConfig) -> None:
    """Raises UserError for devices, machines or loader processes that do not exist, instead of minutes of waiting."""
    from difflab.devices import resolve_accelerator

    accelerator = resolve_accelerator(trainer.accelerator)
    devices = trainer.devices
    refuse_devices("trainer.devices", devices, accelerator)
    refuse_nodes(trainer.num_nodes)
    here = len(devices) if isinstance(devices, list) else 1 if devices == "auto" else devices
    refuse_workers(data.workers, here)


def refuse_devices(key: str, devices: int | str | list[int], accelerator: str) -> None:
    """Raises UserError if this machine has fewer devices (`accelerator`: cpu, cuda or mps)."""
    if devices == "auto":
        return
    if accelerator == "cuda":
        import torch

        there = torch.cuda.device_count()
        requested = devices if isinstance(devices, list) else range(int(devices))
        if len(set(requested)) != len(requested) or not requested or any(not 0 <= index < there for index in requested):
            raise UserError(f"{key}={devices}, but torch finds {there} GPUs here; use {key}=auto, or at most {there}")
        return
    if isinstance(devices, list):
        raise UserError(f"{key}={devices} chooses among GPUs, but accelerator={accelerator}; give a number, as {key}=1")
    most = 1 if accelerator == "mps" else PER_CORE * cores()
    if int(devices) > most:
        there = "one device" if accelerator == "mps" else f"{cores()} cores, which at most {most} processes may share"
        raise UserError(f"{key}={devices}, but this machine has {there}; use {key}={min(most, cores())} or fewer")


def refuse_nodes(num_nodes: int) -> None:
    """Raises UserError if no launcher has started processes on this many machines."""
    if num_nodes == 1:
        return
    started = [name for name in STARTED_BY_OTHERS if name in os.environ]
    if not started:
        raise UserError(
            f"trainer.num_nodes={num_nodes}, but nothing has started processes on other machines: start this command "
            "with srun or torchrun, or use trainer.num_nodes=1"
        )
    there = os.environ.get("SLURM_NNODES")
    if there is not None and there.isdecimal() and num_nodes > int(there):
        raise UserError(
            f"trainer.num_nodes={num_nodes}, but this job has {there} machines; use trainer.num_nodes={there}"
        )

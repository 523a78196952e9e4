"""The processes of `sample`, `evaluate` and `likelihood`: one for each device, started here or by torchrun or srun."""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import torch
import torch.distributed as dist

from difflab.commands.heartbeat import beating
from difflab.commands.launching import launched
from difflab.commands.machine import refuse_devices
from difflab.config.ranks import RanksConfig
from difflab.devices import Accelerator
from difflab.errors import UserError
from difflab.lock import locked

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments import ClusterEnvironment

T = TypeVar("T")

LIGHTNING_LOGGERS = ("lightning.fabric", "lightning.pytorch")


class AgreedError(UserError):
    """A user's mistake that every process knows of, so that all can continue together."""


class SaidByTheFirst(SystemExit):
    """Raised by the other processes when the first one reports a mistake.

    Not an error: Lightning would kill the first process, before its report, if another one ended with an error.
    """


@dataclass(frozen=True)
class Processes:
    """The position of this process: `rank` of `world_size`."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes records, logs and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Waits until every process gets here."""
        if self.world_size > 1:
            dist.barrier()

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """Inside the context, a UserError of one process ends all of them, and only the first reports it, in one line.

        For independent work of each process: none may wait for another inside.
        """
        mine: UserError | None = None
        try:
            yield
        except UserError as error:
            mine = error
        if self.world_size == 1:
            if mine is not None:
                raise mine
            return
        said: list[str | None] = [None] * self.world_size
        dist.all_gather_object(said, None if mine is None else str(mine))
        mistakes = [message for message in said if message is not None]
        if mistakes and self.is_main:
            raise AgreedError(mistakes[0]) from mine
        if mistakes:
            raise SaidByTheFirst(0)

    def from_first(self, make: Callable[[], T]) -> T:
        """Returns the first process's result on every process. A UserError there ends all of them, as in `agreeing`."""
        made: list[T | None] = [None]
        with self.agreeing():
            if self.is_main:
                made[0] = make()
        if self.world_size > 1:
            dist.broadcast_object_list(made, src=0)
        return cast(T, made[0])

    @contextlib.contextmanager
    def taking(self, folder: Path, what: str) -> Iterator[None]:
        """Inside the context, `folder` is locked against other commands, for all processes together.

        what: the activity, for the message of another command: "is being drawn into". Raises UserError like `locked`.
        """
        with contextlib.ExitStack() as held:
            with self.agreeing():
                if self.is_main:
                    held.enter_context(locked(folder, what, "give another out=..."))
            yield


@dataclass(frozen=True)
class Layout:
    """The number of processes on each of `nodes` machines, and their starter: this command, torchrun or srun."""

    per_node: int
    nodes: int = 1
    starter: Literal["difflab", "torchrun", "srun"] = "difflab"

    @property
    def total(self) -> int:
        return self.per_node * self.nodes

    @property
    def rank(self) -> int:
        """The rank of this process, known before any communication."""
        seen = os.environ
        if self.starter == "difflab":
            return int(seen.get("NODE_RANK", "0")) * self.per_node + int(seen.get("LOCAL_RANK", "0"))
        return int(seen["RANK" if self.starter == "torchrun" else "SLURM_PROCID"])


def layout_of(devices: int | Literal["auto"], accelerator: Accelerator) -> Layout:
    """The processes of this command. auto: one per GPU, one on a CPU, or as started by torchrun or srun.

    Raises UserError if there are fewer GPUs, or if a launcher started another number of processes.
    """
    layout = _started_by_others()
    if layout is None:
        available = torch.cuda.device_count() if accelerator == "cuda" else 1
        layout = Layout(available if devices == "auto" else devices)
    elif devices not in (1, "auto", layout.per_node):
        raise UserError(
            f"devices={devices}, but {layout.starter} started {layout.per_node} processes on each machine; "
            "leave devices out"
        )
    if layout.starter == "difflab" and accelerator == "cpu":
        refuse_devices("devices", layout.per_node, accelerator)
    if accelerator == "cuda" and layout.per_node > torch.cuda.device_count():
        raise UserError(
            f"devices={layout.per_node}, but torch finds {torch.cuda.device_count()} GPUs here; use devices=auto"
        )
    if accelerator == "mps" and layout.total > 1:
        raise UserError(f"devices={layout.total}, but accelerator=mps has one device; use devices=1")
    return layout


def layout_of_training(devices: int | Literal["auto"] | list[int], nodes: int, accelerator: Accelerator) -> Layout:
    """The processes of a training run. auto: one per GPU, one on a CPU.

    Raises UserError if torchrun or srun started another number of processes.
    """
    layout = _started_by_others()
    available = torch.cuda.device_count() if accelerator == "cuda" else 1
    if layout is None:
        count = len(devices) if isinstance(devices, list) else available if devices == "auto" else devices
        return Layout(count, nodes)
    count = len(devices) if isinstance(devices, list) else layout.per_node if devices == "auto" else devices
    if (count, nodes) != (layout.per_node, layout.nodes):
        raise UserError(
            f"{layout.starter} started {layout.per_node} processes on each of {layout.nodes} machines, but "
            f"trainer.devices={devices} and trainer.num_nodes={nodes}; "
            f"set trainer.devices={layout.per_node} and trainer.num_nodes={layout.nodes}"
        )
    return layout


@contextlib.contextmanager
def started(
    devices: int | Literal["auto"], accelerator: Accelerator, ranks: RanksConfig | None = None
) -> Iterator[Processes]:
    """Starts the other processes, which run this same command line, and yields the position of this one.

    With one device nothing is started. Raises UserError like `layout_of`, and LostProcessError if another process ends
    or stops responding for longer than `ranks` allows.
    """
    layout = layout_of(devices, accelerator)
    if layout.total == 1:
        yield Processes()
        return
    from lightning.fabric import Fabric

    for name in LIGHTNING_LOGGERS:
        # Their messages about starting processes are of no use here.
        logging.getLogger(name).setLevel(logging.WARNING)
    with launched(layout.per_node, layout.nodes, by_others=layout.starter != "difflab") as others:
        fabric = Fabric(
            accelerator=accelerator,
            devices=layout.per_node,
            num_nodes=layout.nodes,
            strategy="ddp",
            plugins=[environment_of(layout)],
        )
        with leaving_together(UserError, SystemExit):
            fabric.launch()
            rank, world_size = fabric.global_rank, fabric.world_size
            with beating(rank, world_size, ranks or RanksConfig(), others):
                yield Processes(rank, world_size)


def environment_of(layout: Layout) -> ClusterEnvironment:
    """How Lightning finds the processes. Its requeueing under SLURM stays off, as it saves in the middle of a step."""
    from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

    if layout.starter == "srun":
        return SLURMEnvironment(auto_requeue=False)
    return TorchElasticEnvironment() if layout.starter == "torchrun" else LightningEnvironment()


@contextlib.contextmanager
def leaving_together(*agreed: type[BaseException]) -> Iterator[None]:
    """Leaves the process group after the block or an error.

    agreed: errors that all processes raise. After other errors some may still wait in a collective: leaving makes it
    fail (gloo), or would itself wait for them (NCCL), in which case the end of the process does it.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, agreed) or (dist.is_initialized() and dist.get_backend() == "gloo"):
            _free_locals(error)
            leave_process_group()
        raise
    leave_process_group()


def leave_process_group() -> None:
    """Destroys the process group, if there is one; called by all processes.

    Threads of an open group may free a tensor while the interpreter exits, and then abort the process (SIGABRT): a
    launcher would take a finished run for a crash.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _free_locals(error: BaseException) -> None:
    """An error raised in a collective refers to the group, and gloo keeps its connections while anything does."""
    behind: BaseException | None = error
    while behind is not None:
        traceback.clear_frames(behind.__traceback__)
        behind = behind.__context__


def _started_by_others() -> Layout | None:
    seen = os.environ
    if "TORCHELASTIC_RUN_ID" in seen:
        per_node = int(seen["LOCAL_WORLD_SIZE"])
        return Layout(per_node, int(seen["WORLD_SIZE"]) // per_node, "torchrun")
    # A batch script itself is not a task of srun, whatever the size of the allocation; nor is a shell opened by srun.
    if "SLURM_PTY_PORT" in seen or seen.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    tasks, nodes = int(seen.get("SLURM_STEP_NUM_TASKS", "1")), int(seen.get("SLURM_STEP_NUM_NODES", "1"))
    return Layout(tasks // nodes, nodes, "srun") if tasks > 1 else None

"""Running the command line in tests: in this process, or as a program of its own."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import torch

SEEN_IN_TESTS = ("SLURM_", "WANDB_", "PL_", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_", "PYTEST_")

# Linux tells a process when its parent is gone; whoever follows a program of ours ends with that one.
_ENDING_WITH_THE_TESTS = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


class Program(Protocol):
    """The first of a process group of its own; left as a context it has ended."""

    @property
    def pid(self) -> int: ...

    def __enter__(self) -> object: ...

    def __exit__(self, *error: Any) -> None: ...


_started: list[Program] = []

TINY_NETWORK = [
    "network.base_channels=32",
    "network.channel_mult=[1,2]",
    "network.attention_resolutions=[4]",
    "network.norm_groups=8",
    "network.blocks_per_level=1",
    "network.attention_heads=2",
    "network.adaptive_norm=false",
    "diffusion.timesteps=50",
]
"""A UNet of 16 px that trains in milliseconds; `tiny_training` says the rest."""


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def last_error(self) -> str:
        """The last line on standard error."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def tiny_training(data: Path | str, *overrides: str, logger: str = "csv") -> list[str]:
    """Arguments of `difflab train` on 16 px data: six steps of four images, every step logged, no W&B, no pictures."""
    return [
        "train",
        "experiment=ddpm/shapes32",
        f"data.path={data}",
        "data.image_size=16",
        "data.batch_size=4",
        # The losses of these are written down; the experiment's own may be tuned.
        "diffusion=v_cosine",
        "optimizer.lr=8e-4",
        "optimizer.betas=[0.9,0.999]",
        "optimizer.schedule.decay=none",
        "callbacks.ema.decay=0.995",
        "callbacks.ema.warmup=none",
        *TINY_NETWORK,
        "trainer.max_steps=6",
        "trainer.log_every_steps=1",
        "trainer.accelerator=cpu",
        # `auto` is bf16 on some CPUs, and losses are compared bit by bit.
        "trainer.precision=32-true",
        "optimizer.schedule.warmup_steps=2",
        "callbacks.sample_grid=null",
        "callbacks.throughput=null",
        f"logger={logger}",
        "metrics=none",
        *overrides,
    ]


def run_difflab(arguments: Sequence[str], cwd: Path) -> Done:
    """`difflab <arguments>` in this process and the folder `cwd`; a bug keeps its traceback."""
    from difflab.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_torch_as_it_was())
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(contextlib.chdir(cwd))
        # A distributed launch reads sys.argv, and Hydra does.
        stack.enter_context(mock.patch.object(sys, "argv", ["difflab", *arguments]))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            status = main(list(arguments))
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    return Done(status, out.getvalue(), err.getvalue())


def surroundings() -> dict[str, str]:
    """The environment of programs that are tested."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(SEEN_IN_TESTS)}
    return {**inherited, "OMP_NUM_THREADS": "1"}


def start_difflab(
    arguments: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """`difflab <arguments>` as a program of its own, with pipes for its output; see `start_program`."""
    return start_program([sys.executable, "-m", "difflab.cli", *arguments], cwd, environment)


def start_program(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None, *, stdin: int | None = None
) -> subprocess.Popen[str]:
    """A program on one thread that sees none of the variables in SEEN_IN_TESTS.

    It and its children are a process group of their own, which a signal may be sent to. None of them outlives the test
    (`end_programs`), nor the process of the tests, whatever ends that.
    """
    program = subprocess.Popen(
        [*_ENDING_WITH_THE_TESTS, *command],
        cwd=cwd,
        env={**surroundings(), **(environment or {})},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end_with_the_test(program)
    return program


def end_with_the_test(program: Program) -> None:
    """Not later than the test a program ends, with its process group."""
    _started.append(program)


def end_programs() -> None:
    """End every process group of those."""
    while _started:
        program = _started.pop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        # Closes the pipes and waits.
        with program:
            pass


def wait_until(ready: Callable[[], object], program: subprocess.Popen[str] | None = None, seconds: float = 120) -> None:
    """Wait for something that `program` does; fails where it ends before, or after so many seconds."""
    ends = time.monotonic() + seconds
    while not ready():
        assert program is None or program.poll() is None, program.communicate(timeout=30)
        assert time.monotonic() < ends
        time.sleep(0.02)


def spawn_difflab(arguments: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None) -> Done:
    """The same, waited for."""
    process = start_difflab(arguments, cwd, environment)
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)


@contextlib.contextmanager
def _torch_as_it_was() -> Iterator[None]:
    """Training turns determinism on and may change the number of threads; other tests must not notice."""
    threads = torch.get_num_threads()
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark, precision = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    random = torch.random.get_rng_state()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        torch.set_float32_matmul_precision(precision)
        torch.random.set_rng_state(random)

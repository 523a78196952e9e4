"""How long a user waits for difflab's first word and for its first training step, and what is imported until then."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from benchmarks import command
from benchmarks.machine import describe_machine, machine_lines
from benchmarks.pairs import Lap, Rounds, as_json, turns, verdict

HELP_SECONDS = 1.0
HEAVY = {
    "diffusers",
    "lightning",
    "scipy",
    "sympy",
    "torch",
    "torch_fidelity",
    "torchmetrics",
    "torchvision",
    "transformers",
    "wandb",
    "webdataset",
}
"""Packages that take a noticeable part of a second to import."""

VALIDATE = """
from difflab.commands.composing import compose_and_validate
from difflab.config.train import TrainConfig
compose_and_validate("train", TrainConfig, ["experiment=ddpm/shapes32"])
"""

TRAIN = """
import os, sys
from difflab.commands.train import main
args = ["experiment=ddpm/shapes32", "trainer.max_steps=1", "callbacks.sample_grid=null"]
main([*args, *sys.argv[1:], f"name=run{os.getpid()}"])
"""

COMMANDS = {
    "difflab --help": ["-m", "difflab.cli", "--help"],
    "difflab train --help": ["-m", "difflab.cli", "train", "--help"],
    "validating ddpm/shapes32": ["-c", VALIDATE],
    "one step of difflab train": ["-c", TRAIN, "logger=csv"],
    "the same, logged to W&B": ["-c", TRAIN, "logger=wandb"],
    "python alone": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
}
"""What is timed, in a folder that has the data of ddpm/shapes32."""
HELP = "difflab --help"


def main(argv: Sequence[str] | None = None) -> None:
    args = command.parser("startup", "Process time of the first answers.", rounds=7, warmup=1).parse_args(argv)
    facts = describe_machine(with_torch=False)
    command.print_lines(*machine_lines(facts), "")
    with in_a_folder_with_data():
        rounds = time_commands(args.rounds, args.warmup)
        imported = {name: heavy_imports(arguments) for name, arguments in COMMANDS.items()}
    command.print_lines("| seconds | process time, median | min to max | wall, median | heavy imports |")
    command.print_lines("|---|---|---|---|---|")
    for name in COMMANDS:
        cpu, wall = rounds.time_of(name, "cpu"), rounds.time_of(name)
        found = ", ".join(imported[name]) or "none"
        reach = f"{cpu.min:.2f} to {cpu.max:.2f}"
        command.print_lines(f"| {name} | {cpu.median:.2f} | {reach} | {wall.median:.2f} | {found} |")
    process_time = rounds.time_of(HELP, "cpu").median
    command.print_lines("", verdict(f"process time of {HELP}, seconds", process_time, HELP_SECONDS))
    content = as_json(rounds, [], cpu=True)
    command.print_json(args.json, {"benchmark": "startup", "machine": facts, "heavy_imports": imported, **content})


@contextlib.contextmanager
def in_a_folder_with_data() -> Iterator[None]:
    """The present directory is a temporary one with a few of the images that ddpm/shapes32 reads."""
    make = "from difflab.cli import main; main()"
    data = ["data", "make", "source=shapes", "out=data/shapes32_simple", "resolution=32", "n=64", "val=8"]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        subprocess.run([sys.executable, "-c", make, *data], check=True, capture_output=True)
        yield


def time_commands(rounds: int, warmup: int) -> Rounds:
    """Every command in turn; the CPU clock is user and system time of the process, imports and all."""
    measured = Rounds()
    for number in range(-warmup, rounds):
        laps = {name: time_process(COMMANDS[name]) for name in turns(list(COMMANDS), number)}
        if number >= 0:
            measured.add({name: laps[name] for name in COMMANDS})
    return measured


def time_process(arguments: Sequence[str]) -> Lap:
    """One start of Python. Raises CalledProcessError where it fails."""
    cpu, wall = _children_seconds(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return Lap(time.perf_counter() - wall, _children_seconds() - cpu)


def heavy_imports(arguments: Sequence[str]) -> list[str]:
    """The packages of HEAVY that the command imports, sorted."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], check=True, capture_output=True, text=True)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    return sorted({name.partition(".")[0] for name in modules} & HEAVY)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(command.run(main))

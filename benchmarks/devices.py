"""What `auto` should mean on this device: the ways to run a training step and a sampling step, in turn.

A training step is the bare loop's, whose cost is the network's;
`src/difflab/devices.py` holds the choice that is judged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import command
from benchmarks.loops import BareLoop
from benchmarks.machine import describe_machine, machine_lines
from benchmarks.pairs import Rounds, Step, as_json, interleave, table
from benchmarks.stage import Stage, add_experiment_options, open_stage, overrides_of, synchroniser
from benchmarks.switches import deterministic
from difflab.devices import Accelerator, on_cuda_only, sampling_autocast, training_precision

TIE = 1.03
"""A choice this close to the fastest is as good: less is noise."""


@dataclass(frozen=True)
class Way:
    """One way to run a network."""

    bf16: bool = False
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    mode: str | None = None
    """Of torch.compile; None for its default."""

    def __str__(self) -> str:
        switches = [name for name in ("channels_last", "compile", "deterministic") if getattr(self, name)]
        modes = [] if self.mode is None else [self.mode]
        return " + ".join(["bf16" if self.bf16 else "fp32", *switches, *modes])

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.bf16 else None

    def placed(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network on the device, laid out and compiled this way."""
        network.to(device)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)
        if self.compile:
            network.compile(mode=self.mode)
        return network

    def within(self, step: Step) -> Step:
        """`step` under this way's global switch."""

        def switched() -> None:
            with deterministic(self.deterministic):
                step()

        return switched


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    facts = describe_machine()
    with open_stage(args.experiment, overrides_of(args)) as stage:
        if stage.accelerator == "cuda":
            # As training does it.
            torch.set_float32_matmul_precision("high")
        command.print_lines(*machine_lines(facts), stage.headline(), "")
        ways = ways_to_train(args.compile)
        training = compare(stage, ways, training_step, args.rounds, args.warmup)
        auto = auto_training(stage.accelerator)
        lines = judged("Training step", training, stage.accelerator, str(auto))
        if auto.compile and not args.compile:
            lines.append("auto also compiles, which was not measured: add --compile")
        command.print_lines(*lines, "")
        sampling = compare(stage, ways_to_sample(), sampling_step, args.rounds, args.warmup)
        layout = on_cuda_only("auto", stage.accelerator)
        choice = Way(bf16=sampling_autocast("auto", stage.accelerator) is not None, channels_last=layout)
        command.print_lines(*judged("Sampling forward", sampling, stage.accelerator, str(choice)), "")
        content = {"benchmark": "devices", "machine": facts, "settings": stage.settings()}
        cpu = stage.accelerator == "cpu"
        measured = {"training": training, "sampling": sampling}
    results = {name: as_json(rounds, _pairs(rounds), cpu=cpu) for name, rounds in measured.items()}
    command.print_json(args.json, {**content, **results})


def ways_to_train(compiled: bool) -> list[Way]:
    """fp32 as torch has it, each switch alone, and those together that a GPU wants."""
    ways = [Way(), Way(deterministic=True), Way(channels_last=True), Way(bf16=True), Way(bf16=True, channels_last=True)]
    return [*ways, Way(compile=True), Way(bf16=True, channels_last=True, compile=True)] if compiled else ways


def ways_to_sample() -> list[Way]:
    """Sampling has no gradients, so other switches pay."""
    return [Way(), Way(bf16=True), Way(channels_last=True), Way(bf16=True, channels_last=True)]


def auto_training(accelerator: Accelerator) -> Way:
    """What difflab does when nothing is said, but for determinism, which is not chosen for speed."""
    on_gpu = on_cuda_only("auto", accelerator)
    bf16 = training_precision("auto", accelerator) == "bf16-mixed"
    return Way(bf16=bf16, channels_last=on_gpu, compile=on_gpu)


def compare(stage: Stage, ways: Sequence[Way], make: Callable[[Stage, Way], Step], rounds: int, warmup: int) -> Rounds:
    """One step of every way in turn."""
    steps = {str(way): way.within(make(stage, way)) for way in ways}
    # At least one round before the first counts: compiling and choosing algorithms happens there.
    return interleave(steps, rounds=rounds, warmup=max(warmup, 1), synchronise=synchroniser(stage.device))


def training_step(stage: Stage, way: Way) -> Step:
    """A step of the bare loop."""
    config = stage.config
    network = way.placed(stage.network(), stage.device)
    loop = BareLoop(
        network,
        stage.batches(2),
        config.diffusion,
        config.optimizer,
        gradient_clip=config.trainer.gradient_clip,
        ema_decay=0.9999,
        autocast=way.autocast,
    )
    return loop.step


def sampling_step(stage: Stage, way: Way) -> Step:
    """One call of the network without gradients."""
    network = way.placed(stage.network(), stage.device).eval()
    data = stage.config.data
    x = torch.randn(data.batch_size, data.channels, data.image_size, data.image_size, device=stage.device)
    t = torch.full((data.batch_size,), 500.0, device=stage.device)

    @torch.no_grad()
    def step() -> Tensor:
        with torch.autocast(stage.device.type, way.autocast, enabled=way.autocast is not None):
            return network(x, t)

    return step


def judged(title: str, rounds: Rounds, accelerator: Accelerator, auto: str) -> list[str]:
    """The table, and whether what auto chooses is the fastest or ties with it."""
    lines = [f"{title} on {accelerator}:", "", *table(rounds, _pairs(rounds), cpu=accelerator == "cpu"), ""]
    fastest = min(rounds.names(), key=lambda name: rounds.time_of(name).median)
    if auto not in rounds.names():
        return [*lines, f"fastest: {fastest}; auto chooses {auto}, which was not measured"]
    behind = rounds.ratio(auto, fastest).median
    verdict = "is the right choice" if behind <= TIE else "is NOT the fastest; see src/difflab/devices.py"
    return [*lines, f"fastest: {fastest}; auto chooses {auto} ({behind:.3f} of the fastest's time), which {verdict}"]


def _pairs(rounds: Rounds) -> list[tuple[str, str]]:
    first, *rest = rounds.names()
    return [(name, first) for name in rest]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.parser("devices", "Precisions, layouts and compilation on this device.", rounds=15, warmup=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile too; minutes on a CPU")
    add_experiment_options(parser)
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    sys.exit(command.run(main))

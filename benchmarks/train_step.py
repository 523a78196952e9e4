"""A training step of difflab against the same step by hand, and against diffusers' network in that loop.

difflab trains as `difflab train` does: Lightning, shards, every default callback, a CSV log. Its step is the time from
the end of the others' work to the end of its last callback, so all it does for a step is inside. The others take their
steps between difflab's, in the same process, on the same threads, with torch's own defaults (no deterministic mode).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from torch import nn

from benchmarks import command
from benchmarks.loops import BareLoop
from benchmarks.machine import describe_machine, machine_lines
from benchmarks.pairs import (
    Lap,
    Rounds,
    Spread,
    Step,
    Stopwatch,
    as_json,
    clocked,
    interleave,
    table,
    turns,
    verdict,
)
from benchmarks.peer import OwnNetwork, diffusers_model, diffusers_network
from benchmarks.stage import Stage, add_experiment_options, open_stage, overrides_of, synchroniser
from benchmarks.switches import deterministic
from difflab.callbacks.throughput import off_the_clock
from difflab.commands.trainer import build_trainer, hush_lightning
from difflab.commands.training import build_module
from difflab.commands.training_evaluation import sampling_pipeline
from difflab.data.datamodule import ShardDataModule
from difflab.tasks.build import Model
from difflab.tasks.denoising.module import DenoisingModule
from difflab.tasks.training_module import TrainingModule
from difflab.tracking.build import build_loggers
from difflab.tracking.rundir import RunDirectory

Module = TypeVar("Module", bound=TrainingModule)

FRAMEWORK_TAX = 1.05
AGAINST_DIFFUSERS = 1.03
DATA_WAIT = 0.05

LOOP_PAIRS = [("difflab", "bare loop"), ("difflab", "diffusers loop"), ("bare loop", "diffusers loop")]
NETWORK_PAIRS = [("ours", "diffusers")]
# Grids and checkpoints at the end are not part of a step.
QUIET_END = ["callbacks.sample_grid.at_end=false", "callbacks.checkpoint.at_end=false"]


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    facts = describe_machine()
    overrides = [*overrides_of(args), f"trainer.max_steps={(args.rounds + args.warmup) * args.block}", *QUIET_END]
    with open_stage(args.experiment, overrides) as stage:
        command.print_lines(*machine_lines(facts), stage.headline(), "")
        cpu = stage.accelerator == "cpu"
        content: dict[str, Any] = {"benchmark": "train_step", "machine": facts, "settings": stage.settings()}
        if args.part in ("all", "network"):
            rounds = time_networks(stage, args.rounds, args.warmup, args.block)
            ratio = rounds.ratio(*NETWORK_PAIRS[0]).median
            command.print_lines(
                "Forward and backward of the network alone:", "", *table(rounds, NETWORK_PAIRS, cpu=cpu), ""
            )
            command.print_lines(verdict("our network / diffusers'", ratio, AGAINST_DIFFUSERS), "")
            content["network"] = as_json(rounds, NETWORK_PAIRS, cpu=cpu)
        if args.part in ("all", "loop"):
            rounds, waits = time_loops(stage, args.warmup, args.block)
            tax = rounds.ratio(*LOOP_PAIRS[0]).median
            command.print_lines("A training step:", "", *table(rounds, LOOP_PAIRS, cpu=cpu), "")
            command.print_lines(verdict("framework tax (difflab / bare loop)", tax, FRAMEWORK_TAX))
            wait = Spread.of(waits).median
            command.print_lines(verdict("share of difflab's step spent waiting for data", wait, DATA_WAIT), "")
            content |= {"loop": as_json(rounds, LOOP_PAIRS, cpu=cpu), "data_wait_frac": wait}
    command.print_json(args.json, content)


def time_networks(stage: Stage, rounds: int, warmup: int, block: int) -> Rounds:
    """Forward and backward of our network and of diffusers', with the same weights, on one batch of noise."""
    ours = stage.network()
    theirs = diffusers_network(ours, stage.config.network, stage.config.data.image_size)
    contenders = {
        name: forward_backward(stage, stage.placed(network))
        for name, network in (("ours", ours), ("diffusers", theirs))
    }
    return interleave(contenders, rounds=rounds, warmup=warmup, synchronise=synchroniser(stage.device), block=block)


def forward_backward(stage: Stage, network: nn.Module) -> Step:
    """A step that fills the gradients of `network`."""
    data = stage.config.data
    x = torch.randn(data.batch_size, data.channels, data.image_size, data.image_size, device=stage.device)
    t = torch.randint(stage.config.diffusion.timesteps, (data.batch_size,), device=stage.device).float()

    def step() -> None:
        network.zero_grad(set_to_none=True)
        with torch.autocast(stage.device.type, stage.autocast, enabled=stage.autocast is not None):
            out = network(x, t)
        out.float().square().mean().backward()

    return step


def time_loops(stage: Stage, warmup: int, block: int) -> tuple[Rounds, list[float]]:
    """difflab's own training with the other loops in its pauses; also the share of its steps that waited for data."""

    def begin(module: DenoisingModule) -> Pauses:
        return Pauses(other_loops(stage, module), synchroniser(stage.device), warmup=warmup, block=block)

    pauses, module = train_with(stage, begin)
    require_a_real_run(pauses.run.metrics, module, stage.config.trainer.max_steps)
    return pauses.rounds, pauses.waits


def train_with(
    stage: Stage, begin: Callable[[Module], Pauses], kind: type[Module] = DenoisingModule
) -> tuple[Pauses, Module]:
    """A run of the stage's experiment, whose module is a `kind`, as `difflab train` makes it, with the pauses that
    `begin` makes."""
    hush_lightning()
    config = stage.config
    run = RunDirectory.of_run(config.output_root, config.experiment, "benchmark", identity=None)
    run.path.mkdir(parents=True, exist_ok=True)
    module = build_module(config, stage.accelerator)
    assert isinstance(module, kind)
    pauses = begin(module)
    pauses.run = run
    # The Trainer turns trainer.deterministic on for the whole process.
    with deterministic(False), run.log_to_file(), build_loggers(config.logger, run, stage.plain) as loggers:
        pipeline = sampling_pipeline(config, module, stage.accelerator)
        trainer = build_trainer(config, stage.accelerator, run, pipeline, loggers, LightningEnvironment())
        # Added last, so that the step ends after every other callback.
        trainer.callbacks.append(pauses)  # pyrefly: ignore
        data = ShardDataModule(config.data, config.trainer, seed=config.seed, fields=module.batch_keys())
        trainer.fit(module, data)
    return pauses, module


def other_loops(stage: Stage, module: DenoisingModule) -> dict[str, Step]:
    """The loop by hand, with our network and with diffusers', from the weights of `module`."""
    model = copy_of(stage, module)
    theirs = diffusers_model(model)
    return {
        name: bare_loop(stage, stage.placed(network)).step
        for name, network in (("bare loop", OwnNetwork(model)), ("diffusers loop", theirs))
    }


def copy_of(stage: Stage, module: DenoisingModule) -> Model:
    """A model of its own on the CPU, with the weights of `module`."""
    with torch.device("meta"):
        model = stage.model()
    model.load(
        {
            f"{part}.{name}": tensor.detach().cpu().clone()
            for part in ("network", "conditioners")
            for name, tensor in getattr(module, part).state_dict().items()
        }
    )
    model.as_module().requires_grad_(True)
    return model


def bare_loop(stage: Stage, network: nn.Module) -> BareLoop:
    """The loop by hand around a network that is on the device, with all that the experiment's training has."""
    config, ema = stage.config, stage.config.callbacks.ema
    return BareLoop(
        network,
        stage.batches(),
        config.diffusion,
        config.optimizer,
        gradient_clip=config.trainer.gradient_clip,
        accumulate=config.trainer.accumulate,
        ema_decay=0.9999 if ema is None else ema.decay,
        autocast=stage.autocast,
        labels=stage.labels(),
    )


class Pauses(Callback):
    """After each `block` of difflab's steps every other loop takes as many; the first `warmup` rounds do not count."""

    run: RunDirectory

    def __init__(self, others: Mapping[str, Step], synchronise: Step, *, warmup: int, block: int) -> None:
        self.others, self.synchronise, self.warmup, self.block = others, synchronise, warmup, block
        self.rounds = Rounds()
        self.waits: list[float] = []
        self._steps = self._number = 0
        self._waited = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._waited += time.perf_counter() - self._batch_ended

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps += 1
        if self._steps % self.block:
            self._batch_ended = time.perf_counter()
            return
        self.synchronise()
        own = self._watch.lap(self.block)
        with off_the_clock(trainer), deterministic(False):
            self.pause(trainer, own)
        self._number += 1
        self._begin()

    def pause(self, trainer: L.Trainer, own: Lap) -> None:
        """What is done in the pause after a block of difflab's steps, which took `own` each."""
        order = turns(list(self.others), self._number)
        laps = {name: clocked(self.others[name], self.synchronise, self.block) for name in order}
        if self._number >= self.warmup:
            self.waits.append(self.waited(own))
            self.rounds.add({"difflab": own, **{name: laps[name] for name in self.others}})

    def waited(self, own: Lap) -> float:
        """The share of the block's time that was spent waiting for data."""
        return self._waited / (own.wall * self.block)

    def _begin(self) -> None:
        self._watch = Stopwatch()
        self._batch_ended, self._waited = time.perf_counter(), 0.0


def require_a_real_run(metrics: Path, module: TrainingModule, steps: int) -> None:
    """The module has taken its steps, and they were logged."""
    assert module.train_step == steps, f"difflab trained {module.train_step} of {steps} steps"
    assert steps < 10 or metrics.is_file(), "difflab wrote no metrics"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.parser("train_step", "difflab's training step against its peers.", rounds=30, warmup=5)
    parser.add_argument("--steps", dest="rounds", type=int, default=argparse.SUPPRESS, help="the same as --rounds")
    parser.add_argument(
        "--block",
        type=int,
        default=1 if not torch.cuda.is_available() else 10,
        help="steps in a row (default %(default)s)",
    )
    parser.add_argument("--part", choices=["all", "loop", "network"], default="all")
    add_experiment_options(parser)
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    sys.exit(command.run(main))

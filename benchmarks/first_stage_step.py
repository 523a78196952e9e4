"""A training step of an autoencoder against a discriminator, by `difflab train` and by hand around the same modules."""

from __future__ import annotations

import argparse
import copy
from typing import Any, cast

import torch
from torch import nn

from benchmarks import command
from benchmarks.first_stage_loop import AdversarialLoop
from benchmarks.pairs import Spread, as_json, table, verdict
from benchmarks.stage import Stage, open_stage, synchroniser
from benchmarks.train_step import FRAMEWORK_TAX, Pauses, require_a_real_run, train_with
from difflab.devices import Accelerator
from difflab.tasks.autoencoder.config import AutoencoderTrainConfig
from difflab.tasks.autoencoder.module import AutoencoderModule

LOOP_PAIR = ("difflab", "bare loop")
FROM_THE_START = [
    "discriminator.start=0",
    "trainer.val_every_steps=0",
    "callbacks.reconstruction_grid.at_end=false",
    "callbacks.checkpoint.at_end=false",
]
"""Every step is against the discriminator; validation, and grids and checkpoints at the end, are not part of one."""


def measure(args: argparse.Namespace, accelerator: Accelerator) -> dict[str, Any]:
    """difflab's own training with the loop by hand in its pauses."""
    with open_stage(args.experiment, [f"trainer.accelerator={accelerator}", *step_overrides(args)]) as stage:
        command.print_lines(stage.headline(), "")

        def begin(module: AutoencoderModule) -> Pauses:
            loop = adversarial_loop(stage, module)
            return Pauses({LOOP_PAIR[1]: loop.step}, synchroniser(stage.device), warmup=args.warmup, block=args.block)

        pauses, module = train_with(stage, begin, AutoencoderModule)
        require_a_real_run(pauses.run.metrics, module, stage.config.trainer.max_steps)
        cpu, settings = stage.accelerator == "cpu", stage.settings()
    rounds, wait = pauses.rounds, Spread.of(pauses.waits).median
    tax = rounds.ratio(*LOOP_PAIR).median
    command.print_lines("A training step of both optimizers:", "", *table(rounds, [LOOP_PAIR], cpu=cpu), "")
    command.print_lines(verdict("framework tax (difflab / bare loop)", tax, FRAMEWORK_TAX), "")
    return {**as_json(rounds, [LOOP_PAIR], cpu=cpu), "settings": settings, "data_wait_frac": wait}


def step_overrides(args: argparse.Namespace) -> list[str]:
    """All that the options change of the experiment; on a CPU the loader reads in the training process."""
    made = [*FROM_THE_START, f"trainer.max_steps={(args.rounds + args.warmup) * args.block}"]
    if args.batch is not None:
        made.append(f"data.batch_size={args.batch}")
    if not torch.cuda.is_available():
        made.append("data.workers=0")
    return [*made, *args.overrides]


def adversarial_loop(stage: Stage, module: AutoencoderModule) -> AdversarialLoop:
    """The loop by hand around copies of the module's own parts, on the stage's device."""
    config = cast("AutoencoderTrainConfig", stage.config)
    network, distance = copy.deepcopy(module.network), copy.deepcopy(module.error.distance)
    # The loop refuses a training without one.
    discriminator = nn.Identity() if module.discriminator is None else copy.deepcopy(module.discriminator)
    for one in (network, discriminator):
        stage.placed(one)
    if distance is not None:
        distance.to(stage.device)
    return AdversarialLoop(network, distance, discriminator, stage.batches(), config, autocast=stage.autocast)

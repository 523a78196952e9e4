"""Whether the fast ways to run a network give its numbers on this device, and whether a resumed run is the same run.

The networks are those of the golden fixtures, with weights drawn by rule and the official codes' outputs.
"""

from __future__ import annotations

import contextlib
import copy
import io
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.campaign import checkpoint_digests, differences
from benchmarks.devices import Way
from benchmarks.gpu_cases import Scale
from benchmarks.gpu_report import Goal, Report, start_afresh
from benchmarks.stage import Stage, open_stage
from benchmarks.switches import allowing_tf32, deterministic
from difflab.checkpoints import checkpoint_name
from difflab.commands.training import fit
from difflab.devices import Accelerator, under_autocast
from difflab.tracking.rundir import RunDirectory
from difflab.types import Conditioning

TESTS = Path(__file__).parents[1] / "tests"
FIXTURES = (
    "ddpm-model",
    "adm-unet-neworder-cond",
    "diffusers-unet2d",
    "ddpm-model-b",
    "diffusers-unet2d-heads",
    "adm-unet-legacy-cond",
    "adm-unet-uncond-plain",
    "adm-unet-mult-half",
    "adm-unet-avgpool",
    "adm-unet-four-levels",
    "adm-unet-64ch-headch",
    "adm-unet-heads-upsample",
    "adm-superres",
    "improved-unet",
)
COMPILED = 1
"""So many of them are compiled, forward and backward: each takes a quarter of a minute, for each way."""

FAITHFUL, TF32, BF16 = Goal(1e-4, False), Goal(2e-2, False), Goal(0.1, False)
"""The largest deviation of an output, over the largest value of the right one, or over 1 where that is less."""

GRADIENTS = 3.0
"""What the norm of the gradients' deviation over their norm may be, in units of the goal for outputs."""

RUN = [
    "data.image_size=16",
    "data.batch_size=8",
    "data.workers=0",
    "network.base_channels=32",
    "network.channel_mult=[1,2]",
    "network.attention_resolutions=[8]",
    "network.norm_groups=8",
    "network.blocks_per_level=1",
    "network.dropout=0.1",
    "callbacks.sample_grid=null",
    "callbacks.checkpoint.every_steps=2",
    "trainer.max_steps=4",
]
"""A training with everything that has a state or draws: dropout, dropped classes, warm-up, averages, Adam."""


def numerics(args: Scale, report: Report, accelerator: Accelerator) -> None:
    """The deviations of what is quick to begin, resuming, then the deviations of what is compiled."""
    device = torch.device(accelerator)
    golden = report.attempt("golden networks", lambda: referred(golden_networks(args), device, report))
    if golden:
        deviations(ways_to_run(compiled=False), golden, device, report)
    for name, compiled in (("eager", "false"), ("as by default", "auto")):
        report.attempt(f"resume, {name}", lambda name=name, compiled=compiled: resume(name, compiled, args, report))
        start_afresh()
    if golden:
        deviations(ways_to_run(compiled=True), golden[:COMPILED], device, report)


# -- golden networks --------------------------------------------------------------------------------------------------


@dataclass
class Golden:
    """A network with an input, the official output and its tolerance; then what it gives here in full precision."""

    name: str
    network: nn.Module
    inputs: tuple[Tensor, Tensor, Conditioning]
    official: Tensor
    tolerance: float
    reference: tuple[Tensor, Tensor] = field(init=False)


def referred(golden: list[Golden], device: torch.device, report: Report) -> list[Golden]:
    """The networks with what they give in float32 without TF32, which is held to the official outputs."""
    with allowing_tf32(False):
        for one in golden:
            one.reference = output_and_gradients(one, Way(), device)
    worst, name = max((deviation(one.reference[0], one.official) / one.tolerance, one.name) for one in golden)
    report.figure("fp32 against the official outputs", worst, "of the tolerance", Goal(1.0, False), worst=name)
    return golden


def ways_to_run(*, compiled: bool) -> list[tuple[str, Way, bool, Goal]]:
    """By name: a way, whether TF32 is allowed there, and how far it may go."""
    if compiled:
        fast = Way(bf16=True, channels_last=True, compile=True)
        return [(str(fast), fast, True, BF16), ("compile", Way(compile=True), False, FAITHFUL)]
    return [
        ("bf16", Way(bf16=True), True, BF16),
        ("TF32", Way(), True, TF32),
        ("channels_last", Way(channels_last=True), False, FAITHFUL),
        ("bf16 + channels_last", Way(bf16=True, channels_last=True), True, BF16),
    ]


def deviations(
    ways: Sequence[tuple[str, Way, bool, Goal]], golden: Sequence[Golden], device: torch.device, report: Report
) -> None:
    """Of every way from float32."""
    for title, way, tf32, goal in ways:
        with allowing_tf32(tf32):
            report.attempt(title, lambda t=title, w=way, g=goal: deviation_of(t, w, g, golden, device, report))
        start_afresh()


def deviation_of(
    title: str, way: Way, goal: Goal, golden: Sequence[Golden], device: torch.device, report: Report
) -> None:
    """The worst of some networks, for outputs and for gradients."""
    outputs: list[tuple[float, str]] = []
    gradients: list[tuple[float, str]] = []
    for one in golden:
        out, gradient = output_and_gradients(one, way, device)
        outputs.append((deviation(out, one.reference[0]), one.name))
        apart = (gradient - one.reference[1]).norm() / one.reference[1].norm()
        gradients.append((float(apart), one.name))
    for what, found, bar in (("", outputs, goal), (", gradients", gradients, Goal(GRADIENTS * goal.value, False))):
        worst, name = max(found)
        report.figure(f"{title} against fp32{what}", worst, "", bar, worst=f"{name} of {len(found)}")


def output_and_gradients(one: Golden, way: Way, device: torch.device) -> tuple[Tensor, Tensor]:
    """The output, and the gradients of its mean square in one row; float32 on the CPU."""
    network = way.placed(copy.deepcopy(one.network), device)
    x, time, told = (part.to(device) for part in one.inputs)
    out = under_autocast(network, way.autocast)(x, time, told)
    out.square().mean().backward()
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return out.detach().float().cpu(), torch.cat(gradients).float().cpu()


def deviation(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, as the golden tests judge it."""
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1.0))


def golden_networks(args: Scale) -> list[Golden]:
    """The networks of the fixtures on the CPU, in evaluation mode."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    from golden_fixtures import load
    from networks.official_networks import build_target, conditioning, network_keymap, target_and_layout

    found = []
    for name in FIXTURES[:2] if args.tiny else FIXTURES:
        fixture: Any = load("diffusion", name)
        target, layout = target_and_layout(fixture)
        official = fixture.state_dict()
        labels = official.pop("label_emb.weight", None)
        network = build_target(target)
        network.load_state_dict(network_keymap(layout, target).from_official(official))
        inputs = (fixture.input("x"), fixture.input("t").float(), conditioning(fixture, labels))
        expected = torch.as_tensor(fixture.arrays["out"])
        found.append(Golden(name, network, inputs, expected, fixture.spec["tolerance"]["rel"]))
    return found


# -- resuming ---------------------------------------------------------------------------------------------------------


def resume(name: str, compiled: str, args: Scale, report: Report) -> None:
    """Four steps against two, a checkpoint, and two more: everything in the last checkpoint, to the bit."""
    overrides = [*RUN, f"trainer.compile={compiled}", *(["trainer.accelerator=cpu"] if args.tiny else [])]
    with open_stage("cfg/shapes32", overrides) as stage, deterministic(False):
        whole = train_to_the_end(stage, "whole", None)
        begun = stage.folder / "begun.ckpt"
        shutil.copy(whole / checkpoint_name(2), begun)
        resumed = train_to_the_end(stage, "resumed", begun)
        states = [checkpoint_digests(folder / checkpoint_name(4)) for folder in (whole, resumed)]
    differing = differences(*states)
    first = {"first": f"the first is {differing[0]}"} if differing else {}
    report.figure(
        f"resume, {name}: values that differ of {len(states[0])}", len(differing), "", Goal(0, False), **first
    )


def train_to_the_end(stage: Stage, name: str, resume: Path | None) -> Path:
    """The checkpoints of a run of the stage's experiment."""
    run = RunDirectory.of_run(stage.config.output_root, stage.config.experiment, name, identity=None)
    run.path.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        fit(stage.config, stage.overrides, run, resume)
    return run.checkpoints

"""difflab's sampling against diffusers' network and scheduler: one architecture, weights, noise, steps and scale.

Both draw the same images first; only then is anything timed. The contenders take turns in one process, a batch each,
with classifier-free guidance in one run of the network on twice the batch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from benchmarks import command
from benchmarks.devices import Way, judged, ways_to_sample
from benchmarks.drawers import (
    SEED,
    Drawer,
    Drawing,
    NetworkClock,
    default_way,
    fill_zero_layers,
    levels_apart,
    require_same_images,
)
from benchmarks.machine import describe_machine, machine_lines
from benchmarks.memory import Memory, in_own_process, peak_memory
from benchmarks.pairs import Lap, Rounds, Spread, as_json, clocked, interleave, table, verdict
from benchmarks.peer import PeerNetwork, diffusers_model
from benchmarks.stage import open_stage, synchroniser
from benchmarks.switches import deterministic
from difflab.config.guidance import GuidanceConfig
from difflab.config.sampler import SamplerConfig
from difflab.devices import resolve_accelerator
from difflab.diffusion.guidance.config import NoGuidance
from difflab.diffusion.samplers.config import AncestralConfig
from difflab.errors import UserError
from difflab.pipelines.base import Pipeline
from difflab.pipelines.build import require_drawing
from difflab.pipelines.stored import load_stored
from difflab.tasks.build import Model, build_model

AGAINST_DIFFUSERS = 1.03
DEFAULTS_AGAINST_DIFFUSERS = 1 / 1.5
COMPILED_AGAINST_DIFFUSERS = 1 / 1.3
"""Of diffusers' time at equal precision, without the time of compiling."""
OUTSIDE = 0.02
SAME_IMAGES = 1e-3
"""Largest difference of the float32 images, which are in [-1, 1]: an eighth of an 8-bit level."""

EXPERIMENT = "adm/imagenet64"
SMALL = [
    "network.base_channels=64",
    "network.channel_mult=[1,2,3]",
    "network.blocks_per_level=2",
    "network.attention_resolutions=[16]",
    "conditioning.class_label.drop_rate=0.1",
]
"""The default: ADM's network for 64 px made small, so that a CPU draws a batch in seconds, with a null class."""

PARTS = ("time", "memory", "outside")
OUTSIDE_ROUNDS = 3
OTHER_SAMPLERS = [
    "plms",
    "euler",
    "euler_ancestral",
    "heun",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_solver_pp",
    "dpm_solver_pp_2s_ancestral",
    "dpm_solver_pp_sde",
    "dpm_solver_pp_2m_sde",
    "dpm_solver_pp_3m_sde",
    "unipc",
]
"""A share needs no neighbours to be compared with."""


@dataclass(frozen=True)
class Contender:
    """Whose sampling, and how the network is run."""

    library: str
    way: Way

    def __str__(self) -> str:
        return f"{self.library} {self.way}"

    def drawer(self, drawing: Drawing, peer: PeerNetwork) -> Drawer:
        """Its way to draw the batch."""
        return drawing.ours(self.way) if self.library == "difflab" else drawing.theirs(self.way, peer)


OURS, THEIRS = Contender("difflab", Way()), Contender("diffusers", Way())


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    facts = describe_machine()
    with deterministic(False):
        drawing = the_drawing(args)
        content = {"benchmark": "sampling", "machine": facts, "settings": settings(drawing, args)}
        command.print_lines(*machine_lines(facts), headline(drawing, args), "")
        for part in PARTS if args.part == "all" else (args.part,):
            content[part] = _PARTS[part](drawing, args)
    command.print_json(args.json, content)


# -- what is drawn --------------------------------------------------------------------------------------------------


def the_drawing(args: argparse.Namespace) -> Drawing:
    """What the options ask for. Raises UserError as the commands would."""
    accelerator = resolve_accelerator(args.accelerator)
    if accelerator == "cuda":
        # As `difflab sample` does it.
        torch.set_float32_matmul_precision("high")
    model = drawn_model(args) if args.run is None else trained_model(args.run, args.overrides)
    return Drawing(model, accelerator, args.steps, args.batch, args.scale)


def drawn_model(args: argparse.Namespace) -> Model:
    """An experiment's model with drawn weights, on the CPU."""
    small = SMALL if args.experiment == EXPERIMENT else []
    with open_stage(args.experiment, [*small, *args.overrides], with_shards=False) as stage:
        config = stage.config.model()
    torch.manual_seed(0)
    model = build_model(config)
    fill_zero_layers(model.network)
    model.as_module().eval().requires_grad_(False)
    return model


def trained_model(run: str, overrides: Sequence[str]) -> Model:
    """The model of a run or an exported folder, on the CPU."""
    if overrides:
        raise UserError(f"--run draws from a model as it is: leave out {' '.join(overrides)}, or --run")
    model, stored = load_stored(run, "auto")
    require_drawing(run, stored.config)
    return model


def settings(drawing: Drawing, args: argparse.Namespace) -> dict[str, Any]:
    """What a figure depends on besides the machine."""
    return {
        "run": args.run,
        "experiment": drawing.model.config.experiment,
        "overrides": args.overrides,
        "device": drawing.accelerator,
        "image_size": drawing.model.config.image_size,
        "parameters": sum(p.numel() for p in drawing.model.as_module().parameters()),
        "batch": drawing.batch,
        "steps": drawing.steps,
        "scale": drawing.scale,
        "default": str(default_way(drawing.accelerator)),
    }


def headline(drawing: Drawing, args: argparse.Namespace) -> str:
    """The settings in a line."""
    s = settings(drawing, args)
    weights = "drawn weights" if args.run is None else args.run
    what = f"{s['batch']} images of {s['image_size']} px, {s['steps']} DDIM steps, scale {s['scale']:g}"
    size = f"{s['parameters'] / 1e6:.1f} M parameters"
    return f"{s['experiment']} ({weights}), {size}, on {s['device']}: {what}; difflab's default is {s['default']}"


# -- the parts ------------------------------------------------------------------------------------------------------


def contenders(default: Way, bf16: bool, compiled: bool = False) -> list[Contender]:
    """Both libraries in float32, and in bf16 where that is difflab's default or asked for; compiled too on demand."""
    eager = [OURS, THEIRS]
    if default.bf16 or bf16:
        fast = default if default.bf16 else Way(bf16=True)
        eager = [OURS, Contender("difflab", fast), THEIRS, Contender("diffusers", Way(bf16=True))]
    faster = [Contender(one.library, replace(one.way, compile=True)) for one in eager] if compiled else []
    return [*eager, *faster]


def time_part(drawing: Drawing, args: argparse.Namespace) -> dict[str, Any]:
    """Time of an image, after both libraries drew the same; and how far bf16 is from float32."""
    default, cpu = default_way(drawing.accelerator), drawing.accelerator == "cpu"
    peer = diffusers_model(drawing.model)
    who = contenders(default, args.bf16, args.compile)
    drawers = {str(one): one.drawer(drawing, peer) for one in who}
    images = {name: draw() for name, draw in drawers.items()}
    apart = require_same_images(images[str(OURS)], images[str(THEIRS)], SAME_IMAGES)
    command.print_lines(f"Both draw the same images in float32, up to {apart:.1e} of [-1, 1].", "")
    rounds = per_image(timed(drawing, drawers, args), drawing.batch)
    pairs = [(str(one), str(THEIRS)) for one in who if one != THEIRS]
    command.print_lines("An image:", "", *table(rounds, pairs, cpu=cpu), "")
    command.print_lines(verdict("fp32 / diffusers'", rounds.ratio(*pairs[0]).median, AGAINST_DIFFUSERS))
    content = {**as_json(rounds, pairs, cpu=cpu), "same_images": apart}
    if args.compile:
        content["compiled"] = compiled_part(who, rounds, images)
    if not any(one.way.bf16 for one in who):
        command.print_lines("difflab's default is fp32 here; --bf16 times bf16 too", "")
        return content
    fast = str(who[1])
    largest, mean = levels_apart(images[str(OURS)], images[fast])
    if who[1].way == default:
        ratio = rounds.ratio(fast, str(THEIRS)).median
        command.print_lines(verdict("difflab's default / diffusers'", ratio, DEFAULTS_AGAINST_DIFFUSERS))
    told = "" if args.run is not None else " (of drawn weights; --run takes a trained model)"
    command.print_lines(f"{fast} against fp32, in 8-bit levels: at most {largest:.2f}, mean {mean:.3f}{told}", "")
    return {**content, "bf16_levels": {"max": largest, "mean": mean}}


def compiled_part(who: Sequence[Contender], rounds: Rounds, images: Mapping[str, Tensor]) -> dict[str, Any]:
    """Compiled sampling beside diffusers' and beside its own without, in one precision; how far its images are off."""
    found: dict[str, Any] = {}
    for one in who:
        if one.library == "diffusers" or not one.way.compile:
            continue
        eager = Contender("difflab", replace(one.way, compile=False))
        theirs = Contender("diffusers", Way(bf16=one.way.bf16))
        ratio = rounds.ratio(str(one), str(theirs)).median
        gain = rounds.ratio(str(eager), str(one)).median
        (largest, mean), (own, own_mean) = (
            levels_apart(images[str(other)], images[str(one)]) for other in (eager, OURS)
        )
        command.print_lines(
            verdict(f"{one} / {theirs}", ratio, COMPILED_AGAINST_DIFFUSERS),
            f"{one} is {gain:.2f} times as fast as {eager}, and off it by at most {largest:.2f} 8-bit levels, mean "
            f"{mean:.3f}; off difflab fp32 by at most {own:.2f}, mean {own_mean:.3f}",
            "",
        )
        found[str(one)] = {"ratio": ratio, "gain": gain, "levels": {"max": largest, "mean": mean}}
    return found


def layouts_part(drawing: Drawing, args: argparse.Namespace) -> dict[str, Any]:
    """difflab's sampling in both precisions and layouts, and its default with one prediction after the other."""
    default = default_way(drawing.accelerator)
    one_by_one = drawing.guidance.model_copy(update={"one_batch": False})
    drawers = {str(way): drawing.ours(way) for way in ways_to_sample()}
    drawers[f"{default}, one by one"] = drawing.ours(default, guidance=one_by_one)
    rounds = per_image(timed(drawing, drawers, args), drawing.batch)
    command.print_lines(*judged("An image", rounds, drawing.accelerator, str(default)), "")
    pairs = [(name, str(Way())) for name in drawers if name != str(Way())]
    return as_json(rounds, pairs, cpu=drawing.accelerator == "cpu")


def memory_part(drawing: Drawing, args: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a process that draws one batch, a process per contender, one after the other."""
    what = "torch's tensors" if drawing.accelerator == "cuda" else "the process"
    lines = [f"Memory of {what}, MB:", "", "| | before drawing | peak | more |", "|---|---|---|---|"]
    found: dict[str, Memory] = {}
    for one in contenders(default_way(drawing.accelerator), args.bf16):
        found[str(one)] = memory = in_own_process(memory_of, one, args)
        lines.append(f"| {one} | {memory.before:.0f} | {memory.peak:.0f} | {memory.peak - memory.before:.0f} |")
    command.print_lines(*lines, "")
    return {name: memory._asdict() for name, memory in found.items()}


def memory_of(one: Contender, args: argparse.Namespace) -> Memory:
    """Runs in the contender's own process, which has built both networks and keeps the contender's."""
    drawing = the_drawing(args)
    draw = one.drawer(drawing, diffusers_model(drawing.model))
    device = drawing.device
    del drawing
    return peak_memory(draw, device)


def outside_part(drawing: Drawing, args: argparse.Namespace) -> dict[str, Any]:
    """What a sampling step costs outside of the network, in difflab's default precision."""
    lines = [
        "Outside of the network:",
        "",
        "| | ms a step | share of the step | quartiles | n |",
        "|---|---|---|---|---|",
    ]
    found: dict[str, dict[str, Any]] = {}
    rounds = min(args.rounds, OUTSIDE_ROUNDS)
    for name, (sampler, guidance) in outside_cases(drawing).items():
        pipeline = drawing.pipeline(default_way(drawing.accelerator), sampler, guidance)
        costs, shares = outside_of(pipeline, drawing, rounds)
        reach = f"{shares.q1:.4f} to {shares.q3:.4f}"
        lines.append(f"| {name} | {costs.median * 1e3:.2f} | {shares.median:.4f} | {reach} | {rounds} |")
        found[name] = {"seconds": asdict(costs), "share": asdict(shares)}
    size = drawing.model.config.image_size
    worst = max(case["share"]["median"] for case in found.values())
    command.print_lines(*lines, "", verdict(f"largest share outside of the network at {size} px", worst, OUTSIDE), "")
    return found


def outside_cases(drawing: Drawing) -> dict[str, tuple[SamplerConfig, GuidanceConfig]]:
    """Ancestral and DDIM sampling alone, guided, and guided with a percentile of every x0; the other samplers alone."""
    samplers: dict[str, SamplerConfig] = {
        "ancestral": AncestralConfig(kind="ancestral", steps=drawing.steps),
        "ddim": drawing.ddim,
    }
    ways: dict[str, GuidanceConfig] = {
        "": NoGuidance(kind="none"),
        ", guided": drawing.guidance,
        ", guided, dynamic threshold": drawing.guidance.model_copy(update={"threshold": "dynamic"}),
    }
    cases = {f"{sampler}{way}": (samplers[sampler], ways[way]) for sampler in samplers for way in ways}
    adapter: TypeAdapter[SamplerConfig] = TypeAdapter(SamplerConfig)
    others = {kind: adapter.validate_python({"kind": kind, "steps": drawing.steps}) for kind in OTHER_SAMPLERS}
    return cases | {kind: (sampler, ways[""]) for kind, sampler in others.items()}


def outside_of(pipeline: Pipeline, drawing: Drawing, rounds: int) -> tuple[Spread, Spread]:
    """Seconds of a step, and the share of its time, that are not the network's; one draw before does not count."""
    costs, shares = [], []
    for number in range(-1, rounds):
        clock = NetworkClock(synchroniser(drawing.device))
        with clock.watching(pipeline.last.network):
            lap = clocked(lambda: pipeline.draw(range(drawing.batch), SEED), synchroniser(drawing.device))
        if number >= 0:
            costs.append((lap.wall - clock.seconds) / pipeline.n_steps)
            shares.append(1 - clock.seconds / lap.wall)
    return Spread.of(costs), Spread.of(shares)


def timed(drawing: Drawing, drawers: Mapping[str, Drawer], args: argparse.Namespace) -> Rounds:
    """A batch of each in turn."""
    return interleave(
        drawers, rounds=args.rounds, warmup=args.warmup, synchronise=synchroniser(drawing.device), block=1
    )


def per_image(rounds: Rounds, batch: int) -> Rounds:
    """Of batches, the time of one image."""
    return Rounds(
        [{name: Lap(lap.wall / batch, lap.cpu / batch) for name, lap in round_.items()} for round_ in rounds.laps]
    )


_PARTS: dict[str, Callable[[Drawing, argparse.Namespace], dict[str, Any]]] = {
    "time": time_part,
    "memory": memory_part,
    "outside": outside_part,
    "layouts": layouts_part,
}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.parser("sampling", "difflab's sampling beside diffusers'.", rounds=8, warmup=1)
    parser.add_argument(
        "--part", choices=["all", *_PARTS], default="all", help="all is time, memory and outside; layouts is apart"
    )
    parser.add_argument("--steps", type=command.at_least(1), default=5, help="DDIM steps (default %(default)s)")
    parser.add_argument("--batch", type=command.at_least(1), default=4, help="images at once (default %(default)s)")
    parser.add_argument("--scale", type=float, default=2.0, help="of classifier-free guidance (default %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="bf16 too where difflab's default is fp32")
    parser.add_argument("--compile", action="store_true", help="compiled networks too, after a minute for each")
    parser.add_argument("--accelerator", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--run", help="a trained model: a run directory or an exported folder")
    parser.add_argument("--experiment", default=EXPERIMENT, help="default %(default)s, made small, with drawn weights")
    parser.add_argument("overrides", nargs="*", help="anything `difflab train` takes, as in network.base_channels=128")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    sys.exit(command.run(main))

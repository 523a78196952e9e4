"""First stages beside their peers: encoding and decoding beside diffusers, tiled decoding, a training step.

`time` and `memory`: an autoencoder with drawn weights, and diffusers' `AutoencoderKL` with the same ones. `tiled`: the
peak memory of a process that decodes one large image in tiles. `step`: a step of `difflab train` against a
discriminator, and of the same step by hand in a plain loop around copies of the same modules.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import command
from benchmarks.devices import Way
from benchmarks.drawers import default_way
from benchmarks.first_stage_peer import (
    Coder,
    autoencoder_choice,
    diffusers_autoencoder,
    drawn_autoencoder,
    our_coder,
    require_agreement,
    their_coder,
)
from benchmarks.machine import describe_machine, machine_lines
from benchmarks.memory import Memory, PeakWatch, in_own_process, peak_memory
from benchmarks.pairs import Lap, Step, Stopwatch, as_json, interleave, table, verdict
from benchmarks.sampling import OURS, THEIRS, Contender, contenders
from benchmarks.stage import synchroniser
from benchmarks.switches import deterministic
from difflab.devices import Accelerator, resolve_accelerator
from difflab.networks.autoencoder.tiling import TILE, decode_in_tiles

AGAINST_DIFFUSERS = 1.03
TILED_MB = 3000.0
WORK = ("encode", "decode")


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    facts = describe_machine()
    accelerator = resolve_accelerator(args.accelerator)
    if accelerator == "cuda":
        # As the commands do it.
        torch.set_float32_matmul_precision("high")
    command.print_lines(*machine_lines(facts), f"on {accelerator}; the default is {default_way(accelerator)}", "")
    content: dict[str, Any] = {"benchmark": "first_stage", "machine": facts, "settings": vars(args)}
    with deterministic(False):
        for part in _PARTS if args.part == "all" else (args.part,):
            content[part] = _PARTS[part](args, accelerator)
    command.print_json(args.json, content)


# -- encoding and decoding --------------------------------------------------------------------------------------------


def time_part(args: argparse.Namespace, accelerator: Accelerator) -> dict[str, Any]:
    """Both directions, in every precision, after both libraries gave the same in float32."""
    device, cpu = torch.device(accelerator), accelerator == "cpu"
    default = default_way(accelerator)
    who = contenders(default, args.bf16)
    coders = coders_of(args, who, device)
    found: dict[str, Any] = {}
    for work in WORK:
        steps = {str(one): step_of(work, coders[one], args, device) for one in who}
        rounds = interleave(steps, rounds=args.rounds, warmup=args.warmup, synchronise=synchroniser(device))
        pairs = [(str(one), str(THEIRS)) for one in who if one != THEIRS]
        rates = {name: args.images / rounds.time_of(name).median for name in rounds.names()}
        command.print_lines(
            f"{work} of {args.images} images of {args.side} px ({args.network}):",
            "",
            *table(rounds, pairs, cpu=cpu),
            "",
            "images/s: " + ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items()),
        )
        for one in who:
            if one.library == OURS.library and one.way in (OURS.way, default):
                ratio = rounds.ratio(str(one), str(THEIRS)).median
                command.print_lines(verdict(f"{work}, {one} / {THEIRS}", ratio, AGAINST_DIFFUSERS))
        command.print_lines("")
        found[work] = {**as_json(rounds, pairs, cpu=cpu), "images_per_s": rates}
    return found


def coders_of(args: argparse.Namespace, who: Sequence[Contender], device: torch.device) -> dict[Contender, Coder]:
    """Every contender's, with the same weights. Raises UserError unless both libraries give the same in float32."""
    network = drawn_autoencoder(args.network, args.side)
    peer = diffusers_autoencoder(network, args.side)
    coders = {
        one: our_coder(network, one.way, device) if one.library == OURS.library else their_coder(peer, one.way, device)
        for one in who
    }
    if {OURS, THEIRS} <= set(coders):
        apart = require_agreement(coders[OURS], coders[THEIRS], network, device)
        command.print_lines(f"Both give the same in float32, up to {apart:.1e} of the largest value.", "")
    return coders


def step_of(work: str, coder: Coder, args: argparse.Namespace, device: torch.device) -> Step:
    """What is timed: one batch of images there, or of their latents back."""
    generator = torch.Generator().manual_seed(1)
    network = autoencoder_choice(args.network, args.side)
    if work == "encode":
        x = torch.rand(args.images, network.channels, args.side, args.side, generator=generator).mul(2).sub(1)
        return _calling(coder.encode, x.to(device))
    side = args.side // network.downsampling
    z = torch.randn(args.images, network.latent_channels, side, side, generator=generator)
    return _calling(coder.decode, z.to(device))


def memory_part(args: argparse.Namespace, accelerator: Accelerator) -> dict[str, Any]:
    """Peak memory of a process that encodes or decodes one batch, a process for each, one after the other."""
    what = "torch's tensors" if accelerator == "cuda" else "the process"
    command.print_lines(f"Memory of {what}, MB:", "", "| | before | peak | more |", "|---|---|---|---|")
    found: dict[str, Any] = {}
    for work in WORK:
        for one in contenders(default_way(accelerator), args.bf16):
            memory = in_own_process(memory_of, work, one, args, accelerator)
            command.print_lines(_memory_row(f"{work}, {one}", memory))
            found[f"{work}, {one}"] = memory._asdict()
    command.print_lines("")
    return found


def memory_of(work: str, one: Contender, args: argparse.Namespace, accelerator: Accelerator) -> Memory:
    """Runs in the contender's own process, which has built both networks and keeps the contender's."""
    device = torch.device(accelerator)
    coder = coders_of(args, [one], device)[one]
    return peak_memory(step_of(work, coder, args, device), device)


# -- tiles ------------------------------------------------------------------------------------------------------------


def tiled_part(args: argparse.Namespace, accelerator: Accelerator) -> dict[str, Any]:
    """Decoding one large image in tiles, a process for each of difflab's precisions."""
    side, found = args.tiled_side, {}
    command.print_lines(
        f"Decoding an image of {side} px in tiles of {args.tile} px ({args.network}), MB:",
        "",
        "| | before | peak | more | s |",
        "|---|---|---|---|---|",
    )
    for way in dict.fromkeys([Way(), default_way(accelerator)]):
        memory, lap = in_own_process(tiled_decode, way, args, accelerator)
        command.print_lines(_memory_row(f"difflab {way}", memory) + f" {lap.wall:.1f} |")
        found[str(way)] = {**memory._asdict(), "seconds": lap.wall, "cpu_seconds": lap.cpu}
    command.print_lines("")
    for name, one in found.items():
        command.print_lines(verdict(f"peak of the tiled decode, {name}, MB", one["peak"], TILED_MB))
    command.print_lines("")
    return found


def tiled_decode(way: Way, args: argparse.Namespace, accelerator: Accelerator) -> tuple[Memory, Lap]:
    """Runs in a process of its own, which has the whole autoencoder."""
    device = torch.device(accelerator)
    network = drawn_autoencoder(args.network, args.tiled_side)
    way.placed(network, device)
    side = args.tiled_side // network.downsampling
    z = torch.randn(1, network.latent_channels, side, side, generator=torch.Generator().manual_seed(1)).to(device)
    with torch.inference_mode(), torch.autocast(accelerator, way.autocast, enabled=way.autocast is not None):
        watch, clock = PeakWatch(device), Stopwatch()
        image = decode_in_tiles(network, z, tile=args.tile)
        synchroniser(device)()
        lap, memory = clock.lap(), watch.seen()
    assert image.shape[2:] == (args.tiled_side, args.tiled_side), "one whole image"
    return memory, lap


# -- training ---------------------------------------------------------------------------------------------------------


def step_part(args: argparse.Namespace, accelerator: Accelerator) -> dict[str, Any]:
    """difflab's own training with the loop by hand in its pauses."""
    # Not above: the processes whose memory is measured import this module, and have no use for Lightning.
    from benchmarks import first_stage_step

    return first_stage_step.measure(args, accelerator)


def _calling(function: Callable[[Tensor], Tensor], x: Tensor) -> Step:
    return lambda: function(x)


def _memory_row(name: str, memory: Memory) -> str:
    return f"| {name} | {memory.before:.0f} | {memory.peak:.0f} | {memory.peak - memory.before:.0f} |"


_PARTS: Mapping[str, Callable[[argparse.Namespace, Accelerator], dict[str, Any]]] = {
    "time": time_part,
    "memory": memory_part,
    "tiled": tiled_part,
    "step": step_part,
}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.parser("first_stage", "Autoencoders beside diffusers and a bare loop.", rounds=10, warmup=2)
    parser.add_argument("--part", choices=["all", *_PARTS], default="all")
    parser.add_argument("--accelerator", default="auto", help="as trainer.accelerator (default %(default)s)")
    parser.add_argument("--network", default="sd_vae", help="a choice of conf/network (default %(default)s)")
    parser.add_argument("--side", type=command.at_least(1), default=256, help="pixels per side (default %(default)s)")
    parser.add_argument("--images", type=command.at_least(1), default=1, help="images of a turn (default %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="time bf16 too where it is not the default")
    parser.add_argument(
        "--tiled-side", type=command.at_least(1), default=2048, help="of the tiled image (default %(default)s)"
    )
    parser.add_argument("--tile", type=command.at_least(1), default=TILE, help="of a tile (default %(default)s)")
    parser.add_argument(
        "--experiment",
        default="autoencoder/kl_f4_shapes64_adversarial",
        help="of the training step (default %(default)s)",
    )
    parser.add_argument("--batch", type=command.at_least(1), help="images of a training step")
    parser.add_argument(
        "--block", type=command.at_least(1), default=10 if torch.cuda.is_available() else 1, help="steps in a row"
    )
    parser.add_argument("overrides", nargs="*", help="of the training step, anything `difflab train` takes")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    sys.exit(command.run(main))

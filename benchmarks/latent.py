"""Latent diffusion beside diffusers: a training step, drawing with guidance, and the reading of encoded latents.

`step`: forward, mean squared error, backward and AdamW on a UNet with transformer blocks and on diffusers'
`UNet2DConditionModel`, with the same weights and batches. `sample`: a batch of latents, without text encoder and
decoder, by `difflab sample`'s pipeline and by `StableDiffusionPipeline`. `latents`: shards of `difflab data encode`
through the loader of training.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks import command, latent_loading
from benchmarks.devices import Way
from benchmarks.drawers import default_way
from benchmarks.latent_drawing import LatentDrawing, require_same_latents
from benchmarks.latent_peer import LatentUNet, OurNetwork, TheirNetwork, diffusers_unet, drawn_unet
from benchmarks.latent_training import TrainingStep, batches_of
from benchmarks.machine import describe_machine, machine_lines
from benchmarks.pairs import as_json, interleave, table, verdict
from benchmarks.sampling import OURS, THEIRS, Contender, contenders, per_image
from benchmarks.stage import synchroniser
from benchmarks.switches import deterministic
from difflab.devices import Accelerator, resolve_accelerator

AGAINST_DIFFUSERS = 1.03
ONE_BY_ONE = ", one by one"
"""Both predictions of guidance, one after the other: guidance.one_batch=false."""


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    facts = describe_machine()
    accelerator = resolve_accelerator(args.accelerator)
    if accelerator == "cuda":
        # As the commands do it.
        torch.set_float32_matmul_precision("high")
    default = f"on {accelerator}; the default is {default_way(accelerator)}"
    command.print_lines(*machine_lines(facts), f"{network_of(args).in_words()}; {default}", "")
    content: dict[str, Any] = {"benchmark": "latent", "machine": facts, "settings": vars(args)}
    with deterministic(False):
        for part in _PARTS if args.part == "all" else (args.part,):
            content[part] = _PARTS[part](args, accelerator)
    command.print_json(args.json, content)


def network_of(args: argparse.Namespace) -> LatentUNet:
    """What the options ask for."""
    return LatentUNet(
        side=args.side,
        base=args.base,
        mult=tuple(args.mult),
        blocks=args.blocks,
        depth=args.depth,
        heads=args.heads,
        context=args.context,
    )


def step_part(args: argparse.Namespace, accelerator: Accelerator) -> dict[str, Any]:
    """A training step of both networks, in float32, and in bf16 where that is the default or asked for."""
    about, device, cpu = network_of(args), torch.device(accelerator), accelerator == "cpu"
    ours = drawn_unet(about)
    theirs = diffusers_unet(ours, about)
    batches = batches_of(about, args.batch, device)
    who = contenders(default_way(accelerator), args.bf16)

    def network(one: Contender) -> nn.Module:
        own = OurNetwork(copy.deepcopy(ours)) if one.library == OURS.library else TheirNetwork(copy.deepcopy(theirs))
        return one.way.placed(own, device)

    steps = {str(one): TrainingStep(network(one), batches, one.way.autocast) for one in who}
    rounds = interleave(
        steps, rounds=args.rounds, warmup=args.warmup, synchronise=synchroniser(device), block=args.block
    )
    pairs = paired(who)
    command.print_lines(f"A training step of {args.batch} latents:", "", *table(rounds, pairs, cpu=cpu), "")
    command.print_lines(
        *(
            verdict(f"step, {one} / {other}", rounds.ratio(one, other).median, AGAINST_DIFFUSERS)
            for one, other in pairs
        ),
        "",
    )
    return as_json(rounds, pairs, cpu=cpu)


def sample_part(args: argparse.Namespace, accelerator: Accelerator) -> dict[str, Any]:
    """A batch of latents of both, after both drew the same; and difflab's with one prediction after the other."""
    about, device, cpu = network_of(args), torch.device(accelerator), accelerator == "cpu"
    ours = drawn_unet(about)
    theirs = diffusers_unet(ours, about)
    drawing = LatentDrawing(about, ours, device, args.steps, args.batch, args.scale)
    who = contenders(default_way(accelerator), args.bf16)
    drawers = {
        str(one): drawing.ours(one.way) if one.library == OURS.library else drawing.theirs(one.way, theirs)
        for one in who
    }
    apart = require_same_latents(drawers[str(OURS)](), drawers[str(THEIRS)]())
    command.print_lines(f"Both draw the same latents in float32, up to {apart:.1e} of the largest value.", "")
    drawers[f"{OURS}{ONE_BY_ONE}"] = drawing.ours(Way(), one_batch=False)
    rounds = interleave(drawers, rounds=args.rounds, warmup=args.warmup, synchronise=synchroniser(device))
    rounds = per_image(rounds, args.batch)
    pairs = paired(who)
    others = [(name, str(THEIRS)) for name in drawers if (name, str(THEIRS)) not in pairs and name != str(THEIRS)]
    what = f"{args.steps} DDIM steps, scale {args.scale:g}, {args.batch} at once"
    command.print_lines(f"A latent of {what}:", "", *table(rounds, [*pairs, *others], cpu=cpu), "")
    command.print_lines(
        *(
            verdict(f"sample, {one} / {other}", rounds.ratio(one, other).median, AGAINST_DIFFUSERS)
            for one, other in pairs
        ),
        "",
    )
    return {**as_json(rounds, [*pairs, *others], cpu=cpu), "same_latents": apart}


def paired(who: Sequence[Contender]) -> list[tuple[str, str]]:
    """difflab's contenders, each with diffusers' of the same precision."""
    theirs = {one.way.bf16: str(one) for one in who if one.library == THEIRS.library}
    return [(str(one), theirs[one.way.bf16]) for one in who if one.library == OURS.library]


def latents_part(args: argparse.Namespace, accelerator: Accelerator) -> dict[str, Any]:
    """Encoded latents a second."""
    return latent_loading.measure(args.latents, args.read_batch, args.workers, args.rounds, args.warmup)


_PARTS: Mapping[str, Callable[[argparse.Namespace, Accelerator], dict[str, Any]]] = {
    "step": step_part,
    "sample": sample_part,
    "latents": latents_part,
}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.parser("latent", "Latent diffusion beside diffusers; reading latents.", rounds=10, warmup=2)
    count = command.at_least(1)
    parser.add_argument("--part", choices=["all", *_PARTS], default="all")
    parser.add_argument("--accelerator", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--side", type=count, default=16, help="places of a latent per side (default %(default)s)")
    parser.add_argument("--base", type=count, default=64, help="channels of the first level (default %(default)s)")
    parser.add_argument("--mult", type=count, nargs="+", default=[1, 2, 4], help="a multiple of them for each level")
    parser.add_argument("--blocks", type=count, default=2, help="residual blocks of a level (default %(default)s)")
    parser.add_argument("--depth", type=count, default=1, help="transformer blocks in a row (default %(default)s)")
    parser.add_argument("--heads", type=count, default=4, help="of every attention (default %(default)s)")
    parser.add_argument("--context", type=count, default=128, help="channels of a token (default %(default)s)")
    parser.add_argument("--batch", type=count, default=8, help="latents of a step or a drawing (default %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="time bf16 too where it is not the default")
    parser.add_argument("--block", type=count, default=10 if torch.cuda.is_available() else 1, help="steps in a row")
    parser.add_argument("--steps", type=count, default=5, help="DDIM steps (default %(default)s)")
    parser.add_argument("--scale", type=float, default=7.5, help="of classifier-free guidance (default %(default)s)")
    parser.add_argument("--latents", type=count, default=4096, help="that are read in a pass (default %(default)s)")
    parser.add_argument("--read-batch", type=count, default=64, help="latents of a batch read (default %(default)s)")
    parser.add_argument(
        "--workers", type=command.at_least(0), nargs="+", default=[0, 2], help="reading processes, one row each"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(command.run(main))

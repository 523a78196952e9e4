"""Attention of few tokens on a CPU: torch's fused kernel and whole batches, alone and in a training step.

`src/difflab/networks/attention.py` holds the rule that is judged.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import command
from benchmarks.machine import describe_machine, machine_lines
from benchmarks.pairs import Rounds, Step, as_json, interleave, table
from benchmarks.peer import OwnNetwork
from benchmarks.stage import Stage, add_experiment_options, open_stage, overrides_of
from benchmarks.switches import attending_in_batches
from benchmarks.train_step import bare_loop

TOKENS = (16, 64, 144, 256, 1024)
HEADS = ((4, 24), (1, 96), (4, 64), (1, 256))
"""(heads, channels of each)."""

IMAGES = 16
PAIRS = [("fused", "batches")]


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    facts = describe_machine()
    command.print_lines(*machine_lines(facts), "")
    content: dict[str, Any] = {"benchmark": "attention", "machine": facts, "kernels": {}}
    if args.part in ("all", "kernels"):
        command.print_lines(f"Forward and backward of {IMAGES} images, fused / batches:", "")
        for dtype, (heads, width), tokens in itertools.product((torch.bfloat16, torch.float32), HEADS, args.tokens):
            rounds = time_kernels(dtype, heads, width, tokens, args.rounds, args.warmup)
            name = f"{str(dtype).removeprefix('torch.')}, {heads} x {width} channels, {tokens} tokens"
            wall, cpu = (rounds.ratio(*PAIRS[0], clock) for clock in ("wall", "cpu"))
            command.print_lines(f"{name}: {wall.median:.2f}, CPU time {cpu.median:.2f} ({cpu.q1:.2f} to {cpu.q3:.2f})")
            content["kernels"][name] = as_json(rounds, PAIRS, cpu=True)
        command.print_lines("")
    if args.part in ("all", "step"):
        with open_stage(args.experiment, overrides_of(args)) as stage:
            rounds = time_steps(stage, args.rounds, args.warmup)
            command.print_lines(stage.headline(), "", *table(rounds, PAIRS, cpu=True), "")
            content |= {"settings": stage.settings(), "step": as_json(rounds, PAIRS, cpu=True)}
    command.print_json(args.json, content)


def time_kernels(dtype: torch.dtype, heads: int, width: int, tokens: int, rounds: int, warmup: int) -> Rounds:
    """Attention and its gradients, by each way in turn."""
    inputs = [torch.randn(IMAGES, heads, tokens, width, dtype=dtype, requires_grad=True) for _ in range(3)]
    weight = torch.randn(IMAGES, heads, tokens, width, dtype=dtype)

    def through(kernel: Callable[..., Tensor]) -> Step:
        return lambda: torch.autograd.grad(kernel(*inputs), inputs, weight)

    contenders = {"fused": through(F.scaled_dot_product_attention), "batches": through(whole_batches)}
    return interleave(contenders, rounds=rounds, warmup=warmup)


def whole_batches(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As `attend` has it where it attends in batches, in any type and of any number of tokens."""
    return (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1) @ value


def time_steps(stage: Stage, rounds: int, warmup: int) -> Rounds:
    """Steps of two bare loops that start from the same weights, one of them with the rule."""

    def loop(in_batches: bool) -> Step:
        torch.manual_seed(0)
        step = bare_loop(stage, stage.placed(OwnNetwork(stage.model()))).step

        def switched() -> None:
            with attending_in_batches(in_batches):
                step()

        return switched

    return interleave({"fused": loop(False), "batches": loop(True)}, rounds=rounds, warmup=warmup)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.parser("attention", "Attention of few tokens on a CPU.", rounds=9, warmup=2)
    parser.add_argument("--part", choices=["all", "kernels", "step"], default="all")
    parser.add_argument("--tokens", type=command.at_least(1), nargs="+", default=TOKENS)
    add_experiment_options(parser)
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    sys.exit(command.run(main))

"""CLIP beside open_clip: a training step on the same towers, weights and batches, and the tokenizer.

The step is taken by hand on both sides, on batches in memory that are tokenized already: what Lightning, the loader and
the callbacks add to it is in `benchmarks.train_step`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import captions, command
from benchmarks.clip_peer import Recipe, steps_of
from benchmarks.machine import describe_machine, machine_lines
from benchmarks.pairs import Rounds, Step, as_json, interleave, table, verdict
from difflab.config.optimizer import OptimizerConfig
from difflab.errors import UserError
from difflab.networks.towers.config import CLIPConfig
from difflab.text.base import Tokenizer
from difflab.text.build import build_tokenizer
from difflab.text.config import CLIPTokenizerConfig
from difflab.types import Batch

AGAINST_OPEN_CLIP = 1.03
TOKENIZING = {"plain ASCII": (captions.plain, 1 / 5), "mixed": (captions.mixed, 1 / 1.5)}
"""Kind of captions -> what makes them, and the bar: the share of open_clip's time."""
PAIR = ("difflab", "open_clip")
CONTEXT = 77
RECIPE: dict[str, Any] = {"kind": "adamw", "lr": 5e-4, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.2}
BATCHES = 4
MET = 20
"""Rounds of captions that both tokenizers have met before the first one that is timed."""


@dataclass(frozen=True)
class Towers:
    """A small CLIP: the section `image` of its configuration, the pixels of its images, the width of its texts."""

    image: dict[str, Any]
    size: int
    width: int = 256
    layers: int = 4

    def config(self) -> CLIPConfig:
        text = {"kind": "transformer", "width": self.width, "layers": self.layers, "heads": self.width // 64}
        content = {"kind": "clip", "channels": 3, "embedding_dim": self.width, "activation": "quick_gelu"}
        return CLIPConfig.model_validate(content | {"image": self.image, "text": {**text, "context_length": CONTEXT}})


TOWERS = {
    "vit": Towers({"kind": "vit", "patch_size": 8, "width": 256, "layers": 4, "heads": 4}, size=64),
    "resnet": Towers({"kind": "resnet", "depths": [1, 1, 1, 1], "width": 32, "heads": 16}, size=64),
}


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    facts = describe_machine()
    command.print_lines(*machine_lines(facts), "")
    content: dict[str, Any] = {"benchmark": "clip", "machine": facts, "settings": vars(args)}
    if args.part in ("all", "step"):
        for name, towers in TOWERS.items():
            rounds = time_steps(towers, args)
            parts = f"{name}, {args.batch} pairs, {towers.size} px, {args.precision}"
            ratio = rounds.ratio(*PAIR).median
            command.print_lines(f"A training step, {parts}:", "", *table(rounds, [PAIR], cpu=True), "")
            command.print_lines(verdict(f"{name}, difflab / open_clip", ratio, AGAINST_OPEN_CLIP), "")
            content[name] = as_json(rounds, [PAIR], cpu=True)
    if args.part in ("all", "tokenizer"):
        for name, (make, bar) in TOKENIZING.items():
            rounds = time_tokenizers(make, args.captions, args.rounds, args.warmup)
            ratio = rounds.ratio(*PAIR).median
            command.print_lines(f"{args.captions} captions, {name}:", "", *table(rounds, [PAIR], cpu=True), "")
            command.print_lines(verdict(f"{name}, difflab / open_clip", ratio, bar) + f" ({1 / ratio:.1f} times)", "")
            content[name] = as_json(rounds, [PAIR], cpu=True)
    command.print_json(args.json, content)


def time_steps(towers: Towers, args: argparse.Namespace) -> Rounds:
    """Steps of both, in turn."""
    recipe = Recipe(
        OptimizerConfig.model_validate({**RECIPE, "decayed": "matrices"}),
        torch.bfloat16 if args.precision == "bf16" else None,
    )
    tokenizer = make_tokenizer()
    batches = batches_of(tokenizer, towers.size, args.batch)
    steps = steps_of(towers.config(), towers.size, tokenizer, batches, recipe)
    return interleave(steps, rounds=args.rounds, warmup=args.warmup)


def batches_of(tokenizer: Tokenizer, size: int, pairs: int) -> list[Batch]:
    """Batches of random pixels, and of captions that are tokenized already."""
    generator = torch.Generator().manual_seed(0)
    batches: list[Batch] = []
    for number in range(BATCHES):
        pixels = torch.randint(256, (pairs, 3, size, size), dtype=torch.uint8, generator=generator)
        ids = tokenizer(captions.plain(pairs, seed=number)).ids
        batches.append({"image": pixels, tokenizer.field: ids, "position": torch.arange(pairs)})
    return batches


def time_tokenizers(make: Callable[[int, int], list[str]], count: int, rounds: int, warmup: int) -> Rounds:
    """Captions that are others in each round, by tokenizers that keep the words of MET earlier rounds.

    Raises UserError if the ids of any caption differ.
    """
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError:
        raise UserError("open_clip is not installed; `pip install 'difflab[text]'`") from None
    ours = make_tokenizer()
    tokenizers: dict[str, Callable[[Sequence[str]], Tensor]] = {
        "difflab": lambda texts: ours(texts).ids,
        "open_clip": SimpleTokenizer(context_length=CONTEXT),
    }
    groups = [make(count, number) for number in range(MET + warmup + rounds)]
    for group in groups[:MET]:
        require_equal_ids(group, *(tokenize(group) for tokenize in tokenizers.values()))
    fresh = make_tokenizer(), SimpleTokenizer(context_length=CONTEXT)
    for group in groups[MET:]:
        require_equal_ids(group, fresh[0](group).ids, fresh[1](group))
    steps = {name: _through(tokenize, groups[MET:]) for name, tokenize in tokenizers.items()}
    return interleave(steps, rounds=rounds, warmup=warmup)


def require_equal_ids(group: Sequence[str], ours: Tensor, theirs: Tensor) -> None:
    """Raises UserError, naming the text, unless the ids [n, L] of `group` are equal."""
    differing = (ours != theirs).any(dim=1).nonzero().flatten().tolist()
    if differing:
        raise UserError(f"the ids of {group[differing[0]]!r} differ from open_clip's; report it")


def make_tokenizer() -> Tokenizer:
    """CLIP's, which truncates as open_clip's does."""
    config = CLIPTokenizerConfig(kind="clip", context_length=CONTEXT, too_long="truncate")
    return build_tokenizer(config)


def _through(tokenize: Callable[[Sequence[str]], object], groups: Sequence[Sequence[str]]) -> Step:
    coming = iter(groups)
    return lambda: tokenize(next(coming))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.parser("clip", "CLIP's training step and tokenizer beside open_clip's.", rounds=20, warmup=3)
    parser.add_argument("--part", choices=["all", "step", "tokenizer"], default="all")
    parser.add_argument("--batch", type=command.at_least(2), default=32, help="pairs of a step (default %(default)s)")
    parser.add_argument("--captions", type=command.at_least(1), default=1000, help="of a round (default %(default)s)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="default %(default)s")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(command.run(main))

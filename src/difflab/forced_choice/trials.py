"""Which pairs are shown, in which order and on which sides: a function of the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from difflab.errors import UserError
from difflab.forced_choice.protocol import Kind, Pair, Role
from difflab.seeding import stream_seed

MOST_BY_DEFAULT = 50
"""Pairs of a model that a rater sees where nobody says how many: some minutes of attention."""


@dataclass(frozen=True)
class Trials:
    """How many pairs of each kind. n: rated ones of each model, None = as many as there are, at most 50.

    Every original is shown once at most: seen again, it would give itself away as the one that stays the same.
    """

    n: int | None = None
    practice: int = 3
    checks: int = 0
    seed: int = 0

    def plan(self, models: Sequence[str], names: Sequence[str]) -> list[Pair]:
        """The trials of a page in their order, practice first. names: of the pictures.

        On each side stands the model in half of its trials (of an odd number one more, on a side that the seed says).
        Raises UserError if there are too few images.
        """
        n = self._of_each(len(models), len(names))
        taken = iter(self._shuffled("pair", names))
        first = list(self._practice(models, list(islice(taken, self.practice))))
        rated = [pair for model in models for pair in self._pairs("rated", model, list(islice(taken, n)))]
        checks = self._pairs("check", None, list(islice(taken, self.checks)))
        return [*first, *self._shuffled("trial", [*rated, *checks])]

    def _of_each(self, models: int, pictures: int) -> int:
        besides = self.practice + self.checks
        n = min(MOST_BY_DEFAULT, (pictures - besides) // models) if self.n is None else self.n
        needed = models * max(n, 1) + besides
        if n < 1 or needed > pictures:
            of_models = f"{max(n, 1)} trials" + (f" of each of {models} models" if models > 1 else "")
            raise UserError(
                f"{pictures} pairs are too few: {of_models}, {self.practice} for practice and {self.checks} checks "
                f"need {needed}, since every original is shown once: give more pictures, or lower --n, --practice or "
                "--checks"
            )
        return n

    def _practice(self, models: Sequence[str], names: Sequence[str]) -> Iterator[Pair]:
        for number, pair in enumerate(self._pairs("practice", models[0], names)):
            yield pair.model_copy(update={"model": models[number % len(models)]})

    def _pairs(self, kind: Kind, model: str | None, names: Sequence[str]) -> list[Pair]:
        """The pairs of these pictures, half of them with the original on the right."""
        stream = f"{kind} {model}"
        odd = len(names) % 2 * (stream_seed(self.seed, "fool rate", stream, "odd") % 2)
        on_the_left = set(self._shuffled(stream, range(len(names)))[: len(names) // 2 + odd])
        other: Role = "bicubic" if kind == "check" else "model"
        sides: dict[bool, tuple[Role, Role]] = {True: (other, "original"), False: ("original", other)}
        return [
            Pair(kind=kind, model=model, pair=name, left=sides[i in on_the_left][0], right=sides[i in on_the_left][1])
            for i, name in enumerate(names)
        ]

    def _shuffled(self, stream: str, items: Sequence) -> list:
        order = sorted(range(len(items)), key=lambda i: stream_seed(self.seed, "fool rate", stream, i))
        return [items[i] for i in order]

"""Samples that cannot be used: named, counted, and the limit on how many a run accepts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from difflab.errors import UserError
from difflab.rank_logging import OF_THIS_RANK

_log = logging.getLogger(__name__)
_NAMED_IN_ERROR = 5


class BadSample(ValueError):  # noqa: N818 (it is what happened to the sample, not a fault of the program)
    """One sample cannot be used; the message says which one and why."""

    def __init__(self, shard: str, key: str, reason: str) -> None:
        super().__init__(f"{shard}/{key}: {reason}")


@dataclass
class BadSamples:
    """The bad samples found so far among `total`; more than `max_fraction` of them stop the run."""

    total: int
    max_fraction: float
    found: dict[int, str] = field(default_factory=dict)

    @property
    def allowed(self) -> int:
        """The number of bad samples that are accepted."""
        return int(self.max_fraction * self.total)

    def add(self, bad: list[tuple[int, str]]) -> None:
        """Records (dataset index, description) pairs; new ones are logged.

        Raises UserError with the list if there are more than allowed.
        """
        for index, text in bad:
            if index not in self.found:
                self.found[index] = text
                _log.warning("bad sample %s", text, extra=OF_THIS_RANK)
        if len(self.found) > self.allowed:
            listed = "; ".join(list(self.found.values())[:_NAMED_IN_ERROR])
            more = len(self.found) - _NAMED_IN_ERROR
            raise UserError(
                f"{len(self.found)} bad of {self.total} samples, {self.allowed} allowed: {listed}"
                + (f" and {more} more" if more > 0 else "")
                + " (repair the data, or allow more with data.max_bad_fraction)"
            )

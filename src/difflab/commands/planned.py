"""A planned point: what it depends on, whether it is done, and running it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal

from difflab.commands.command import ConfigT, Work, same, what_counts
from difflab.errors import UserError
from difflab.tracking.sweep_point import SweepPoint

if TYPE_CHECKING:
    from difflab.tracking.job import Job
    from difflab.tracking.sweep_ledger import Ledger, LedgerEntry

MISTAKE = 2
"""The status in the ledger of a point that ended in an error."""

SMALL_FILE = 1_000_000
"""Size in bytes below which the hash of a file is not stored."""


@dataclass
class Planned(Generic[ConfigT]):
    """A planned point and its folder. failure: why it could not be done."""

    point: SweepPoint
    config: ConfigT
    plain: dict[str, Any]
    work: Work
    place: Path
    failure: str | None = None

    @cached_property
    def digest(self) -> str:
        """The hash of the configuration, and of the files and the data that the results depend on."""
        kept = self.work.kept
        hashes = [*map(_hash_of, kept.files), *kept.content]
        # The weights identify the run regardless of its path.
        counts = what_counts(self.config, self.plain)
        if hashes:
            counts.pop("run", None)
        text = json.dumps([self.point.command, counts, hashes], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def is_done(self, ledger: Ledger) -> bool:
        """Whether it was done before in its folder and still exists."""
        digest = self.digest
        if not ledger.is_done(digest) or ledger.place_of(digest).absolute() != self.place.absolute():
            return False
        return self.work.is_kept(self.place)

    def try_to_do(self, job: Callable[[Job], Job] = same) -> str | None:
        """Does it; returns the error, if it is one that all processes know of and can continue after."""
        from difflab.commands.processes import AgreedError, SaidByTheFirst

        try:
            self.work.do(self.place, job)
        except (UserError, SaidByTheFirst) as error:
            if self.work.processes.world_size > 1 and not isinstance(error, AgreedError | SaidByTheFirst):
                raise
            return str(error)
        return None

    def entry(self, status: Literal["done", "failed"], seconds: float) -> LedgerEntry:
        """Its entry in the ledger."""
        from difflab.tracking.sweep_ledger import LedgerEntry

        return LedgerEntry(
            point=self.point.label,
            digest=self.digest,
            command=self.point.command,
            arguments=list(self.point.arguments),
            place=str(self.place.absolute()),
            status=status,
            exit_status=0 if status == "done" else MISTAKE,
            seconds=seconds,
        )


def ledger_of(root: Path) -> Ledger:
    """The ledger of the work in a folder."""
    from difflab.tracking.sweep_ledger import Ledger

    return Ledger.read(root)


def _hash_of(path: Path) -> str:
    from difflab.files import sha256_of
    from difflab.frozen_files import cached_sha256

    # There may be thousands of small files, which are hashed as fast as a stored hash is looked up.
    return cached_sha256(path) if path.stat().st_size > SMALL_FILE else sha256_of(path)

"""Losses that are not finite, where a test wants them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from difflab.tasks.denoising.module import DenoisingModule
from difflab.tasks.training_module import StepTerms
from difflab.types import Batch


def poison(monkeypatch: pytest.MonkeyPatch, when: Callable[[DenoisingModule, int], bool]) -> None:
    """What is minimised is NaN in the batches for which `when` (module, Lightning's number of the batch) is True.

    That number goes on after a resume.
    """
    step, terms, bad = DenoisingModule.training_step, DenoisingModule.terms, False

    def training_step(self: DenoisingModule, batch: Batch, batch_idx: int) -> Any:
        nonlocal bad
        bad = when(self, batch_idx)
        return step(self, batch, batch_idx)

    def poisoned(self: DenoisingModule, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        found = terms(self, batch, seeds, training=training)
        return dataclasses.replace(found, minimised=found.minimised * math.nan) if bad and training else found

    monkeypatch.setattr(DenoisingModule, "training_step", training_step)
    monkeypatch.setattr(DenoisingModule, "terms", poisoned)

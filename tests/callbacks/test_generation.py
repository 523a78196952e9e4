"""How samples are shared out among processes; what they do together is tested in test_two_ranks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.callbacks import generation
from difflab.callbacks.generation import batches_of_this_rank, draw_on_all_ranks, report_bad_samples

SHARES = [(5, 2, 2), (1, 2, 4), (4, 3, 1), (7, 2, 3), (2, 4, 2), (6, 1, 4)]


def process(rank: int, of: int, gathered: Any = None) -> Any:
    """The trainer of one of several processes, which are not there."""
    strategy = SimpleNamespace(root_device="cpu", all_gather=gathered)
    return SimpleNamespace(global_rank=rank, world_size=of, strategy=strategy)


@pytest.fixture
def meetings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rank of each process that asked the others whether to stop."""
    met: list[int] = []
    monkeypatch.setattr(generation, "stop_together", lambda trainer: met.append(trainer.global_rank))
    return met


@pytest.mark.parametrize(("n", "ranks", "batch_size"), SHARES)
def test_each_sample_falls_to_one_process_and_all_meet_equally_often(
    n: int, ranks: int, batch_size: int, meetings: list[int]
) -> None:
    drawn = [
        i for rank in range(ranks) for batch in batches_of_this_rank(process(rank, ranks), n, batch_size) for i in batch
    ]
    assert sorted(drawn) == list(range(n))
    assert len({meetings.count(rank) for rank in range(ranks)}) == 1, "who comes less often lets the others wait"


@pytest.mark.parametrize(("n", "ranks", "batch_size"), SHARES)
def test_pictures_of_all_processes_stand_in_their_order(
    n: int, ranks: int, batch_size: int, meetings: list[int]
) -> None:
    def generate(indices: list[int], seed: int) -> Tensor:
        return torch.tensor(indices, dtype=torch.uint8).view(-1, 1, 1, 1)

    parts: list[list[Tensor]] = []

    def note(rows: Tensor) -> Tensor:
        parts[-1].append(rows)
        return rows.expand(ranks, *rows.shape)

    for rank in range(ranks):
        parts.append([])
        draw_on_all_ranks(process(rank, ranks, note), generate, n, 0, batch_size)
    assert len({meetings.count(rank) for rank in range(ranks)}) == 1
    if ranks == 1:
        return
    # What gathering would have put together: of the images, and of the steps that made them bad.
    for of_ranks, expected in zip(zip(*parts, strict=True), (range(n), [0] * n), strict=True):
        together = torch.stack(of_ranks)
        images, _ = draw_on_all_ranks(process(0, ranks, lambda rows, t=together: t), generate, n, 0, batch_size)
        assert images.flatten().tolist() == list(expected)


def test_samples_that_are_not_finite_are_named_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    """They come process by process."""
    report_bad_samples(torch.tensor([[4, 3], [6, 9], [1, 5]]), 8, 100, "evaluation")
    said = "note: evaluation at step 100: samples 1, 4, 6 are not finite, 3 of 8, from sampling step 3 on\n"
    assert capsys.readouterr().err == said

"""Counts of codes, and the restart of those that nothing is quantised to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from difflab.callbacks.training_log import TrainingLog
from difflab.tasks.autoencoder.codebook import CodeCounts, restart_dead_codes, usage_means
from tasks.autoencoder.small_autoencoders import small_module
from tasks.toys import fit


def test_counts_add_up_until_they_are_read() -> None:
    counts = CodeCounts(4)
    counts.add(torch.tensor([[0, 0], [3, 1]]))
    counts.add(torch.tensor([3]))
    assert counts.pop().tolist() == [2, 1, 0, 2]
    assert counts.counts().tolist() == [0, 0, 0, 0]
    counts.restore(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    assert usage_means(counts.counts(), "val") == {"val/perplexity": 1.0, "val/codes_used": 0.25}
    assert usage_means(torch.zeros(4), "val") == {}
    equal = usage_means(torch.tensor([2.0, 2.0, 0.0, 0.0]), "train")
    assert equal["train/perplexity"] == pytest.approx(2.0)


def test_dead_codes_are_put_onto_latents_and_the_others_stay() -> None:
    codebook, latents = torch.zeros(4, 2), torch.randn(3, 2, 5, 5)
    counts = torch.tensor([1.0, 0.0, 7.0, 0.0])
    assert restart_dead_codes(codebook, counts, latents, seed=5) == 2
    places = latents.movedim(1, -1).reshape(-1, 2)
    for code in (1, 3):
        assert bool((places == codebook[code]).all(dim=1).any())
    assert codebook[[0, 2]].abs().max() == 0
    again = torch.zeros(4, 2)
    restart_dead_codes(again, counts, latents, seed=5)
    assert torch.equal(again, codebook)
    assert restart_dead_codes(codebook, torch.ones(4), latents, seed=5) == 0
    assert torch.equal(again, codebook)


def test_a_training_that_restarts_codes_uses_more_of_them(tiny_shapes: Path, tmp_path: Path) -> None:
    used = []
    for every in (None, 1):
        module = small_module("vq", start=None, restart_codes_every=every)
        torch.nn.init.constant_(module.network.regularizer.codebook, 50.0)
        with torch.no_grad():
            module.network.regularizer.codebook[0] = 0
        fit(module, tiny_shapes, tmp_path / str(every), [TrainingLog(100)])
        used.append(module.training_means()["train/codes_used"])
    assert used[0] == 1 / 16
    assert used[1] > 0.5

"""Noise belongs to the sample."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from difflab.diffusion.noise import SampleNoise
from difflab.seeding import stream_seed

SEEDS = [stream_seed(0, "sample", i) for i in range(7)]


def draws(seeds: list[int]) -> torch.Tensor:
    source = SampleNoise(seeds)
    parts = [source.randn((3, 5, 4)), source.randn_like(torch.zeros(len(seeds), 3, 5, 4)), source.randn((3, 5, 4))]
    return torch.cat([torch.stack(parts, dim=1).flatten(1), source.rand()[:, None]], dim=1)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(7)), st.lists(st.integers(1, 6), max_size=3, unique=True))
def test_the_same_bits_whatever_the_split_and_the_order(order: list[int], cuts: list[int]) -> None:
    reference = draws(SEEDS)
    edges = [0, *sorted(cuts), 7]
    parts = [order[a:b] for a, b in pairwise(edges)]
    for part in parts:
        assert torch.equal(draws([SEEDS[i] for i in part]), reference[part])


def test_streams_differ_and_are_standard_normal() -> None:
    noise = SampleNoise([1, 2]).randn((20_000,))
    assert abs(float(torch.corrcoef(noise)[0, 1])) < 0.03
    assert noise.mean().abs() < 0.02
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    uniform = SampleNoise(range(2000)).rand()
    assert ((uniform >= 0) & (uniform < 1)).all()
    assert uniform.mean() == pytest.approx(0.5, abs=0.03)


def test_dtype_is_a_cast_of_the_same_draw() -> None:
    full = SampleNoise([5]).randn((8,))
    assert torch.equal(SampleNoise([5], dtype=torch.bfloat16).randn((8,)), full.bfloat16())
    assert torch.equal(SampleNoise([5]).randn_like(torch.zeros(1, 8, dtype=torch.float64)), full.double())


def test_another_batch_size_is_refused() -> None:
    with pytest.raises(ValueError, match="noise for 2 samples was requested for a batch of 3"):
        SampleNoise([1, 2]).randn_like(torch.zeros(3, 1))

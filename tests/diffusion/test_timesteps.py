"""Timestep samplers against the official resampler and numpy's choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import linear_betas
from difflab.diffusion.timesteps import LossAwareTimesteps, PiecewiseUniformTimesteps, UniformTimesteps
from diffusion.fakes import Checked
from golden_fixtures import load


def test_resampler_fixture() -> None:
    fixture = load("diffusion", "resampler")
    checked = Checked(fixture)
    spec = fixture.spec
    ts, losses = fixture.input("ts"), fixture.input("losses")
    sampler = LossAwareTimesteps(spec["T"], spec["history_per_term"], spec["uniform_prob"])
    uniforms = torch.as_tensor(np.random.RandomState(spec["numpy_seed"]).random_sample(spec["batch"]))
    for i in range(len(ts)):
        sampler.update(ts[i : i + 1], losses[i : i + 1])
        if i + 1 in spec["snapshots"]:
            weights = sampler.weights()
            checked(f"after_{i + 1}.weights", weights)
            checked(f"after_{i + 1}.loss_scale", 1 / (spec["T"] * weights / weights.sum()))
            checked(f"after_{i + 1}.counts", sampler.counts)
            warmed_up = spec["warmed_up_at_snapshots"][spec["snapshots"].index(i + 1)]
            assert sampler.warmed_up == warmed_up
    for label, which in (("sample", sampler), ("uniform", UniformTimesteps(spec["T"]))):
        t, weight = which.sample(uniforms)
        assert t.dtype == torch.int64
        checked(f"{label}.indices", t)
        checked(f"{label}.weights", weight, rel=1e-6)
    checked.assert_all()


def test_a_batch_of_losses_is_the_same_as_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    t = torch.randint(4, (200,), generator=generator)
    loss = torch.rand(200, generator=generator)
    at_once, one_by_one = LossAwareTimesteps(4), LossAwareTimesteps(4)
    at_once.update(t, loss)
    for i in range(200):
        one_by_one.update(t[i : i + 1], loss[i : i + 1])
    assert torch.equal(at_once.weights(), one_by_one.weights())
    last_ten = [loss[t == k][-10:].double().square().mean().sqrt() for k in range(4)]
    expected = torch.stack(last_ten) / sum(last_ten) * (1 - 0.001) + 0.001 / 4
    torch.testing.assert_close(at_once.weights(), expected)


def test_state_goes_round() -> None:
    first = LossAwareTimesteps(5, history_per_term=2)
    first.update(torch.arange(5).repeat(3), torch.arange(15.0))
    second = LossAwareTimesteps(5, history_per_term=2)
    second.load_state_dict(first.state_dict())
    first.update(torch.tensor([1]), torch.tensor([9.0]))
    second.update(torch.tensor([1]), torch.tensor([9.0]))
    assert torch.equal(first.weights(), second.weights())
    with pytest.raises(ValueError, match=r"the stored loss history is \(5, 2\), not \(6, 2\)"):
        LossAwareTimesteps(6, history_per_term=2).load_state_dict(first.state_dict())


@given(st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=1, max_size=20), st.integers(1, 4000))
def test_uniform_draws_are_in_range_and_independent_of_the_batch(u: list[float], steps: int) -> None:
    sampler = UniformTimesteps(steps)
    t, weight = sampler.sample(torch.tensor(u))
    assert ((t >= 0) & (t < steps)).all()
    assert (weight == 1).all()
    assert t.tolist() == [int(sampler.sample(torch.tensor([one]))[0]) for one in u]


def test_importance_weights_keep_the_mean() -> None:
    sampler = LossAwareTimesteps(6, history_per_term=1)
    sampler.update(torch.arange(6), torch.tensor([0.1, 0.2, 0.4, 0.8, 1.6, 3.2]))
    t, weight = sampler.sample((torch.arange(100_000) + 0.5) / 100_000)
    loss = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert float((loss[t] * weight).mean()) == pytest.approx(float(loss.mean()), rel=1e-3)


def test_losses_of_zero_prefer_no_timestep() -> None:
    sampler = LossAwareTimesteps(4, history_per_term=1)
    sampler.update(torch.arange(4), torch.zeros(4))
    assert sampler.warmed_up
    t, weight = sampler.sample(torch.tensor([0.1, 0.4, 0.6, 0.9]))
    assert t.tolist() == [0, 1, 2, 3]
    assert weight.tolist() == [1.0] * 4


def test_a_boundary_belongs_to_the_timestep_above_it() -> None:
    """u in [k/4, (k+1)/4) is timestep k, as of UniformTimesteps; a timestep of no mass is never drawn."""
    u = torch.tensor([0.0, 0.25, 0.5, 0.75])
    sampler = LossAwareTimesteps(4, history_per_term=1, uniform_prob=0.0)
    assert sampler.sample(u)[0].tolist() == UniformTimesteps(4).sample(u)[0].tolist() == [0, 1, 2, 3]
    sampler.update(torch.arange(4), torch.tensor([0.0, 1.0, 0.0, 1.0]))
    t, weight = sampler.sample(u)
    assert t.tolist() == [1, 1, 3, 3]
    assert weight.tolist() == [0.5] * 4


def sr3_table(steps: int = 20) -> np.ndarray:
    return np.cumprod(1 - np.linspace(0.001, 0.3, steps))


@pytest.mark.parametrize("of", ["alpha_bar", "sqrt_alpha_bar"])
def test_levels_are_uniform_between_two_neighbouring_entries(of: Any) -> None:
    """SR3, section 2.4: a step, then a level (or its root) uniform between those of the step and of the one before."""
    table = sr3_table()
    process = GaussianProcess(linear_betas(20, 0.001, 0.3), time_input=of)
    np.testing.assert_allclose(process.alphas_cumprod, table, rtol=1e-12)
    entries = np.append(1.0, table) if of == "alpha_bar" else np.sqrt(np.append(1.0, table))
    fractions = torch.tensor([0.0, 0.125, 0.5, 0.875], dtype=torch.float64)
    for step in range(1, 21):
        t, weight = PiecewiseUniformTimesteps(table, of).sample((step - 1 + fractions) / 20)
        assert (weight == 1).all()
        assert weight.dtype == torch.float32
        expected = entries[step - 1] + (entries[step] - entries[step - 1]) * fractions.numpy()
        np.testing.assert_allclose(process.network_time(t).numpy(), expected, rtol=1e-5)
        assert ((t >= step - 2) & (t < step - 1)).all()


@given(st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=1, max_size=20), st.integers(1, 4000))
def test_levels_of_a_sample_are_its_own_and_never_without_noise(u: list[float], steps: int) -> None:
    sampler = PiecewiseUniformTimesteps(np.cumprod(1 - np.linspace(1e-6, 1e-2, steps)), "sqrt_alpha_bar")
    t, _ = sampler.sample(torch.tensor(u))
    assert t.dtype == torch.float64
    assert ((t > -1) & (t <= steps - 1)).all()
    assert t.tolist() == [float(sampler.sample(torch.tensor([one]))[0]) for one in u]
    # By inverse CDF: a later uniform is never a less noisy level.
    assert torch.equal(t.argsort(stable=True), torch.tensor(u).double().clamp(min=2**-25).argsort(stable=True))

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difflab.averaging.profiles import (
    SIGMA_REL_LIMIT,
    Profile,
    gamma_of,
    p_dot_p,
    power_decay,
    profile_error,
    solve_weights,
)


def sigma_rel_of(gamma: float) -> float:
    """EDM2 eq. 123."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def density(profile: Profile, tau: np.ndarray) -> np.ndarray:
    inside = (profile.gamma + 1) * (tau / profile.step) ** profile.gamma / profile.step
    return np.where(tau <= profile.step, inside, 0.0)


def integral(values: np.ndarray, tau: np.ndarray) -> float:
    return float(np.trapezoid(values, tau))


def test_the_lengths_of_the_paper_have_its_exponents() -> None:
    # EDM2, section 3.2.
    assert gamma_of(0.05) == pytest.approx(16.97, abs=5e-3)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=5e-3)


@given(st.floats(1e-4, SIGMA_REL_LIMIT - 1e-9))
def test_length_and_exponent_are_inverse_of_each_other(sigma_rel: float) -> None:
    gamma = gamma_of(sigma_rel)
    assert gamma > 0
    assert sigma_rel_of(gamma) == pytest.approx(sigma_rel, rel=1e-12)
    roots = np.roots([1, 7, 16 - sigma_rel**-2, 12 - sigma_rel**-2])
    assert gamma == pytest.approx(roots.real.max(), rel=1e-7, abs=1e-7)


def test_the_limit_is_the_plain_mean() -> None:
    assert sigma_rel_of(0.0) == pytest.approx(SIGMA_REL_LIMIT)
    assert [power_decay(step, 0.0) for step in (1, 2, 5)] == pytest.approx([0, 1 / 2, 4 / 5])


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, 0.2887, 1.0, math.nan])
def test_other_lengths_are_refused(sigma_rel: float) -> None:
    with pytest.raises(ValueError, match=r"must lie between 0 and 0\.2887"):
        gamma_of(sigma_rel)


@pytest.mark.parametrize("sigma_rel", [0.02, 0.1, 0.25])
def test_a_profile_has_the_length_that_it_is_called_by(sigma_rel: float) -> None:
    profile, tau = Profile(100, sigma_rel), np.linspace(0, 100, 200_001)
    p = density(profile, tau)
    mean = integral(p * tau, tau)
    assert integral(p, tau) == pytest.approx(1, abs=1e-6)
    assert math.sqrt(integral(p * (tau - mean) ** 2, tau)) / 100 == pytest.approx(sigma_rel, rel=1e-5)


@pytest.mark.parametrize(("a", "b"), [(100, 100), (60, 100), (100, 60), (1, 100)])
@pytest.mark.parametrize(("length_a", "length_b"), [(0.05, 0.10), (0.10, 0.05), (0.03, 0.25)])
def test_inner_products_are_the_integrals(a: int, b: int, length_a: float, length_b: float) -> None:
    one, other = Profile(a, length_a), Profile(b, length_b)
    tau = np.linspace(0, min(a, b), 400_001)
    expected = integral(density(one, tau) * density(other, tau), tau)
    assert p_dot_p(a, one.gamma, b, other.gamma) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_decays_of_single_steps_multiply_to_that_of_many() -> None:
    product = math.prod(power_decay(step, 6.94) for step in range(8, 13))
    assert power_decay(12, 6.94, steps=5) == pytest.approx(product, rel=1e-13)
    assert power_decay(1, 6.94) == power_decay(5, 6.94, steps=5) == 0.0


def grid(n: int, *, until: int = 4096, lengths: tuple[float, ...] = (0.05, 0.10)) -> list[Profile]:
    return [Profile(until * k // n, length) for k in range(1, n + 1) for length in lengths]


def test_a_tracked_profile_is_taken_alone() -> None:
    profiles = grid(8)
    coefficients = solve_weights(profiles, profiles[5])
    assert coefficients.tolist() == [float(i == 5) for i in range(16)]
    assert profile_error(profiles, coefficients, profiles[5]) < 1e-7


def test_coefficients_sum_to_one_and_their_error_falls_with_the_snapshots() -> None:
    errors = []
    for n in (4, 16, 64, 256):
        profiles, wanted = grid(n), Profile(4096, 0.075)
        coefficients = solve_weights(profiles, wanted)
        assert coefficients.sum() == pytest.approx(1, abs=1e-12)
        tau = np.linspace(0, 4096, 100_001)
        made = sum(c * density(p, tau) for c, p in zip(coefficients, profiles, strict=True))
        target = density(wanted, tau)
        measured = math.sqrt(integral((made - target) ** 2, tau) / integral(target**2, tau))
        errors.append(profile_error(profiles, coefficients, wanted))
        assert errors[-1] == pytest.approx(measured, rel=0.05, abs=2e-6)
    # What the comment in conf/callbacks/power_ema.yaml and docs/ema.md say.
    assert errors[0] < 0.04
    assert errors[1] < 0.004
    assert errors[2] < 3e-4
    assert errors[3] < 2e-5


def test_a_snapshot_too_many_makes_nothing_worse() -> None:
    wanted = Profile(4096, 0.15)
    few, many = grid(8), grid(16)
    assert profile_error(many, solve_weights(many, wanted), wanted) < profile_error(
        few, solve_weights(few, wanted), wanted
    )


def test_a_profile_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="profiles must be distinct"):
        solve_weights([Profile(5, 0.1), Profile(5, 0.1)], Profile(5, 0.2))

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from difflab.averaging.profiles import SIGMA_REL_LIMIT, Profile, power_decay
from difflab.averaging.snapshots import Snapshot, length_name, recipe_for, reconstruct, snapshot_name, snapshots_in
from difflab.errors import UserError

STEPS, WIDTH = 1024, 500
EXPECTED = {"w": (WIDTH,), "table": (2,)}


def weight_path(seed: int = 0) -> Tensor:
    """A random walk with a drift, [STEPS + 1, WIDTH] in float64."""
    generator = torch.Generator().manual_seed(seed)
    moves = torch.randn(STEPS + 1, WIDTH, dtype=torch.float64, generator=generator)
    drift = torch.randn(WIDTH, dtype=torch.float64, generator=generator)
    return (moves + 0.05 * drift).cumsum(0)


def tracked(path: Tensor, profile: Profile) -> Tensor:
    """The average of `profile` as training keeps it, in float64."""
    average = path[0]
    for step in range(1, profile.step + 1):
        decay = power_decay(step, profile.gamma)
        average = decay * average + (1 - decay) * path[step]
    return average


def write(folder: Path, profile: Profile, w: Tensor, dtype: torch.dtype = torch.float32) -> None:
    state = {"w": w.to(dtype), "table": torch.tensor([profile.step, 1 << 40])}
    folder.mkdir(exist_ok=True)
    save_file(state, folder / snapshot_name(profile), metadata={"not_averaged": json.dumps(["table"])})


def take_snapshots(folder: Path, path: Tensor, n: int, dtype: torch.dtype = torch.float32) -> list[Snapshot]:
    """n of each of the two usual lengths, evenly spaced."""
    due = {STEPS * k // n for k in range(1, n + 1)}
    averages = dict.fromkeys((0.05, 0.10), path[0])
    for step in range(1, STEPS + 1):
        for length, average in averages.items():
            profile = Profile(step, length)
            decay = power_decay(step, profile.gamma)
            averages[length] = decay * average + (1 - decay) * path[step]
            if step in due:
                write(folder, profile, averages[length], dtype)
    return snapshots_in(folder)


def relative_error(made: Tensor, exact: Tensor, path: Tensor) -> float:
    """The error beside the distance that averaging moves the weights at all."""
    return ((made.double() - exact).norm() / (path[-1] - exact).norm()).item()


@pytest.mark.parametrize("wanted", [0.075, 0.15])
def test_a_third_profile_comes_near_the_tracked_one_and_nearer_with_more_snapshots(
    tmp_path: Path, wanted: float
) -> None:
    path = weight_path()
    exact = tracked(path, Profile(STEPS, wanted))
    errors = []
    for n in (4, 16, 64):
        recipe = recipe_for(wanted, take_snapshots(tmp_path / str(n), path, n))
        errors.append(relative_error(reconstruct(recipe, EXPECTED)["w"], exact, path))
    # Measured, of 0.075 and 0.15: with 4 times two snapshots 2.9% and 4.9%, with 16 0.04% and 0.1%, with 64 below 1e-5.
    assert errors[0] < 0.06
    assert errors[1] < errors[0] / 30
    assert errors[2] < errors[1] / 30


def test_an_earlier_time_is_made_of_the_snapshots_up_to_it(tmp_path: Path) -> None:
    path = weight_path()
    snapshots = take_snapshots(tmp_path, path, 32)
    recipe = recipe_for(0.075, snapshots, 512)
    assert {snapshot.profile.step for snapshot in recipe.snapshots} == set(range(32, 513, 32))
    made = reconstruct(recipe, EXPECTED)
    assert relative_error(made["w"], tracked(path, Profile(512, 0.075)), path[:513]) < 3e-3
    assert made["table"].tolist() == [512, 1 << 40], "what was not averaged is that of the last snapshot, exactly"


def test_a_tracked_profile_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = weight_path()
    snapshots = take_snapshots(tmp_path, path, 4)
    for step in (512, 1024):
        recipe = recipe_for(0.10, snapshots, step)
        assert [s.path.name for s in recipe.snapshots] == [f"sigma_rel-0.100-step-{step:06d}.safetensors"]
        expected = tracked(path, Profile(step, 0.10)).float()
        assert torch.equal(reconstruct(recipe, EXPECTED)["w"], expected)


@pytest.mark.parametrize(("wanted", "enlarged"), [(0.075, 1.5), (0.02, 20.0)])
def test_rounding_to_float16_is_enlarged_by_short_lengths_only(tmp_path: Path, wanted: float, enlarged: float) -> None:
    path = weight_path()
    made = []
    for dtype in (torch.float32, torch.float16):
        recipe = recipe_for(wanted, take_snapshots(tmp_path / str(dtype), path, 64, dtype))
        made.append(reconstruct(recipe, EXPECTED)["w"])
    rounding = (made[0].half().float() - made[0]).norm()
    error = (made[1] - made[0]).norm()
    assert enlarged / 3 < (error / rounding).item() < enlarged * 1.5


@given(st.floats(1e-6, SIGMA_REL_LIMIT - 1e-9))
def test_names_tell_lengths_exactly(sigma_rel: float) -> None:
    assert float(length_name(sigma_rel).removeprefix("sigma_rel-")) == sigma_rel


def test_snapshots_are_found_by_name_and_sorted(tmp_path: Path) -> None:
    profiles = [Profile(20, 0.05), Profile(5, 0.0755), Profile(5, 0.05), Profile(1_000_000, 0.1)]
    for profile in profiles:
        write(tmp_path, profile, torch.zeros(WIDTH))
    (tmp_path / "sigma_rel-0.050-step-000005 (copy).safetensors").touch()
    found = snapshots_in(tmp_path)
    assert [snapshot.profile for snapshot in found] == [profiles[2], profiles[1], profiles[0], profiles[3]]
    assert snapshots_in(tmp_path / "nowhere") == []


@pytest.mark.parametrize("step", [3, 9, 11])
def test_a_step_without_snapshot_is_named(step: int) -> None:
    snapshots = [Snapshot(Path(), Profile(n, 0.1)) for n in (5, 10)]
    with pytest.raises(UserError, match=f"step {step} has no snapshot: the first is of step 5, the last of 10"):
        recipe_for(0.05, snapshots, step)


def test_files_that_are_no_such_snapshot_are_named(tmp_path: Path) -> None:
    for step in (5, 10):
        write(tmp_path, Profile(step, 0.1), torch.zeros(WIDTH))
    recipe = recipe_for(0.05, snapshots_in(tmp_path))
    with pytest.raises(UserError, match=r"step-000005.*is of another network than the run's: w is \[500\], expected"):
        reconstruct(recipe, {**EXPECTED, "w": (WIDTH, 2)})
    first = tmp_path / snapshot_name(Profile(5, 0.1))
    save_file({"w": torch.zeros(WIDTH)}, first)
    with pytest.raises(UserError, match=r"not a snapshot that callbacks\.power_ema wrote"):
        reconstruct(recipe, EXPECTED)
    first.write_bytes(b"\x10" * 100)
    with pytest.raises(UserError, match=r"step-000005\.safetensors: no readable safetensors file"):
        reconstruct(recipe, EXPECTED)

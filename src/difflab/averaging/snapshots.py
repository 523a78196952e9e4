"""Snapshots of power-function averages: one safetensors file per profile, and other profiles computed from them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from difflab.averaging.profiles import Profile, profile_error, solve_weights
from difflab.errors import UserError
from difflab.interop.keymap import Shapes, describe_differences
from difflab.interop.unpickle import refuse_what_is_no_file

_NAME = re.compile(r"sigma_rel-(\d\.\d{3,})-step-(\d{6,})\.safetensors")


@dataclass(frozen=True)
class Snapshot:
    """A file with the weights averaged over `profile`."""

    path: Path
    profile: Profile


def length_name(sigma_rel: float) -> str:
    """`sigma_rel-0.050`: as many decimals as represent the length exactly, at least three."""
    return f"sigma_rel-{np.format_float_positional(sigma_rel, min_digits=3)}"


def snapshot_name(profile: Profile) -> str:
    """Returns the file name of a profile: `sigma_rel-0.050-step-001000.safetensors`."""
    return f"{length_name(profile.sigma_rel)}-step-{profile.step:06d}.safetensors"


def snapshots_in(folder: Path) -> list[Snapshot]:
    """Returns the snapshots in a folder, by step, then by length; identified by their names."""
    matches = [(match, path) for path in folder.glob("*.safetensors") if (match := _NAME.fullmatch(path.name))]
    found = [Snapshot(path, Profile(int(match[2]), float(match[1]))) for match, path in matches]
    return sorted(found, key=lambda snapshot: (snapshot.profile.step, snapshot.profile.sigma_rel))


@dataclass(frozen=True)
class Recipe:
    """How to compute the profile `wanted` from snapshots. error: see `profile_error`."""

    wanted: Profile
    snapshots: tuple[Snapshot, ...]
    coefficients: tuple[float, ...]
    error: float

    def facts(self) -> dict[str, Any]:
        """Returns the recipe in plain containers."""
        return {
            "sigma_rel": self.wanted.sigma_rel,
            "gamma": self.wanted.gamma,
            "step": self.wanted.step,
            "profile_error": self.error,
            "snapshots": {s.path.name: c for s, c in zip(self.snapshots, self.coefficients, strict=True)},
        }


def recipe_for(sigma_rel: float, snapshots: Sequence[Snapshot], step: int | None = None) -> Recipe:
    """Returns how to compute length `sigma_rel` at `step` (None: the last) from the snapshots up to that step.

    It contains only snapshots that contribute: a single one if it has exactly this profile.
    Raises UserError if no snapshot was taken at `step`.
    """
    steps = sorted({snapshot.profile.step for snapshot in snapshots})
    if step is None:
        step = steps[-1]
    if step not in steps:
        nearest = sorted(steps, key=lambda known: abs(known - step))[:2]
        raise UserError(
            f"step {step} has no snapshot: the first is of step {steps[0]}, the last of {steps[-1]}; "
            f"take one near it, as {' or '.join(map(str, sorted(nearest)))}"
        )
    wanted = Profile(step, sigma_rel)
    usable = [snapshot for snapshot in snapshots if snapshot.profile.step <= step]
    profiles = [snapshot.profile for snapshot in usable]
    coefficients = solve_weights(profiles, wanted)
    kept = [(snapshot, float(c)) for snapshot, c in zip(usable, coefficients, strict=True) if c]
    error = profile_error(profiles, coefficients, wanted)
    return Recipe(wanted, tuple(s for s, _ in kept), tuple(c for _, c in kept), error)


def reconstruct(recipe: Recipe, expected: Shapes) -> dict[str, Tensor]:
    """Returns the state dict of the recipe: averages in float32, other tensors as in the last snapshot.

    expected: key -> shape of the model's state dict.
    Raises UserError if a snapshot is damaged or belongs to a different network.
    """
    as_they_are = [_check(snapshot, expected) for snapshot in recipe.snapshots][-1]
    return {name: _last(recipe, name) if name in as_they_are else _summed(recipe, name) for name in expected}


def _summed(recipe: Recipe, name: str) -> Tensor:
    # Files are reopened for each tensor: open files keep what was read from them in memory.
    total: Tensor | None = None
    for snapshot, coefficient in zip(recipe.snapshots, recipe.coefficients, strict=True):
        with _opened(snapshot) as file:
            term = file.get_tensor(name).double().mul_(coefficient)
        total = term if total is None else total.add_(term)
    assert total is not None
    return total.float()


def _last(recipe: Recipe, name: str) -> Tensor:
    with _opened(recipe.snapshots[-1]) as file:
        return file.get_tensor(name).clone()


def _check(snapshot: Snapshot, expected: Shapes) -> set[str]:
    """Checks a snapshot against these shapes; returns the names of the tensors that are not averaged."""
    with _opened(snapshot) as file:
        metadata = file.metadata() or {}
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if "not_averaged" not in metadata:
        raise UserError(f"{snapshot.path}: not a snapshot that callbacks.power_ema wrote; move it away")
    differences = describe_differences(shapes, expected)
    if differences:
        raise UserError(
            f"{snapshot.path} is of another network than the run's: {differences[0]}; remove snapshots of an earlier "
            "network, or train in a run of another name"
        )
    return set(json.loads(metadata["not_averaged"]))


@contextlib.contextmanager
def _opened(snapshot: Snapshot) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    refuse_what_is_no_file(snapshot.path)
    # The library reports every failure to open a file as a missing file.
    snapshot.path.open("rb").close()
    try:
        opened = safe_open(snapshot.path, framework="pt")
    except SafetensorError as error:
        raise UserError(f"{snapshot.path}: no readable safetensors file ({error}); take another step") from error
    with opened as file:
        yield file

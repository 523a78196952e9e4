"""Reading golden fixtures: numbers of the official codes, whose weights and inputs are drawn by rule, not stored."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parent / "golden"


def draw(seed: int, key: str, shape: tuple[int, ...] | list[int], kind: str = "param") -> np.ndarray:
    """The values of one tensor: standard normals of PCG64(crc32("seed:key")), scaled by what the tensor is for."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}:{key}".encode())))
    normal = generator.standard_normal(tuple(shape), dtype=np.float32)
    if kind == "input":
        return normal
    if len(shape) <= 1:
        return 1 + 0.1 * normal if key.endswith("weight") else 0.1 * normal
    return normal / math.sqrt(np.prod(shape[1:]))


@dataclass(frozen=True)
class Fixture:
    """One golden fixture: its JSON description and its arrays."""

    name: str
    spec: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def input(self, name: str) -> Tensor:
        """An input of the fixture, literal or drawn (then scale, abs, shift, clip in that order)."""
        spec = self.spec["inputs"][name]
        # The folders write it in one of two ways.
        literal = spec.get("values", spec.get("value"))
        if literal is not None:
            return torch.as_tensor(np.asarray(literal, dtype=spec["dtype"]))
        shape = spec.get("shape", spec.get("draw"))
        values = draw(self.spec["seed"], f"input:{name}", shape, "input") * spec.get("scale", 1.0)
        if spec.get("abs"):
            values = np.abs(values)
        values = values + spec.get("shift", 0.0)
        if "clip" in spec:
            values = np.clip(values, *spec["clip"])
        return torch.as_tensor(np.asarray(values, dtype=np.float32))

    def state_dict(self) -> dict[str, Tensor]:
        """The drawn weights under their official keys."""
        return {key: torch.as_tensor(draw(self.spec["seed"], key, shape)) for key, shape in self.spec["keys"].items()}

    def check(self, name: str, actual: Any, rel: float | None = None) -> None:
        """max |a - b| <= rel * max(1, max |b|), the fixture's own tolerance unless `rel` is given."""
        expected = np.asarray(self.arrays[name], dtype=np.float64)
        got = np.asarray(actual.detach().cpu() if isinstance(actual, Tensor) else actual, dtype=np.float64)
        assert got.shape == expected.shape, f"{self.name}/{name}: shape {got.shape}, expected {expected.shape}"
        rel = self.spec["tolerance"]["rel"] if rel is None else rel
        bound = rel * max(1.0, float(np.max(np.abs(expected), initial=0.0)))
        worst = float(np.max(np.abs(got - expected), initial=0.0))
        assert worst <= bound, f"{self.name}/{name}: differs by {worst:.3g}, allowed {bound:.3g}"

    def check_close(self, name: str, actual: Any, what: str | None = None) -> None:
        """|a - b| <= atol + rtol |b| everywhere, by the fixture's own tolerance, or that of `what`, as of gradients."""
        tolerance = self.spec["tolerance"] if what is None else self.spec["tolerance"][what]
        expected = torch.as_tensor(np.asarray(self.arrays[name], dtype=np.float64))
        got = torch.as_tensor(actual).detach().cpu().double()
        torch.testing.assert_close(
            got, expected, atol=tolerance["atol"], rtol=tolerance["rtol"], msg=lambda m: f"{self.name}/{name}: {m}"
        )


def load(folder: str, name: str) -> Fixture:
    """The fixture `tests/golden/<folder>/<name>.{json,npz}`."""
    spec = json.loads((ROOT / folder / f"{name}.json").read_text())
    with np.load(ROOT / folder / f"{name}.npz", allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    return Fixture(name, spec, arrays)

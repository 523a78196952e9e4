"""What a degradation is, and the random numbers that it draws for an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Draws:
    """The random numbers of one image, a function of its seed alone: always of the CPU, whatever the model's device."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self._generator))

    def chance(self, probability: float) -> bool:
        """Returns whether something of this probability happens."""
        return self.uniform() < probability

    def integer(self, low: int, high: int) -> int:
        """Returns one of low..high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self._generator))

    def one_of(self, choices: Sequence[T]) -> T:
        """Returns one of the choices, each as likely as the others."""
        return choices[self.integer(0, len(choices) - 1)]

    def order(self, count: int) -> list[int]:
        """Returns the numbers 0..count-1 in random order."""
        return torch.randperm(count, generator=self._generator).tolist()

    def uniforms(self, *shape: int) -> Tensor:
        """Returns uniform numbers in [0, 1), float32."""
        return torch.rand(shape, generator=self._generator)

    def normal(self, *shape: int) -> Tensor:
        """Returns standard normals, float32."""
        return torch.randn(shape, generator=self._generator)

    def poisson(self, rates: Tensor) -> Tensor:
        """Returns Poisson numbers of the given rates, of their shape."""
        return torch.poisson(rates, generator=self._generator)


class Degradation(Protocol):
    """Makes a low-resolution image of a full-size one at random."""

    def __call__(self, image: Tensor, factor: int, draws: Draws) -> Tensor:
        """image float [C, H, W] in [0, 1], C = 1 or 3 -> [C, H / factor, W / factor], also on the CPU.

        Raises ValueError, in one line, for other channels and for a side that `factor` does not divide.
        """
        ...

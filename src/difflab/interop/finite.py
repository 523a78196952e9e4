"""Weights whose values are not finite: a training that diverged, or numbers too large for the precision of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from difflab.console import listed


def nonfinite_notes(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Yields a line that names the first tensors with infinite values or NaN, if there are any."""
    names = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if names:
        yield (
            f"not finite, so that nothing can be drawn with them: {listed(names, 3)}, {len(names)} of {len(state)} "
            "tensors"
        )

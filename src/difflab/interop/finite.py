"""Weights whose values are not finite: a training that diverged, or numbers too large for the precision of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

_NAMES_SHOWN = 3


def nonfinite_notes(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Yields a line that names the first tensors with infinite values or NaN, if there are any."""
    names = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if names:
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        yield (
            f"not finite, so that nothing can be drawn with them: {', '.join(names[:_NAMES_SHOWN])}{more}, "
            f"{len(names)} of {len(state)} tensors"
        )

"""Which of the chosen metrics a data set can be measured with: each metric says what data it needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from difflab.config.data import DataConfig
from difflab.config.metrics import MetricsConfig
from difflab.errors import UserError

ORACLE_SIDES = 16, 1024
"""Pixels per side that the shapes oracle reads."""


def without_unsuited(
    metrics: MetricsConfig, data: DataConfig | None, overrides: Sequence[str], *, image_size: int
) -> tuple[MetricsConfig, list[str]]:
    """The metrics that say something of samples for this data, and a line for each that was left out.

    A metric of a group that the user chose is left out where the data is not what it judges; one that the user named
    (`metrics.oracle=...`) is refused. image_size: pixels per side of the samples.

    Raises UserError for that one, and where nothing would be left.
    """
    judges = [name for name, config in metrics.items() if config is not None and config.needs == "shapes"]
    why = _no_shapes(data, image_size) if judges else None
    if why is None:
        return metrics, []
    for name in judges:
        if _is_named(name, overrides):
            raise UserError(f"metrics.{name} judges shapes data alone, and {why}: leave metrics.{name} out")
    kept = {name: None if name in judges else config for name, config in metrics.items()}
    if all(config is None for config in kept.values()):
        raise UserError(f"metrics.{judges[0]} judges shapes data alone, and {why}: choose other metrics")
    return kept, [f"metrics.{name} is left out: it judges shapes data alone, and {why}" for name in judges]


def _no_shapes(data: DataConfig | None, image_size: int) -> str | None:
    """Why samples cannot be judged as shapes; None where they can."""
    from difflab.data.build import class_names_of, source_of
    from difflab.metrics.oracle import reads_classes

    low, high = ORACLE_SIDES
    if not low <= image_size <= high:
        return f"it reads {low} to {high} px, not {image_size}"
    if data is None or not Path(data.path).exists():
        return "there is no data set that says so"
    source, names = source_of(data), class_names_of(data)
    if source is not None:
        return None if source == "shapes" else f"{data.path} was made from source={source}"
    return None if names and reads_classes(names) else f"{data.path} is not known to be made from source=shapes"


def _is_named(name: str, overrides: Sequence[str]) -> bool:
    for override in overrides:
        key, _, value = override.partition("=")
        path = re.split(r"[.@/]", key.lstrip("+~"))
        if path[0] == "metrics" and (path[1:2] == [name] or value.lstrip("'\"").startswith("{")):
            return True
    return False

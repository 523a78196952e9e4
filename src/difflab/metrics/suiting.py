"""Selects the metrics that suit a data set: each metric says what it needs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from difflab.config.data import DataConfig
from difflab.config.metrics import MetricsConfig
from difflab.errors import UserError
from difflab.metrics.build import build_metrics


def without_unsuited(
    metrics: MetricsConfig, data: DataConfig | None, overrides: Sequence[str], *, image_size: int
) -> tuple[MetricsConfig, list[str]]:
    """The metrics that are meaningful for samples of this data, and a line for each one left out.

    A metric of a group that the user chose is left out if it cannot judge the data; one that the user named
    (`metrics.oracle=...`) is refused. image_size: pixels per side of the samples.

    Raises UserError for a named one, and if no metric would be left.
    """
    requested = {name: metric.unsuited(data, image_size) for name, metric in build_metrics(metrics).items()}
    unsuited = {name: why for name, why in requested.items() if why is not None}
    for name, why in unsuited.items():
        if _is_named(name, overrides):
            raise UserError(f"metrics.{name} {why}: leave metrics.{name} out")
    kept = {name: None if name in unsuited else config for name, config in metrics.items()}
    if unsuited and all(config is None for config in kept.values()):
        name, why = next(iter(unsuited.items()))
        raise UserError(f"metrics.{name} {why}: choose other metrics")
    return kept, [f"metrics.{name} is left out: it {why}" for name, why in unsuited.items()]


def _is_named(name: str, overrides: Sequence[str]) -> bool:
    for override in overrides:
        key, _, value = override.partition("=")
        path = re.split(r"[.@/]", key.lstrip("+~"))
        if path[0] == "metrics" and (path[1:2] == [name] or value.lstrip("'\"").startswith("{")):
            return True
    return False

"""Selects the metrics that suit a data set: each metric says what it needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from difflab.config.data import DataConfig
from difflab.config.metrics import Measured, MetricsConfig
from difflab.errors import UserError
from difflab.metrics.base import Metric
from difflab.metrics.build import build_metrics


def without_unsuited(
    metrics: MetricsConfig, data: DataConfig | None, overrides: Sequence[str], *, image_size: int
) -> tuple[MetricsConfig, list[str]]:
    """The metrics that are meaningful for samples of this data, and a line for each one left out.

    A metric of a group that the user chose is left out if it cannot judge the data; one that the user named
    (`metrics.oracle=...`) is refused. image_size: pixels per side of the samples.

    Raises UserError for a named one, and if no metric would be left.
    """
    return without(metrics, overrides, lambda metric: metric.unsuited(data, image_size))


def refuse_others(metrics: MetricsConfig, what: Measured) -> None:
    """Raises UserError for a metric that cannot measure samples, or reconstructions."""
    for name, config in metrics.items():
        if config is not None and what not in config.measures:
            (its,) = config.measures
            choose = "reconstruction" if what == "reconstructions" else "lite0"
            raise UserError(
                f"metrics.{name} measures {its}, and these are {what}: choose metrics={choose}, or set "
                f"metrics.{name}=null"
            )


def without(
    metrics: MetricsConfig, overrides: Sequence[str], unsuited_by: Callable[[Metric[Any]], str | None]
) -> tuple[MetricsConfig, list[str]]:
    """`without_unsuited`, by any reason."""
    requested = {name: unsuited_by(metric) for name, metric in build_metrics(metrics).items()}
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

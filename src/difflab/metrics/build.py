"""Builds metrics from their configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from difflab.config.axes import METRICS
from difflab.config.metrics import MetricBase
from difflab.metrics.base import Metric


def build_metrics(metrics: Mapping[str, MetricBase | None]) -> dict[str, Metric[Any]]:
    """The metrics by their names in the configuration; None entries are off. Nothing is loaded yet."""
    return {name: METRICS.builder(config)(config, name) for name, config in metrics.items() if config is not None}

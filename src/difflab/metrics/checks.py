"""Whether a metric can be computed of so many samples, against so many images of a reference."""

from __future__ import annotations

from difflab.config.metrics import (
    FDConfig,
    FIDConfig,
    InceptionScoreConfig,
    KIDConfig,
    MetricConfig,
    PrecisionRecallConfig,
    ReferenceBase,
)
from difflab.errors import UserError
from difflab.metrics.reference import ReferenceStatistics

NEEDS_FEATURES = KIDConfig | PrecisionRecallConfig
"""Metrics that compare images one by one: statistics of the reference are not enough for them."""


def check_metric(name: str, config: MetricConfig, n: int, *, has_reference: bool = True) -> None:
    """Raise UserError where the metric cannot be computed from n samples, naming the key to change."""
    if config.n is not None and config.n != n:
        raise UserError(
            f"metrics.{name} is defined at n={config.n}, not n={n}; draw n={config.n} or set metrics.{name}.n=null"
        )
    if isinstance(config, ReferenceBase) and not has_reference:
        raise UserError(
            f"metrics.{name} compares with a data set and there is none; give data=, or metrics.{name}=null"
        )
    if isinstance(config, FIDConfig | FDConfig) and n < 2:
        raise UserError(f"metrics.{name} needs at least n=2 samples, not n={n}")
    if isinstance(config, KIDConfig) and n < config.subset_size:
        raise UserError(
            f"metrics.{name}.subset_size={config.subset_size} exceeds n={n}; "
            f"draw more or set metrics.{name}.subset_size={n}"
        )
    if isinstance(config, PrecisionRecallConfig) and n <= config.k:
        raise UserError(
            f"metrics.{name}.k={config.k} needs at least n={config.k + 1} samples, not n={n}; "
            f"draw more or lower metrics.{name}.k"
        )
    if isinstance(config, InceptionScoreConfig) and n < config.splits:
        raise UserError(
            f"metrics.{name}.splits={config.splits} exceeds n={n}; draw more or set metrics.{name}.splits={n}"
        )


def check_reference(name: str, config: ReferenceBase, found: int) -> None:
    """Raise UserError where the metric cannot compare with `found` reference images, naming the key to change."""
    if isinstance(config, KIDConfig) and found < config.subset_size:
        raise UserError(
            f"metrics.{name}.subset_size={config.subset_size} exceeds the {found} reference images; "
            f"set metrics.{name}.subset_size={found}"
        )
    if isinstance(config, PrecisionRecallConfig) and found <= config.k:
        raise UserError(
            f"metrics.{name}.k={config.k} needs at least {config.k + 1} reference images, there are {found}; "
            f"use more, or lower metrics.{name}.k"
        )
    if isinstance(config, FIDConfig | FDConfig) and found < 2:
        raise UserError(f"metrics.{name} needs at least 2 reference images, there are {found}; choose another split")


def check_statistics(name: str, config: ReferenceBase, reference: ReferenceStatistics) -> None:
    """The same, where the metric may also need what is not known of the reference."""
    if not isinstance(config, NEEDS_FEATURES):
        return check_reference(name, config, reference.record.n)
    if reference.features is None:
        raise UserError(
            f"metrics.{name} needs features of {reference.record.name} and only its statistics are known; "
            "compare with the images themselves"
        )
    return check_reference(name, config, len(reference.features))

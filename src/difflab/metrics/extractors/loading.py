"""Feature extractors by name, each loaded once per process and device."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from difflab.config.metrics import ExtractorName
from difflab.metrics.extractors.base import FeatureExtractor


def get_extractor(
    name: ExtractorName, weights: str | None = None, device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """Returns the extractor, loading it on the first call. weights: file of the Inception weights (see `find_weights`).

    Raises UserError if weights are missing.
    """
    path = None if weights is None else Path(weights).expanduser().resolve()
    return _load(name, path, torch.device(device))


def release_extractors() -> None:
    """Drops all loaded extractors, which frees their memory between evaluations."""
    _load.cache_clear()


@functools.cache
def _load(name: ExtractorName, weights: Path | None, device: torch.device) -> FeatureExtractor:
    if name == "lite0":
        from difflab.metrics.extractors.lite0 import Lite0Extractor

        return Lite0Extractor(device)
    if name == "inception":
        from difflab.metrics.extractors.inception import InceptionExtractor

        return InceptionExtractor(device, weights)
    from difflab.metrics.extractors.random import RandomExtractor

    return RandomExtractor(device)

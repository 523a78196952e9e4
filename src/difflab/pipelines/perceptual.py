"""Perceptual distances as metrics: each sample beside its original, in the features of a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difflab.config.data import DataConfig
from difflab.config.parts import FrozenConfig
from difflab.errors import UserError
from difflab.frozen_files import find
from difflab.images import to_float
from difflab.metrics.base import ScoreMetric
from difflab.metrics.config import LPIPSMetricConfig, PerceptualConfig
from difflab.metrics.scores import Pictures
from difflab.networks.perceptual.build import build_perceptual
from difflab.networks.perceptual.distance import PerceptualDistance
from difflab.parts.loading import load_frozen


class PerceptualMetric(ScoreMetric[PerceptualConfig | LPIPSMetricConfig]):
    """See `PerceptualDistance`. The name of the result says which it is: `perceptual-lite0`, or `lpips`."""

    _loaded: PerceptualDistance

    @property
    def result_name(self) -> str:
        return self.config.logged

    @property
    def files(self) -> Sequence[Path]:
        return [find(file)[0] for file in self._sources().values()]

    def load(self, device: torch.device) -> None:
        for name, file in self._sources().items():
            try:
                find(file)
            except UserError as error:
                raise UserError(f"{self.key}.{name}: {error}") from None
        distance = build_perceptual(self.config.distance)
        assert distance is not None, "it compares something"
        load_frozen(distance)
        self._loaded = distance.to(device).eval()

    def unsuited(self, data: DataConfig | None, image_size: int) -> str | None:
        smallest = self.config.distance.smallest_side
        if image_size < smallest:
            return f"compares images of at least {smallest} pixels per side, not {image_size}"
        return None

    def score(self, images: Tensor, pictures: Pictures) -> Tensor:
        assert pictures.original is not None, "there is something to compare with"
        with torch.no_grad():
            return self._loaded(to_float(images), to_float(pictures.original))

    def parameters(self, pictures: Pictures) -> dict[str, Any]:
        return {f"{name}_sha256": find(file)[1] for name, file in self._sources().items()}

    def _sources(self) -> dict[str, FrozenConfig]:
        """The files of its weights, by key."""
        distance = self.config.distance
        files = {"network": distance.network, "channel_weights": distance.channel_weights}
        return {name: file for name, file in files.items() if file is not None}

"""The images that samples are compared with one by one: the original, or the low-resolution image, of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from difflab.config.metrics import MetricBase
from difflab.errors import UserError
from difflab.images import Downsampling
from difflab.types import Batch


@dataclass(frozen=True)
class Pairs:
    """What samples are compared with one by one.

    of: sample indices -> a batch with `original` uint8 [B, C, H, W], if there are originals and they are known before
        sampling, and `low_res` [B, C, h,
        w], uint8 or float in [-1, 1], if it is known before sampling.
    shape: (C, H, W) of a sample, None if it is not known yet.
    downsampling: how low-resolution images are made; None if unknown.
    unpaired: why there are no originals, and what to do about it; None if there are.
    enlarges_nothing: the same for low-resolution images.
    """

    of: Callable[[Sequence[int]], Batch] = lambda indices: {}
    shape: tuple[int, ...] | None = None
    downsampling: Downsampling | None = None
    unpaired: str | None = None
    enlarges_nothing: str | None = None

    def check(self) -> None:
        """Raises UserError if the first original does not match a sample."""
        if self.shape is not None and self.unpaired is None:
            original = self.of([0]).get("original")
            if original is not None:
                refuse_other_shape(self.shape, original.shape[1:])


_NOT_KNOWN = "it is not known what these enlarge"
NO_PAIRS = Pairs(unpaired=_NOT_KNOWN, enlarges_nothing=_NOT_KNOWN)
"""For samples of unknown origin."""


def have_pairs(metrics: Mapping[str, MetricBase | None]) -> bool:
    """Whether a metric compares each sample with a paired image."""
    return any(config.has_pairs for config in metrics.values() if config is not None)


def refuse_without_pairs(metrics: Mapping[str, MetricBase], pairs: Pairs) -> None:
    """Raises UserError if metrics need pairs that do not exist."""
    needed = {
        "pair": ("its original", pairs.unpaired),
        "low_res": ("the low-resolution image that it enlarges", pairs.enlarges_nothing),
    }
    for why in (pairs.unpaired, pairs.enlarges_nothing):
        lacking = {
            name: what
            for name, config in metrics.items()
            for need, (what, reason) in needed.items()
            if need in config.needs and reason == why
        }
        if lacking and why is not None:
            what = " or ".join(dict.fromkeys(lacking.values()))
            without = " ".join(f"metrics.{name}=null" for name in lacking)
            compare = "compares" if len(lacking) == 1 else "compare"
            unmeasured = ", ".join(f"metrics.{name}" for name in lacking)
            raise UserError(f"{unmeasured} {compare} each sample with {what}: {why}, or set {without}")


def refuse_other_shape(ours: Sequence[int], theirs: Sequence[int]) -> None:
    """Raises UserError if originals (C, H, W) do not match the samples."""
    if tuple(ours) != tuple(theirs):
        raise UserError(
            f"samples of {_shown(ours)} are compared with originals of {_shown(theirs)}: give the data that the model "
            "was trained on, or originals of the size and the channels of the samples"
        )


def _shown(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} and {channels} channel{'' if channels == 1 else 's'}"

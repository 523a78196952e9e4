"""The configuration of `difflab zero-shot`: a stored CLIP, real images, and prompts for their classes."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from difflab.config.clip import PromptedConfig

Corruption = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "motion_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "elastic",
    "pixelate",
    "jpeg",
]
Attack = Literal["fgsm", "pgd"]


def _fraction(value: Any) -> Any:
    """4/255 is how papers write it."""
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{value!r} is no number; write 4/255 or 0.0157") from None


class ZeroShotConfig(PromptedConfig):
    """`difflab zero-shot`.

    out: where the records go; null = <run>/evaluations/zero-shot-<split>-n<n>-<hash of the rest>. They are also added
        to the run's evaluations.jsonl.
    """

    corruption: Corruption | None = None
    """How every image is corrupted before it is classified (Hendrycks & Dietterich 2019); null = not."""
    severity: Annotated[int, Field(ge=1, le=5)] = 3
    """The severity of the corruption, 1 to 5."""
    attack: Attack | None = None
    """How every image is changed so that it is taken for another class: fgsm (one step along the sign of the gradient)
    or pgd (several from a random start, Madry et al. 2018); null = not."""
    epsilon: Annotated[float, BeforeValidator(_fraction), Field(gt=0, le=1)] = 4 / 255
    """The most by which an attack changes a pixel within [0, 1], such as 4/255."""
    steps: Annotated[int, Field(ge=1)] = 10
    """Steps of pgd, each of 2.5 epsilon / steps."""

    @property
    def without_effect(self) -> frozenset[str]:
        idle = {
            "severity": self.corruption is None,
            "epsilon": self.attack is None,
            "steps": self.attack != "pgd",
        }
        return frozenset(key for key, is_idle in idle.items() if is_idle)

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if self.corruption is not None and self.attack is not None:
            raise ValueError(f"corruption={self.corruption} and attack={self.attack}: give one of them")
        return self

"""The configuration of `difflab probe`: a linear classifier on the features of a stored CLIP."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from difflab.config.clip import PromptedConfig

Positive = Annotated[int, Field(ge=1)]


def _one_is_a_list(value: Any) -> Any:
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


class ProbeConfig(PromptedConfig):
    """`difflab probe`.

    out: where the records go; null = <run>/evaluations/probe-<split>-n<n>-<hash of the rest>. They are also added to
        the run's evaluations.jsonl.
    """

    train_split: str
    """The split of the data set on whose images the probe is trained, and a fifth of which chooses its penalty."""
    train_n: Positive | None = None
    """The number of images of it, spread evenly; null = all."""
    shots: Annotated[list[Positive] | None, BeforeValidator(_one_is_a_list)] = None
    """Numbers of examples of each class, with a probe for each, as in shots=1,2,4,8,16; null = one probe from all."""
    draws: Positive = 3
    """How often examples are drawn for each number of shots; the mean is the result."""

    @model_validator(mode="after")
    def _trained_elsewhere(self) -> Self:
        if self.train_split == self.split:
            raise ValueError(f"split={self.split} is what the probe is trained on: give another split, or train_split")
        if self.shots is not None and (not self.shots or len(set(self.shots)) < len(self.shots)):
            raise ValueError(f"shots={self.shots}: give different numbers, as in shots=1,2,4,8,16, or null")
        return self

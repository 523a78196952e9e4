"""Configuration of the conditioners that read captions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from difflab.conditioning.config import ConditionerBase
from difflab.config.axes import CONDITIONERS
from difflab.config.fitting import Makes
from difflab.text.config import TokenizerConfig

Positive = Annotated[int, Field(ge=1)]


@CONDITIONERS.register("difflab.conditioning.text.transformer:build")
class TextTransformerConditionerConfig(ConditionerBase):
    """A text transformer that is trained with the network (GLIDE): its tokens, and the last of them pooled."""

    reads_captions: ClassVar[bool] = True

    kind: Literal["text_transformer"]
    tokenizer: TokenizerConfig
    """How captions become token ids."""
    width: Positive
    """Channels of every token, equal to network.context_channels."""
    layers: Positive
    """Number of blocks."""
    heads: Positive
    """Attention heads of each block."""
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a training sample gets the empty caption instead (GLIDE's fine-tuning: 0.2)."""
    checkpoint_activations: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""

    @property
    def learns(self) -> bool:
        return self.tokenizer.learns

    def learned(self, captions: Iterable[str]) -> Self:
        return self.model_copy(update={"tokenizer": self.tokenizer.learned(captions)})

    def makes(self, channels: int) -> Makes:
        return Makes(("vector", "tokens"), {"tokens": self.width})

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}: choose another number")
        return self

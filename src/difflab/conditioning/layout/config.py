"""Configuration of the conditioner that reads boxes with phrases."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from difflab.conditioning.config import ConditionerBase
from difflab.conditioning.tokens.config import Positive, TokenTransformerBase
from difflab.config.axes import CONDITIONERS
from difflab.config.learning import TrainingTexts
from difflab.errors import user_errors


@CONDITIONERS.register("difflab.conditioning.layout.conditioner:build")
class LayoutConditionerConfig(TokenTransformerBase):
    """Boxes with phrases, as tokens of a transformer that is trained with the network (latent diffusion's layouts)."""

    given_by: ClassVar[str | None] = "request=FILE.jsonl"

    kind: Literal["layout"]
    categories: list[Annotated[str, Field(min_length=1)]] | None = None
    """The phrases that boxes may have, in the order of their tokens; null = those of the training and the validation
    split, found when a run starts."""
    max_objects: Positive = 30
    """Number of boxes that fit; of more, the largest are kept."""
    vocabulary: Annotated[int, Field(ge=5)] = 8192
    """Number of token ids: categories and the corners of boxes, which lie on a grid of floor(sqrt(vocabulary)) places a
    side, share them, and the last is that of no object."""
    crop: bool = False
    """Whether two more tokens say which part of the image is shown; it is all of it if a request has no `crop`."""
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a training sample gets no objects instead."""

    @property
    def context_length(self) -> int:
        """The number of tokens."""
        return 3 * self.max_objects + 2 * self.crop

    @property
    def learns(self) -> bool:
        return self.categories is None

    @property
    def untold(self) -> Mapping[str, Any]:
        if self.categories is None:
            return {}
        digest = hashlib.sha256("\n".join(self.categories).encode()).hexdigest()
        return {"categories": f"{len(self.categories)} (of sha256 {digest[:12]})"}

    def completed(self, texts: TrainingTexts, earlier: ConditionerBase | None = None) -> Self:
        if not self.learns:
            return self
        if isinstance(earlier, LayoutConditionerConfig) and earlier.categories is not None:
            return self._with_categories(earlier.categories)
        return self._with_categories(sorted(set(texts.phrases())))

    def _with_categories(self, categories: list[str]) -> Self:
        with user_errors():
            refuse_unfit_categories(categories, self.vocabulary)
        return self.model_copy(update={"categories": categories})

    @model_validator(mode="after")
    def _categories_have_tokens(self) -> Self:
        if self.categories is not None:
            refuse_unfit_categories(self.categories, self.vocabulary)
        return self


def refuse_unfit_categories(categories: Sequence[str], vocabulary: int) -> None:
    """Raises ValueError if there are no categories, if one is there twice, or if they are more than tokens."""
    if not categories:
        raise ValueError("categories is empty: list the phrases of boxes, or set null for those of the data")
    twice = next((name for name, count in Counter(categories).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"categories names {twice!r} twice: name each once")
    if len(categories) >= vocabulary:
        raise ValueError(
            f"vocabulary={vocabulary} has no token for each of {len(categories)} categories and for no object: set "
            f"vocabulary={len(categories) + 1} or more, or list fewer categories"
        )

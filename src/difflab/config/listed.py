"""Levels that are listed one by one, which any sampler may visit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from difflab.config.base import Config


def _in_words(noise: object) -> object:
    # JSON has no infinity.
    return "inf" if noise == math.inf else noise


Noise = Annotated[Annotated[float, Field(gt=0)] | Literal["inf"], BeforeValidator(_in_words)]
"""sigma / alpha; inf is a table's last row where no signal is left in it."""


class ListedConfig(Config):
    """noises: sigma / alpha of the levels of `listed`, from the noisiest down (see `difflab.diffusion.listed`); `steps`
    is then their number, and null stands for it.
    """

    listed_by: ClassVar[str] = "spacing"

    noises: list[Noise] | None = None

    @model_validator(mode="before")
    @classmethod
    def _steps_are_counted(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get(cls.listed_by) == "listed" and data.get("steps", 0) is None:
            noises = data.get("noises")
            return {**data, "steps": len(noises)} if isinstance(noises, list) and noises else data
        return data

    @model_validator(mode="after")
    def _check_noises(self) -> Self:
        key, noises = self.listed_by, self.noises
        if getattr(self, key) != "listed":
            if noises is not None:
                raise ValueError(f"noises are those of {key}=listed: set it, or leave noises out (null)")
            return self
        if not noises:
            raise ValueError(f"{key}=listed visits the levels in noises: give them, as in noises=[80,5,1,0.2]")
        for here, there in pairwise(noises):
            if not float(here) > float(there):
                what = "twice" if here == there else f"behind {here}"
                raise ValueError(f"noises has {there} {what}: list different ones, from the noisiest down")
        self.check_steps(len(noises))
        return self

    @property
    def lists_its_end(self) -> bool:
        """Whether the last of the noises is where the last step ends, and no step begins."""
        return False

    def visiting(self, noises: Sequence[float]) -> Self:
        """The same sampler on these levels, which are listed."""
        return type(self).model_validate({**self.plain(), **self._listing(noises)})

    def _listing(self, noises: Sequence[float]) -> dict[str, Any]:
        return {self.listed_by: "listed", "noises": list(noises), "steps": len(noises)}

    def check_steps(self, listed: int) -> None:
        """Raise ValueError where `steps` is not their number."""
        steps = getattr(self, "steps")  # noqa: B009 - that of the samplers, whose type differs
        if steps != listed:
            raise ValueError(f"steps={steps}, but noises lists {listed}: set steps={listed}, or steps=null")

"""The `sampler` group: what every sampler has, and the levels that any of them may visit one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from difflab.config.axes import SAMPLERS
from difflab.config.base import Config


def _in_words(sigma: object) -> object:
    # JSON has no infinity.
    return "inf" if sigma == math.inf else sigma


Sigma = Annotated[Annotated[float, Field(gt=0)] | Literal["inf"], BeforeValidator(_in_words)]
"""sigma / alpha; inf is a table's last row where no signal is left in it."""


class SamplerBase(Config):
    """What the configuration of every sampler has.

    draws: whether it makes samples of noise.
    """

    draws: ClassVar[bool] = True
    listed_by: ClassVar[str] = "spacing"

    kind: str
    steps: int | str | list[int] | None = None
    sigmas: list[Sigma] | None = None
    """sigma / alpha of the levels of spacing=listed, the noisiest first; `steps` is their number or null."""

    @model_validator(mode="before")
    @classmethod
    def _steps_are_counted(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get(cls.listed_by) == "listed" and data.get("steps", 0) is None:
            sigmas = data.get("sigmas")
            return {**data, "steps": len(sigmas)} if isinstance(sigmas, list) and sigmas else data
        return data

    @model_validator(mode="after")
    def _check_sigmas(self) -> Self:
        key, sigmas = self.listed_by, self.sigmas
        if not self.takes_a_list or getattr(self, key) != "listed":
            if sigmas is not None:
                raise ValueError(f"sigmas are those of {key}=listed: set it, or leave sigmas out (null)")
            return self
        if not sigmas:
            raise ValueError(f"{key}=listed visits the levels in sigmas: give them, as in sigmas=[80,5,1,0.2]")
        for here, there in pairwise(sigmas):
            if not float(here) > float(there):
                what = "twice" if here == there else f"behind {here}"
                raise ValueError(f"sigmas has {there} {what}: list different ones, from the noisiest down")
        self.check_steps(len(sigmas))
        return self

    @property
    def takes_a_list(self) -> bool:
        """Whether the levels that it visits can be listed."""
        return self.listed_by in type(self).model_fields

    @property
    def lists_its_end(self) -> bool:
        """Whether the last of the sigmas is where the last step ends, and no step begins."""
        return False

    def visiting(self, sigmas: Sequence[float]) -> Self:
        """The same sampler on these levels, which are listed."""
        return type(self).model_validate({**self.plain(), **self._listing(sigmas)})

    def _listing(self, sigmas: Sequence[float]) -> dict[str, Any]:
        return {self.listed_by: "listed", "sigmas": list(sigmas), "steps": len(sigmas)}

    def check_steps(self, listed: int) -> None:
        """Raise ValueError where `steps` is not their number."""
        if self.steps != listed:
            raise ValueError(f"steps={self.steps}, but sigmas lists {listed}: set steps={listed}, or steps=null")


SamplerConfig = Annotated[SamplerBase, SAMPLERS]
"""One sampler, told apart by `kind`."""


def refuse_inversion(sampler: SamplerBase, key: str = "sampler") -> None:
    """Raises ValueError for a sampler that draws nothing. key: where it was chosen."""
    if not sampler.draws:
        raise ValueError(f"{key}={sampler.kind} goes from images to noise and draws none; choose ddim or ancestral")

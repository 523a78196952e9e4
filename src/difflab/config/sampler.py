"""The `sampler` group: what every sampler has, and explicit lists of the noise levels to visit."""

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
"""sigma / alpha; inf is the last row of a table if it has no signal left."""


class SamplerBase(Config):
    """Base of the configurations of samplers.

    draws: whether it generates samples from noise.
    """

    draws: ClassVar[bool] = True
    listed_by: ClassVar[str] = "spacing"

    kind: str
    steps: int | str | list[int] | None = None
    sigmas: list[Sigma] | None = None
    """The levels of spacing=listed as sigma / alpha, the noisiest first; `steps` is their number or null."""

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
                raise ValueError(f"sigmas needs {key}=listed: set it, or leave sigmas out (null)")
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
        """Whether its levels can be given as a list."""
        return self.listed_by in type(self).model_fields

    @property
    def lists_its_end(self) -> bool:
        """Whether the last of the sigmas is the end of the last step rather than the start of one."""
        return False

    def visiting(self, sigmas: Sequence[float]) -> Self:
        """The same sampler on an explicit list of levels."""
        return type(self).model_validate({**self.plain(), **self._listing(sigmas)})

    def _listing(self, sigmas: Sequence[float]) -> dict[str, Any]:
        return {self.listed_by: "listed", "sigmas": list(sigmas), "steps": len(sigmas)}

    def check_steps(self, listed: int) -> None:
        """Raises ValueError if `steps` is not the number of listed levels."""
        if self.steps != listed:
            raise ValueError(f"steps={self.steps}, but sigmas lists {listed}: set steps={listed}, or steps=null")


SamplerConfig = Annotated[SamplerBase, SAMPLERS]
"""One sampler, selected by `kind`."""


def refuse_inversion(sampler: SamplerBase, key: str = "sampler") -> None:
    """Raises ValueError for a sampler that generates no samples. key: where it was chosen."""
    if not sampler.draws:
        raise ValueError(f"{key}={sampler.kind} maps images to noise and generates none; choose ddim or ancestral")

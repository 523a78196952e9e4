"""What the configuration files of other programs are read as."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]


class ConfigFile(BaseModel):
    """A section of such a file: the keys that matter, strictly typed; others are kept for each program's checks."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

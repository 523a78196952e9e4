"""The choices of an axis in one table: `kind` -> typed configuration and the name of what builds it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from difflab.config.base import Config


@dataclass(frozen=True)
class Kind:
    """One choice. builder: `module:function`, imported only where something is built: configurations stay light."""

    config: type[Config]
    builder: str

    def load_builder(self) -> Callable[..., Any]:
        """The function that `builder` names."""
        module, _, function = self.builder.partition(":")
        return getattr(importlib.import_module(module), function)


class Kinds(dict[str, Kind]):
    """Kinds by name. As the metadata of an `Annotated` field it is a union told apart by `kind`, of whatever the table
    holds when something is validated: a choice that is added later is known at once."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validated)

    def __hash__(self) -> int:
        # Of one table there is one: metadata of a type has to be hashable.
        return id(self)

    @property
    def models(self) -> list[type[Config]]:
        """The configurations of all kinds."""
        return [kind.config for kind in self.values()]

    def builder(self, config: Config) -> Callable[..., Any]:
        """What builds a configuration of one of the kinds."""
        return self[getattr(config, "kind")].load_builder()  # noqa: B009 (each kind has its own literal)

    def _validated(self, value: Any) -> Config:
        if isinstance(value, Config):
            return value
        known = ", ".join(map(repr, self))
        if not isinstance(value, Mapping) or "kind" not in value:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
        chosen = self.get(value["kind"]) if isinstance(value["kind"], str) else None
        if chosen is None:
            tag = str(value["kind"])
            raise PydanticKnownError(
                "union_tag_invalid", {"discriminator": "'kind'", "tag": tag, "expected_tags": known}
            )
        return chosen.config.model_validate(value)

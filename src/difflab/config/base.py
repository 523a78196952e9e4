"""The base of every configuration model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A strict and closed model: unknown keys, values of the wrong type and non-finite numbers are errors.

    Instances are immutable. A key that is a Python keyword (`from`) is the alias of its field.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @classmethod
    def chosen(cls, content: Mapping[str, Any]) -> type[Self]:
        """The class that validates plain contents, if one of their keys selects it."""
        return cls

    @classmethod
    def complete(cls) -> type[Self]:
        """The class with all fields, including those that plugins add."""
        return cls

    def plain(self) -> dict[str, Any]:
        """The whole configuration, including defaults, in plain containers; validating them gives an equal model."""
        # serialize_as_any: a field typed as a base class would lose the keys of its subclass.
        return self.model_dump(mode="json", serialize_as_any=True, by_alias=True)

    @property
    def options(self) -> dict[str, Any]:
        """The values by field name, without `kind`."""
        return {name: value for name, value in self if name != "kind"}


def complete(model: type[BaseModel]) -> type[BaseModel]:
    """The class with all of its fields."""
    return model.complete() if issubclass(model, Config) else model


def summary_of(model: type[BaseModel]) -> str:
    """The first line of a configuration's docstring."""
    return (model.__doc__ or "").strip().partition("\n")[0]


def fields_by_key(model: type[BaseModel]) -> dict[str, str]:
    """The field name of each YAML key."""
    model = complete(model)
    return {field.alias or name: name for name, field in model.model_fields.items()}

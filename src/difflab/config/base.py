"""The base of every configuration model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Strict and closed: unknown keys, values of the wrong type and numbers that are not finite are errors.

    A built model does not change. A key that is a word of Python's (`from`) is the alias of its field.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @classmethod
    def chosen(cls, content: Mapping[str, Any]) -> type[Self]:
        """The class to validate plain contents with, where a key of them chooses among several."""
        return cls

    @classmethod
    def complete(cls) -> type[Self]:
        """The class with all fields that there are, where plugins may add some."""
        return cls

    def plain(self) -> dict[str, Any]:
        """The whole configuration, defaults too, as what YAML and JSON hold; validating it gives an equal model."""
        # As any: a field typed by a base class would lose the keys of its subclass.
        return self.model_dump(mode="json", serialize_as_any=True, by_alias=True)

    @property
    def options(self) -> dict[str, Any]:
        """Its values by the names of their fields, without `kind`."""
        return {name: value for name, value in self if name != "kind"}


def complete(model: type[BaseModel]) -> type[BaseModel]:
    """The class with all of its fields."""
    return model.complete() if issubclass(model, Config) else model


def summary_of(model: type[BaseModel]) -> str:
    """The first line of what is said of a configuration as a whole."""
    return (model.__doc__ or "").strip().partition("\n")[0]


def fields_by_key(model: type[BaseModel]) -> dict[str, str]:
    """The name of the field behind each key that YAML has."""
    model = complete(model)
    return {field.alias or name: name for name, field in model.model_fields.items()}

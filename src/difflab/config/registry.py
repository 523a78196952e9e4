"""Axes: all choices of each in one table, with their typed configurations and the names of what builds them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from difflab.config.base import Config
from difflab.errors import UserError

C = TypeVar("C", bound=type[Config])


@dataclass(frozen=True)
class Kind:
    """One choice of an axis.

    name:    what `kind` says in a configuration.
    config:  its typed configuration; the first line of its docstring says in a table what it is.
    builder: `module:name`, imported only where something is built: configurations stay light.
    """

    name: str
    config: type[Config]
    builder: str

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        return (self.config.__doc__ or "").strip().partition("\n")[0]

    @property
    def package(self) -> str:
        """The top-level package that it comes from."""
        return self.config.__module__.partition(".")[0]

    def load_builder(self) -> Callable[..., Any]:
        """What `builder` names."""
        return load(self.builder)


class Registry(Mapping[str, Kind]):
    """The choices of one axis by name, difflab's own and those of installed packages.

    As the metadata of an `Annotated` field it is a union told apart by `kind`, of all choices that there are when
    something is validated. A choice is registered once, beside its configuration:

        @SAMPLERS.register("difflab.diffusion.samplers.euler:build")
        class EulerConfig(LevelsConfig):
            kind: Literal["euler"]

    group:   the configuration group whose files choose among them; its name in messages and tables.
    modules: torch-free modules that register difflab's own choices, imported when somebody looks for one.
    default: the kind that is meant where a configuration does not say, None where it has to.
    """

    def __init__(self, group: str, *modules: str, default: str | None = None) -> None:
        self.group, self.default = group, default
        self._modules = modules
        self._kinds: dict[str, Kind] = {}
        self._has_own = self._has_plugins = False

    def register(self, builder: str) -> Callable[[C], C]:
        """Class decorator: this configuration, whose `kind` is a literal, is a choice, built by `builder`.

        Raises UserError where two packages have a choice by the same name.
        """

        def add(config: C) -> C:
            (name,) = get_args(config.model_fields["kind"].annotation)
            kind = Kind(name, config, builder)
            there = self._kinds.get(name)
            if there is not None and (there.config.__module__, there.config.__qualname__) != (
                config.__module__,
                config.__qualname__,
            ):
                raise UserError(
                    f"{self.group}: there are two by the name of {name}, of {there.config.__module__} and of "
                    f"{config.__module__}; uninstall one of the two packages"
                )
            self._kinds[name] = kind
            return config

        return add

    def builder(self, config: Config) -> Callable[..., Any]:
        """What builds a configuration of one of the choices."""
        return self[getattr(config, "kind")].load_builder()  # noqa: B009 (each kind has its own literal)

    @property
    def models(self) -> list[type[Config]]:
        """The configurations of all choices."""
        return [kind.config for kind in self.values()]

    def __getitem__(self, name: str) -> Kind:
        return self._known()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __hash__(self) -> int:
        # Of one axis there is one: metadata of a type has to be hashable.
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validated,
            # As the class that it is: a field typed by a base would lose the keys of its subclass.
            serialization=core_schema.plain_serializer_function_ser_schema(Config.plain),
        )

    def _known(self) -> dict[str, Kind]:
        if not self._has_own:
            self._has_own = True
            for module in self._modules:
                importlib.import_module(module)
        if not self._has_plugins:
            from difflab.config import plugins

            plugins.load()
            self._has_plugins = not plugins.are_being_imported()
        return self._kinds

    def _validated(self, value: Any) -> Config:
        if isinstance(value, Config):
            return value
        if not isinstance(value, Mapping) or ("kind" not in value and self.default is None):
            raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
        name = value.get("kind", self.default)
        chosen = self.get(name) if isinstance(name, str) else None
        if chosen is None:
            known = ", ".join(map(repr, self))
            raise PydanticKnownError(
                "union_tag_invalid", {"discriminator": "'kind'", "tag": str(name), "expected_tags": known}
            )
        return chosen.config.model_validate({**value, "kind": name})


def load(name: str) -> Any:
    """What `module:name` names, where name may be an attribute of an attribute."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in path.split("."):
        found = getattr(found, attribute)
    return found

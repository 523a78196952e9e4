"""Registries of choices, one per axis, with their typed configurations and the names of their builders."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import yaml
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

from difflab.config.base import Config, summary_of
from difflab.errors import UserError

C = TypeVar("C", bound=type[Config])
E = TypeVar("E")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Kind:
    """One choice of an axis.

    name:    the value of `kind` in a configuration.
    config:  its typed configuration; the first line of its docstring describes it in tables.
    builder: `module:name`, imported only when something is built, so that configurations stay light.
    """

    name: str
    config: type[Config]
    builder: str

    @property
    def summary(self) -> str:
        """Its description in one line."""
        return summary_of(self.config)

    @property
    def module(self) -> str:
        """The module that registers it."""
        return self.config.__module__

    @property
    def package(self) -> str:
        """Its top-level package."""
        return self.module.partition(".")[0]

    def load_builder(self) -> Callable[..., Any]:
        """Imports what `builder` names."""
        return load(self.builder)


class Axis(Mapping[str, E]):
    """Choices by name: difflab's own, whose modules are imported at the first lookup, and those of plugins.

    modules: the torch-free modules that register difflab's own choices.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._entries: dict[str, E] = {}
        self._has_own = self._has_plugins = False

    def __getitem__(self, name: str) -> E:
        return self._known()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __hash__(self) -> int:
        # Axes are compared by identity: metadata of a type must be hashable.
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def _known(self) -> dict[str, E]:
        if not self._has_own:
            self._has_own = True
            for module in self._modules:
                importlib.import_module(module)
            # An earlier import of one of these modules must not change their order.
            ordered = dict(sorted(self._entries.items(), key=lambda entry: self._place(entry[1])))
            self._entries.clear()
            self._entries.update(ordered)
        if not self._has_plugins:
            from difflab.config import plugins

            plugins.load()
            self._has_plugins = not plugins.are_being_imported()
        return self._entries

    def _place(self, entry: E) -> int:
        module = getattr(entry, "module", None)
        return self._modules.index(module) if module in self._modules else len(self._modules)


class Registry(Axis[Kind]):
    """The choices of one axis by name, difflab's own and those of installed packages.

    As the metadata of an `Annotated` field it acts as a union discriminated by `kind`, of all choices registered at the
    time of validation. A choice is registered once, with its configuration:

        @SAMPLERS.register("difflab.diffusion.samplers.euler:build")
        class EulerConfig(LevelsConfig):
            kind: Literal["euler"]

    group:   the configuration group whose files select a choice; its name in messages and tables.
    base:    `module:name` of the base class of the configurations of all choices.
    default: the kind of a configuration that does not state one; None if it must.
    words:   whether `key: name` stands for `key: {kind: name}`; not for an axis whose files have more keys than `kind`.
    """

    def __init__(
        self,
        group: str,
        *modules: str,
        base: str = "difflab.config.base:Config",
        default: str | None = None,
        words: bool = False,
    ) -> None:
        super().__init__(*modules)
        self.group, self.base, self.default, self.words = group, base, default, words

    def register(self, builder: str) -> Callable[[C], C]:
        """Class decorator that registers a configuration, whose `kind` is a literal, as a choice built by `builder`.

        Raises UserError if two packages register the same name, and for a class that is not a configuration of this
        axis.
        """

        def add(config: C) -> C:
            base = load(self.base)
            if not issubclass(config, base):
                raise UserError(f"{self.group}: {config.__name__} must derive from {base.__module__}.{base.__name__}")
            field = config.model_fields.get("kind")
            names = get_args(field.annotation) if field is not None else ()
            if len(names) != 1 or not isinstance(names[0], str):
                raise UserError(f'{self.group}: {config.__name__} needs a field `kind: Literal["..."]` with its name')
            (name,) = names
            refuse_unfit_name(self.group, name)
            kind = Kind(name, config, builder)
            self._entries[name] = _only(self.group, self._entries.get(name), kind)
            return config

        return add

    def builder(self, config: Config) -> Callable[..., Any]:
        """The builder of a configuration of one of the choices."""
        return self[getattr(config, "kind")].load_builder()  # noqa: B009 (each kind has its own literal)

    @property
    def models(self) -> list[type[Config]]:
        """The configurations of all choices."""
        return [kind.config.complete() for kind in self.values()]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validated,
            # By its own class: a field typed as a base class would lose the keys of its subclass.
            serialization=core_schema.plain_serializer_function_ser_schema(Config.plain),
        )

    def _validated(self, value: Any) -> Config:
        if isinstance(value, Config):
            return value
        if isinstance(value, str) and self.words:
            value = {"kind": value}
        if not isinstance(value, Mapping) or ("kind" not in value and self.default is None):
            raise PydanticCustomError(
                "union_tag_not_found", "kind is missing", {"expected_tags": ", ".join(map(repr, self))}
            )
        name = value.get("kind", self.default)
        chosen = self.get(name) if isinstance(name, str) else None
        if chosen is None:
            known = ", ".join(map(repr, self))
            raise PydanticKnownError(
                "union_tag_invalid", {"discriminator": "'kind'", "tag": str(name), "expected_tags": known}
            )
        return chosen.config.model_validate({**value, "kind": name})


def refuse_unfit_name(axis: str, name: str) -> None:
    """Raises UserError for a name that cannot be used in `axis=name` or as a key of a configuration."""
    if not _WORD.fullmatch(name) or isinstance(yaml.safe_load(name), bool | None):
        raise UserError(
            f"{axis}: {name!r} is not a valid name for a choice: use letters, digits and _, as in my_choice"
        )


def two_by_one_name(axis: str, name: str, theirs: str, ours: str) -> UserError:
    """The error for a choice of module `ours` that has the same name as one of module `theirs`."""
    return UserError(
        f"{axis}: two choices are named {name}, one from {theirs} and one from {ours}; uninstall one of these packages"
    )


K = TypeVar("K", bound=Kind)


def _only(group: str, there: K | None, kind: K) -> K:
    """Returns `kind` if its name is free or registered by an earlier import of the same module."""
    theirs, ours = kind.config if there is None else there.config, kind.config
    if (theirs.__module__, theirs.__qualname__) != (ours.__module__, ours.__qualname__):
        raise two_by_one_name(group, kind.name, theirs.__module__, ours.__module__)
    return kind


@dataclass(frozen=True)
class Part(Kind):
    """One choice of an axis of which a configuration may have several at once, each under its name.

    default: whether it is enabled by default.
    switch:  whether it has no options, so that a configuration has true or false.
    """

    default: bool = False
    switch: bool = False


class Parts(Axis[Part]):
    """The choices of an axis of which a configuration may have several at once, in the order of registration:

        @CALLBACKS.register("ema", "difflab.callbacks.ema:EMA.from_config", default=True)
        class EMAConfig(CallbackBase): ...

    A `PartsConfig` has a key for each.

    group: the configuration group whose files select choices; its name in messages and tables.
    """

    def __init__(self, group: str, *modules: str) -> None:
        super().__init__(*modules)
        self.group = group

    def register(self, name: str, builder: str, *, default: bool = False, switch: bool = False) -> Callable[[C], C]:
        """Class decorator that registers a configuration as the choice `name`, built by `builder`.

        Raises UserError if two packages register the same name.
        """

        refuse_unfit_name(self.group, name)

        def add(config: C) -> C:
            self._entries[name] = _only(
                self.group, self._entries.get(name), Part(name, config, builder, default, switch)
            )
            return config

        return add


class Names(Axis[str]):
    """The choices of an axis without options: each is a word in a configuration that stands for an object in code.

    As the metadata of an `Annotated` string it accepts the words registered at the time of validation. Packages
    register theirs as with a `Registry`:

        PREDICTIONS.register("flow", "rectified_flow.maths:Flow")

    what: the name of the option in messages.
    """

    def __init__(self, what: str, *modules: str) -> None:
        super().__init__(*modules)
        self.what = what

    def register(self, name: str, builder: str) -> None:
        """Registers the choice `name`. Raises UserError if two packages register the same name."""
        refuse_unfit_name(self.what, name)
        there = self._entries.setdefault(name, builder)
        if there != builder:
            raise two_by_one_name(self.what, name, there.partition(":")[0], builder.partition(":")[0])

    def load(self, name: str) -> Any:
        """Imports what the choice `name` stands for. Raises ValueError if there is none of that name."""
        if name not in self:
            raise ValueError(f"{self.what}={name!r} is not one of {', '.join(self)}")
        return load(self[name])

    def builder(self, name: str) -> Callable[..., Any]:
        """The same, for choices that are callables."""
        return self.load(name)

    def package(self, name: str) -> str:
        """The top-level package of a choice."""
        return self[name].partition(":")[0].partition(".")[0]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validated, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    def _validated(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self:
            *first, last = map(repr, self)
            raise PydanticKnownError("literal_error", {"expected": f"{', '.join(first)} or {last}"})
        return value


def load(name: str) -> Any:
    """Imports what `module:name` names, where name may be an attribute of an attribute.

    Raises UserError if nothing has that name. Exceptions raised by the import of the module are not caught.
    """
    module, _, path = name.partition(":")
    if not path:
        raise UserError(f"{name!r} names nothing to build with: write it as package.module:name")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UserError(f"{name!r} names nothing to build with: there is no module {error.name}") from error
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise UserError(f"{name!r} names nothing to build with: {module} has no {path}")
        found = getattr(found, attribute)
    return found

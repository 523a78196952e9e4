"""Configurations with a key for every choice of an axis, so that several can be used at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, SerializerFunctionWrapHandler, model_serializer
from pydantic_core import CoreSchema, core_schema

from difflab.config.base import Config
from difflab.config.registry import Part, Parts

OWN = "difflab"
"""The package of difflab's own choices."""

_OF_THE_CLASS: Any = ClassVar


@dataclass(frozen=True)
class Slot:
    """One key.

    options: the configuration that the key may hold besides null; None for a switch, true or false.
    default: the default value.
    package: the top-level package of the choice.
    """

    options: type[Config] | None
    default: Any
    package: str

    @property
    def type(self) -> Any:
        """The type of its value."""
        return bool if self.options is None else self.options | None


class Slots(Config):
    """Base class: a subclass computes, on access, which keys exist besides its own fields.

    Validating or constructing one returns an instance of a class with all of them as fields, including plugins'.
    """

    completes: ClassVar[type[Slots] | None] = None
    """The class that this one completes with all fields, None if it is not complete itself."""
    _made: ClassVar[dict[tuple[type[Slots], tuple[tuple[str, Any], ...]], type[Slots]]] = {}

    @classmethod
    @abstractmethod
    def slots(cls) -> Mapping[str, Slot]:
        """All keys, in the order of serialization."""

    @classmethod
    def complete(cls) -> type[Self]:
        if cls.completes is not None:
            return cls
        slots = cls.slots()
        key = cls, tuple((name, slot.type) for name, slot in slots.items())
        if key not in Slots._made:
            annotations = {name: slot.type for name, slot in slots.items()}
            namespace = {
                "__module__": cls.__module__,
                "__qualname__": cls.__qualname__,
                "__doc__": cls.__doc__,
                "__annotations__": {"completes": _OF_THE_CLASS, **annotations},
                "completes": cls,
                **{name: slot.default for name, slot in slots.items()},
            }
            Slots._made[key] = type(cls)(cls.__name__, (cls,), namespace)
        return Slots._made[key]  # pyrefly: ignore[bad-return]

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return super().__new__(cls.complete())

    @property
    def chosen_slots(self) -> dict[str, Any]:
        """The values that are not null, by key."""
        return {name: value for name in self.slots() if (value := getattr(self, name, None)) is not None}

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A stored configuration can be read after a plugin that it does not use is uninstalled.
        unused = {
            name
            for name, slot in self.slots().items()
            if slot.package != OWN and not slot.default and not getattr(self, name, None)
        }
        return {key: value for key, value in handler(self).items() if key not in unused}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls.completes is not None:
            return handler(source)
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.complete().model_validate(value),
            serialization=core_schema.plain_serializer_function_ser_schema(Config.plain),
        )


class PartsConfig(Slots):
    """A configuration with a key for every choice of an axis of `Parts`."""

    axis: ClassVar[Parts]

    @classmethod
    def slots(cls) -> Mapping[str, Slot]:
        return {
            name: Slot(None, part.default, part.package)
            if part.switch
            else Slot(part.config, part.config() if part.default else None, part.package)
            for name, part in cls.axis.items()
        }

    @property
    def active(self) -> Iterator[tuple[Part, Any]]:
        """Yields each enabled part with its options, in the order of registration."""
        for name, part in self.axis.items():
            if options := getattr(self, name, None):
                yield part, part.config() if part.switch else options

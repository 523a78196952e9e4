"""Configurations with a key for every choice of an axis: several at once, where `kind` chooses one."""

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

    options: the configuration that may stand there besides null; None for a switch, true or false.
    default: what stands there where nothing is said.
    package: the top-level package that the choice comes from.
    """

    options: type[Config] | None
    default: Any
    package: str

    @property
    def type(self) -> Any:
        """What may stand there."""
        return bool if self.options is None else self.options | None


class Slots(Config):
    """The base: a subclass says which keys there are besides its own fields, at the moment that somebody looks.

    Validating or making one gives an instance of a class that has them all as fields, those of plugins too.
    """

    completes: ClassVar[type[Slots] | None] = None
    """The class that this one has all fields of, None where it is not complete itself."""
    _made: ClassVar[dict[tuple[type[Slots], tuple[tuple[str, Any], ...]], type[Slots]]] = {}

    @classmethod
    @abstractmethod
    def slots(cls) -> Mapping[str, Slot]:
        """All keys, in the order in which they are written."""

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
        """What is not null, by its key."""
        return {name: value for name in self.slots() if (value := getattr(self, name, None)) is not None}

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What is stored can be read where a plugin that it does not use is no longer there.
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
    """A configuration with a key for every choice of an axis of which there may be several at once."""

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
        """Each that is there, with its options, in the order they are registered."""
        for name, part in self.axis.items():
            if options := getattr(self, name, None):
                yield part, part.config() if part.switch else options

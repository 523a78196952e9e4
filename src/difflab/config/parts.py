"""Frozen parts of a model: where their weights are stored, and how they are identified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.patterns import matching
from difflab.errors import UserError


class FrozenConfig(Config):
    """A file that is never trained or copied: weights, or a tokenizer.

    path: the file. Text encoders also take its folder, as in package and hub. In the config.json of an exported folder,
        a relative path is one in that folder.
    package: instead, a file inside an installed Python package, as `package_name/folder/model.safetensors`.
    hub: instead, a file of a model of the Hugging Face hub, as `owner/model/model.safetensors`, from its local cache or
        downloaded.
    sha256: of the file. A trained model records it, to find the file if it has moved (DIFFLAB_WEIGHTS).
    """

    path: str | None = None
    package: Annotated[str, matching(r"\w+/.+", "package_name/folder")] | None = None
    hub: Annotated[str, matching(r"[\w.-]+/[\w.-]+(/.+)?", "owner/model")] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @property
    def _given(self) -> dict[str, str]:
        places = {"path": self.path, "package": self.package, "hub": self.hub}
        return {key: place for key, place in places.items() if place is not None}

    @property
    def place(self) -> str:
        """Where it is, as in a command."""
        return " ".join(f"{key}={place}" for key, place in self._given.items())

    @property
    def file_name(self) -> str | None:
        """The name of the file, None if no place is recorded."""
        return next((place.rpartition("/")[2] for place in self._given.values()), None)

    def within(self, name: str) -> FrozenConfig:
        """Returns the file `name` in the folder that this is."""
        return self.model_copy(update={key: f"{place.rstrip('/')}/{name}" for key, place in self._given.items()})

    def sibling(self, name: str) -> FrozenConfig:
        """Returns the file `name` in the same folder."""
        return FrozenConfig(**{key: f"{place.rpartition('/')[0]}/{name}" for key, place in self._given.items()})

    @model_validator(mode="after")
    def _one_place(self) -> FrozenConfig:
        if len(given := list(self._given)) > 1:
            first, second = given[:2]
            raise ValueError(f"{first} and {second} are both given: give one of them, and set the other to null")
        if not given and self.sha256 is None:
            raise ValueError("neither path, package nor hub is given: set one, as in path=...")
        return self


def with_frozen(config: Any, change: Callable[[FrozenConfig], FrozenConfig], key: str = "") -> Any:
    """Applies `change` to every frozen part of a configuration, at any depth; returns it unchanged if it has none.

    key: of `config` itself. A UserError of `change` is raised with the key of the part in front.
    """

    def inside(value: Any, name: object) -> Any:
        return with_frozen(value, change, f"{key}.{name}" if key else str(name))

    if isinstance(config, FrozenConfig):
        try:
            return change(config)
        except UserError as error:
            raise UserError(f"{key}: {error}" if key else str(error)) from error
    if isinstance(config, Config):
        changed = {name: inside(getattr(config, name), name) for name in type(config).model_fields}
        changed = {name: value for name, value in changed.items() if value is not getattr(config, name)}
        return config.model_copy(update=changed) if changed else config
    if isinstance(config, dict):
        entries = {name: inside(value, name) for name, value in config.items()}
        return entries if any(entries[name] is not value for name, value in config.items()) else config
    if isinstance(config, list | tuple):
        items = [inside(value, number) for number, value in enumerate(config)]
        return type(config)(items) if any(a is not b for a, b in zip(items, config, strict=True)) else config
    return config


def without_places(config: Any) -> Any:
    """The configuration with frozen parts identified by their hashes alone, regardless of their paths."""
    return with_frozen(config, lambda part: part if part.sha256 is None else FrozenConfig(sha256=part.sha256))

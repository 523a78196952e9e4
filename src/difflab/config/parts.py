"""Frozen parts of a model: where their weights are stored, and how they are identified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.errors import UserError


class FrozenConfig(Config):
    """A file of weights that is never trained or copied.

    path: the file; or package: a file inside an installed Python package, as `package_name/folder/model.safetensors`.
    sha256: of the file. A trained model records it, to find the file if it has moved (DIFFLAB_WEIGHTS).
    """

    path: str | None = None
    package: Annotated[str, Field(pattern=r"^\w+/.+$")] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> FrozenConfig:
        if self.path is not None and self.package is not None:
            raise ValueError("path and package are both given: give one of them")
        if self.path is None and self.package is None and self.sha256 is None:
            raise ValueError("neither path nor package is given: set one, as in path=...")
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

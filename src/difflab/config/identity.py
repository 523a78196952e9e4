"""The identity of a training run: its automatic name, and the keys that may not change when it is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from difflab.config.base import Config, fields_by_key
from difflab.config.parts import without_places
from difflab.config.train import TrainConfig

FREE = frozenset(
    {
        # Where the run is and how it starts.
        "name",
        "output_root",
        "resume",
        # The record of plugins, with their current versions.
        "plugins",
        # What is measured, written and shown during training.
        "callbacks",
        "logger",
        "metrics",
        "classifier",
        "clip",
        # Length, devices and precision of training.
        "trainer",
        # Where the data is, how it was made and is read, as opposed to what it is.
        "data.path",
        "data.made_with",
        "data.workers",
        "data.prefetch",
        "data.max_bad_fraction",
    }
)
"""The keys that may change when a run is resumed, besides those that its task names. All others, including future ones,
must stay the same."""


NAMES = "data.class_names"
"""The names of the classes, which a run copies from the data set when it starts; they do not make it another run."""


def identity(config: TrainConfig) -> dict[str, Any]:
    """The configuration that must stay the same when a run is resumed, with defaults filled in."""
    return _without(FREE | config.free, without_places(config).plain())


def name_identity(config: TrainConfig) -> dict[str, Any]:
    """The configuration that an automatic name is derived from: `identity` without values equal to today's defaults.

    Options added to difflab later therefore leave all names unchanged. The kinds are always kept, since they determine
    which defaults are left out.
    """
    return _without(FREE | config.free | {NAMES}, _without_defaults(without_places(config)))


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (dotted key, old value, new value) of every leaf that differs between two nested mappings.

    If the kinds differ, yields only the kind, as the other keys are not comparable.
    """
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield key, old, new
        return
    prefix = f"{key}." if key else ""
    if "kind" in old and "kind" in new and old["kind"] != new["kind"]:
        yield f"{prefix}kind", old["kind"], new["kind"]
        return
    for name in dict.fromkeys([*old, *new]):
        yield from differences(old.get(name), new.get(name), f"{prefix}{name}")


def _without(free: frozenset[str], content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    kept = {key: value for key, value in content.items() if f"{prefix}{key}" not in free}
    return {key: _without(free, v, f"{prefix}{key}.") if isinstance(v, dict) else v for key, v in kept.items()}


def _without_defaults(value: Any) -> Any:
    if isinstance(value, Config):
        present = {name: getattr(value, name) for name in type(value).model_fields}
        return {
            key: _without_defaults(present[name])
            for key, name in fields_by_key(type(value)).items()
            if name == "kind" or present[name] != _default(value, name, present)
        }
    if isinstance(value, dict):
        return {str(key): _without_defaults(inner) for key, inner in value.items()}
    return [_without_defaults(inner) for inner in value] if isinstance(value, list | tuple) else value


def _default(config: Config, name: str, present: dict[str, Any]) -> Any:
    # Some defaults depend on other keys.
    field = type(config).model_fields[name]
    return field.get_default(call_default_factory=True, validated_data=present)

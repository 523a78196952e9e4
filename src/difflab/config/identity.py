"""What makes a training run that run and no other: its automatic name, and what two sittings of it must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from difflab.config.base import Config, fields_by_key
from difflab.config.parts import without_places
from difflab.config.train import TrainConfig

FREE = frozenset(
    {
        # Where the run lies and how it is begun.
        "name",
        "output_root",
        "resume",
        # What is recorded of them, with the versions of that day.
        "plugins",
        # What is measured, written and shown while it trains.
        "callbacks",
        "logger",
        "metrics",
        "classifier",
        # How far it goes, on what, and how exactly.
        "trainer",
        # Where the data lies and how it is read; what it is stays.
        "data.path",
        "data.workers",
        "data.prefetch",
        "data.max_bad_fraction",
    }
)
"""The keys that may change between two sittings of one run, besides those that its task names. All others, those to
come too, must stay."""


NAMES = "data.class_names"
"""What the data set calls its classes, which a run takes over when it starts: no other run for having been told."""


def identity(config: TrainConfig) -> dict[str, Any]:
    """All that two sittings of a run must agree on, with the defaults filled in."""
    return _without(FREE | config.free, without_places(config).plain())


def name_identity(config: TrainConfig) -> dict[str, Any]:
    """What an automatic name is made of: `identity` without the values that are today's defaults.

    An option that difflab gets later therefore leaves all names as they are. The kinds always stay, since they say
    whose defaults are left out.
    """
    return _without(FREE | config.free | {NAMES}, _without_defaults(without_places(config)))


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of every leaf that differs between two nested mappings.

    Of two kinds the kind alone: their other keys are not the same keys.
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
    # Some defaults follow from other keys.
    field = type(config).model_fields[name]
    return field.get_default(call_default_factory=True, validated_data=present)

"""Composing and validating a configuration before anything runs, so that a mistake is one line and not a trace."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from difflab.conf_dir import conf_dir
from difflab.config.base import Config
from difflab.config.validate import validate
from difflab.errors import UserError

Model = TypeVar("Model", bound=Config)


def compose(primary: str, overrides: Sequence[str]) -> dict[str, Any]:
    """conf/<primary>.yaml with overrides, resolved to plain containers.

    The experiment that was chosen stands under `experiment` (primary configurations with that group only).
    Raises UserError with one line for anything Hydra refuses.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name=primary):
            composed = hydra_compose(primary, overrides=list(overrides), return_hydra_config=True)
        return to_plain(composed, composed.hydra.runtime.choices)
    except HydraException as error:
        raise UserError(_one_line(error, overrides)) from None
    except OmegaConfBaseException as error:
        raise UserError(_first_line(error)) from None


def to_plain(composed: Any, choices: Any) -> dict[str, Any]:
    """A composed configuration as plain, resolved containers, without Hydra's own section."""
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import MissingMandatoryValue

    with open_dict(composed):
        composed.pop("hydra", None)
    try:
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise UserError(f"{key} has no value: give one, as in {key}=...") from None
    assert isinstance(plain, dict)
    data = {str(key): value for key, value in plain.items()}
    if "experiment" in choices:
        data["experiment"] = choices["experiment"] or "custom"
    return data


def compose_and_validate(primary: str, model: type[Model], overrides: Sequence[str]) -> tuple[Model, dict[str, Any]]:
    """The validated model and the plain containers it was made from."""
    data = compose(primary, overrides)
    return validate(model, data), data


def choices_of(group: str) -> list[str]:
    """The names that `<group>=` takes, sorted."""
    root = conf_dir() / group
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))


def _one_line(error: Exception, overrides: Sequence[str]) -> str:
    message = _first_line(error)
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+")
        if (Path(conf_dir()) / group).is_dir() and value and value not in ("null", *choices_of(group)):
            return f"{override}: no such choice{_near(value, choices_of(group))}"
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if f"'{key}'" in message or f"{key}" in message.split():
            if "=" not in override and not override.startswith("~"):
                break
            return f"{override}: unknown key {key!r}{_near_key(key, message)}"
    if "=" not in "".join(overrides[-1:]) and overrides:
        bad = next((o for o in overrides if "=" not in o and not o.startswith("~")), None)
        if bad is not None:
            return f"{bad!r} is not an override; write key=value, as in seed=1"
    return message


def _near(value: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{hint} (known: {', '.join(known)})"


def _near_key(key: str, message: str) -> str:
    return " (see the known keys with --cfg job)" if key else f": {message}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

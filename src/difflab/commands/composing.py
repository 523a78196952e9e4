"""Composes and validates a configuration before anything runs, so that a mistake is one line, not a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from difflab.commands.choices import chosen, no_mapping, unreadable
from difflab.commands.interpolation import refuse_resolvers
from difflab.commands.own_data import fill_in, fill_in_reference
from difflab.commands.search_path import extend_search_path
from difflab.commands.wrong_overrides import what_is_wrong
from difflab.config.axes import AXES
from difflab.config.base import Config
from difflab.config.groups import choices_of, conf_dirs, is_group
from difflab.config.validate import validate
from difflab.console import printable
from difflab.errors import UserError, first_line

Model = TypeVar("Model", bound=Config)

TRAINING = "train"
"""The primary configuration in which the data determines open values."""

JUDGING = "evaluate_samples"
"""The primary configuration in which the reference data determines what its own section leaves open."""

TAKING_WORDS = frozenset(axis.group for axis in AXES if axis.words)
"""The groups whose choices may be written as values."""


class Composed(dict[str, Any]):
    """A configuration in plain containers. said: messages about values that were read from elsewhere."""

    said: tuple[str, ...] = ()


def compose(primary: str, overrides: Sequence[str], *, checking: bool = False) -> Composed:
    """conf/<primary>.yaml with overrides, resolved to plain containers.

    `experiment` holds the chosen experiment (only for primary configurations with that group). Values that training
    derives from its data are filled in. checking: the data need not exist.
    Raises UserError with one line for anything Hydra refuses.
    """
    with _in_one_line(primary, overrides):
        composed = _composed(primary, overrides)
        return resolved(primary, composed, composed.hydra.runtime.choices, overrides, checking=checking)


def refuse_what_is_not_shown(primary: str, overrides: Sequence[str]) -> None:
    """Raises UserError if a configuration cannot be composed, or would expose values from elsewhere."""
    with _in_one_line(primary, overrides):
        composed = _composed(primary, overrides)
    _pop_hydra(composed)
    refuse_resolvers(composed)


def to_be_shown(primary: str, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str | None], str]:
    """Returns (plain containers, the choice of each group, further help) of a configuration, for `--help`.

    References to other keys are not resolved; values that depend on the data are filled in if it exists.
    Raises UserError as `compose`.
    """
    from omegaconf import OmegaConf

    with _in_one_line(primary, overrides):
        composed = _composed(primary, overrides)
        choices, about = dict(composed.hydra.runtime.choices), composed.hydra.help.footer
        _filled_in(primary, composed, choices, overrides, checking=None)
    plain: Any = OmegaConf.to_container(composed, resolve=False)
    return plain, {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}, about


def _composed(primary: str, overrides: Sequence[str]) -> Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    refuse_before_composing(primary, overrides)
    extend_search_path()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dirs()[0]), version_base="1.3", job_name=primary):
        return hydra_compose(primary, overrides=list(overrides), return_hydra_config=True)


@contextlib.contextmanager
def _in_one_line(primary: str, overrides: Sequence[str]) -> Iterator[None]:
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        raise UserError(unreadable(error)) from None
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise UserError(f"{where}{first_line(error)}") from None
    except (HydraException, ValueError) as error:
        raise UserError(what_is_wrong(error, overrides, partial(compose, primary))) from None
    except TypeError:
        # Of OmegaConf, for a file that holds a list; otherwise a bug.
        if (wrong := no_mapping(overrides)) is None:
            raise
        raise UserError(wrong) from None


def resolved(
    primary: str, composed: Any, choices: Any, overrides: Sequence[str], *, checking: bool = False
) -> Composed:
    """Hydra's composition, with values from the data filled in, as plain containers; see `compose`."""
    choices = dict(choices)
    said = _filled_in(primary, composed, choices, overrides, checking=checking)
    plain = Composed(to_plain(composed, choices))
    plain.said = tuple(said)
    return plain


def shown(primary: str, overrides: Sequence[str], *, resolve: bool) -> str:
    """A configuration as YAML, with values from the data if it exists. Raises UserError as `compose` does."""
    from omegaconf import OmegaConf

    with _in_one_line(primary, overrides):
        composed = _composed(primary, overrides)
        _filled_in(primary, composed, dict(composed.hydra.runtime.choices), overrides, checking=None)
        return OmegaConf.to_yaml(composed, resolve=resolve)


def _filled_in(
    primary: str, composed: Any, choices: dict[str, Any], overrides: Sequence[str], *, checking: bool | None
) -> list[str]:
    _pop_hydra(composed)
    refuse_resolvers(composed)
    filling = {TRAINING: fill_in, JUDGING: fill_in_reference}.get(primary)
    return filling(composed, choices, overrides, checking=checking) if filling is not None else []


def to_plain(composed: Any, choices: Any) -> dict[str, Any]:
    """A composed configuration as plain, resolved containers, without Hydra's own section."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue

    _pop_hydra(composed)
    refuse_resolvers(composed)
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


def _pop_hydra(composed: Any) -> None:
    from omegaconf import open_dict

    with open_dict(composed):
        composed.pop("hydra", None)


def compose_and_validate(
    primary: str, model: type[Model], overrides: Sequence[str], *, checking: bool = False
) -> tuple[Model, Composed]:
    """The validated model and the plain containers it was made from. checking: the data need not exist."""
    data = compose(primary, overrides, checking=checking)
    try:
        return validate(model, data), data
    except UserError:
        _refuse_choices_written_as_values(primary, overrides)
        raise


def _refuse_choices_written_as_values(primary: str, overrides: Sequence[str]) -> None:
    """Raises UserError for `pipeline.stages.base.sampler=heun`, which sets a section to a word."""
    for place, override in enumerate(overrides):
        key, _, value = override.partition("=")
        path = key.lstrip("+").split(".")
        own, shared = "/".join(path), path[-1]
        if own in TAKING_WORDS:
            continue
        if len(path) == 1 or not any(is_group(group) and value in choices_of(group) for group in (own, shared)):
            continue
        node: Any = compose(primary, [*overrides[:place], *overrides[place + 1 :]])
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict):
            group = own if is_group(own) else f"{shared}@{'.'.join(path)}"
            raise UserError(f"{override}: this is a choice of a group: write {group}={value}")


def refuse_before_composing(primary: str, overrides: Sequence[str]) -> None:
    """Raises UserError for choices on which Hydra's own message would be wrong, or a traceback."""
    _refuse_no_text(overrides)
    refuse_null_groups(overrides)
    _refuse_lists_of_no_choices(overrides)
    _refuse_another_task(primary, overrides)


def _refuse_no_text(overrides: Sequence[str]) -> None:
    """Raises UserError for bytes that are not UTF-8, which no record of the run could hold."""
    for override in overrides:
        try:
            override.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"{printable(override)} is not UTF-8 text: write it in a terminal with UTF-8") from None


def _refuse_another_task(primary: str, overrides: Sequence[str]) -> None:
    """Raises UserError for an experiment of another task."""
    task, experiment = (chosen(group, overrides) for group in ("task", "experiment"))
    if task is None or experiment is None or task not in choices_of("task"):
        return
    own = compose(primary, [f"experiment={experiment}"])["task"]
    if task != own:
        raise UserError(
            f"task={task}, but experiment={experiment} has task={own}: leave task out, or choose an experiment of "
            f"task={task}"
        )


def refuse_null_groups(overrides: Sequence[str]) -> None:
    """Raises UserError for `<group>=null`, on which Hydra fails with a traceback."""
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+")
        if value == "null" and is_group(group):
            raise UserError(f"{override}: choose one of {', '.join(choices_of(group))}, or leave {group} out")


def _refuse_lists_of_no_choices(overrides: Sequence[str]) -> None:
    """Raises UserError for `<group>=[1]`, on which Hydra fails with a traceback: list entries must be choices, too."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for override in overrides:
        group, _, value = override.partition("=")
        if not value.startswith("[") or not is_group(group.lstrip("+").partition("@")[0]):
            continue
        known = choices_of(group.lstrip("+").partition("@")[0])
        try:
            listed = OverridesParser.create().parse_override(override).value()
        except HydraException:
            # Composing everything raises the error for it.
            continue
        wrong = [one for one in listed if one not in known] if isinstance(listed, list) else []
        if wrong or not listed:
            raise UserError(f"{override}: choose one of {', '.join(known)}, without brackets")

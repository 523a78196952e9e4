"""`train`, `sample`, `evaluate` and `likelihood` as Hydra applications whose mistakes are one line and exit status 2.

An ordinary call is composed, validated and run here. Hydra's own entry point handles `--info`, `--hydra-help`, and
multirun through a launcher that starts processes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from difflab.commands.composing import (
    Composed,
    compose_and_validate,
    refuse_before_composing,
    refuse_what_is_not_shown,
    resolved,
    shown,
)
from difflab.commands.search_path import extend_search_path
from difflab.config.base import Config
from difflab.config.groups import conf_dirs
from difflab.config.validate import validate
from difflab.errors import UserError

Model = TypeVar("Model", bound=Config)
Execute = Callable[[Model, Composed, list[str]], None]

SHOWING = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}
COMPLETION = {"--shell-completion", "-sc"}
OF_THE_JOB = {"--cfg", "-c", "--resolve"}
HELP = {"--help", "-h"}
MULTIRUN = {"--multirun", "-m"}
IN_PROCESS_LAUNCHERS = {"basic"}


def run_app(primary: str, model: type[Model], argv: Sequence[str], execute: Execute[Model]) -> None:
    """Composes conf/<primary>.yaml with the overrides in `argv`, validates it as `model` and executes it.

    `execute` receives the validated model, the resolved plain containers it was made from, and the overrides.
    """
    flags = {argument.split("=")[0] for argument in argv if argument.startswith("-")}
    if flags & SHOWING:
        overrides = [argument for argument in argv if "=" in argument and argument[0] != "-"]
        if flags & HELP:
            from difflab.commands.help_text import help_text

            topics = [argument for argument in argv if "=" not in argument and argument[0] != "-"]
            sys.stdout.write(help_text(primary, model, overrides, topics))
            return
        if not flags & COMPLETION:
            refuse_what_is_not_shown(primary, overrides)
        if flags <= OF_THE_JOB and {"job", "--cfg=job", "-c=job"} & {*argv}:
            # Hydra's output, with the values that training derives from its data.
            sys.stdout.write(shown(primary, overrides, resolve="--resolve" in flags))
            return
        _hydra_main(primary, argv, lambda _: None)
    elif flags & MULTIRUN:
        _refuse_in_process(argv)
        _hydra_main(primary, argv, lambda composed: _execute_composed(primary, composed, model, execute))
    elif flags:
        raise UserError(f"unknown flag {sorted(flags)[0]}; overrides are written key=value, flags are in --hydra-help")
    else:
        config, plain = compose_and_validate(primary, model, argv)
        execute(config, plain, list(argv))


def _refuse_in_process(argv: Sequence[str]) -> None:
    launcher = next((a.split("=", 1)[1] for a in argv if a.startswith("hydra/launcher=")), "basic")
    if launcher in IN_PROCESS_LAUNCHERS:
        raise UserError(
            "-m would run every job in this process, where they would share a W&B run and a process group; "
            "use a launcher that starts processes (hydra/launcher=submitit_slurm or submitit_local)"
        )


def _hydra_main(primary: str, argv: Sequence[str], task: Callable[[Any], None]) -> None:
    """Hydra reads sys.argv; the task sees the original, because a distributed launch runs it again."""
    import hydra

    refuse_before_composing(primary, argv)
    extend_search_path()
    original = sys.argv
    failures: list[BaseException] = []

    def guarded(composed: Any) -> None:
        sys.argv = original
        try:
            task(composed)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - kept for the caller, who raises it again
            failures.append(error)

    sys.argv = [original[0], *argv]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dirs()[0]), config_name=primary)(guarded)()
    finally:
        sys.argv = original
    if failures:
        raise failures[0]


def _execute_composed(primary: str, composed: Any, model: type[Model], execute: Execute[Model]) -> None:
    from hydra.core.hydra_config import HydraConfig

    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    plain = resolved(primary, composed, hydra_config.runtime.choices, overrides)
    execute(validate(model, plain), plain, overrides)

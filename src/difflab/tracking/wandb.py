"""Weights & Biases runs that stay in the run directory and never change how a command ends."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab.console import say_and_log
from difflab.devices import is_first_process
from difflab.environment import environment
from difflab.errors import UserError, in_one_line
from difflab.files import write_text
from difflab.tracking.bounded import BoundedCaller
from difflab.tracking.config import WandbConfig
from difflab.tracking.context import LoggerContext
from difflab.tracking.job import Job, link_segment
from difflab.tracking.resilient import ResilientLogger
from difflab.tracking.wandb_environment import ChosenMode, chosen_mode, in_agent, server
from difflab.tracking.wandb_logger import WandbLogger
from difflab.tracking.wandb_service import finish, own_exit, service_process, tear_down

if TYPE_CHECKING:
    from wandb import Run

    from difflab.tracking.rundir import RunDirectory

RUN_ID_FILE = "run_id"
MADE_OF_FILE = "made_of"
PROJECT = "difflab"
LONGEST_REASON = 300
FLUSH_SECONDS = 1.0
"""Maximum age of the last line in the run's file when W&B's process is killed; W&B's own default is 15."""
OFFLINE_SECONDS = 60.0
"""Time limit for finishing an offline run, which has nothing to upload."""
SECONDS_AFTER_ERROR = 20.0
"""Time limit for finishing a run after an error or a signal: a scheduler kills what does not exit soon."""


def opened(config: WandbConfig, context: LoggerContext) -> contextlib.AbstractContextManager[ResilientLogger | None]:
    """Opens the W&B run of a logger context."""
    return wandb_run(config, context.run, context.resolved, context.job)


@contextlib.contextmanager
def wandb_run(
    config: WandbConfig | None, directory: RunDirectory, resolved: dict[str, Any], job: Job | None = None
) -> Iterator[ResilientLogger | None]:
    """Opens a W&B run in the first process; yields None elsewhere, and if the mode (`chosen_mode`) is disabled.

    resolved: the whole configuration as plain containers; it is part of the first record.
    job: the name of the run and what it belongs to; None: it is named after the directory and belongs to nothing.
    Everything W&B writes lies in `<run directory>/wandb`. Its id is kept in `wandb/run_id`, so a resumed training
    continues the same run (offline as a further segment); inside `wandb agent` the agent determines the id.

    W&B may fail at any time: that is reported once, and the block continues. The run is always finished, in bounded
    time: status 0 after the block, the status of a SystemExit, 130 after Ctrl-C, 2 after a UserError, 1 after any other
    exception; exceptions of the block are raised, whatever becomes of W&B.

    Raises UserError if this process has a W&B run already (the second would silently be merged into it) and if the
    server cannot be used, OSError if the directory cannot be written.
    """
    chosen = chosen_mode(config)
    if config is None or chosen.mode == "disabled" or not is_first_process():
        yield None
        return
    import wandb

    if wandb.run is not None:
        raise UserError(f"W&B run {wandb.run.id} is still open in this process; finish it before starting another")
    job = job or Job(directory.name)
    run_id = kept_id(directory.wandb, job.identity)
    _refuse_read_only(directory.wandb)
    with environment({**_empty(), **_folders(directory.wandb, chosen)}), own_exit():
        run = _opened(_arguments(config, chosen, job, run_id, resolved))
        process, call = service_process(), BoundedCaller("W&B")
        logger = ResilientLogger(WandbLogger(run, config.artifact), "W&B", "the run continues without it", call)
        segment = Path(run.dir).parent
        status = 1
        try:
            link_segment(segment, job.output_root)
            yield logger
            status = 0
        except BaseException as error:
            status = exit_status(error)
            raise
        finally:
            seconds = config.finish_timeout if chosen.needs_server else min(OFFLINE_SECONDS, config.finish_timeout)
            patience = seconds + 5 if status == 0 else min(SECONDS_AFTER_ERROR, seconds)
            try:
                problem = None if logger.failed else finish(run, call, status, patience)
                if problem is not None:
                    say_and_log(f"W&B did not end well ({problem}); what it has is in {segment}, for `wandb sync`")
            except KeyboardInterrupt:
                # Whatever waits for W&B no longer wants to; an outcome that was there before stays.
                call.stuck = True
                if status == 0:
                    raise
            finally:
                call.close()
                tear_down(process, status, kill=logger.failed or call.stuck)


def exit_status(error: BaseException) -> int:
    """The exit status of a process that ends with `error`."""
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, UserError) else 1


def kept_id(root: Path, identity: Any = None, environ: Mapping[str, str] = os.environ) -> str:
    """The id of the W&B run of the folder `root`, created the first time; WANDB_RUN_ID, also an agent's, takes
    precedence.

    identity: what the run is about, as plain containers. If it has changed since last time, in a folder that was used
        again, the run is a new one: two protocols never share a run.
    """
    file, made_of = root / RUN_ID_FILE, root / MADE_OF_FILE
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    kept = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    same = not made_of.is_file() or made_of.read_text(encoding="utf-8").strip() == digest
    run_id = environ.get("WANDB_RUN_ID") or (kept if same and kept else secrets.token_hex(6))
    if identity is not None:
        write_text(made_of, digest + "\n")
    if run_id != kept:
        write_text(file, run_id + "\n")
    return run_id


def _opened(arguments: dict[str, Any]) -> Run:
    """Calls wandb.init; if it fails W&B's state is restored. Raises UserError for W&B's own refusals."""
    import wandb

    try:
        return wandb.init(**arguments)
    except BaseException as error:
        tear_down(service_process(), 1, kill=True)
        if not isinstance(error, wandb.errors.Error | TimeoutError | ConnectionError | ValueError):
            raise
        reason = in_one_line(error)[:LONGEST_REASON]
        if arguments["mode"] == "offline":
            raise UserError(f"W&B could not start ({reason}); logger=csv does without it") from error
        raise UserError(
            f"W&B could not start at {server()} ({reason}): check the network, the key (`wandb login`), entity and "
            "project, or log offline with logger.wandb.mode=offline"
        ) from error


def _refuse_read_only(root: Path) -> None:
    # W&B itself would fall back to the temporary directory, where nobody would find the run.
    root.mkdir(parents=True, exist_ok=True)
    if not os.access(root, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(root))


def _arguments(
    config: WandbConfig, chosen: ChosenMode, job: Job, run_id: str, resolved: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of wandb.init. None leaves the choice to W&B, which reads its variables."""
    import wandb

    environ = os.environ
    settings: dict[str, Any] = {
        "console": "off",
        "x_disable_stats": not config.system_stats,
        "silent": chosen.mode == "offline",
        "finish_timeout": config.finish_timeout,
        "x_transaction_log_flush_interval": FLUSH_SECONDS,
    }
    known = {name: value for name, value in settings.items() if name in wandb.Settings.model_fields}
    # An agent has determined project, entity and id; W&B warns about others and ignores them.
    by_agent = in_agent()
    return {
        "mode": chosen.mode,
        "project": None if by_agent else config.project or environ.get("WANDB_PROJECT") or PROJECT,
        "entity": None if by_agent else config.entity,
        "id": None if by_agent else run_id,
        "resume": None if by_agent else "allow",
        "group": config.group or (None if environ.get("WANDB_RUN_GROUP") else job.group),
        "job_type": None if environ.get("WANDB_JOB_TYPE") else job.type,
        "name": config.name or environ.get("WANDB_NAME") or job.name,
        "tags": list(config.tags) or None,
        "notes": config.notes,
        "config": {**resolved, **job.record(run_id)},
        "save_code": config.save_code,
        "settings": known,
    }


def _empty() -> dict[str, None]:
    """W&B's variables that are set to an empty string, which W&B would reject as an unknown value."""
    return {name: None for name, value in os.environ.items() if name.startswith("WANDB_") and not value}


def _folders(root: Path, chosen: ChosenMode) -> dict[str, str]:
    # W&B puts its own `wandb` folder into WANDB_DIR.
    folders = {
        "WANDB_DIR": root.parent,
        "WANDB_DATA_DIR": root / "data",
        "WANDB_CACHE_DIR": root / "cache",
        "WANDB_ARTIFACT_DIR": root / "artifacts",
    }
    if not chosen.needs_server:
        # Online, the user's own folder has to stay: it names the server and the account.
        folders["WANDB_CONFIG_DIR"] = root / "config"
    return {name: str(path) for name, path in folders.items()}

"""W&B's service process, through which a run is written, and its termination in bounded time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from difflab.errors import in_one_line
from difflab.tracking.bounded import BoundedCaller, CallTimeoutError

if TYPE_CHECKING:
    from wandb import Run

TEARDOWN_SECONDS = 10.0


def service_process() -> subprocess.Popen[bytes] | None:
    """The process started by wandb.init; None if another program started it, in which case it is not ours to end."""
    from wandb.sdk import wandb_setup

    connection = wandb_setup.singleton()._connection
    return getattr(getattr(connection, "_proc", None), "_process", None)


def finish(run: Run, call: BoundedCaller, status: int, seconds: float) -> str | None:
    """Ends the run with an exit status. Returns why it did not end well, or None."""
    try:
        call(lambda: run.finish(exit_code=status), seconds)
    except Exception as error:  # noqa: BLE001 - whatever W&B does, the outcome of the program stays
        return in_one_line(error)
    return None


def tear_down(process: subprocess.Popen[bytes] | None, status: int, *, kill: bool) -> None:
    """Ends W&B's process and resets all of W&B's state, so that another run may follow; never raises.

    W&B reads its folders once per process: without this a next run would be written to this one's folder.

    kill: without asking first, because it no longer answers.
    """
    import wandb
    from wandb.sdk.lib import module

    if kill:
        _kill(process)
    call = BoundedCaller("W&B")
    try:
        call(lambda: wandb.teardown(exit_code=status), TEARDOWN_SECONDS)
    except CallTimeoutError:
        _kill(process)
    except Exception:  # noqa: BLE001 - it was gone already
        pass
    finally:
        call.close()
    # A process that died left its zombie, and W&B its global run.
    if process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TEARDOWN_SECONDS)
    if wandb.run is not None:
        module.unset_globals()


@contextlib.contextmanager
def own_exit() -> Iterator[None]:
    """W&B replaces sys.exit and sys.excepthook permanently: on exit they are restored."""
    before = sys.exit, sys.excepthook
    try:
        yield
    finally:
        sys.exit, sys.excepthook = before


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.poll() is None:
        process.kill()

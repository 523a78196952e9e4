"""One writer per folder: a lock that names its holder and is released if the process is killed."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from difflab.console import say_on_stderr
from difflab.errors import UserError
from difflab.machine import machine_errors

LOCK = ".lock"
_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_TRIES = 5


@dataclass(frozen=True)
class Holder:
    """The holder of a lock, as recorded in its file. processes: the namespace of `pid`."""

    pid: int
    host: str
    since: str
    processes: str | None = None
    job: str | None = None
    restarts: int = 0

    @classmethod
    def me(cls) -> Holder:
        now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        job = os.environ.get("SLURM_JOB_ID")
        restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        return cls(os.getpid(), socket.gethostname(), now, _name_space(), job, restarts)

    @classmethod
    def read(cls, file: int) -> Holder | None:
        """Reads the holder; None if the file is empty, as its holder has not written yet."""
        try:
            content: dict[str, Any] = json.loads(os.pread(file, 4096, 0))
            return cls(**content)
        except (ValueError, TypeError):
            return None

    def __str__(self) -> str:
        job = "" if self.job is None else f", job {self.job}"
        return f"process {self.pid} on {self.host}{job}, since {self.since}"

    def is_gone(self, me: Holder) -> bool:
        """Whether this holder has certainly ended, although its lock is still held.

        A requeued job starts after SLURM has ended its predecessor, whose lock a file server may keep for a while; and
        a dead process may have left its lock to a forked child.
        """
        if self.job is not None and self.job == me.job:
            return self.restarts < me.restarts
        if self.host != me.host or self.processes is None or self.processes != me.processes:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


@contextlib.contextmanager
def locked(folder: Path | str, what: str, instead: str = "", *, shared_with_children: bool = False) -> Iterator[int]:
    """Holds the lock of `folder`, which is created if necessary. Yields the descriptor of the lock.

    A folder that was created for it and is empty at the end is removed.

    what: the activity in the folder, for the message: "is being trained". instead: what else the user may do.
    shared_with_children: children inherit the descriptor, and keep the folder locked if this process is killed.

    The lock is flock's, so it always ends with the process; over NFS it works between machines if the server supports
    locks. A file system without locks is reported once on standard error, and used without.
    Raises UserError, with the holder's process, machine and time, if the folder is locked.
    """
    path = Path(folder) / LOCK
    made = [place for place in path.parents if not place.exists()]
    try:
        file = _acquired(path, what, instead, takes_over=not shared_with_children)
    except BaseException:
        _remove_empty(made)
        raise
    try:
        with machine_errors(path):
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(asdict(Holder.me())).encode(), 0)
        yield file
    finally:
        # Removed before it is unlocked: no process can hold this file afterwards (see _is_at).
        if _is_at(file, path):
            with contextlib.suppress(OSError):
                path.unlink()
                _remove_empty(made)
        os.close(file)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Removes empty folders. folders: the innermost first."""
    with contextlib.suppress(OSError):
        for place in folders:
            place.rmdir()


def _acquired(path: Path, what: str, instead: str, *, takes_over: bool) -> int:
    holder: Holder | None = None
    for _ in range(_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            # The last holder has just removed the folder that it had created.
            continue
        try:
            held = _is_held(file, path.parent)
        except BaseException:
            os.close(file)
            raise
        if not held and _is_at(file, path):
            return file
        # Either another process removed the file between the two calls, or it is locked.
        holder = Holder.read(file) if held else None
        if held and not (takes_over and holder is not None and holder.is_gone(Holder.me())):
            os.close(file)
            break
        if held and _is_at(file, path):
            # A process that still has this file open holds the lock of a deleted file.
            path.unlink(missing_ok=True)
        os.close(file)
    who = "" if holder is None else f" ({holder})"
    raise UserError(f"{path.parent} {what} already{who}; wait for it, or end it first{instead and f', or {instead}'}")


def _is_held(file: int, folder: Path) -> bool:
    """Whether another process holds the lock; otherwise it is ours now, if the file system supports locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        say_on_stderr(
            f"difflab: {folder} cannot be locked ({error.strerror}): make sure that no other process writes there"
        )
    return False


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _name_space() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None

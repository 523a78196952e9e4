"""Errors of the machine: no space, no permission, too many open files. Each is one line that names the path."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

MACHINE = 1
"""The exit status of an error of the machine."""
MISTAKE = 2
"""The exit status of an invalid path: the user's mistake."""

_SENTENCES = {
    errno.ENOSPC: "no space left to write {path}: free some space and give the same command again",
    errno.EDQUOT: "the disk quota is exceeded by {path}: free some space and give the same command again",
    errno.EFBIG: "{path} would be larger than this file system or `ulimit -f` allows",
    errno.EACCES: "no permission to use {path}: change its mode or owner, or choose another place",
    errno.EPERM: "no permission to use {path}: change its mode or owner, or choose another place",
    errno.EROFS: "{path} is on a read-only file system: choose another place",
    errno.ENAMETOOLONG: "a name is too long for this file system: {path}",
    errno.EMFILE: "too many open files, at {path}: raise the limit of this shell (`ulimit -n 65536`)",
    errno.ENFILE: "too many open files on this machine, at {path}",
    errno.EIO: "the device failed to read or write {path} (input/output error)",
    errno.ESTALE: "{path} disappeared from the file server (stale file handle): give the same command again",
    errno.ETXTBSY: "{path} is in use by another program",
    errno.EBUSY: "{path} is in use by another program",
    errno.ENOTCONN: "the file server of {path} is not connected",
    errno.ENODEV: "{path} is on a device that is not there",
    errno.ENXIO: "{path} is on a device that is not there",
    errno.ENOMEM: "the machine has no memory left, at {path}",
    errno.ENOTDIR: "{path} cannot be reached: a part of that path is a file, not a directory",
    errno.EISDIR: "{path} is a directory, not a file",
    errno.ELOOP: "{path} leads in a circle of symbolic links",
    errno.EEXIST: "{path} exists and is not a directory",
}
_MISTAKES = {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST}
_ONLY_BY_NUMBER = {errno.ENOMEM, *_MISTAKES}
"""Errors whose texts are too common to be recognized in the message of another exception than OSError."""


class MachineError(OSError):
    """The machine failed to read or write `filename`. The message is one line that names the path.

    The command line prints only this line and exits with `status`: 1, or 2 if the path itself is the user's mistake.
    """

    def __init__(self, number: int | None, path: str | os.PathLike[str] | None) -> None:
        number = errno.EIO if number is None else number
        super().__init__(number, os.strerror(number), None if path is None else os.fspath(path))

    @property
    def status(self) -> int:
        """The exit status of a command that ends with this error."""
        return MISTAKE if self.errno in _MISTAKES else MACHINE

    def __str__(self) -> str:
        path = "a file" if self.filename is None else _shown(os.fsdecode(self.filename))
        return _SENTENCES[self.errno or errno.EIO].format(path=path)

    def __reduce__(self) -> tuple[type[MachineError], tuple[int | None, str | None]]:
        return type(self), (self.errno, self.filename)


def machine_error(error: BaseException, path: Path | None = None, *, contexts: bool = False) -> MachineError | None:
    """The machine's error that `error` is, or was raised from; None if it is something else, such as a bug.

    Libraries in other languages report a full disk with their own exceptions, which are recognized by their text.

    path: what was being read or written, for errors that do not name it.
    contexts: an error that was being handled when another one was raised counts as well.
    """
    while error is not None:
        if isinstance(error, MachineError):
            return error
        number = _number_of(error)
        if number is not None:
            named = error.filename if isinstance(error, OSError) and _names_a_file(error) else path
            return MachineError(number, named)
        error = error.__cause__ or (error.__context__ if contexts else None)  # pyrefly: ignore
    return None


@contextlib.contextmanager
def machine_errors(path: Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """Turns errors of the machine inside into MachineError, which names `path` if no other file is known.

    instead_of: a temporary file or folder that will take the place of `path`.
    """
    try:
        yield
    except Exception as error:
        refused = machine_error(error, path, contexts=True)
        if refused is None:
            raise
        raise MachineError(refused.errno, _final(refused.filename, path, instead_of)) from error


def _final(named: str | None, path: Path, instead_of: Path | None) -> str | Path:
    """The path in the message: never a temporary file or folder, which the user does not know."""
    if named is None:
        return path
    if instead_of is None or not Path(named).is_relative_to(instead_of):
        return named
    return path / Path(named).relative_to(instead_of)


def _number_of(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        if error.errno == errno.EEXIST:
            return errno.EEXIST if _names_a_file(error) and not Path(os.fsdecode(error.filename)).is_dir() else None
        return error.errno if error.errno in _SENTENCES else None
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    text = str(error).lower()
    return next((n for n in _SENTENCES if n not in _ONLY_BY_NUMBER and os.strerror(n).lower() in text), None)


def _names_a_file(error: OSError) -> bool:
    # For a system call on an open file Python only knows the descriptor number, which is of no use.
    return isinstance(error.filename, str | bytes)


def _shown(path: str, limit: int = 300) -> str:
    return path if len(path) <= limit else f"{path[: limit // 2]}...{path[-limit // 2 :]}"

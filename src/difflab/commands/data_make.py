"""`difflab data make`: writes a source as shards with an index."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from difflab.commands.data_arguments import described, find_kind, parse_arguments, validated
from difflab.config import plugins
from difflab.config.axes import SOURCES
from difflab.config.base import Config
from difflab.config.registry import Kind
from difflab.config.source import SourceConfig
from difflab.console import printable, say, say_on_stderr
from difflab.data.sources.base import Credited, FromFiles, Source
from difflab.errors import UserError

TEXTS = frozenset({"out", "path", "source", "format", "captions_from"})
"""Keys whose values are taken literally: a directory may be named 1 or null."""


class MakeConfig(Config):
    """The keys of `make` itself; all others belong to the source."""

    source: str
    """The source of the shards."""
    out: str = Field(min_length=1)
    """Directory for the shards; it may already contain other splits."""
    shard_size: int = Field(default=10_000, ge=1)
    """Samples per shard."""
    format: Literal["png", "jpg", "webp"] = "png"
    """The format of images that are not copied unchanged; png and webp are lossless."""
    workers: int | None = Field(default=None, ge=0)
    """The number of worker processes; null = one per core, 0 = this process. The shards are the same."""
    overwrite: bool = False
    """Whether to replace existing splits."""


def make_data(arguments: Sequence[str]) -> None:
    """Writes the source that the arguments describe, or shows its keys."""
    given = parse_arguments(arguments, "source", TEXTS)
    kind = find_kind(SOURCES, str(given.get("source", "")) or _no_source())
    if given.pop("help", False):
        sys.stdout.write(described(MakeConfig, SOURCES, kind))
        return
    options, source_config = validated(MakeConfig, SOURCES, kind, given)
    assert isinstance(source_config, SourceConfig), f"the configuration of source={kind.name} is a SourceConfig"
    _refuse_own_directory(options.out, source_config)
    from difflab.data.bad_files import BadFiles
    from difflab.data.processes import refuse_workers
    from difflab.data.unfinished import kept_shards
    from difflab.data.writing import write_dataset

    refuse_workers(options.workers or 0, key="workers")
    sources: dict[str, Source] = kind.load_builder()(source_config)
    allowed = source_config.allowed_bad
    bad = BadFiles(can_skip="bad" in kind.config.model_fields)
    if allowed is not None:
        bad = BadFiles(skip=True, max_fraction=allowed)
    remarks: list[str] = []
    try:
        index = write_dataset(
            sources,
            options.out,
            shard_size=options.shard_size,
            image_format=options.format,
            workers=options.workers,
            overwrite=options.overwrite,
            description=_description(kind, source_config, sources),
            bad=bad,
            remarks=remarks,
        )
    except KeyboardInterrupt:
        kept = kept_shards(options.out)
        goes_on = f"{kept} finished and kept; the same command continues after them" if kept else "none finished"
        say_on_stderr(f"{printable(options.out)}: stopped; shards: {goes_on}")
        raise
    splits = ", ".join(f"{name} {entry.samples}" for name, entry in index.splits.items())
    shards = sum(len(entry.shards) for entry in index.splits.values())
    lines = [f"{options.out}: {splits} samples in {shards} shards{_left_out(sources, bad.found)}", *remarks]
    lines += [f"bad: {line}" for line in bad.named()] if len(bad.found) > 1 else []
    for line in lines:
        say(line)


def _refuse_own_directory(out: str, config: SourceConfig) -> None:
    if config.reads is not None and config.reads.resolve() == Path(out).resolve():
        raise UserError(f"out={out} is the directory of the images: give another one for the shards")


def _description(kind: Kind, config: SourceConfig, sources: Mapping[str, Source]) -> dict[str, Any]:
    """The description in the index: the whole configuration, the licence, and the package of the source."""
    plugin = plugins.owner(kind.package)
    first = next(iter(sources.values()), None)
    credit = {"credit": dict(first.credit)} if isinstance(first, Credited) and first.credit else {}
    brought = {} if plugin is None else {"plugin": str(plugin)}
    return {"name": kind.name, **_as_text(config.plain()), **credit, **brought}


def _as_text(values: dict[str, Any]) -> dict[str, Any]:
    """Escapes the bytes of a path that are not text, as the index is UTF-8."""
    escaped = {
        key: value.encode(errors="backslashreplace").decode() for key, value in values.items() if isinstance(value, str)
    }
    return values | escaped


def _left_out(sources: Mapping[str, Source], bad: list[str]) -> str:
    """`; left out 3 files: bad: 1 (...), hidden: 2 (...)`, or nothing."""
    from difflab.data.sources.folder.listing import in_words

    first = next(iter(sources.values()))
    reasons = {"bad": bad[:], **(first.left_out if isinstance(first, FromFiles) else {})}
    count = sum(map(len, reasons.values()))
    return f"; left out {count} files: {in_words(reasons)}" if count else ""


def _no_source() -> str:
    raise UserError(f"which source? write source=... with one of {', '.join(sorted(SOURCES))}")

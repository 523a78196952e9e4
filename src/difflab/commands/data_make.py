"""`difflab data make`: writes a source as shards with an index."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from difflab.config import plugins
from difflab.config.axes import SOURCES
from difflab.config.base import Config, fields_by_key
from difflab.config.options import key_lines
from difflab.config.registry import Kind
from difflab.config.source import SourceConfig
from difflab.config.validate import validate
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
    given = parse_arguments(arguments)
    kind = find_source(str(given.get("source", "")) or _no_source())
    if given.pop("help", False):
        sys.stdout.write(describe_source(kind))
        return
    options, source_config = _validated(kind, given)
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


def find_source(name: str) -> Kind:
    """The source of this name. Raises UserError naming the known ones."""
    if name not in SOURCES:
        raise UserError(f"source={name} is not known; choose one of {', '.join(sorted(SOURCES))}")
    return SOURCES[name]


def describe_source(kind: Kind) -> str:
    """The keys of a source and of `make`, one per line with default and description."""
    about = cleandoc(kind.config.__doc__ or "")
    own = [line for line in key_lines(MakeConfig) if not line.startswith("  source=")]
    return "\n".join([f"source={kind.name}: {about}", "", *key_lines(kind.config), "", "of every source:", *own]) + "\n"


def parse_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """`key=value`, `--key value`, `--key=value`, `--flag`, and a first bare word as the source; values are YAML.

    Raises UserError for a word that is none of these, or a key given twice.
    """
    given: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        if not equals and word.startswith("--"):
            text = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        elif not equals:
            if given:
                raise UserError(f"{word!r} is not key=value; write it as key={word}")
            key, text = "source", word
        key = key.replace("-", "_")
        if key in given:
            raise UserError(f"{key} is given twice; keep one of them")
        given[key] = _value(key, text)
    return given


def _value(key: str, text: str) -> Any:
    if key in TEXTS:
        return text
    try:
        return yaml.safe_load(text)
    # An invalid date is a ValueError.
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"{key}={text[:100]} cannot be parsed as a value; put quotes around it") from None


def _validated(kind: Kind, given: dict[str, Any]) -> tuple[MakeConfig, SourceConfig]:
    """The keys of `make` and those of the source, each checked."""
    own = {key: given.pop(key) for key in list(given) if key in MakeConfig.model_fields}
    source_keys = fields_by_key(kind.config).keys() - {"kind"}
    unknown = [key for key in given if key not in source_keys]
    if unknown:
        known = sorted({*MakeConfig.model_fields, *source_keys})
        raise UserError(f"unknown key {unknown[0]!r} for source={kind.name}; known: {', '.join(known)}")
    options = validate(MakeConfig, own)
    source_config = validate(kind.config, {**given, "kind": kind.name})
    assert isinstance(source_config, SourceConfig), f"the configuration of source={kind.name} is a SourceConfig"
    if source_config.reads is not None and source_config.reads.resolve() == Path(options.out).resolve():
        raise UserError(f"out={options.out} is the directory of the images: give another one for the shards")
    return options, source_config


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

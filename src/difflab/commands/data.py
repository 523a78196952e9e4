"""Make, inspect and list data sets of shards."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import typer
import yaml
from pydantic import Field

from difflab.commands.typer_app import run_typer
from difflab.config.base import Config
from difflab.config.data import KeyRule
from difflab.config.folder import FolderSourceConfig
from difflab.config.validate import validate
from difflab.console import printable, say, say_on_stderr
from difflab.data.sources.base import Source
from difflab.data.sources.registry import SOURCES, find_source
from difflab.errors import UserError

_log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)


class MakeConfig(Config):
    """What `make` itself understands; all other keys belong to the source."""

    source: str
    out: str = Field(min_length=1)
    shard_size: int = Field(default=10_000, ge=1)
    format: Literal["png", "jpg", "webp"] = "png"
    workers: int = Field(default=0, ge=0)
    overwrite: bool = False


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def make(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="source=shapes out=data/shapes32 key=value ... (or --key value)")
    ] = None,
) -> None:
    """Write a source as WebDataset shards with an index.

    difflab data make source=shapes out=data/shapes32 resolution=32 n=20000 val=2000

    difflab data make source=folder path=photos out=data/photos64 resolution=64 crop=adm val=500

    Keys of every source: out, shard_size, format (png, jpg, webp), workers, overwrite.
    `source=shapes help=true` lists the keys of a source.

    A command that was stopped goes on where it stood when it is given again.
    """
    given = parse_arguments(arguments or [])
    kind = find_source(str(given.get("source", "")) or _no_source())
    source_model = kind.load_config()
    if given.pop("help", False):
        sys.stdout.write(describe_source(str(given["source"])))
        return
    own = {key: given.pop(key) for key in list(given) if key in MakeConfig.model_fields}
    unknown = [key for key in given if key not in source_model.model_fields]
    if unknown:
        known = sorted({*MakeConfig.model_fields, *source_model.model_fields} - {"kind"})
        raise UserError(f"unknown key {unknown[0]!r} for source={own['source']}; known: {', '.join(known)}")
    options = validate(MakeConfig, own)
    source_config = validate(source_model, given)
    pictures = getattr(source_config, "path", None)
    if pictures is not None and Path(pictures).resolve() == Path(options.out).resolve():
        raise UserError(f"out={options.out} is where the pictures lie: give another directory for the shards")
    from difflab.data.bad_files import BadFiles
    from difflab.data.processes import refuse_workers
    from difflab.data.unfinished import kept_shards
    from difflab.data.writing import write_dataset

    refuse_workers(options.workers, key="workers")
    sources = kind.load_splits()(source_config)
    bad = BadFiles()
    if isinstance(source_config, FolderSourceConfig):
        bad = BadFiles(skip=source_config.bad == "skip", max_fraction=source_config.max_bad_fraction)
    remarks: list[str] = []
    try:
        index = write_dataset(
            sources,
            options.out,
            shard_size=options.shard_size,
            image_format=options.format,
            workers=options.workers,
            overwrite=options.overwrite,
            description={"name": options.source, **_as_text(source_config.model_dump())},
            bad=bad,
            remarks=remarks,
        )
    except KeyboardInterrupt:
        kept = kept_shards(options.out)
        goes_on = f"{kept} finished, kept for the same command, which goes on after them" if kept else "none finished"
        say_on_stderr(f"{printable(options.out)}: stopped; shards: {goes_on}")
        raise
    splits = ", ".join(f"{name} {entry.samples}" for name, entry in index.splits.items())
    shards = sum(len(entry.shards) for entry in index.splits.values())
    lines = [f"{options.out}: {splits} samples in {shards} shards{_left_out(sources, bad.found)}", *remarks]
    lines += [f"bad: {line}" for line in bad.named()] if len(bad.found) > 1 else []
    for line in lines:
        say(line)


def _as_text(values: dict[str, Any]) -> dict[str, Any]:
    """The same for an index, which is UTF-8: bytes of a path that are no text become escapes."""
    escaped = {
        key: value.encode(errors="backslashreplace").decode() for key, value in values.items() if isinstance(value, str)
    }
    return values | escaped


def _left_out(sources: Mapping[str, Source], bad: list[str]) -> str:
    """`; left out 3 files: bad: 1 (...), hidden: 2 (...)`, or nothing."""
    from difflab.data.sources.base import FromFiles
    from difflab.data.sources.listing import in_words

    first = next(iter(sources.values()))
    reasons = {"bad": bad[:], **(first.left_out if isinstance(first, FromFiles) else {})}
    count = sum(map(len, reasons.values()))
    return f"; left out {count} files: {in_words(reasons)}" if count else ""


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="directory of shards")],
    decode: Annotated[str, typer.Option(help="samples of each split to decode, or all")] = "256",
    hashes: Annotated[bool, typer.Option(help="compare the SHA-256 of every shard")] = True,
    keys: Annotated[
        str, typer.Option(help="where names of other tools' files end: first_dot or last_dot")
    ] = "first_dot",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Verify counts, sizes, hashes and images; a data set with problems ends with exit status 2."""
    from difflab.data.inspecting import inspect_data

    if decode != "all" and not decode.isdecimal():
        raise UserError(f"--decode {decode} is not a number of samples; give a number or all")
    if keys not in get_args(KeyRule):
        raise UserError(f"--keys {keys} is not known; choose one of {', '.join(get_args(KeyRule))}")
    report = inspect_data(
        path.removeprefix("path="),
        keys=cast(KeyRule, keys),
        decode=None if decode == "all" else int(decode),
        hashes=hashes,
    )
    if as_json:
        say(json.dumps(report.as_dict(), indent=1))
    else:
        from difflab.commands.data_tables import report_table

        report_table(report)
    if report.problems:
        first = "; ".join(report.problems[:3])
        raise UserError(f"{report.path} has {len(report.problems)} problem(s): {first}")


@app.command(name="list")
def list_data(
    directory: Annotated[str, typer.Argument(help="where data sets lie")] = "data",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """The data sets below a directory, and the sources `make` knows."""
    found = find_data_sets(Path(directory))
    if as_json:
        sources = {name: kind.summary for name, kind in SOURCES.items()}
        say(json.dumps({"data": found, "sources": sources}, indent=1))
        return
    from difflab.commands.data_tables import list_tables

    list_tables(directory, found)


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
    if key in ("out", "path", "source", "format"):
        return text
    try:
        return yaml.safe_load(text)
    # A date that is none is a ValueError.
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"{key}={text[:100]} cannot be read as a value; put quotes around it") from None


def _no_source() -> str:
    raise UserError(f"which source? write source=... with one of {', '.join(SOURCES)}")


def describe_source(name: str) -> str:
    """The keys of a source with their defaults, one a line, under the description of its configuration."""
    model = find_source(name).load_config()
    keys = [
        f"  {key}={'...' if field.is_required() else json.dumps(field.default)}"
        for key, field in model.model_fields.items()
        if key != "kind"
    ]
    return "\n".join([f"source={name}: {cleandoc(model.__doc__ or '')}", "", *keys]) + "\n"


def find_data_sets(directory: Path) -> list[dict[str, Any]]:
    """The directories with shards at most two levels below (or at) `directory`, with what their index says.

    Sub-directories that are splits of one (train/, val/) are no sets of their own. Those below that cannot be read are
    named in a warning.
    """
    if not directory.is_dir():
        return []
    found: list[dict[str, Any]] = []
    parts: set[Path] = set()
    for place in sorted({directory, *directory.glob("*/"), *directory.glob("*/*/")}):
        if place in parts or (place != directory and place.name.startswith(".")):
            continue
        try:
            entry, tars = _data_set_at(place)
        except (UserError, PermissionError) as error:
            if place == directory:
                raise
            _log.warning("%s is not listed: %s", place, error)
            continue
        if entry is not None:
            found.append(entry)
        parts |= {folder for tar in tars for folder in tar.parents if place in folder.parents}
    return found


def _data_set_at(place: Path) -> tuple[dict[str, Any] | None, list[Path]]:
    """What is said of the data set in a directory, None where there is none; and its tars."""
    from difflab.data.index import INDEX_NAME, ForeignIndexError, read_index

    index = None
    if (place / INDEX_NAME).is_file():
        with contextlib.suppress(ForeignIndexError):
            index = read_index(place / INDEX_NAME)
    if index is not None:
        splits = {name: entry.samples for name, entry in index.splits.items()}
        tars = {place / shard.path: shard.bytes for shard in index.shards}
        entry = {"path": str(place), "image_size": index.image_size, "splits": splits}
    else:
        tars = {tar: tar.stat().st_size for tar in _tars_without_index(place)}
        entry = {"path": str(place), "image_size": None, "splits": None}
    there = bool(tars) or index is not None
    return ({**entry, "bytes": sum(tars.values())} if there else None), list(tars)


def _tars_without_index(place: Path) -> list[Path]:
    """What training would read of a directory; of one that holds splits alone, where one of them is for training."""
    from difflab.data.index import INDEX_NAME
    from difflab.data.shard_names import list_shards, sort_into_splits

    own = sorted(path for path in place.glob("*.tar") if path.exists())
    try:
        listed = list_shards(place).tars
    except UserError:
        # Training says what is wrong with it.
        return own
    tars = [tar for tar in listed if not (place / tar.split("/")[0] / INDEX_NAME).is_file()]
    return [place / tar for tar in tars] if own or "train" in sort_into_splits(tars)[0] else []


def main(argv: Sequence[str]) -> int:
    """Run `difflab data`; returns the exit status."""
    return run_typer(app, "data", argv)

"""Make, encode, inspect, preview and list data sets of shards."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from difflab.commands.data_encode import encode_data
from difflab.commands.data_make import make_data
from difflab.commands.data_preview import preview_data
from difflab.commands.typer_app import run_typer
from difflab.config.axes import SOURCES
from difflab.config.data import KeyRule
from difflab.console import say
from difflab.errors import UserError

_log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def make(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="source=shapes out=data/shapes32 key=value ... (or --key value)")
    ] = None,
) -> None:
    """Write a source as WebDataset shards with an index.

    difflab data make source=shapes out=data/shapes32 resolution=32 n=20000 val=2000

    difflab data make source=folder path=photos out=data/photos64 resolution=64 crop=adm val=500

    `source=shapes help=true` describes the keys of a source, and those of every source.

    An interrupted command continues where it stopped when it is given again.
    """
    make_data(arguments or [])


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def encode(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="path=data/shapes32 out=data/shapes32_clip run=... key=value ...")
    ] = None,
) -> None:
    """Add fields that a stored model computes, such as embeddings, to a data set.

    difflab data encode path=data/shapes32 out=data/shapes32_clip run=runs/clip/shapes32/demo

    difflab data encode path=data/shapes32 out=data/shapes32_minilm encoder=text_encoder context_length=16

    `encoder=clip help=true` describes the keys of an encoder, and those of every encoder.

    An interrupted command continues where it stopped when it is given again.
    """
    encode_data(arguments or [])


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
    report = inspect_data(
        path.removeprefix("path="),
        keys=_key_rule(keys),
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


@app.command()
def preview(
    path: Annotated[str, typer.Argument(help="directory of shards")],
    split: Annotated[str | None, typer.Option(help="split to show, or a glob of shards; train if not given")] = None,
    n: Annotated[int, typer.Option(help="how many samples, spread evenly over the split")] = 36,
    columns: Annotated[int | None, typer.Option(help="images side by side")] = None,
    out: Annotated[str, typer.Option(help="picture to write: .png, .jpg or .webp")] = "contact.png",
    keys: Annotated[
        str, typer.Option(help="where names of other tools' files end: first_dot or last_dot")
    ] = "first_dot",
) -> None:
    """Write a contact sheet: images with their boxes, class and the start of their caption."""
    preview_data(path.removeprefix("path="), split=split, n=n, out=out, keys=_key_rule(keys), columns=columns)


@app.command(name="list")
def list_data(
    directory: Annotated[str, typer.Argument(help="where data sets lie")] = "data",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """List the data sets below a directory, and the sources of `make`."""
    found = find_data_sets(Path(directory))
    if as_json:
        sources = {name: kind.summary for name, kind in SOURCES.items()}
        say(json.dumps({"data": found, "sources": sources}, indent=1))
        return
    from difflab.commands.data_tables import list_tables

    list_tables(directory, found)


def _key_rule(keys: str) -> KeyRule:
    if keys not in get_args(KeyRule):
        raise UserError(f"--keys {keys} is not known; choose one of {', '.join(get_args(KeyRule))}")
    return cast(KeyRule, keys)


def find_data_sets(directory: Path) -> list[dict[str, Any]]:
    """The directories with shards at most two levels below (or at) `directory`, with the contents of their index.

    Subdirectories that are splits (train/, val/) are not data sets of their own. Warns of unreadable ones.
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
    """The description of the data set in a directory, None if there is none; and its tars."""
    from difflab.data.index import INDEX_NAME, ForeignIndexError, read_index

    index = None
    if (place / INDEX_NAME).is_file():
        with contextlib.suppress(ForeignIndexError):
            index = read_index(place / INDEX_NAME)
    if index is not None:
        splits = {name: entry.samples for name, entry in index.splits.items()}
        tars = {place / shard.path: shard.bytes for shard in index.shards}
        encoded: dict[str, list[str]] = {}
        for name, field in index.fields.items():
            encoded.setdefault(field.by, []).append(name)
        entry = {"path": str(place), "image_size": index.image_size, "splits": splits, "encoded": encoded}
    else:
        tars = {tar: tar.stat().st_size for tar in _tars_without_index(place)}
        entry = {"path": str(place), "image_size": None, "splits": None, "encoded": {}}
    there = bool(tars) or index is not None
    return ({**entry, "bytes": sum(tars.values())} if there else None), list(tars)


def _tars_without_index(place: Path) -> list[Path]:
    """The tars that training would read from a directory, or from its splits if one of them is for training."""
    from difflab.data.index import INDEX_NAME
    from difflab.data.shard_names import list_shards, sort_into_splits

    own = sorted(path for path in place.glob("*.tar") if path.exists())
    try:
        listed = list_shards(place).tars
    except UserError:
        # Training reports what is wrong with it.
        return own
    tars = [tar for tar in listed if not (place / tar.split("/")[0] / INDEX_NAME).is_file()]
    return [place / tar for tar in tars] if own or "train" in sort_into_splits(tars)[0] else []


def main(argv: Sequence[str]) -> int:
    """Run `difflab data`; returns the exit status."""
    return run_typer(app, "data", argv)

"""The tables that `difflab data` prints."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import shorten
from typing import Any

from rich import box
from rich.filesize import decimal
from rich.table import Table

from difflab.config.axes import SOURCES
from difflab.console import console, printable
from difflab.data.arrays import array_extension, array_names
from difflab.data.inspecting import DataReport, SplitReport
from difflab.data.left_out import LeftOut, described

_CLASSES = 12
"""The number of classes of a split to list, the largest first."""
_CAPTION_WIDTH = 100
_CHANNELS = {3: "in colour (3 channels)", 1: "grey (1 channel)"}


def report_table(report: DataReport) -> None:
    """Prints a row for each split of an inspected data set, and its problems below."""
    classes = "no classes" if report.classes is None else f"{report.classes} classes"
    table = Table(title=f"{report.path} ({report.origin}, {classes})", title_justify="left", box=box.SIMPLE)
    for column in ("split", "samples", "size", "files", "image sizes", "decoded", "hashed"):
        table.add_column(column, justify="right" if column in ("samples", "size", "decoded", "hashed") else "left")
    for split in report.splits:
        table.add_row(
            split.split,
            f"{split.samples:,}",
            decimal(split.bytes),
            " ".join(sorted(split.members.keys() - set(map(array_extension, array_names(split.members))))),
            ", ".join(list(split.image_sizes)[:3]) + (" ..." if len(split.image_sizes) > 3 else ""),
            f"{split.decoded:,}",
            f"{split.hashed} of {split.shards} shards",
        )
    terminal = console()
    terminal.print(table)
    for split in report.splits:
        for line in _contents(split):
            terminal.print(f"{split.split}: {line}", markup=False, highlight=False)
    for array in report.arrays:
        terminal.print(f"array {array.in_words()}", markup=False, highlight=False)
    if report.holdout:
        terminal.print(f"kept out of training: {', '.join(report.holdout)}", markup=False, highlight=False)
    if report.credit:
        terminal.print("; ".join(report.credit.values()), markup=False, highlight=False)
    if report.left_out:
        terminal.print(described([LeftOut(**kind) for kind in report.left_out]))
    if report.repeated_keys:
        terminal.print(f"{report.repeated_keys} keys occur in several shards; they are prefixed with the shard's name")
    for problem in report.problems:
        terminal.print(problem, style="red")


def _contents(split: SplitReport) -> Iterator[str]:
    """Yields lines about the images, classes and captions of a split."""
    if split.channels:
        kinds = [f"{split.channels[count]:,} {name}" for count, name in _CHANNELS.items() if count in split.channels]
        yield f"of {split.decoded:,} decoded: {', '.join(kinds)}"
    if split.class_counts:
        counted = [f"{printable(name)} {count:,}" for name, count in split.class_counts.items()]
        more = f" and {len(counted) - _CLASSES} more" if len(counted) > _CLASSES else ""
        yield f"{len(counted)} classes: {', '.join(counted[:_CLASSES])}{more}"
    if split.captions:
        share = "all" if split.captions == split.samples else f"{split.captions / split.samples:.1%} of samples"
        example = "" if split.caption is None else f", as {printable(shorten(split.caption, _CAPTION_WIDTH))!r}"
        yield f"captions: {share}{example}"


def list_tables(directory: str, found: list[dict[str, Any]]) -> None:
    """Prints the data sets found, then the known sources."""
    terminal = console()
    if found:
        table = Table(title=f"data sets in {directory}", title_justify="left", box=box.SIMPLE)
        for column in ("path", "pixels", "samples", "size", "encoded"):
            table.add_column(column)
        for entry in found:
            splits = entry["splits"]
            samples = "not indexed yet" if splits is None else ", ".join(f"{k} {v:,}" for k, v in splits.items())
            encoded = "\n".join(f"{by}: {', '.join(names)}" for by, names in entry["encoded"].items())
            table.add_row(entry["path"], str(entry["image_size"] or "?"), samples, decimal(entry["bytes"]), encoded)
        terminal.print(table)
    else:
        terminal.print(
            f"no data sets in {directory}; make one: difflab data make source=shapes out={directory}/shapes32"
        )
    sources = Table(title="sources for `difflab data make source=...`", title_justify="left", box=box.SIMPLE)
    sources.add_column("source")
    sources.add_column("what it gives")
    for name, kind in SOURCES.items():
        sources.add_row(name, kind.summary)
    terminal.print(sources)

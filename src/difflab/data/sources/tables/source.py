"""The images of a table, in files or in the table itself, as a source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from difflab.config.data import Captions
from difflab.console import printable
from difflab.data.bad_files import BadFile, read_whole
from difflab.data.captions import stored_caption
from difflab.data.hashing import hash_indices
from difflab.data.sources.base import NOT_REQUESTED, Source
from difflab.data.sources.folder.classes import DirectoryClasses, refuse_what_is_no_text
from difflab.data.sources.folder.config import FolderSourceConfig
from difflab.data.sources.folder.listing import NO_IMAGE, Listing, list_folder
from difflab.data.sources.folder.source import caption_notes, split_up
from difflab.data.sources.image_files import Cutting, frame_notes
from difflab.data.sources.tables.columns import NamedColumns
from difflab.data.sources.tables.parquet import ParquetImages, image_columns
from difflab.data.sources.tables.reading import Row, Table, read_table
from difflab.errors import UserError
from difflab.seeding import stream_seed

WITHOUT_A_ROW = "images without a row in the table"
TEXTS_BESIDE = "caption files, where a table gives the captions"


class TableSource:
    """Some rows of a table, each with its image.

    path: the directory of the files. files: {path in the table: path below `path`} of those found.
    images: reads the images of a table that contains them. classes: the directories as classes, if no column is.
    state: a text that differs if the contents of the table or the directory differ.
    """

    def __init__(
        self,
        table: Table,
        rows: list[Row],
        path: Path,
        *,
        files: Mapping[str, str],
        images: ParquetImages | None,
        classes: DirectoryClasses | None,
        cutting: Cutting,
        captions: Captions,
        left_out: Mapping[str, Sequence[str]],
        state: str,
    ) -> None:
        self.path, self.cutting, self.captions = path, cutting, captions
        self.left_out = left_out
        self.class_names = table.classes or (None if classes is None else classes.names)
        self._table, self._rows, self._images = table.path, rows, images
        self._files = {row.image: files[row.image] for row in rows if row.image is not None and row.image in files}
        self._classes, self._state = classes, state
        self._label_of = {name: label for label, name in enumerate(table.classes or ())}

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        """The state that reading processes need, without the files that are left out."""
        return self.__dict__ | {"left_out": {}}

    def sample(self, index: int) -> dict[str, Any]:
        """One image with its class, caption and path; see `difflab.data.sources.base.Source`."""
        row = self._rows[index]
        where = f"{printable(self._table)} row {row.number}"
        if row.place is not None:
            assert self._images is not None, "rows have places in the files of their table"
            name, shown = row.image or f"row {row.number}", f"{where}: its image"
            content = self._images.read(row.place)
        else:
            name = self._name_of(row, where)
            shown, content = self.path / name, read_whole(self.path / name)
        sample = {"json": {"file": name}, **self.cutting.sample(shown, content)}
        label = self._label_of.get(row.label) if row.label is not None else self._label_by_directory(name)
        if label is not None:
            sample["label"] = label
        notes = frame_notes(content, name)
        if row.caption is not None:
            sample["caption"] = stored_caption(row.caption, self.captions)
            notes |= caption_notes(row.caption, self.captions, where)
        return sample | ({"notes": notes} if notes else {})

    def fingerprint(self) -> str:
        """A hash of the crop options, of the table and the directory, and of the selected rows."""
        numbers = [(row.number, row.image, row.place) for row in self._rows]
        how = [astuple(self.cutting), self.captions, self.class_names, self._state, numbers]
        return hashlib.sha256(json.dumps(how).encode()).hexdigest()

    def _name_of(self, row: Row, where: str) -> str:
        if row.image is None:
            raise BadFile(f"{where} names no image")
        if row.image not in self._files:
            raise BadFile(f"{where}: there is no image {printable(row.image)} in {printable(self.path)}")
        return self._files[row.image]

    def _label_by_directory(self, name: str) -> int | None:
        return None if self._classes is None else self._classes.label_of(name)


def table_splits(config: FolderSourceConfig, path: Path) -> dict[str, Source]:
    """The rows of the table at `path`, split like the files of a folder.

    Images inside a table are read a row group at a time; row groups, and the rows within each, are therefore shuffled
    separately.

    Raises UserError if the table cannot be read, or names an image twice.
    """
    folder = Path(config.path)
    if folder.is_file():
        # The path is the table itself: its images are beside it.
        folder = folder.parent
    elif not path.exists() and (folder / path).exists():
        path = folder / path
    named = NamedColumns(config.path_column, config.caption_column, config.label_column)
    table = read_table(path, named)
    refuse_what_is_no_text(table.classes or [], path)
    inside = table.rows[0].place is not None
    listing, files = (Listing(), {}) if inside else _listed(table, folder)
    chosen, rest = split_up(table.rows, config, path)
    if inside:
        seed = stream_seed(config.seed, "row groups")
        chosen = {split: _by_row_group(rows, seed) for split, rows in chosen.items()}
    listing.leave_out(NOT_REQUESTED, *(row.image or f"row {row.number}" for row in rest))
    of_directories = None
    if not inside and config.label_column is None:
        of_directories = DirectoryClasses(folder, list(files.values()), config.classes)
    images = ParquetImages(table.files, image_columns(table.files, named)) if inside else None
    return {
        split: TableSource(
            table,
            rows,
            folder,
            files=files,
            images=images,
            classes=of_directories,
            cutting=Cutting(config.resolution, config.crop, config.alpha),
            captions=config.captions,
            left_out=listing.left_out,
            state=f"{listing.state} {_state_of(table)}",
        )
        for split, rows in chosen.items()
    }


def _listed(table: Table, folder: Path) -> tuple[Listing, dict[str, str]]:
    """The files of the directory, and the image that each path in the table means."""
    listing = list_folder(folder)
    there = set(listing.images)
    files: dict[str, str] = {}
    row_of: dict[str, Row] = {}
    for row in table.rows:
        name = None if row.image is None else _below(row.image, table.path, folder, there)
        if name is None or row.image is None:
            continue
        if (first := row_of.setdefault(name, row)) is not row:
            raise UserError(
                f"{printable(table.path)} names {printable(name)} twice (rows {first.number} and {row.number}): keep "
                "one of them; several captions of an image are lines of one, which captions=lines splits"
            )
        files[row.image] = name
    listing.leave_out(WITHOUT_A_ROW, *(name for name in listing.images if name not in row_of))
    listing.leave_out(TEXTS_BESIDE, *sorted(set(listing.captions.values())))
    _without_the_table(listing, table.path, folder)
    return listing, files


def _below(written: str, table: Path, folder: Path, there: set[str]) -> str | None:
    """The image that a path means: below the folder, or else beside the table."""
    plain = PurePosixPath(written.replace("\\", "/"))
    for start in ("", table.parent):
        path = (folder / plain) if start == "" else Path(start) / plain
        try:
            name = path.resolve().relative_to(folder.resolve()).as_posix() if ".." in plain.parts else None
            name = name or path.absolute().relative_to(folder.absolute()).as_posix()
        except ValueError:
            continue
        if name in there:
            return name
    return None


def _without_the_table(listing: Listing, table: Path, folder: Path) -> None:
    """Removes the table itself from the files that are left out."""
    others = [name for name in listing.left_out.get(NO_IMAGE, []) if (folder / name).resolve() != table.resolve()]
    listing.left_out.pop(NO_IMAGE, None)
    listing.leave_out(NO_IMAGE, *others)


def _by_row_group(rows: list[Row], seed: int) -> list[Row]:
    places = np.array([row.place[:2] for row in rows if row.place is not None])
    groups = hash_indices(places[:, 0] << 32 | places[:, 1], seed)
    # Stable: within a group the rows keep their shuffled order.
    return [rows[i] for i in np.argsort(groups, kind="stable")]


def _state_of(table: Table) -> str:
    """The sizes and modification times of the files of a table."""
    stats = [file.stat() for file in table.files or (table.path,)]
    return " ".join(f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats)

"""Captions from a table, and images inside one."""

from __future__ import annotations

import io
import itertools
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from difflab.config.validate import validate
from difflab.data.bad_files import BadFiles
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.data.sources.folder.config import FolderSourceConfig
from difflab.data.sources.folder.source import folder_splits
from difflab.data.sources.tables.source import TableSource
from difflab.data.writing import write_dataset
from difflab.errors import UserError

CAPTIONS = {"cat/a.png": "a cat, asleep", "cat/b.png": 'a "big" cat', "dog/c.png": "ein süßer Hund"}


def png(value: int, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, name in enumerate(CAPTIONS):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(png(i))
    return tmp_path / "photos"


def write_table(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8") -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding=encoding)
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        lines = [rows[0].keys(), *(row.values() for row in rows)]
        quoted = [mark.join('"' + str(cell).replace('"', '""') + '"' for cell in line) for line in lines]
        path.write_text("\n".join(quoted) + "\n", encoding=encoding)
    return path


def rows(path: str = "file_name", caption: str = "text", **more: Any) -> list[dict[str, Any]]:
    return [{path: name, caption: text, **more} for name, text in CAPTIONS.items()]


def config(photos: Path, table: Path | None, **keys: Any) -> FolderSourceConfig:
    given = {"path": str(photos), **({} if table is None else {"captions_from": str(table)}), **keys}
    return validate(FolderSourceConfig, given)


def source(photos: Path, table: Path | None, **keys: Any) -> TableSource:
    (made,) = folder_splits(config(photos, table, **keys)).values()
    assert isinstance(made, TableSource)
    return made


def captions_of(made: TableSource) -> dict[str, str]:
    samples = [made.sample(i) for i in range(len(made))]
    return {sample["json"]["file"]: sample["caption"] for sample in samples}


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
@pytest.mark.parametrize("place", ["inside", "beside"])
def test_captions_come_from_a_table(photos: Path, tmp_path: Path, name: str, place: str) -> None:
    table = write_table((photos if place == "inside" else tmp_path) / name, rows())
    made = source(photos, table)
    assert captions_of(made) == CAPTIONS
    assert made.class_names == ["cat", "dog"]
    assert {s["json"]["file"]: s["label"] for s in map(made.sample, range(3))} == {
        "cat/a.png": 0,
        "cat/b.png": 0,
        "dog/c.png": 1,
    }
    assert made.left_out == {}


@pytest.mark.parametrize("start", ["{photos}/", "./", "photos/", "cat/../"])
def test_paths_are_below_the_folder_or_the_table_or_whole(photos: Path, tmp_path: Path, start: str) -> None:
    begin = start.format(photos=photos)
    table = write_table(tmp_path / "t.csv", [{"path": begin + n, "caption": t} for n, t in CAPTIONS.items()])
    assert captions_of(source(photos, table)) == CAPTIONS


def test_windows_paths_are_read(photos: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", [{"path": n.replace("/", "\\"), "caption": t} for n, t in CAPTIONS.items()])
    assert captions_of(source(photos, table)) == CAPTIONS


@pytest.mark.parametrize("caption", ["caption", "text", "prompt", "Caption", "TEXT"])
@pytest.mark.parametrize("path", ["path", "file_name", "filename", "image", "Image"])
def test_usual_names_are_found(photos: Path, tmp_path: Path, path: str, caption: str) -> None:
    table = write_table(tmp_path / "t.jsonl", rows(path, caption, width=8))
    assert captions_of(source(photos, table)) == CAPTIONS


def test_columns_are_named(photos: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", rows("where", "what", text="no", species="x"))
    made = source(photos, table, path_column="where", caption_column="what", label_column="species")
    assert captions_of(made) == CAPTIONS
    assert (made.class_names, made.sample(0)["label"]) == (["x"], 0)


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["b", "a", "b"], ["a", "b"], [1, 0, 1]),
        (["10", "9", "10"], ["9", "10"], [1, 0, 1]),
        (["0", "2", "0"], ["0", "2"], [0, 1, 0]),
    ],
)
def test_classes_come_from_a_column(photos: Path, tmp_path: Path, labels: Any, names: Any, expected: Any) -> None:
    table = write_table(tmp_path / "t.csv", [r | {"kind": k} for r, k in zip(rows(), labels, strict=True)])
    made = source(photos, table, label_column="kind")
    found = {sample["json"]["file"]: sample["label"] for sample in map(made.sample, range(3))}
    assert (made.class_names, [found[name] for name in CAPTIONS]) == (names, expected)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_marked_encodings_are_read(photos: Path, tmp_path: Path, encoding: str, name: str) -> None:
    assert captions_of(source(photos, write_table(tmp_path / name, rows(), encoding))) == CAPTIONS


def test_semicolons_of_spreadsheets_and_line_breaks_in_quotes_are_read(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'path;caption\r\ncat/a.png;"one, two\r\nthree"\r\n\r\ncat/b.png;four\r\n')
    made = source(photos, tmp_path / "t.csv", captions="lines")
    assert captions_of(made) == {"cat/a.png": "one, two\nthree", "cat/b.png": "four"}
    assert [row.number for row in sorted(made._rows, key=lambda row: row.number)] == [2, 5]


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_several_captions_of_an_image_are_its_lines(photos: Path, tmp_path: Path, name: str) -> None:
    table = write_table(tmp_path / name, [{"path": "cat/a.png", "captions": ["one", "two"]}])
    assert source(photos, table).sample(0)["caption"] == "one\ntwo"
    assert source(photos, table, captions="first_line").sample(0)["caption"] == "one"


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_rows_of_missing_files_are_bad_files(photos: Path, tmp_path: Path, name: str) -> None:
    made = [*rows(), {"file_name": "cat/gone.png", "text": "gone"}, {"file_name": "", "text": "nothing"}]
    table = write_table(tmp_path / name, made)
    with pytest.raises(UserError, match=r"2 of 5 files are bad: .*bad=skip") as error:
        write_dataset(folder_splits(config(photos, table)), tmp_path / "out")
    assert f"there is no image cat/gone.png in {photos}" in str(error.value)
    assert f"{name} row " in str(error.value)
    assert "names no image" in str(error.value)
    bad = BadFiles(skip=True, max_fraction=0.5)
    index = write_dataset(folder_splits(config(photos, table, bad="skip")), tmp_path / "out", bad=bad)
    assert (index.splits["train"].samples, len(bad.found)) == (3, 2)


def test_images_without_a_row_and_texts_beside_them_are_counted(photos: Path, tmp_path: Path) -> None:
    (photos / "cat/b.txt").write_text("not this")
    table = write_table(photos / "t.csv", rows()[:1])
    made = source(photos, table)
    assert captions_of(made) == {"cat/a.png": "a cat, asleep"}
    assert made.class_names == ["cat"]
    assert made.left_out == {
        "images without a row in the table": ["cat/b.png", "dog/c.png"],
        "caption files, where a table gives the captions": ["cat/b.txt"],
    }


@pytest.mark.parametrize("second", ["cat/a.png", "./cat/a.png", "photos/cat/a.png"])
def test_an_image_that_is_named_twice_is_refused(photos: Path, tmp_path: Path, second: str) -> None:
    table = write_table(tmp_path / "t.csv", [*rows(), {"file_name": second, "text": "again"}])
    with pytest.raises(UserError, match=r"t.csv names cat/a.png twice \(rows 2 and 5\): keep one"):
        source(photos, table)


@pytest.mark.parametrize(
    ("name", "content", "keys", "message"),
    [
        ("t.csv", "a,b\n1,2\n", {}, "t.csv has no column called file_name, .*; it has a, b: .*path_column"),
        ("t.csv", "path,b\n1,2\n", {}, "no column called caption, text, prompt.*; it has path, b: .*caption_column"),
        ("t.csv", "path,b\n1,2\n", {"caption_column": "c"}, r"no column 'c' \(caption_column\); it has path, b"),
        ("t.csv", "path,b\n1,2\n", {"path_column": "c"}, r"no column 'c' \(path_column\); it has path, b"),
        ("t.csv", "path,b\n1,2\n", {"label_column": "c"}, r"no column 'c' \(label_column\); it has path, b"),
        ("t.csv", "path,text,text\n1,2,3\n", {}, "has 2 columns 'text'; rename"),
        ("t.csv", "path,text\na.png,one, two\n", {}, "line 2 has 3 fields, its first line 2: .*double quotes"),
        ("t.csv", "path,text\na.png\n", {}, "line 2 has 1 fields, its first line 2"),
        ("t.csv", 'path,text\na.png,"x\n', {}, "t.csv line 2: unexpected end of data"),
        ("t.csv", "path,text\n", {}, "t.csv has no rows"),
        ("t.csv", "", {}, "t.csv has no rows"),
        ("t.csv", "path,text\na,b\n".encode("utf-16-le"), {}, "t.csv is not UTF-8 text .*; save it as UTF-8"),
        ("t.csv", "path,text\na,é\n".encode("latin-1"), {}, "t.csv is not UTF-8 text; save it as UTF-8"),
        ("t.jsonl", '{"path": "a"\n', {}, "t.jsonl line 1 is no JSON object"),
        ("t.jsonl", "[1]\n", {}, "t.jsonl line 1 is no JSON object"),
        (
            "t.jsonl",
            r'{"path": "a", "text": ["b", "\ud800"]}',
            {},
            r"t.jsonl line 1: its caption is not UTF-8 text .*\\ud800",
        ),
        ("t.jsonl", r'{"path": "a", "text": "b\u0000"}', {}, "t.jsonl line 1: its caption is not UTF-8 .*zero bytes"),
        (
            "t.jsonl",
            r'{"path": "a", "text": "b", "l": "\ud800"}',
            {"label_column": "l"},
            "t.jsonl line 1: its class is not UTF-8",
        ),
        ("t.parquet", "words", {}, "t.parquet is no parquet file"),
        ("t.xlsx", "words", {}, "t.xlsx is no table that is read: .parquet, .csv, .tsv, .jsonl"),
        (None, "", {}, "the table .*gone.csv does not exist"),
        ("t.csv", "path,text,l\ncat/a.png,b,\n", {"label_column": "l"}, "t.csv line 2 has no l; give every image"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(
    photos: Path, tmp_path: Path, name: str | None, content: str | bytes, keys: dict[str, str], message: str
) -> None:
    table = tmp_path / (name or "gone.csv")
    if name is not None:
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        source(photos, table, **keys)
    assert "\n" not in str(error.value)


def test_keys_of_a_table_need_one(photos: Path) -> None:
    with pytest.raises(UserError, match="caption_column is a column of a table: set captions_from too"):
        config(photos, None, caption_column="text")
    with pytest.raises(UserError, match="classes come from directories or from label_column"):
        config(photos, Path("t.csv"), label_column="l", classes="leaf")


def image_table(path: Path, n: int, *, hugging_face: bool, group: int = 4) -> Path:
    names = [f"{i}.png" for i in range(n)]
    cells = [{"bytes": png(i), "path": name} if hugging_face else png(i) for i, name in enumerate(names)]
    columns = {"image": cells, "text": [f"number {i}" for i in range(n)], "label": [i % 2 for i in range(n)]}
    table = pa.table(columns)
    if hugging_face:
        features = {"label": {"names": ["even", "odd"], "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, path, row_group_size=group)
    return path


@pytest.mark.parametrize("hugging_face", [True, False])
@pytest.mark.parametrize("way", ["path", "directory"])
def test_images_inside_a_table_are_read(tmp_path: Path, hugging_face: bool, way: str) -> None:
    (tmp_path / "data").mkdir()
    table = image_table(tmp_path / "data/a.parquet", 10, hugging_face=hugging_face)
    keys: dict[str, Any] = {"path": table} if way == "path" else {"path": table.parent, "captions_from": table.parent}
    asked = {key: str(value) for key, value in keys.items()} | {"label_column": "label", "val": 3}
    splits = folder_splits(validate(FolderSourceConfig, asked))
    write_dataset(splits, tmp_path / "out")
    directory = open_data(tmp_path / "out")
    assert directory.index.classes == (["even", "odd"] if hugging_face else ["0", "1"])
    found = []
    for split, count in (("train", 7), ("val", 3)):
        dataset = ShardDataset(directory, split, fields=("label", "caption", "json"))
        assert len(dataset) == count
        for sample in map(dataset.__getitem__, range(count)):
            value = int(sample["image"][0, 0, 0])
            assert (sample["image"] == value).all()
            assert (sample["caption"], sample["label"]) == (f"number {value}", value % 2)
            assert sample["json"]["file"] == (f"{value}.png" if hugging_face else f"row {value + 1}")
            found.append(value)
    assert sorted(found) == list(range(10))


def test_files_inside_a_table_are_stored_as_they_are_or_cut(tmp_path: Path) -> None:
    table = image_table(tmp_path / "a.parquet", 2, hugging_face=False)
    stored = source(table, None)
    assert {stored.sample(i)["file"] for i in range(2)} == {("png", png(0)), ("png", png(1))}
    assert source(table, None, resolution=4).sample(0)["image"].shape == (4, 4, 3)


def test_rows_of_a_group_stand_together_and_each_group_is_read_once(tmp_path: Path, monkeypatch: Any) -> None:
    made = source(image_table(tmp_path / "a.parquet", 40, hugging_face=False, group=5), None)
    places = [row.place for row in made._rows if row.place is not None]
    groups = [place[1] for place in places]
    assert len(groups) == 40
    assert sum(a != b for a, b in itertools.pairwise(groups)) == 7, "eight groups, one after another"
    assert groups != sorted(groups), "drawn, not as they lie"
    reads = []
    real = parquet.ParquetFile.read_row_group
    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", lambda *a, **how: reads.append(a[1]) or real(*a, **how))
    values = [int(np.asarray(Image.open(io.BytesIO(made.sample(i)["file"][1])))[0, 0, 0]) for i in range(40)]
    assert sorted(values) == list(range(40))
    assert len(reads) == 8


def test_images_of_a_table_are_read_in_other_processes(tmp_path: Path) -> None:
    made = source(image_table(tmp_path / "a.parquet", 6, hugging_face=False), None)
    first = made.sample(0)
    assert pickle.loads(pickle.dumps(made)).sample(0) == first


def test_several_parquet_files_are_one_table(tmp_path: Path) -> None:
    for name, n in (("b", 3), ("a", 2)):
        image_table(tmp_path / f"{name}.parquet", n, hugging_face=False)
    made = source(tmp_path, tmp_path)
    assert sorted(made.sample(i)["caption"] for i in range(5)) == [f"number {i}" for i in (0, 0, 1, 1, 2)]
    assert sorted(row.place[0] for row in made._rows if row.place) == [0, 0, 1, 1, 1]


def test_a_row_without_an_image_is_a_bad_file(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"image": [png(0), None, b"words"], "text": ["a", "b", "c"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="2 of 3 files are bad") as error:
        write_dataset(folder_splits(config(tmp_path / "a.parquet", None)), tmp_path / "out")
    assert "a.parquet row group 0, row 1 holds no image" in str(error.value)
    assert "a.parquet row 3: its image cannot be used: not an image" in str(error.value)


def test_an_empty_caption_is_told(photos: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.jsonl", [{"path": "cat/a.png", "text": None}, {"path": "cat/b.png", "text": " "}])
    remarks: list[str] = []
    write_dataset(folder_splits(config(photos, table)), tmp_path / "out", remarks=remarks)
    assert remarks == [f"2 empty captions ({table} row {source(photos, table)._rows[0].number})"]


def test_parquet_without_pyarrow_names_the_extra(photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    table = write_table(tmp_path / "t.parquet", rows())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"parquet files need pyarrow: pip install 'difflab\[parquet\]'"):
        source(photos, table)
    assert captions_of(source(photos, write_table(tmp_path / "t.csv", rows()))) == CAPTIONS


def test_another_table_is_another_source(photos: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", rows())
    first = source(photos, table).fingerprint()
    assert source(photos, table).fingerprint() == first
    table.write_text(table.read_text().replace("asleep", "awake for long"))
    assert source(photos, table).fingerprint() != first


def test_a_table_in_the_folder_is_found_by_its_name(photos: Path, tmp_path: Path) -> None:
    write_table(photos / "metadata.csv", rows())
    assert captions_of(source(photos, Path("metadata.csv"))) == CAPTIONS


def test_a_parquet_file_with_paths_means_those_beside_it(photos: Path) -> None:
    table = write_table(photos / "t.parquet", rows())
    (made,) = folder_splits(config(table, None)).values()
    assert captions_of(made) == CAPTIONS


def test_a_directory_of_parquet_files_alone_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for i in range(2):
        image_table(tmp_path / f"d/train-0000{i}-of-00002.parquet", 3, hugging_face=True)
    (made,) = folder_splits(config(tmp_path / "d", None)).values()
    assert len(made) == 6
    (tmp_path / "d/a.png").write_bytes(png(0))
    (made,) = folder_splits(config(tmp_path / "d", None)).values()
    assert len(made) == 1

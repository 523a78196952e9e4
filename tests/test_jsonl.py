from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from difflab import jsonl


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    jsonl.append(path, ['{"a": 1}', '{"a": "ü"}'])
    jsonl.append(path, [])
    jsonl.append(path, ['{"a": 3}'])
    assert path.read_text(encoding="utf-8") == '{"a": 1}\n{"a": "ü"}\n{"a": 3}\n'
    assert [record["a"] for record in jsonl.read(path)] == [1, "ü", 3]
    assert jsonl.read(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("torn", [b'{"a": 2, "b', b'{"a": "\xc3', b"[1, 2]", b"\x00\x00\x00", b"[" * 100_000])
def test_a_torn_line_costs_itself_alone_and_is_said_once(
    tmp_path: Path, torn: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"a": 1}\n' + torn)
    assert jsonl.read(path) == [{"a": 1}]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{path}: line 2 is not a complete record" in said
    jsonl.append(path, ['{"a": 3}', '{"a": 4}'])
    assert jsonl.read(path) == [{"a": 1}, {"a": 3}, {"a": 4}]
    assert capsys.readouterr().err == ""


def test_a_whole_record_without_its_line_break_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}')
    jsonl.append(path, ['{"a": 3}'])
    assert jsonl.read(path) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_lines_of_two_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    program = (
        "import json, sys; from pathlib import Path; from difflab import jsonl\n"
        "for i in range(50):\n"
        "    jsonl.append(Path(sys.argv[1]), [json.dumps({'who': sys.argv[2], 'i': i, 'x': 'y' * 9000})] * 2)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(path), who]) for who in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for who in "ab":
        assert [record["i"] for record in records if record["who"] == who] == [i for i in range(50) for _ in "ab"]


def test_a_file_system_may_take_a_line_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(jsonl.os, "write", lambda descriptor, content: write(descriptor, content[:5]))
    jsonl.append(tmp_path / "records.jsonl", ['{"a": "one"}', '{"a": "two"}'])
    assert [record["a"] for record in jsonl.read(tmp_path / "records.jsonl")] == ["one", "two"]

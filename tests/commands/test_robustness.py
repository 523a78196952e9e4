"""`difflab robustness`: records of several runs beside each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from clip_runs import QUIET, table
from difflab.metrics.protocol import Protocol, ReferenceRecord, Result
from tiny_runs import done, mistake


def record(value: float, *, split: str = "val", unchanged: float | None = None, n: int = 100, **how: object) -> Result:
    reference = ReferenceRecord(name="shapes", content_hash=split, split=split, preparation="none", n=n)
    protocol = Protocol(
        metric="zero-shot-top1", n=n, parameters={"prompts_sha256": split, "templates": 1, **how}, reference=reference
    )
    details = {} if unchanged is None else {"top1_unchanged": unchanged}
    return Result(metric="zero-shot-top1", value=value, protocol=protocol, details=details)


def written(name: str, *records: Result) -> Path:
    Path(name).mkdir()
    (Path(name) / "evaluations.jsonl").write_text("".join(f"{one.to_json()}\n" for one in records))
    return Path(name)


JPEG = {"corruption": "jpeg", "severity": 3}


def test_what_a_model_keeps_beyond_what_is_usual() -> None:
    usual = {"a": (0.5, 0.5), "b": (0.6, 0.6), "c": (0.8, 0.8)}
    for name, (unchanged, value) in usual.items():
        written(name, record(value, unchanged=unchanged, weights="raw", **JPEG))
    pgd = {"attack": "pgd", "epsilon": 4 / 255, "steps": 10}
    old = record(0.1, unchanged=0.7, weights="ema", **JPEG)
    written("mine", old, record(0.75, unchanged=0.7, weights="ema", **JPEG), record(0.2, unchanged=0.7, **pgd))
    baselines = [word for name in usual for word in ("--baseline", name)]
    ended = done("robustness", "mine", *baselines, "--out", "found")
    rows = table(Path("found/robustness.csv"))
    assert {row["shift"] for row in rows} == {"jpeg of severity 3 (100, templates: 1)"}
    own, *others = rows
    # The baselines lose nothing: the line is the diagonal.
    assert float(own["effective"]) == pytest.approx(0.05)
    assert [float(row["relative"]) for row in others] == pytest.approx([0.25, 0.15, -0.05])
    assert "note: not measured alike under pgd within 4/255 in 10 steps (100, templates: 1): a, b, c" in ended.out
    assert {"robustness.svg", "robustness.png"} <= {path.name for path in Path("found").iterdir()}
    done("robustness", "mine", "--baseline", "a")
    (folder,) = Path("mine/evaluations").glob("robustness-*")
    assert table(folder / "robustness.csv")[0]["effective"] == ""


def test_other_data_is_a_shift_of_the_standard_one() -> None:
    for name, standard, shifted in (("mine", 0.9, 0.7), ("other", 0.8, 0.5)):
        written(name, record(standard, seed=0), record(shifted, split="holdout", seed=0))
    done("robustness", "mine", "--baseline", "other", "--standard", "val", "--out", "found")
    own, other = table(Path("found/robustness.csv"))
    assert (own["shift"], float(own["standard"]), float(own["shifted"])) == (
        "shapes/holdout (100, templates: 1)",
        0.9,
        0.7,
    )
    assert float(other["relative"]) == pytest.approx(0.2)
    line = mistake("robustness", "mine", "--baseline", "other", "--standard", "test")
    assert "--standard test: mine has no zero-shot measurement of it, only of shapes/val, shapes/holdout: give" in line


def test_what_cannot_be_compared_is_one_line() -> None:
    written("mine", record(0.5, unchanged=0.6, **JPEG))
    written("clean", record(0.5))
    Path("none").mkdir()
    written("other", record(0.5, unchanged=0.6, **{**JPEG, "severity": 5}))
    assert "none has no records of zero-shot classification" in mistake("robustness", "mine", "--baseline", "none")
    assert "mine is given twice: compare different" in mistake("robustness", "mine", "--baseline", "mine")
    assert "clean was measured under no shift: measure one, as" in mistake("robustness", "clean", "--baseline", "mine")
    assert "no baseline was measured under a shift of mine" in mistake("robustness", "mine", "--baseline", "other")
    assert "Missing option '--baseline'" in mistake("robustness", "mine")


def test_it_reads_what_zero_shot_wrote(small_clip: Path) -> None:
    for name in ("mine", "other"):
        shutil.copytree(small_clip, name)
        done("zero-shot", f"run={name}", "n=6", "corruption=jpeg,contrast", *QUIET)
    done("robustness", "mine", "--baseline", "other", "--out", "found")
    rows = table(Path("found/robustness.csv"))
    assert [row["shift"] for row in rows[::2]] == [
        "jpeg of severity 3 (val-6, templates: 1)",
        "contrast of severity 3 (val-6, templates: 1)",
    ]
    assert all(float(row["relative"]) == 0 for row in rows[1::2])
    record = json.loads((Path("mine") / "evaluations.jsonl").read_text().splitlines()[0])
    assert float(rows[0]["shifted"]) == pytest.approx(record["value"])

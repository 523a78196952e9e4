from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sittings import sitting
from tiny_runs import difflab, done, mistake

GIVEN = ("--samples", "sr3=sharp", "--originals", "originals", "--low-res", "low")


@pytest.fixture(autouse=True)
def pictures() -> None:
    """Six pictures in three folders of the present directory."""
    random = np.random.default_rng(0)
    for folder, side in (("originals", 8), ("sharp", 8), ("smooth", 8), ("low", 4)):
        Path(folder).mkdir()
        for i in range(6):
            Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(f"{folder}/{i}.png")


def write(name: str, **more) -> str:
    Path(name).write_text(json.dumps(sitting({"sr3": 4, "regression": 1}, **more)))
    return name


def test_a_page_is_written() -> None:
    ended = done(
        "fool-rate", "page", *GIVEN, "--samples", "smooth", "--practice", "1", "--checks", "1", "--out", "page.html"
    )
    first, second = ended.out.splitlines()
    assert first.startswith("page.html: task 1, 2 trials of sr3, smooth, 1 for practice, 1 checks, 3 s each, ")
    assert "difflab fool-rate results" in second
    assert Path("page.html").read_text().startswith("<!doctype html>")


def test_a_page_that_raters_may_have_is_kept() -> None:
    again = ("fool-rate", "page", *GIVEN, "--out", "page.html")
    done(*again)
    content = Path("page.html").read_bytes()
    done(*again)
    assert Path("page.html").read_bytes() == content
    assert difflab(*again, "--seed", "1").last_error == (
        "difflab fool-rate: --out page.html exists and is another page: give another name, or --overwrite"
    )
    Path("notes.html").write_text("mine")
    assert mistake(*again[:-1], "notes.html").startswith("difflab fool-rate: --out notes.html is no page that")
    assert Path("page.html").read_bytes() == content
    done(*again, "--seed", "1", "--overwrite")
    assert Path("page.html").read_bytes() != content


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*GIVEN, "--out", "page.html", "--task", "3"), "--task 3 is not one of 1, 2"),
        ((*GIVEN, "--out", "originals"), "--out originals is a folder"),
        ((*GIVEN, "--out", "page.html", "--n", "4"), "6 pairs are too few"),
        ((*GIVEN, "--out", "page.html", "--n", "0"), "'--n'"),
        ((*GIVEN, "--out", "page.html", "--seconds", "-1"), "'--seconds'"),
        ((*GIVEN, "--out", "page.html", "--seconds", "nan"), "'--seconds'"),
        ((*GIVEN, "--out", "page.html", "--seconds", "inf"), "'--seconds'"),
        ((*GIVEN, "--out", "page.html", "--seed", "-1"), "'--seed'"),
        (GIVEN[2:], "'--samples'"),
        (GIVEN, "'--out'"),
        (("--samples", "sharp", "--out", "page.html"), "give --originals FOLDER"),
        (("--samples", "sharp", "--data", "nowhere", "--out", "page.html"), "data directory nowhere does not exist"),
        (("--samples", "sharp", "--run", "nowhere", "--out", "page.html"), "--run=nowhere does not exist"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], said: str) -> None:
    assert said in mistake("fool-rate", "page", *arguments)
    assert not Path("page.html").exists()


def test_results_are_shown_and_written() -> None:
    files = [write("a.json", number=1, rater="Ann"), write("b.json", number=2), write("c.json", number=3, failed=1)]
    ended = done("fool-rate", "results", *files, "--out", "report.json")
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["regression", "all", "2", "10.0%", "2.8-30.1", "%", "20", "1.00", "s", "0"] in rows
    assert ["sr3", "all", "2", "40.0%", "21.9-61.3", "%", "20", "1.00", "s", "0"] in rows
    assert ["sr3", "Ann", "40.0%", "16.8-68.7", "%", "10", "1.00", "s", "0"] in rows
    assert ["sr3", "b.json", "40.0%", "16.8-68.7", "%", "10", "1.00", "s", "0"] in rows
    assert "excluded for more than 0 failed attention checks: 1 of 3 sittings: c.json (1 of 2)" in ended.out
    report = json.loads(Path("report.json").read_text())
    assert report["models"]["sr3"]["fool_rate"] == 0.4
    assert [rater["excluded"] for rater in report["raters"]] == [False, False, True]
    assert json.loads(done("fool-rate", "results", *files, "--json").out) == report
    assert done("fool-rate", "results", *files, "--allow-failed", "1").out.count("all 3") == 2


def test_without_checks_nobody_is_excluded_and_that_is_said() -> None:
    out = done("fool-rate", "results", write("a.json", checks=0)).out
    assert "the page has no attention checks: nobody is excluded" in out


def test_a_name_that_is_markup_stays_a_name() -> None:
    assert "[red]:smile:" in done("fool-rate", "results", write("a.json", rater="[red]:smile:")).out


def test_who_always_takes_one_side_is_named() -> None:
    content = sitting({"m": 2})
    for trial in content["trials"]:
        trial["choice"] = "right"
    Path("a.json").write_text(json.dumps(content))
    assert "note: a.json: every choice is the right one" in done("fool-rate", "results", "a.json").out


def test_results_of_another_page_are_refused() -> None:
    done("fool-rate", "page", *GIVEN, "--out", "page.html")
    file = write("a.json")
    assert "is of another page" in mistake("fool-rate", "results", file, "--page", "page.html")
    assert "--page nothing.html does not exist" in mistake("fool-rate", "results", file, "--page", "nothing.html")
    assert "a.json is no page that" in mistake("fool-rate", "results", file, "--page", file)


def test_a_report_never_takes_the_place_of_results() -> None:
    file = write("a.json")
    assert "is one of the results" in mistake("fool-rate", "results", file, "--out", f"{Path.cwd()}/{file}")
    other = write("b.json", number=2)
    done("fool-rate", "page", *GIVEN, "--out", "page.html")
    kept = {name: Path(name).read_bytes() for name in (file, other, "page.html")}
    for name in (other, "page.html"):
        line = mistake("fool-rate", "results", file, "--out", name)
        assert line.endswith(f"--out {name} exists and is not a report: give another name")
    assert {name: Path(name).read_bytes() for name in kept} == kept
    for files in ((file,), (file, other)):
        done("fool-rate", "results", *files, "--out", "report.json")
    assert json.loads(Path("report.json").read_text())["sittings"] == 2


def test_results_of_nobody() -> None:
    assert "Missing argument 'files'" in mistake("fool-rate", "results")

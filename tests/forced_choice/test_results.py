from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difflab.errors import UserError
from difflab.forced_choice.protocol import Results
from difflab.forced_choice.results import read_results
from sittings import PAGE, sitting

Content = dict[str, Any]


def written(tmp_path: Path, *contents: Any) -> list[Path]:
    paths = [tmp_path / f"{name}.json" for name, _ in zip("abcdef", contents, strict=False)]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return paths


def refusal(tmp_path: Path, *contents: Any, page: str | None = None) -> str:
    with pytest.raises(UserError) as error:
        read_results(written(tmp_path, *contents), page)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{tmp_path}/", "")


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    content = sitting({"m": 4, "other": 2}, rater="Zoë, 3")
    (path,) = written(tmp_path, content)
    (found,) = read_results([path], PAGE).values()
    assert found.plain() == json.loads(json.dumps(content))
    assert Results.model_validate(found.plain()) == found
    assert [answer.picked for answer in found.answers("rated")].count("model") == 6


def test_files_keep_their_order(tmp_path: Path) -> None:
    paths = written(tmp_path, *(sitting({"m": i}, number=i) for i in range(3)))
    assert list(read_results(paths[::-1])) == [str(path) for path in paths[::-1]]


def test_another_page_is_refused(tmp_path: Path) -> None:
    other = {**sitting({"m": 1}, number=2), "page": "cd" * 32}
    assert refusal(tmp_path, sitting({"m": 1}), other) == (
        "b.json is of another page (cdcdcdcdcdcd) than a.json (abababababab): give results of one page"
    )
    assert refusal(tmp_path, sitting({"m": 1}), page="ef" * 32) == (
        "a.json is of another page (abababababab) than the page given: give results of one page"
    )


def test_a_sitting_counts_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, sitting({"m": 1}, number=5), sitting({"m": 3}, number=4), sitting({"m": 1}, number=5))
    assert message == "c.json is the same sitting as a.json: give it once"


def swap(content: Content) -> None:
    trial = content["trials"][3]
    trial["left"], trial["right"] = trial["right"], trial["left"]


@pytest.mark.parametrize(
    "change",
    [
        swap,
        lambda content: content["trials"][3].update(pair="other"),
        lambda content: content["protocol"].update(seconds=9),
    ],
)
def test_one_page_shows_all_the_same(tmp_path: Path, change: Callable[[Content], None]) -> None:
    changed = sitting({"m": 1}, number=2)
    change(changed)
    assert "one of them was changed by hand" in refusal(tmp_path, sitting({"m": 1}), changed)


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "null", "{}", '"a"', "[" * 100_000, json.dumps({"format": "other"})]
)
def test_what_is_no_results_file(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text).startswith(("a.json is not JSON: give", "a.json is no results file: give"))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match=r"a\.json is not JSON"):
        read_results([tmp_path / "a.json"])


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.json does not exist"):
        read_results([tmp_path / "nothing.json"])
    with pytest.raises(UserError, match=r"is a folder: give the files in it"):
        read_results([tmp_path])


CHANGES: dict[str, tuple[Callable[[Content], object], str]] = {
    "a trial is missing": (lambda c: c["trials"].pop(), "trials are not 0..13, each once and in order"),
    "a trial is there twice": (lambda c: c["trials"].append(c["trials"][-1]), "trials are not 0..13"),
    "another order": (lambda c: c["trials"].reverse(), "trials are not 0..13"),
    "none": (lambda c: c["trials"].clear(), "trials are not 0..13"),
    "an unknown choice": (lambda c: c["trials"][2].update(choice="both"), "trials.2.choice='both'"),
    "no choice": (lambda c: c["trials"][2].pop("choice"), "missing key 'trials.2.choice'"),
    "no time": (lambda c: c["trials"][2].update(reaction_ms=None), "trials.2.reaction_ms=None"),
    "a time below zero": (lambda c: c["trials"][2].update(reaction_ms=-1), "trials.2.reaction_ms=-1"),
    "a time that is no number": (lambda c: c["trials"][2].update(reaction_ms=math.nan), "trials.2.reaction_ms=nan"),
    "an unknown key": (lambda c: c["trials"][2].update(undone=True), "unknown key 'trials.2.undone'"),
    "two models": (lambda c: c["trials"][0].update(left="model", right="model"), "one side of practice is original"),
    "bicubic in a rated trial": (
        lambda c: next(t for t in c["trials"] if t["kind"] == "rated").update(left="bicubic", right="original"),
        "one side of rated is original, the other model",
    ),
    "a model in a check": (
        lambda c: next(t for t in c["trials"] if t["kind"] == "check").update(model="m"),
        "model=m: a check has none",
    ),
    "a rated trial without a model": (
        lambda c: next(t for t in c["trials"] if t["kind"] == "rated").update(model=None),
        "every other trial has one",
    ),
    "counts that do not fit": (
        lambda c: c["protocol"].update(practice=1, rated=11),
        "2 trials are practice, the protocol",
    ),
    "late without a limit": (
        lambda c: (c["protocol"].update(seconds=0), c["trials"][0].update(timed_out=True)),
        "a choice is timed_out, but seconds=0",
    ),
    "a true that is a number": (lambda c: c["trials"][0].update(timed_out=1), "trials.0.timed_out=1"),
    "an unknown task": (lambda c: c["protocol"].update(task=3), "protocol.task=3"),
    "no digest": (lambda c: c.update(page="page.html"), "page='page.html'"),
    "another format": (lambda c: c.update(format="difflab-fool-rate-2"), "format='difflab-fool-rate-2'"),
    "a long name": (lambda c: c.update(rater="x" * 81), "rater="),
    "no trials": (lambda c: c.update(trials=None), "trials=None"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_was_changed_is_refused(tmp_path: Path, change: str) -> None:
    content = sitting({"m": 4})
    changed, said = CHANGES[change]
    changed(content)
    message = refusal(tmp_path, content)
    assert message.startswith("a.json: ")
    assert said in message
    assert message.endswith("; give the file as the page saved it")

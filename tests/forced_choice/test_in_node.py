"""The program of a page, driven by keys, in as much of a browser as it uses (browser.js)."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from difflab.forced_choice.drawn import Origin
from difflab.forced_choice.page import make_page
from difflab.forced_choice.protocol import Results
from difflab.forced_choice.results import read_results
from difflab.forced_choice.study import StudyOptions, open_study
from difflab.forced_choice.trials import Trials

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="the program of the page runs in node")

GAP = 300
START = (("load", None),)
BEGUN = (*START, ("key", "Enter"), ("wait", GAP))
LOOK = ("look", None)
Action = tuple[str, Any]


@pytest.fixture(scope="module")
def written(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of four trials: one of practice, two rated, one check."""
    folder = tmp_path_factory.mktemp("pages")
    files = {}
    for name, task, seconds in (("timed", 1, 2.0), ("untimed", 1, 0.0), ("camera", 2, 2.0)):
        which = 1 if task == 1 else 2
        samples = [f"m={pictures / 'sharp'}"]
        origin = Origin(None, None, None)
        study = open_study(StudyOptions(samples, pictures / "originals", pictures / "low", origin, which, 1))
        pairs = Trials(2, practice=1, checks=1, seed=3).plan(["m"], study.names)
        files[name] = folder / f"{name}.html"
        files[name].write_text(make_page(study, pairs, task=which, seconds=seconds, seed=3).html)
    return files


def seen(page: Path, *actions: Action) -> list[dict[str, Any]]:
    """What is seen at every look."""
    assert NODE is not None
    browser = Path(__file__).with_name("browser.js")
    done = subprocess.run(
        [NODE, str(browser), str(page)], input=json.dumps(actions), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answered(*keys: str, after: int = 500) -> list[Action]:
    """Answers, each so many milliseconds after the pair is seen."""
    return [action for key in keys for action in (("wait", after), ("key", key), ("wait", GAP))]


def results_of(look: dict[str, Any], tmp_path: Path) -> Results:
    assert look["section"] == "end"
    (tmp_path / "results.json").write_text(look["text"])
    return read_results([tmp_path / "results.json"])[str(tmp_path / "results.json")]


def test_a_sitting_from_the_first_key_to_the_file(written: dict[str, Path], tmp_path: Path) -> None:
    keys = ("ArrowLeft", "ArrowRight", "ArrowRight", "ArrowLeft")
    start, first, end = seen(
        written["timed"],
        *START,
        LOOK,
        ("name", "  A. N. \U0001f600 \ud83d "),  # the second emoji is cut in half
        ("key", "Enter"),
        ("wait", GAP),
        LOOK,
        *answered(*keys),
        LOOK,
    )
    assert (start["section"], start["focused"]) == ("start", "begin")
    assert "4 pairs" in start["how"]
    assert "2 s" in start["how"]
    assert (first["section"], first["gone"], first["done"]) == ("trial", False, "0 of 4")
    assert first["question"].startswith("Which of the two images is a better high quality version")
    assert "practice" in first["hint"]
    results = results_of(end, tmp_path)
    assert results.rater == "A. N. \U0001f600"
    assert [answer.choice for answer in results.trials] == ["left", "right", "right", "left"]
    assert [answer.reaction_ms for answer in results.trials] == [500.0] * 4
    assert not any(answer.timed_out for answer in results.trials)
    (download,) = end["downloads"]
    assert download["name"].startswith(f"fool-rate-{results.page[:8]}-")
    assert urllib.parse.unquote(download["href"]).partition(",")[2] == end["text"]


def test_the_pictures_of_a_trial_are_those_of_the_key(written: dict[str, Path]) -> None:
    data = json.loads(written["timed"].read_text().partition('id="page">')[2].partition("</script>")[0])
    looks = seen(written["timed"], *BEGUN, LOOK, *(a for key in ("ArrowLeft",) * 3 for a in (*answered(key), LOOK)))
    for look, trial in zip(looks, data["trials"], strict=True):
        assert look["shown"] == {"left": trial["left"], "middle": trial["low_res"], "right": trial["right"]}
        assert len({tuple(size) for size in look["sizes"].values()}) == 1
        assert look["sizes"]["left"] == ["288px", "288px"], "a whole factor of 16 px"


def test_task_2_shows_no_low_resolution(written: dict[str, Path]) -> None:
    (look,) = seen(written["camera"], *BEGUN, LOOK)
    assert look["middle_hidden"]
    assert look["question"] == "Which image would you guess is from a camera?"


def test_pictures_go_when_their_time_is_over(written: dict[str, Path], tmp_path: Path) -> None:
    before, after, end = seen(
        written["timed"],
        *BEGUN,
        ("wait", 1999),
        LOOK,
        ("wait", 1),
        LOOK,
        *answered("ArrowLeft", "ArrowRight", "ArrowLeft", "ArrowRight"),
        LOOK,
    )
    assert (before["gone"], after["gone"]) == (False, True)
    results = results_of(end, tmp_path)
    assert [answer.timed_out for answer in results.trials] == [True, False, False, False]
    assert results.trials[0].reaction_ms == 2500


def test_without_a_limit_they_stay(written: dict[str, Path], tmp_path: Path) -> None:
    late, end = seen(written["untimed"], *BEGUN, ("wait", 10**7), LOOK, *answered(*["ArrowLeft"] * 4), LOOK)
    assert not late["gone"]
    assert not any(answer.timed_out for answer in results_of(end, tmp_path).trials)


def test_a_pause_hides_the_pictures_and_stops_both_clocks(written: dict[str, Path], tmp_path: Path) -> None:
    paused, on, later, gone, end = seen(
        written["timed"],
        *BEGUN,
        *(("wait", 1500), ("key", "Escape"), LOOK, ("key", "ArrowLeft"), ("wait", 60_000)),
        *(("key", " "), ("wait", GAP), LOOK, ("wait", 499), LOOK, ("wait", 1), LOOK),
        *answered("ArrowLeft", "ArrowRight", "ArrowLeft", "ArrowRight", after=100),
        LOOK,
    )
    assert (paused["section"], paused["gone"], paused["done"]) == ("pause", True, "0 of 4")
    assert (on["section"], on["gone"], later["gone"], gone["gone"]) == ("trial", False, False, True)
    assert results_of(end, tmp_path).trials[0].reaction_ms == 2100


def test_another_window_is_a_pause(written: dict[str, Path]) -> None:
    (look,) = seen(written["timed"], *BEGUN, ("hide", None), LOOK)
    assert look["section"] == "pause"


def test_a_reload_goes_on_where_it_stood(written: dict[str, Path], tmp_path: Path) -> None:
    reloaded, on, end = seen(
        written["timed"],
        *(*START, ("name", "B"), *BEGUN[1:], *answered("ArrowRight")),
        *(("wait", 1500), ("reload", None), LOOK, ("key", "Enter"), ("wait", GAP + 500), LOOK),
        *answered("ArrowLeft", "ArrowLeft", "ArrowLeft", after=100),
        LOOK,
    )
    assert (reloaded["section"], reloaded["done"], reloaded["focused"]) == ("pause", "1 of 4", "resume")
    assert on["gone"], "a reload gives no new time to look"
    results = results_of(end, tmp_path)
    assert [answer.choice for answer in results.trials] == ["right", "left", "left", "left"]
    assert [answer.timed_out for answer in results.trials] == [False, True, False, False]
    assert results.rater == "B"


def test_a_reload_at_the_end_shows_the_same_results(written: dict[str, Path]) -> None:
    end, again = seen(written["timed"], *BEGUN, *answered(*["ArrowLeft"] * 4), LOOK, ("reload", None), LOOK)
    assert again["text"] == end["text"]
    assert len(again["downloads"]) == 1


def test_the_next_rater_begins_anew(written: dict[str, Path], tmp_path: Path) -> None:
    first, start, second = seen(
        written["timed"],
        *(*BEGUN, *answered(*["ArrowLeft"] * 4), LOOK, ("click", "next"), LOOK),
        *(("key", "Enter"), ("wait", GAP), *answered(*["ArrowRight"] * 4), LOOK),
    )
    assert (start["section"], start["done"]) == ("start", "0 of 4")
    one, two = results_of(first, tmp_path), results_of(second, tmp_path)
    assert one.page == two.page
    assert one.sitting != two.sitting
    assert [answer.choice for answer in two.trials] == ["right"] * 4


def test_without_storage_it_works_and_says_so(written: dict[str, Path]) -> None:
    start, end = seen(
        written["timed"], ("storage", False), *START, LOOK, *BEGUN[1:], *answered(*["ArrowLeft"] * 4), LOOK
    )
    assert start["unkept"]
    assert end["section"] == "end"
    (kept,) = seen(written["timed"], *START, LOOK)
    assert not kept["unkept"]


@pytest.mark.parametrize(
    "text", ["", "null", "{", "[]", '{"answers": 3}', '{"answers": [], "sitting": "a", "rater": "", "seen_ms": null}']
)
def test_what_somebody_else_stored_is_left_alone(written: dict[str, Path], text: str) -> None:
    (look,) = seen(written["timed"], *START, ("store", text), ("load", None), LOOK)
    assert look["section"] == "start"


def test_a_held_key_and_those_of_the_browser_choose_nothing(written: dict[str, Path]) -> None:
    (look,) = seen(written["timed"], *BEGUN, ("held", "ArrowLeft"), ("control", "ArrowLeft"), ("key", "x"), LOOK)
    assert look["done"] == "0 of 4"


def test_nothing_is_clicked_before_it_is_seen(written: dict[str, Path]) -> None:
    early, second = seen(
        written["timed"],
        *START,
        ("key", "Enter"),
        ("click", "left"),
        LOOK,
        ("wait", GAP),
        *[("click", "left")] * 2,
        LOOK,
    )
    assert early["done"] == "0 of 4"
    assert second["done"] == "1 of 4", "the second click of a double click answers nothing"


def test_nothing_is_chosen_before_it_is_seen(written: dict[str, Path]) -> None:
    start, early = seen(
        written["timed"], *START, ("key", "ArrowLeft"), LOOK, ("key", "Enter"), ("key", "ArrowLeft"), LOOK
    )
    assert start["section"] == "start"
    assert early["done"] == "0 of 4"


def test_pictures_can_be_clicked(written: dict[str, Path], tmp_path: Path) -> None:
    clicks = [a for side in ("left", "right", "left", "right") for a in (("click", side), ("wait", GAP))]
    (end,) = seen(written["timed"], *START, ("click", "begin"), ("wait", GAP), *clicks, LOOK)
    assert [answer.choice for answer in results_of(end, tmp_path).trials] == ["left", "right", "left", "right"]


def test_a_space_in_the_name_begins_nothing_and_enter_does(written: dict[str, Path]) -> None:
    typed, begun = seen(
        written["timed"], *START, ("focus", "rater"), ("key", " "), LOOK, ("key", "Enter"), ("wait", GAP), LOOK
    )
    assert typed["section"] == "start"
    assert begun["section"] == "trial"

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difflab.errors import UserError
from difflab.forced_choice import page as pages
from difflab.forced_choice.drawn import Origin
from difflab.forced_choice.page import Page, digest_of, make_page
from difflab.forced_choice.protocol import QUESTIONS, Pair, Task
from difflab.forced_choice.study import StudyOptions, open_study
from difflab.forced_choice.trials import Trials


def page_of(pictures: Path, *, task: Task = 1, seed: int = 0, seconds: float = 3.0, checks: int = 2) -> Page:
    samples = [f"first-model={pictures / 'sharp'}", f"second-model={pictures / 'smooth'}"]
    asked = StudyOptions(samples, pictures / "originals", pictures / "low", Origin(None, None, None), task, checks)
    study = open_study(asked)
    pairs = Trials(6, practice=2, checks=checks, seed=seed).plan(list(study.models), study.names)
    return make_page(study, pairs, task=task, seconds=seconds, seed=seed)


def data_of(page: Page) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="page">(.*?)</script>', page.html)
    assert found
    return json.loads(found[1])


def png_of(uri: str) -> bytes:
    assert uri.startswith("data:image/png;base64,")
    return base64.b64decode(uri.partition(",")[2], validate=True)


def chunks(png: bytes) -> list[str]:
    """The types of the chunks of a PNG, whose sums are right."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, place = [], 8
    while place < len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        body = png[place + 4 : place + 8 + length]
        assert binascii.crc32(body) == int.from_bytes(png[place + 8 + length : place + 12 + length], "big")
        found.append(body[:4].decode())
        place += 12 + length
    return found


@pytest.mark.parametrize("task", [1, 2])
def test_each_side_shows_what_the_key_says(pictures: Path, task: Task) -> None:
    page = page_of(pictures, task=task)
    trials = data_of(page)["trials"]
    folders = {"first-model": "sharp", "second-model": "smooth"}
    assert len(trials) == len(page.pairs) == 16
    for trial, pair in zip(trials, page.pairs, strict=True):
        file = f"{pair.pair}.png"
        small = Image.open(pictures / "low" / file)
        expected = {
            "original": Image.open(pictures / "originals" / file),
            "model": Image.open(pictures / folders.get(pair.model or "", "low") / file),
            "bicubic": small.resize((16, 16), Image.Resampling.BICUBIC),
        }
        for side, role in (("left", pair.left), ("right", pair.right)):
            shown = Image.open(io.BytesIO(png_of(trial[side])))
            assert np.array_equal(np.asarray(shown), np.asarray(expected[role])), (side, role)
        assert ("low_res" in trial) == (task == 1)
        if task == 1:
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_of(trial["low_res"])))), np.asarray(small))


def test_the_key_is_read_at_the_end_alone(pictures: Path) -> None:
    page = page_of(pictures)
    key = json.loads(base64.b64decode(data_of(page)["key"]))
    assert [Pair.model_validate(pair) for pair in key] == page.pairs


def test_nothing_gives_a_side_away(pictures: Path) -> None:
    page = page_of(pictures)
    data = data_of(page)
    files = [png_of(trial[side]) for trial in data["trials"] for side in ("left", "right")]
    assert len({len(file) for file in files}) == 1
    headers = {file[:33] for file in files}
    assert len(headers) == 1, "size, depth and colours are the same"
    assert {tuple(kind for kind in chunks(file) if kind != "IDAT") for file in files} == {("IHDR", "paDd", "IEND")}
    assert {Image.open(io.BytesIO(file)).info.keys() == set() for file in files} == {True}
    for told in ("first-model", "second-model", "secret-", "sharp", "smooth", "originals", str(pictures)):
        assert told not in page.html
    assert {tuple(trial) for trial in data["trials"]} == {tuple(data["trials"][0])}
    alt = re.findall(r'alt="([^"]*)"', page.html)
    assert alt == [""] * 3
    visible = page.html.partition('<script type="application/json"')[0].lower()
    assert not re.search(r"original|bicubic|model|sample", visible)


def test_a_smooth_picture_would_be_shorter(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the padding is for."""
    monkeypatch.setattr(pages, "_as_long_as_the_longest", lambda trials: None)
    trials = data_of(page_of(pictures))["trials"]
    assert len({len(trial[side]) for trial in trials for side in ("left", "right")}) > 1


def test_nothing_is_loaded_and_nothing_else_runs(pictures: Path) -> None:
    html = page_of(pictures).html
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert script
    assert style
    for rule, content in (("script-src", script[1]), ("style-src", style[1])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    shell = html.replace(data_of_text(html), "")
    assert not re.search(r"https?://|//\w|\b(src|href)=\"[^#\"]|@import|url\(|style=\"|\son\w+=", shell)
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|eval|import)\b", script[1])


def data_of_text(html: str) -> str:
    found = re.search(r'id="page">(.*?)</script>', html)
    assert found
    return found[1]


def test_a_page_can_be_used_without_a_mouse(pictures: Path) -> None:
    html = page_of(pictures).html
    assert '<html lang="en">' in html
    assert 'name="viewport"' in html
    assert ":focus-visible" in html
    assert "outline: 3px" in html
    assert "prefers-color-scheme: dark" in html
    assert "image-rendering: pixelated" in html
    for side in ("left", "right"):
        assert re.search(rf'<button id="{side}"[^>]*aria-label="the {side} image"', html)
    assert '<label for="rater">' in html


def test_the_same_page_is_written_again(pictures: Path) -> None:
    page = page_of(pictures)
    assert page_of(pictures).html == page.html
    assert digest_of(page.html, "page.html") == page.digest == data_of(page)["digest"]
    protocol = data_of(page)["protocol"]
    assert protocol["question"] == QUESTIONS[1]
    assert {key: protocol[key] for key in ("task", "seed", "seconds", "practice", "rated", "checks")} == {
        "task": 1,
        "seed": 0,
        "seconds": 3.0,
        "practice": 2,
        "rated": 12,
        "checks": 2,
    }


def test_whatever_a_rater_sees_changes_the_digest(pictures: Path) -> None:
    others = [
        page_of(pictures, seed=1),
        page_of(pictures, task=2),
        page_of(pictures, seconds=0.0),
        page_of(pictures, checks=1),
    ]
    assert len({page.digest for page in [page_of(pictures), *others]}) == 5


def test_one_pixel_changes_the_digest(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = page_of(pictures).digest
    real = pages._shown

    def changed(*arguments: Any) -> dict[str, np.ndarray]:
        shown = real(*arguments)
        shown["left"] = shown["left"].copy()
        shown["left"][0, 0, 0] ^= 1
        return shown

    monkeypatch.setattr(pages, "_shown", changed)
    assert page_of(pictures).digest != before


def test_a_page_that_no_browser_takes(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LARGEST_PAGE", 1000)
    with pytest.raises(UserError, match=r"more than browsers take .*lower --n"):
        page_of(pictures)


@pytest.mark.parametrize("text", ["", "<html></html>", '<script type="application/json" id="page">{</script>'])
def test_what_is_no_page(text: str) -> None:
    with pytest.raises(UserError, match=r"^x.html is no page that `difflab fool-rate page` wrote$"):
        digest_of(text, "x.html")

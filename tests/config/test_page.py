"""The page of all choices and their options, and what other pages list of them by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from difflab.config.axes import GUIDANCE, SAMPLERS, every_choice
from difflab.config.described import described, named_in
from difflab.config.page import PAGE, page
from difflab.config.registry import Axis, Kind

ROOT = Path(__file__).parents[2]


def test_the_page_is_of_this_code() -> None:
    assert (ROOT / PAGE).read_text() == page(), "run python -m difflab.config.page"


def test_every_choice_is_on_it() -> None:
    rows = {line.split("|")[1].strip() for line in page().splitlines() if line.startswith("|")}
    assert {f"`{name}`" for _, name, _ in every_choice()} <= rows


def test_something_is_said_of_every_option() -> None:
    of_options, unsaid = False, []
    for line in page().splitlines():
        of_options = line.startswith("| option |") or (of_options and line.startswith("|"))
        unsaid += [line] if of_options and line.endswith("|  |") else []
    assert not unsaid


def test_making_it_loads_no_torch() -> None:
    code = "import sys; from difflab.config.page import page; page(); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "lightning", "wandb", "omegaconf"} & set(ran.stdout.split())


@pytest.mark.parametrize(("name", "axis"), [("samplers", SAMPLERS), ("guidance", GUIDANCE)])
def test_a_page_that_lists_kinds_by_hand_has_them_all(name: str, axis: Axis[Kind]) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text()
    missing = [kind for kind in axis if f"`{kind}`" not in text and f"={kind}" not in text]
    assert not missing


def test_what_is_said_stands_below_a_field_or_in_the_docstring() -> None:
    free = described(GUIDANCE["classifier_free"].config)
    assert free["channels"] == "Number of leading channels that are guided (3 in DiT); null for all."
    # Of a base, and over several lines.
    assert free["threshold"].startswith("How the predicted x0 is kept in range: none, static (DDPM) or dynamic")
    assert "\n" not in "".join(free.values())
    assert named_in("difflab.networks.resampling")["POOL"] == "The mean of 2x2, and nearest, without weights."
    assert named_in("difflab.networks.embedding")["sr3"] == "[sin, cos], frequencies as in ADM; SR3."

from __future__ import annotations

import pytest
from rich.table import Table

from difflab.console import console, listed, say

NAMES = ["a [x]", "[red]run[/red]", ":smile:", "[link=x]y[/link]", "x" * 200, "https://a/b [/]"]


@pytest.mark.parametrize("name", NAMES)
def test_a_line_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"records in {name}")
    assert capsys.readouterr().out == f"records in {name}\n"


@pytest.mark.parametrize("name", NAMES[:4])
def test_a_cell_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("path", title=name)
    table.add_row(name)
    console().print(table)
    assert capsys.readouterr().out.count(name) == 2


def test_errors_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    console(stderr=True).print("a [x]")
    assert capsys.readouterr().err == "a [x]\n"


@pytest.mark.parametrize(("most", "text"), [(2, "0, 1 and 1 more"), (3, "0, 1, 2"), (8, "0, 1, 2")])
def test_the_first_names_and_how_many_more(most: int, text: str) -> None:
    assert listed(iter(range(3)), most) == text
    assert listed([], most) == ""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from difflab.tracking.sweep_table import (
    SweepRow,
    metric_names,
    over_seeds,
    shown,
    swept_keys,
    to_csv,
    to_markdown,
    to_rich,
    with_series,
    write_table,
)

ROWS = [
    SweepRow({"guidance.scale": 1.0, "sampler": "ddim"}, {"fd@512": 30.123456, "kid@512": 0.01}, {"kid@512": 0.004}),
    SweepRow({"guidance.scale": 2.0, "sampler": "ddim"}, {"fd@512": 20.0}),
    SweepRow({"guidance.scale": 1.0, "sampler": "ancestral"}, {"fd@512": 40.0}),
]


def test_columns_stand_in_the_order_in_which_they_turn_up() -> None:
    assert swept_keys(ROWS) == ["guidance.scale", "sampler"]
    assert metric_names(ROWS) == ["fd@512", "kid@512"]


def test_csv_has_the_numbers_in_full_and_empty_cells_for_what_is_missing(tmp_path: Path) -> None:
    write_table(ROWS, tmp_path / "table.csv", tmp_path / "table.md")
    with (tmp_path / "table.csv").open(newline="") as file:
        first, second, third = csv.DictReader(file)
    assert first == {
        "guidance.scale": "1.0",
        "sampler": "ddim",
        "fd@512": "30.123456",
        "kid@512": "0.01",
        "kid@512 spread": "0.004",
    }
    assert (second["kid@512"], second["kid@512 spread"], third["fd@512"]) == ("", "", "40.0")
    assert (tmp_path / "table.md").read_text() == to_markdown(ROWS)


def test_csv_has_no_spread_column_where_nothing_has_a_spread() -> None:
    assert to_csv(ROWS[1:]).splitlines()[0] == "guidance.scale,sampler,fd@512"


def test_markdown_is_a_table_with_numbers_on_the_right() -> None:
    assert to_markdown(ROWS).splitlines() == [
        "| guidance.scale | sampler | fd@512 | kid@512 |",
        "| --- | --- | ---: | ---: |",
        "| 1.0 | ddim | 30.12 | 0.01 ± 0.004 |",
        "| 2.0 | ddim | 20 |  |",
        "| 1.0 | ancestral | 40 |  |",
    ]


def test_the_terminal_shows_lists_as_they_are() -> None:
    written = io.StringIO()
    table = to_rich([SweepRow({"network.attention_resolutions": "[8,4]"}, {"fd": 2.0})], "a sweep")
    Console(width=80, file=written).print(table)
    assert "[8,4]" in written.getvalue()


def test_a_table_too_wide_for_the_terminal_is_turned() -> None:
    names = [f"a-metric-of-a-long-name-{i}@512" for i in range(6)]
    rows = [SweepRow({"guidance.scale": s, "seed": 0}, dict.fromkeys(names, 0.5 * s)) for s in (1, 1.5)]

    def printed(width: int | None) -> list[str]:
        written = io.StringIO()
        Console(width=width or 400, file=written).print(to_rich(rows, width=width))
        return written.getvalue().splitlines()

    turned = printed(80)
    cells = [line.split() for line in turned]
    for expected in (["guidance.scale", "1", "1.5"], ["seed", "0", "0"], [names[5], "0.5", "0.75"]):
        assert expected in cells
    assert max(map(len, turned)) <= 80
    assert printed(400) == printed(None)
    assert sum("a-metric-of-a-long-name" in line for line in printed(400)) == 1


def test_runs_stand_side_by_side_in_a_turned_table() -> None:
    runs = [f"runs/autoencoder/{name}_shapes64/demo" for name in ("kl_f4", "vq_f4")]
    numbers = {f"eval/a-metric-of-a-long-name-{i}@val-1k": 0.5 for i in range(6)}
    written = io.StringIO()
    Console(width=80, file=written).print(to_rich([SweepRow({"run": run}, numbers) for run in runs], width=80))
    cells = [line.split() for line in written.getvalue().splitlines()]
    assert ["run", "runs/", "runs/"] in cells
    assert ["kl_f4_shapes64/", "vq_f4_shapes64/"] in cells
    assert sum("run" in line for line in cells) == 1, "one table"


def test_many_points_are_split_among_tables_that_fit() -> None:
    names = {split: f"a-metric-of-a-long-name@{split}" for split in ("val", "holdout")}
    rows = [
        SweepRow({"split": split, "scale": 1000 + i}, {names[split]: i + 0.5}) for split in names for i in range(12)
    ]
    written = io.StringIO()
    Console(width=80, file=written).print(to_rich(rows, "mine", width=80))
    lines = [line.split() for line in written.getvalue().splitlines()]
    assert max(map(len, written.getvalue().splitlines())) <= 80
    scales = [cell for line in lines if line[:1] == ["scale"] for cell in line[1:]]
    assert scales == [str(1000 + i) for i in range(12)] * 2
    found = {name: [cell for line in lines if line[:1] == [name] for cell in line[1:]] for name in names.values()}
    assert found == {name: [str(i + 0.5) for i in range(12)] for name in names.values()}
    assert written.getvalue().count("mine") == 1
    # No table has a row in which all of its points are blank.
    assert all(len(line) > 1 for line in lines if line and line[0] in names.values())


def test_series_are_named_by_what_else_varies() -> None:
    assert [row.series for row in with_series(ROWS, "guidance.scale")] == [
        "sampler=ddim",
        "sampler=ddim",
        "sampler=ancestral",
    ]
    assert {row.series for row in with_series(ROWS[:2], "guidance.scale")} == {""}
    labelled = [SweepRow({"a": 1, "b": True}, {}, series="mine"), SweepRow({"a": 1, "b": None}, {}, series="mine")]
    assert [row.series for row in with_series(labelled, "a")] == ["mine, b=true", "mine, b=null"]


def test_a_series_is_a_column_of_the_table() -> None:
    assert to_markdown(with_series(ROWS, "guidance.scale")).startswith("| series | guidance.scale | sampler |")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), (False, "false"), (1.5, "1.5"), ("a", "a")]
)
def test_values_are_shown_as_on_a_command_line(value: object, text: str) -> None:
    assert shown(value) == text


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        to_csv([])


def test_seeds_are_repetitions_their_row_has_means_and_the_deviation_over_them(tmp_path: Path) -> None:
    rows = [
        SweepRow({"sampler": sampler, "seed": seed}, {"fd@8": fd}, {"fd@8": 99.0})
        for seed, (ddim, heun) in enumerate([(1.0, 10.0), (2.0, 10.0), (6.0, 10.0)])
        for sampler, fd in (("ddim", ddim), ("heun", heun))
    ]
    ddim, heun = over_seeds(rows)
    assert (ddim.values, heun.values) == ({"sampler": "ddim", "seed": "0,1,2"}, {"sampler": "heun", "seed": "0,1,2"})
    assert (ddim.metrics, heun.metrics) == ({"fd@8": 3.0}, {"fd@8": 10.0})
    assert ddim.spreads["fd@8"] == pytest.approx(7**0.5)  # (4 + 1 + 9) / (3 - 1)
    assert heun.spreads["fd@8"] == 0
    write_table(rows, tmp_path / "table.csv", tmp_path / "table.md")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + 6
    assert (tmp_path / "table.md").read_text() == to_markdown([ddim, heun])


def test_what_has_no_second_seed_keeps_its_own_spread() -> None:
    assert over_seeds(ROWS) == ROWS
    alone = [SweepRow({"seed": 3, "sampler": s}, {"kid": 1.0}, {"kid": 0.1}) for s in ("ddim", "heun")]
    assert over_seeds(alone) == alone


def test_a_metric_that_one_seed_lacks_is_averaged_over_the_others() -> None:
    (row,) = over_seeds([SweepRow({"seed": 0}, {"a": 1.0, "b": 2.0}), SweepRow({"seed": 1}, {"b": 4.0})])
    assert (row.metrics, set(row.spreads)) == ({"a": 1.0, "b": 3.0}, {"b"})


def test_rows_of_different_protocols_are_told_apart_and_not_averaged() -> None:
    rows = [
        SweepRow({"seed": seed}, {"fd": float(seed)}, protocol=protocol)
        for seed, protocol in ((0, "aaaaaa"), (1, "bbbbbb"), (2, "aaaaaa"))
    ]
    assert to_csv(rows).splitlines()[:2] == ["seed,fd,protocol", "0,0.0,aaaaaa"]
    assert [(row.values["seed"], row.metrics["fd"]) for row in over_seeds(rows)] == [("0,2", 1.0), (1, 1.0)]
    assert "| seed | fd | protocol |" in to_markdown(rows)
    assert "protocol" not in to_csv([SweepRow({"seed": 0}, {"fd": 1.0})])

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from difflab.tracking.plot import is_logarithmic, plot_sweep
from difflab.tracking.sweep_table import SweepRow, with_series

SCALES = [1.0, 2.0, 3.0, 4.0, 6.0]


def marks(path: Path, role: str) -> list[ElementTree.Element]:
    """The drawn elements of one kind, of all panels together."""
    tree = ElementTree.parse(path).getroot()
    # Axes are drawn of marks too.
    groups = [element for element in tree.iter() if {role, "role-mark"} <= set(element.get("class", "").split())]
    return [child for group in groups for child in group if child.tag.endswith("path") or child.tag.endswith("line")]


def texts(path: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(path).iter() if element.tag.endswith("text")]


def x_of(mark: ElementTree.Element) -> float:
    return float(mark.get("transform", "").removeprefix("translate(").split(",")[0])


def rows(**metrics: list[float]) -> list[SweepRow]:
    return [
        SweepRow({"guidance.scale": scale}, {name: values[i] for name, values in metrics.items()})
        for i, scale in enumerate(SCALES)
    ]


def test_a_panel_per_metric_a_point_per_row(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    plot_sweep(
        rows(fd=[5, 3, 2, 3, 5], precision=[0.1, 0.2, 0.3, 0.4, 0.5]), "guidance.scale", ["fd", "precision"], path
    )
    assert len(marks(path, "mark-symbol")) == 2 * len(SCALES)
    assert len(marks(path, "mark-line")) == 2
    assert not marks(path, "mark-rule")
    written = texts(path)
    assert {"fd", "precision"} <= set(written)
    assert written.count("guidance.scale") == 2
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.getpixel((1, 1))[:3] == (255, 255, 255)


@pytest.mark.parametrize("values", [[1, 1.5, 2, 3, 4, 6], [0.0001, 0.00015, 0.001, 0.01], [0.12, 0.125, 0.13]])
def test_a_tick_says_the_value_that_it_stands_at(values: list[float], tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    plot_sweep([SweepRow({"guidance.scale": value}, {"fd": 1.0}) for value in values], "guidance.scale", ["fd"], path)
    assert [f"{value:.12g}" for value in values if f"{value:.12g}" not in texts(path)] == []


def test_points_stand_where_their_values_are(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    plot_sweep(rows(fd=[1, 2, 3, 4, 5]), "guidance.scale", ["fd"], path)
    at = sorted(x_of(mark) for mark in marks(path, "mark-symbol"))
    assert at[3] - at[1] == pytest.approx(2 * (at[1] - at[0]))
    assert at[4] - at[3] == pytest.approx(2 * (at[1] - at[0]))


def test_a_logarithmic_axis_spaces_powers_evenly(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    plot_sweep([SweepRow({"n": n}, {"fd": n / 2}) for n in (64, 1, 8, 512)], "n", ["fd"], path)
    at = sorted(x_of(mark) for mark in marks(path, "mark-symbol"))
    assert at[3] - at[2] == pytest.approx(at[1] - at[0])


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        ([5, 10, 20, 50, 100], True),
        ([1, 2, 3, 4, 6, 8], False),
        ([1, 2, 4], False),
        ([0, 1, 10, 100], False),
        ([1e-5, 1e-4, 1e-3], True),
        ([1, 100], False),
    ],
)
def test_which_values_want_a_logarithmic_axis(values: list[float], logarithmic: bool) -> None:
    assert is_logarithmic(values) is logarithmic


def test_each_series_is_a_curve_of_its_own_colour(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    points = [SweepRow({"s": s, "eta": eta}, {"fd": s + eta}) for s in (1, 2, 3) for eta in (0.0, 1.0)]
    plot_sweep(with_series(points, "s"), "s", ["fd"], path)
    curves = marks(path, "mark-line")
    assert len(curves) == 2
    assert len({curve.get("stroke") for curve in curves}) == 2
    assert {"eta=0.0", "eta=1.0"} <= set(texts(path))


def test_spreads_are_bars(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    plot_sweep([SweepRow({"s": s}, {"kid": s}, {"kid": 0.5}) for s in (1, 2, 3)], "s", ["kid"], path)
    assert len(marks(path, "mark-rule")) == 3


def test_words_are_categories_in_their_own_order_without_a_line(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    plot_sweep([SweepRow({"network": name}, {"fd": 1.0}) for name in ("zeta", "alpha", "mid")], "network", ["fd"], path)
    assert len(marks(path, "mark-symbol")) == 3
    assert not marks(path, "mark-line")
    assert [text for text in texts(path) if text in ("zeta", "alpha", "mid")] == ["zeta", "alpha", "mid"]


def test_a_number_beside_null_is_a_category(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    plot_sweep([SweepRow({"limit": value}, {"fd": 1.0}) for value in (None, 2.0)], "limit", ["fd"], path)
    assert {"null", "2.0"} <= set(texts(path))


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    plot_sweep(rows(fd=[1, float("nan"), float("inf"), 2, 3]), "guidance.scale", ["fd"], path)
    assert len(marks(path, "mark-symbol")) == 3


@pytest.mark.parametrize(("x", "metric"), [("guidance.scale", "fid"), ("sampler.steps", "fd")])
def test_an_empty_panel_is_refused(x: str, metric: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no row has both {x} and a finite {metric}"):
        plot_sweep(rows(fd=[1, 2, 3, 4, 5]), x, [metric], tmp_path / "plot.svg")
    assert not list(tmp_path.iterdir())


def test_drawing_libraries_are_imported_only_to_draw() -> None:
    code = "import sys, difflab.tracking.plot; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"altair", "vl_convert", "torch", "rich", "numpy"} & set(ran.stdout.split())

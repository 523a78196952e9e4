"""Writes the terms of a variational bound as CSV files and a plot: where on the schedule the bits are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from difflab.files import write_text
from difflab.metrics.likelihood import Likelihood, Terms
from difflab.tracking.csv_text import to_csv
from difflab.tracking.plot import save_chart

WIDTH, HEIGHT = 420, 260


def write_terms(terms: Terms, sigmas: Sequence[float], path: Path | str) -> None:
    """Writes a CSV row per step: t, noise (sigma / alpha), vb (bits per dimension), x0_mse, eps_mse."""
    columns = (terms.vb.tolist(), terms.x0_mse.tolist(), terms.eps_mse.tolist())
    rows = [(t, noise, *values) for t, (noise, *values) in enumerate(zip(sigmas, *columns, strict=True))]
    write_text(Path(path), to_csv(("t", "sigma", "vb", "x0_mse", "eps_mse"), rows))


def write_images(found: Likelihood, path: Path | str) -> None:
    """Writes a CSV row per image: its index in the split, bits per dimension, the prior term, network evaluations."""
    columns = found.index.tolist(), found.total.tolist(), found.prior.tolist(), found.evaluations.long().tolist()
    write_text(Path(path), to_csv(("index", "bpd", "prior", "evaluations"), list(zip(*columns, strict=True))))


def plot_terms(terms: Terms, path: Path | str) -> None:
    """Writes `path` (SVG) and a PNG beside it: the terms over t on a logarithmic axis; Improved DDPM, figure 2.

    Terms that are not positive are omitted.
    """
    import altair

    points = [{"t": t, "vb": vb} for t, vb in enumerate(terms.vb.tolist()) if vb > 0]
    chart = altair.Chart(altair.Data(values=points)).properties(width=WIDTH, height=HEIGHT).mark_line()
    across = altair.X("t:Q").title("step t").scale(nice=False, zero=True)
    up = altair.Y("vb:Q").title("term of the bound (bits/dim)").scale(type="log", nice=True)
    save_chart(chart.encode(x=across, y=up), Path(path))

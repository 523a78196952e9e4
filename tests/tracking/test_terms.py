from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image

from difflab.metrics.likelihood import Likelihood, Terms
from difflab.tracking.terms import plot_terms, write_images, write_terms

NEAR = [(0.125, 0.75), (0.25, 0.5), (0.375, 0.25)]
TERMS = Terms(torch.tensor([2.0, 0.5, 0.0]).double(), *torch.tensor(NEAR).double().T)


def test_terms_are_written_step_by_step(tmp_path: Path) -> None:
    write_terms(TERMS, [0.01, 0.5, float("inf")], tmp_path / "terms.csv")
    first, *rows = (tmp_path / "terms.csv").read_text().splitlines()
    assert first == "t,sigma,vb,x0_mse,eps_mse"
    cells = [[float(cell) for cell in row.split(",")] for row in rows]
    assert cells == [[0, 0.01, 2.0, *NEAR[0]], [1, 0.5, 0.5, *NEAR[1]], [2, math.inf, 0.0, *NEAR[2]]]


def test_images_are_written_by_their_index(tmp_path: Path) -> None:
    columns = (torch.tensor(values).double() for values in ([3.5, 4.0], [0.5, 0.25], [0.0, 0.0], [31.0, 37.0]))
    write_images(Likelihood(torch.tensor([0, 7]), *columns, terms=None), tmp_path / "images.csv")
    assert (tmp_path / "images.csv").read_text() == "index,bpd,prior,evaluations\n0,3.5,0.5,31\n7,4.0,0.25,37\n"


def test_the_plot_leaves_out_what_a_logarithm_cannot_show(tmp_path: Path) -> None:
    plot_terms(TERMS, tmp_path / "terms.svg")
    drawn = (tmp_path / "terms.svg").read_text()
    assert "step t" in drawn
    assert "NaN" not in drawn
    assert Image.open(tmp_path / "terms.png").width > 400

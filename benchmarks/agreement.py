"""How far a CLIP and the exact judge of the shapes data agree on samples of captions, over guidance scales.

    python -m benchmarks.agreement --run runs/glide/shapes32/demo --clip runs/clip/shapes32/judge --scales 0 1 2 4 8

A row per scale: the mean cosine of samples with their captions, the share of samples that show all that their captions
say, and how often a sample that does has the larger cosine of two (the area under the ROC curve). Then the correlation
of the first two over the scales, and the area over the samples of all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from scipy import stats
from torch import Tensor

import difflab
from difflab.data.shapes.description import describe
from difflab.metrics.oracle import Oracle
from difflab.metrics.oracle_scores import compare_words
from difflab.pipelines.clip_judge import CLIPJudge, judge_at
from difflab.pipelines.stored import find_stored


@dataclass(frozen=True)
class Scored:
    """Samples of one guidance scale: cosine float64 [n], right bool [n]."""

    scale: float
    cosine: Tensor
    right: Tensor

    @property
    def area(self) -> float | None:
        """See `area_under_roc`."""
        return area_under_roc(self.cosine, self.right)


def area_under_roc(score: Tensor, right: Tensor) -> float | None:
    """How often a right sample has the larger score of a right and a wrong one, ties counting half; None if all are
    right, or none."""
    if bool(right.all()) or not bool(right.any()):
        return None
    found = stats.mannwhitneyu(score[right].numpy(), score[~right].numpy())
    return float(found.statistic) / (int(right.sum()) * int((~right).sum()))


def scored(run: difflab.Run, judge: CLIPJudge, scale: float, n: int, overrides: Sequence[str]) -> Scored:
    """Samples 0..n-1 of the captions of the validation split. Those whose caption names no shape are left out."""
    images = run.sample(n, guidance=scale, overrides=["split=val", *overrides])
    captions = images.requested["caption"]
    cosine = (judge(images.tensor).pool.cpu().double() * judge.texts(captions)).sum(dim=1)
    readings = Oracle().read(images.tensor)
    described = {row: one for row, caption in enumerate(captions) if (one := describe(caption)) is not None}
    rows = list(described)
    right = [compare_words(readings[row].scene(), one)["all"] == 1 for row, one in described.items()]
    return Scored(scale, cosine[rows], torch.tensor(right, dtype=torch.bool))


def report(found: Sequence[Scored], console: Console) -> None:
    """Prints the table and the agreement."""
    table = Table("guidance.scale", "cosine", "all right", "area under ROC")
    means = [(float(one.cosine.mean()), float(one.right.double().mean())) for one in found]
    for one, (cosine, rate) in zip(found, means, strict=True):
        table.add_row(f"{one.scale:g}", f"{cosine:.4f}", f"{rate:.3f}", _shown(one.area))
    console.print(table)
    if len(found) > 2:
        cosines, rates = zip(*means, strict=True)
        console.print(f"Spearman over the scales: {stats.spearmanr(cosines, rates).statistic:.3f}")
        console.print(f"Pearson over the scales: {stats.pearsonr(cosines, rates).statistic:.3f}")
    every = area_under_roc(torch.cat([one.cosine for one in found]), torch.cat([one.right for one in found]))
    console.print(f"area under ROC over all samples: {_shown(every)}")


def _shown(area: float | None) -> str:
    return "-" if area is None else f"{area:.3f}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path, help="a model of captions of the shapes data")
    parser.add_argument("--clip", required=True, type=Path, help="a CLIP that did not guide it")
    parser.add_argument("--scales", nargs="+", type=float, default=[0.0, 1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--n", type=int, default=256, help="samples per scale")
    parser.add_argument("overrides", nargs="*", help="of the drawing, as sampler.steps=20")
    options = parser.parse_intermixed_args(argv)
    run = difflab.load(options.run)
    judge = judge_at(str(options.clip), find_stored(options.clip, "auto", "clip").weights, torch.device("cpu"))
    report([scored(run, judge, scale, options.n, options.overrides) for scale in options.scales], Console())


if __name__ == "__main__":
    main()

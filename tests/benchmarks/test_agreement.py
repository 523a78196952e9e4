"""Agreement of a CLIP with the exact judge: the area in closed form, and the program on a tiny model of captions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.agreement import Scored, area_under_roc, main, report
from rich.console import Console

from commands.test_clip_score import CAPTIONED
from commands.test_train_clip import TRAINING, VIT
from tiny_runs import done


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    score, right = torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([True, True, False, False])
    assert area_under_roc(score, right) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert area_under_roc(-score, right) == pytest.approx(0.5 / 4)
    assert area_under_roc(score, torch.ones(4, dtype=torch.bool)) is None


def test_scales_in_the_same_order_agree() -> None:
    right = [torch.arange(4) < count for count in (1, 2, 4)]
    found = [Scored(scale, torch.linspace(1, 0, 4) + scale, each) for scale, each in enumerate(right)]
    console = Console(record=True, width=100)
    report(found, console)
    text = console.export_text()
    assert "Spearman over the scales: 1.000" in text
    assert [one.area for one in found] == [1.0, 1.0, None]


@pytest.mark.slow
def test_a_model_of_captions_is_judged_by_both(
    tiny_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done("train", *CAPTIONED, f"data.path={tiny_shapes}", "name=run")
    done("train", *TRAINING, *VIT, f"data.path={tiny_shapes}", "name=judge")
    scales = ["--scales", "0", "1", "3", "--n", "4"]
    main(["--run", "runs/glide/shapes32/run", "--clip", "runs/clip/shapes32/judge", *scales, "sampler.steps=2"])
    shown = capsys.readouterr().out
    assert "Pearson over the scales: " in shown
    assert shown.count("area under ROC over all samples: ") == 1

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from difflab.config.request import RequestConfig
from difflab.errors import UserError
from difflab.images import to_float, to_uint8
from difflab.pipelines import build
from difflab.pipelines.resizing import ResizingStage
from difflab.requests.data_split import DataSplit
from pipelines.conftest import UPSAMPLER, configuration


def test_it_enlarges_what_the_upsampler_would_be_given(stage_of, tiny_shapes: Path) -> None:
    data = configuration(*UPSAMPLER, f"data.path={tiny_shapes}").data
    stage = ResizingStage(stage_of(*UPSAMPLER).conditioners, (3, 16, 16), filter="bicubic")
    pipeline = build.pipeline_of({"single": stage}, RequestConfig(), data=data, split="val")
    whole = DataSplit(data, "val", ["image", "label"])([0, 1], 0)
    small = F.avg_pool2d(to_float(whole["image"]), 2)
    expected = F.interpolate(small, (16, 16), mode="bicubic", align_corners=False)
    assert torch.equal(pipeline([0, 1], seed=0), to_uint8(expected))
    assert torch.equal(pipeline.request([0, 1], 0)["label"], whole["label"])
    assert pipeline.record()["pipeline"] == {"kind": "resize", "filter": "bicubic", "low_res": "tiny/val", "size": 8}


def test_it_follows_no_classes_and_needs_an_upsampler(stage_of, tiny_shapes: Path) -> None:
    data = configuration(*UPSAMPLER, f"data.path={tiny_shapes}").data
    stage = ResizingStage(stage_of(*UPSAMPLER).conditioners, (3, 16, 16), filter="bicubic")
    with pytest.raises(UserError, match=r"^this model has no classes: leave classes=null$"):
        build.pipeline_of({"single": stage}, RequestConfig(classes=[1]), data=data)
    with pytest.raises(UserError, match=r"^pipeline=resize enlarges what an upsampler would;"):
        ResizingStage(stage_of().conditioners, (3, 16, 16), filter="bicubic")

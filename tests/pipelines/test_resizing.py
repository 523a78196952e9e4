from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from difflab.images import to_float, to_uint8
from difflab.pipelines.low_res import DataLowRes, low_res_of
from difflab.pipelines.resizing import ResizePipeline
from pipelines.conftest import UPSAMPLER, configuration


def test_it_enlarges_what_the_upsampler_would_be_given(tiny_shapes: Path) -> None:
    config = configuration(*UPSAMPLER, f"data.path={tiny_shapes}")
    source = DataLowRes(config.data, "val")
    pipeline = ResizePipeline(low_res_of(config.model()), 16, source, filter="bicubic")
    whole = to_float(source([0, 1])["image"])
    small = F.avg_pool2d(whole, 2)
    expected = F.interpolate(small, (16, 16), mode="bicubic", align_corners=False)
    assert torch.equal(pipeline([0, 1], seed=0), to_uint8(expected))
    assert pipeline.labels([0, 1], 0) == source.labels([0, 1])
    assert pipeline.record()["pipeline"] == {"kind": "resize", "filter": "bicubic", "low_res": "tiny/val", "size": 8}

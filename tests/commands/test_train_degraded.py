"""`difflab train` of an upsampler of degraded images: the readers degrade, and how many there are changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.conditioning.low_resolution import LowResolution
from run_files import losses
from tiny_runs import TRAINING, done

pytestmark = pytest.mark.slow

UPSAMPLER = ("conditioning=low_res", "conditioning.low_res.size=4", "network.concat_channels=3", "name=up")


def test_the_readers_degrade_and_a_filter_is_the_models(tiny_shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[LowResolution] = []
    call = LowResolution.__call__

    def counted(self: LowResolution, *arguments: Any) -> torch.Tensor:
        made.append(self)
        return call(self, *arguments)

    monkeypatch.setattr(LowResolution, "__call__", counted)
    found = {}
    for degradation, workers in (("bsr", 0), ("bsr", 1), ("null", 1)):
        options = (f"conditioning.low_res.degradation={degradation}", f"data.workers={workers}")
        root = f"{degradation}{workers}"
        done(
            "train",
            *TRAINING,
            "trainer.log_every_steps=1",
            *UPSAMPLER,
            *options,
            f"data.path={tiny_shapes}",
            f"output_root={root}",
        )
        found[degradation, workers] = losses(Path(root) / "ddpm" / "shapes32" / "up"), len(made)
        made.clear()
    assert found["bsr", 0][0] == found["bsr", 1][0] != found["null", 1][0]
    # Three batches in this process, or as many as were read ahead; with a reader, none.
    assert found["bsr", 0][1] >= 3
    assert found["bsr", 1][1] == 0
    assert found["null", 1][1] == 3

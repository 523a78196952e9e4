from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difflab.commands.composing import compose_and_validate
from difflab.config.pipeline import CascadePipelineConfig
from difflab.config.sample import SampleConfig
from difflab.diffusion.guidance.config import ClassifierFreeGuidance, ClassifierGuidance, ReferenceConfig
from difflab.pipelines.build import StoredModels, files_of
from difflab.requests.archives import ArchivePictures
from difflab.requests.base import Nothing


@dataclass
class Lying:
    weights: Path


class Models:
    """Where the weights of a run lie, without any being there."""

    def stored(self, run: str, which: str) -> tuple[None, Lying]:
        return None, Lying(Path(run) / which)


@pytest.mark.parametrize(
    ("guidance", "further"),
    [
        (ClassifierGuidance(kind="classifier", run="judge", weights="raw"), "judge/raw"),
        (ClassifierFreeGuidance(kind="classifier_free", scale=2, reference=ReferenceConfig(run="weak")), "weak/auto"),
    ],
)
def test_the_weights_of_guides_decide_what_is_drawn(guidance: Any, further: str) -> None:
    """A sweep, or a drawing that was stopped, does not go on beside other ones."""
    config, _ = compose_and_validate("sample", SampleConfig, ["run=mine"])
    assert files_of(config, Models(), Nothing()) == [Path("mine/ema")]
    found = files_of(config.model_copy(update={"guidance": guidance}), Models(), Nothing())
    assert found == [Path("mine/ema"), Path(further)]


def test_every_stage_of_a_cascade_decides_with_its_guides() -> None:
    config, _ = compose_and_validate("sample", SampleConfig, ["run=mine"])
    guided = {"kind": "classifier", "run": "judge", "weights": "raw"}
    sampler = config.sampler.model_dump()
    stages = {
        "base": {"run": "small", "weights": "raw", "sampler": sampler, "guidance": guided},
        "up": {"run": "large", "weights": "ema", "sampler": sampler, "guidance": {"kind": "none"}},
    }
    cascade = CascadePipelineConfig.model_validate({"kind": "cascade", "stages": stages})
    found = files_of(config.model_copy(update={"run": None, "pipeline": cascade}), Models(), Nothing())
    assert found == [Path("small/raw"), Path("judge/raw"), Path("large/ema")]


def test_an_archive_to_enlarge_decides_too(tmp_path: Path) -> None:
    archive = tmp_path / "small.npz"
    np.savez(archive, np.zeros((1, 8, 8, 3), np.uint8))
    config, _ = compose_and_validate("sample", SampleConfig, ["run=mine"])
    assert files_of(config, Models(), ArchivePictures("low_res", archive)) == [Path("mine/ema"), archive]


def test_raw_and_averaged_weights_of_one_run_are_two_models(tiny_run: Path) -> None:
    models = StoredModels("cpu")
    averaged, raw = models.load(str(tiny_run), "ema"), models.load(str(tiny_run), "raw")
    key = next(iter(averaged.network.state_dict()))
    assert not torch.equal(averaged.network.state_dict()[key], raw.network.state_dict()[key])
    assert models.load(str(tiny_run), "ema") is averaged

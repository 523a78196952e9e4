from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from difflab.commands.composing import compose_and_validate
from difflab.config.guidance import ClassifierFreeGuidance, ClassifierGuidance, ReferenceConfig
from difflab.config.sample import SampleConfig
from difflab.pipelines.build import files_of
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

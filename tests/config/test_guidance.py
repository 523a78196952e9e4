"""The guidance group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from difflab.config.guidance import GuidanceConfig

FILES = sorted((Path(__file__).parents[2] / "conf" / "guidance").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_choice_shows_all_its_options(path: Path) -> None:
    data = yaml.safe_load(path.read_text())
    config = GuidanceConfig.model_validate(data)
    assert config.kind == path.stem
    assert set(data) == set(GuidanceConfig.model_fields)


@pytest.mark.parametrize(("options", "scale"), [({}, 1.0), ({"scale": 1.0}, 1.0), ({"paper_w": 0.0}, 1.0)])
def test_neutral_scales_are_allowed(options: dict[str, Any], scale: float) -> None:
    assert GuidanceConfig(kind="none", **options).effective_scale == scale


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 1.0, "paper_w": 0.0}, r"scale = 1 \+ paper_w\): give one of them"),
        ({"scale": 3.0}, "kind=none cannot apply a scale of 3"),
        ({"paper_w": 0.5}, "kind=none cannot apply a scale of 1.5"),
        ({"threshold": "clip"}, "Input should be 'none', 'static' or 'dynamic'"),
        ({"dynamic_percentile": 0.0}, "greater than 0"),
        ({"dynamic_maximum": 0.5}, "greater than or equal to 1"),
    ],
)
def test_mistakes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GuidanceConfig(kind="none", **options)

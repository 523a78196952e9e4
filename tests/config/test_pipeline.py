from __future__ import annotations

from typing import Any

import pytest

from difflab.commands.composing import compose_and_validate
from difflab.config.pipeline import CascadePipelineConfig
from difflab.config.sample import SampleConfig
from difflab.config.validate import validate
from difflab.errors import UserError


def cascade(*stages: dict[str, Any], kind: str = "ddim") -> CascadePipelineConfig:
    shared = {"sampler": {"kind": kind, "steps": 5}, "guidance": {"kind": "none"}}
    named = {name: {"run": f"runs/{name}", **shared, **keys} for name, keys in zip("abc", stages, strict=False)}
    return validate(CascadePipelineConfig, {"kind": "cascade", "stages": named})


@pytest.mark.parametrize("place", [0, 1])
def test_every_stage_of_a_cascade_draws(place: int) -> None:
    stages: list[dict[str, Any]] = [{}, {}]
    stages[place] = {"sampler": {"kind": "ddim_inversion", "steps": 5}}
    with pytest.raises(UserError, match=rf"stages\.{'ab'[place]}\.sampler=ddim_inversion maps images to noise"):
        cascade(*stages)


GOES_ON = {"continues": True}


def test_stages_that_hand_on_their_noise_are_taken() -> None:
    found = cascade({"end": 0.4}, {**GOES_ON, "start": 0.4, "end": 0.1}, GOES_ON).stages
    assert [(stage.start, stage.end, stage.continues) for stage in found.values()] == [
        (None, 0.4, False),
        (0.4, 0.1, True),
        (None, 0.0, True),
    ]
    assert cascade({"start": 0.5}, {"start": 0.3, "inverted": True}).stages["b"].inverted


@pytest.mark.parametrize(
    ("stages", "line"),
    [
        (({"end": 0.2}, {}), "stages.a.end=0.2 leaves noise in its images, and stages.b does not continue from there"),
        (({"end": 0.2}, {"start": 0.2}), "set stages.b.continues=true, or stages.a.end=0"),
        (({}, {"end": 0.2}), "stages.b.end=0.2 leaves noise in its images, and no stage comes after it"),
        (({"end": 0.2}, {**GOES_ON, "end": 0.1}), "stages.b.end=0.1 leaves noise in its images"),
        ((GOES_ON, {}), "stages.a.continues=true, but no stage comes before it"),
        (({}, GOES_ON), "stages.b.continues=true, but stages.a leaves no noise: set stages.a.end"),
        (({}, {}, GOES_ON), "stages.c.continues=true, but stages.b leaves no noise"),
        (({"end": 0.2}, {**GOES_ON, "inverted": True}), "continues and inverted both determine where x starts"),
        (({"end": 1.0}, GOES_ON), "end=1.0"),
        (({"end": -0.1}, GOES_ON), "end=-0.1"),
        (({"start": 0}, {}), "start=0"),
    ],
)
def test_noise_that_nobody_takes_or_leaves_is_one_line(stages: tuple[dict[str, Any], ...], line: str) -> None:
    with pytest.raises(UserError) as error:
        cascade(*stages)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["start=0.5"],
            "start cannot be used with a cascade, whose stages have their own: set pipeline.stages.base.start",
        ),
        (["inverted=true"], "set pipeline.stages.base.inverted"),
        (["inpaint.replaced=x0", "mask=m"], "set pipeline.stages.base.inpaint"),
        (
            ["pipeline.stages.upsampler.inpaint.resamplings=2"],
            "upsampler.inpaint.resamplings has no effect without a mask",
        ),
        (["pipeline.stages.base.end=0.2"], "set stages.upsampler.continues=true, or stages.base.end=0"),
    ],
)
def test_what_stages_say_is_not_said_beside_them(overrides: list[str], line: str) -> None:
    with pytest.raises(UserError) as error:
        compose_and_validate("sample", SampleConfig, ["pipeline=cascade", *overrides])
    assert line in str(error.value)


def test_a_mask_is_given_to_all_stages() -> None:
    given = ["images=i", "mask=m", "pipeline.stages.upsampler.inpaint.resamplings=2"]
    config, _ = compose_and_validate("sample", SampleConfig, ["pipeline=cascade", *given])
    assert config.mask == "m"

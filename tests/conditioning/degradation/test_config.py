from __future__ import annotations

from typing import Any

import pytest

from difflab.commands.composing import compose_and_validate
from difflab.conditioning.config import LowResConditionerConfig
from difflab.conditioning.degradation.config import BSRConfig, LightBSRConfig
from difflab.config.train import TrainConfig
from difflab.config.validate import validate
from difflab.errors import UserError

SR3 = "experiment=sr3/shapes32"


def degradation(given: Any) -> Any:
    plain = {"kind": "low_res", "size": 8, "degradation": given}
    return validate(LowResConditionerConfig, plain).degradation


def test_a_name_stands_for_its_defaults() -> None:
    assert degradation("bsr") == BSRConfig(kind="bsr")
    assert degradation({"kind": "bsr_light", "blurs": 2}) == LightBSRConfig(kind="bsr_light", blurs=2)
    assert degradation(None) is None
    assert LowResConditionerConfig(kind="low_res", size=8).degradation is None


def test_the_light_one_is_weaker_in_everything() -> None:
    full, light = BSRConfig(kind="bsr"), LightBSRConfig(kind="bsr_light")
    assert (full.noise_level, full.jpeg_quality, full.blurs) == ([2, 25], [30, 95], 2)
    assert (light.noise_level, light.jpeg_quality, light.blurs) == ([1, 2], [80, 95], 1)
    assert light.blur_strength == full.blur_strength / 4
    assert full.halved_first == light.halved_first == 0.25
    assert full.poisson == full.speckle == light.poisson == light.speckle == 0


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("blur", "degradation='blur'"),
        ({"kind": "bsr", "jpeg_quality": [95, 30]}, "jpeg_quality=[95, 30] must have its lower end first, as in jpeg"),
        (
            {"kind": "bsr", "kernel_size": [8, 25]},
            "kernel_size=[8, 25] must be odd, so that kernels have a middle",
        ),
        ({"kind": "bsr", "jpeg_quality": [0, 30]}, "degradation.jpeg_quality.0=0"),
        ({"kind": "bsr", "poisson": 2.0}, "degradation.poisson=2.0: input should be less than or equal to 1"),
        ({"kind": "bsr", "noise": 2.0}, "unknown key 'degradation.noise'"),
    ],
)
def test_a_mistake_is_one_line(given: Any, line: str) -> None:
    with pytest.raises(UserError) as error:
        degradation(given)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_it_is_chosen_on_the_command_line() -> None:
    config, _ = compose_and_validate("train", TrainConfig, [SR3, "conditioning.low_res.degradation=bsr_light"])
    low_res = config.conditioning["low_res"]  # type: ignore[attr-defined]
    assert low_res.degradation == LightBSRConfig(kind="bsr_light")
    given = "conditioning.low_res.degradation={kind:bsr,jpeg_quality:[50,95]}"
    config, _ = compose_and_validate("train", TrainConfig, [SR3, given])
    assert config.plain()["conditioning"]["low_res"]["degradation"]["jpeg_quality"] == [50, 95]

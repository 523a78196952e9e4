"""Upsamplers whose low-resolution image cannot be, in one line each."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from difflab.commands.composing import compose_and_validate
from difflab.conditioning.config import BlurConfig, LowResConditionerConfig
from difflab.config.train import TrainConfig
from difflab.errors import UserError

BLUR: dict[str, Any] = {"sigma": [0.4, 0.6], "kernel_size": 3}
UPSAMPLER = ["experiment=adm/shapes32_upsampler"]


@pytest.mark.parametrize(
    ("blur", "message"),
    [
        ({"kernel_size": 4}, "kernel_size=4 has no middle pixel; set kernel_size=5"),
        ({"sigma": [0.6, 0.4]}, r"sigma=\[0.6, 0.4\] must have its lower end first, as in sigma=\[0.4, 0.6\]"),
        ({"sigma": [0.4]}, "at least 2 items"),
        ({"sigma": [0.0, 0.4]}, "greater than 0"),
        ({"kernel_size": 1}, "greater than or equal to 3"),
        ({"probability": 0.0}, "greater than 0"),
    ],
)
def test_a_blur_that_cannot_be_is_refused(blur: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BlurConfig.model_validate({**BLUR, **blur})


@pytest.mark.parametrize(
    ("size", "kernel_size", "end"),
    [(8, 9, "set blur.kernel_size to 7 or less"), (5, 7, "to 5 or less"), (2, 3, "set blur=null")],
)
def test_a_blur_larger_than_the_image_is_refused(size: int, kernel_size: int, end: str) -> None:
    with pytest.raises(
        ValidationError, match=f"kernel_size={kernel_size} is larger than the image .*size={size}.*{end}"
    ):
        LowResConditionerConfig.model_validate(
            {"kind": "low_res", "size": size, "blur": {**BLUR, "kernel_size": kernel_size}}
        )


@pytest.mark.parametrize("sigma", [[1, 8.5], [100, 200], [9, 9]])
def test_a_blur_wider_than_the_image_is_refused(sigma: list[float]) -> None:
    with pytest.raises(ValidationError, match=r"blur.sigma=.* is wider than the image it blurs, of size=8"):
        LowResConditionerConfig.model_validate({"kind": "low_res", "size": 8, "blur": {**BLUR, "sigma": sigma}})
    LowResConditionerConfig.model_validate({"kind": "low_res", "size": 8, "blur": {**BLUR, "sigma": [1, 8]}})


def test_a_blur_as_large_as_the_image_is_not() -> None:
    LowResConditionerConfig.model_validate({"kind": "low_res", "size": 5, "blur": {**BLUR, "kernel_size": 5}})


@pytest.mark.parametrize(("size", "instead"), [(12, 8), (20, 16), (31, 16), (3, 2)])
def test_a_size_that_is_no_factor_is_refused(size: int, instead: int) -> None:
    with pytest.raises(UserError) as refused:
        compose_and_validate("train", TrainConfig, [*UPSAMPLER, f"conditioning.low_res.size={size}"])
    assert str(refused.value).endswith(
        f"conditioning.low_res.size={size} is no divisor of data.image_size=32, and images are enlarged by a whole "
        f"factor; set conditioning.low_res.size={instead}"
    )
    assert "\n" not in str(refused.value)


def test_blur_is_set_on_the_command_line() -> None:
    blur = "conditioning.low_res.blur={sigma: [0.4, 0.6], kernel_size: 3, probability: 0.5}"
    _, plain = compose_and_validate("train", TrainConfig, [*UPSAMPLER, blur])
    assert plain["conditioning"]["low_res"]["blur"] == {**BLUR, "probability": 0.5}
    with pytest.raises(UserError, match="kernel_size=33 is larger than the image it blurs, of size=16"):
        compose_and_validate("train", TrainConfig, [*UPSAMPLER, blur.replace("kernel_size: 3", "kernel_size: 33")])

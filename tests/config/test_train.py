"""Parts of a training configuration that have to fit each other."""

from __future__ import annotations

import pytest

from difflab.commands.composing import compose, compose_and_validate
from difflab.config.model import ModelConfig
from difflab.config.train import TrainConfig
from difflab.config.validate import validate
from difflab.errors import UserError

SMALL = ["experiment=ddpm/shapes32"]
CLASSIFIER = [
    *SMALL,
    "task=noisy_classifier",
    "network=adm_classifier_64",
    "callbacks=classifier",
    "metrics=none",
    # The experiment's own average.
    "callbacks.ema=null",
]
UPSAMPLER = [*SMALL, "+conditioning.low_res={kind: low_res, size: 8}"]


def config_of(*overrides: str) -> TrainConfig:
    return compose_and_validate("train", TrainConfig, overrides)[0]


def test_an_augmented_image_has_no_unaugmented_small_version() -> None:
    augment = "+conditioning.augment={kind: augment, probability: 0.12}"
    assert "conditioning.low_res would show the unchanged one" in complaint(
        *UPSAMPLER, "network.concat_channels=3", augment
    )
    assert "conditioning.again augments the images a second time" in complaint(
        *SMALL, augment, "+conditioning.again={kind: augment, probability: 0.12}"
    )
    off = ", ".join(f"{kind}: 0" for kind in ("x_flip", "y_flip", "scale", "rotation", "anisotropy", "translation"))
    assert "leave the conditioner out" in complaint(
        *SMALL, f"+conditioning.augment={{kind: augment, probability: 0.12, {off}}}"
    )


def complaint(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        config_of(*overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_denoises_unless_it_says_otherwise() -> None:
    assert config_of(*SMALL).task == "denoising"
    classifier = config_of(*CLASSIFIER)
    assert classifier.task == ModelConfig.of(classifier).task == "noisy_classifier"


def test_configurations_of_before_there_was_a_choice_denoise() -> None:
    now = compose("train", SMALL)
    before = {key: value for key, value in now.items() if key != "task"}
    assert validate(TrainConfig, before) == validate(TrainConfig, now)
    model = ModelConfig.of(validate(TrainConfig, before)).model_dump(mode="json")
    del model["task"]
    assert validate(ModelConfig, model).task == "denoising"


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ([*SMALL, "task=classifier"], ["task='classifier'", "'noisy_classifier'"]),
        ([*SMALL, "task=noisy_classifier"], ["needs a network of kind unet_encoder", "network=adm_classifier_64"]),
        ([*SMALL, "network=adm_classifier_64"], ["network.kind=unet_encoder", "set task=noisy_classifier"]),
        ([*CLASSIFIER, "data.classes=null"], ["network.classes", "no classes", "set data.classes"]),
        ([*CLASSIFIER, "data.classes=null", "network.classes=6"], ["needs labelled data", "data.classes"]),
        ([*CLASSIFIER, "network.classes=7"], ["network.classes=7 but data.classes=6"]),
        ([*CLASSIFIER, "conditioning=class"], ["conditioning.class_label", "choose conditioning=none"]),
        ([*CLASSIFIER, "guidance=classifier", "guidance.run=some"], ["guidance.kind=classifier", "guidance=none"]),
        ([*CLASSIFIER, "callbacks=default"], ["callbacks.sample_grid: a classifier draws nothing", "=classifier"]),
        ([*CLASSIFIER, "callbacks.evaluation={at_end: true}"], ["callbacks.evaluation", "callbacks=classifier"]),
        (UPSAMPLER, ["network.concat_channels=0", "joins 3 channels", "set network.concat_channels=3"]),
        ([*UPSAMPLER, "network.concat_channels=6"], ["network.concat_channels=6", "set network.concat_channels=3"]),
        ([*SMALL, "network.concat_channels=3"], ["joins 0 channels", "conditioning=low_res", "concat_channels=0"]),
        (
            [*SMALL, "network.concat_channels=3", "+conditioning.low_res={kind: low_res, size: 32}"],
            ["conditioning.low_res.size=32", "data.image_size=32"],
        ),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) and "experiment" in value[0] else "",
)
def test_a_mistake_is_one_line_that_names_the_fix(overrides: list[str], parts: list[str]) -> None:
    said = complaint(*overrides)
    for part in parts:
        assert part in said


def test_low_resolution_images_join_the_input_once_each() -> None:
    assert config_of(*UPSAMPLER, "network.concat_channels=3").network.kind == "unet"
    gray = ["data.channels=1", "network.channels=1", "network.concat_channels=2"]
    assert config_of(*UPSAMPLER, "+conditioning.smaller={kind: low_res, size: 4}", *gray).conditioning.keys() == {
        "low_res",
        "smaller",
    }


def test_classes_of_a_conditioner_are_compared_beside_a_low_resolution_image() -> None:
    both = [*UPSAMPLER, "network.concat_channels=3", "+conditioning.class_label={kind: class, classes: 7}"]
    assert "conditioning.class_label.classes=7 but data.classes=6" in complaint(*both)

"""Parts of a training configuration that have to fit each other."""

from __future__ import annotations

import pytest

from difflab.commands.composing import compose, compose_and_validate
from difflab.config.model import ModelConfig
from difflab.config.task import TASKS
from difflab.config.train import TrainConfig
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.tasks.denoising.config import DenoisingModelConfig, DenoisingTrainConfig
from difflab.tasks.noisy_classifier.config import NoisyClassifierModelConfig, NoisyClassifierTrainConfig

SMALL = ["experiment=ddpm/shapes32"]
CLASSIFIER = ["experiment=adm/shapes32_classifier"]
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
    config, classifier = config_of(), config_of(*CLASSIFIER)
    assert (type(config), type(config.model())) == (DenoisingTrainConfig, DenoisingModelConfig)
    assert (type(classifier), type(classifier.model())) == (NoisyClassifierTrainConfig, NoisyClassifierModelConfig)
    assert [config.task, classifier.task] == [config.model().task, classifier.model().task]
    assert [config.task, classifier.task, "classifier", "contrastive", "autoencoder"] == list(TASKS)


def test_a_task_has_the_axes_that_it_needs() -> None:
    assert TrainConfig.model_fields.keys().isdisjoint({"diffusion", "network", "sampler", "guidance", "conditioning"})
    own = {name: task.train.model_fields.keys() - TrainConfig.model_fields.keys() for name, task in TASKS.items()}
    assert own == {
        "denoising": {"diffusion", "first_stage", "network", "conditioning", "guidance", "sampler"},
        "noisy_classifier": {"diffusion", "network"},
        "classifier": {"network"},
        "contrastive": {"network", "tokenizer", "loss", "local_loss", "max_scale"},
        "autoencoder": {
            *("network", "pixel_loss", "perceptual", "perceptual_weight", "log_variance", "learn_log_variance"),
            *("discriminator", "restart_codes_every"),
        },
    }
    for name, task in TASKS.items():
        # Nobody writes which packages the choices came with.
        assert set(compose("train", [f"task={name}"])) == task.train.model_fields.keys() - {"plugins"}


@pytest.mark.parametrize("name", TASKS)
def test_the_task_chooses_what_stored_contents_are_read_as(name: str) -> None:
    config = config_of(f"task={name}")
    assert validate(TrainConfig, config.plain()) == config
    assert validate(ModelConfig, config.model().plain()) == config.model()
    for model in (TrainConfig, ModelConfig):
        for content, line in (({}, "missing key 'task'"), ({"task": "telling"}, "task='telling' is not known")):
            with pytest.raises(UserError, match=line):
                validate(model, content)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["task=judge"], ["task=judge", "known: autoencoder, classifier, contrastive, denoising, noisy_classifier"]),
        ([*SMALL, "task=noisy_classifier"], ["experiment=ddpm/shapes32 has task=denoising", "leave task out"]),
        ([*CLASSIFIER, "task=denoising"], ["adm/shapes32_classifier has task=noisy_classifier", "leave task out"]),
        (["task=noisy_classifier", "network=unet_small"], ["cannot train kind=unet", "unet_encoder", "task=denoising"]),
        (
            ["network=adm_classifier_64"],
            ["cannot train kind=unet_encoder", "of kind unet", "or set task=noisy_class"],
        ),
        ([*SMALL, "network=adm_classifier_64"], ["network: task=denoising", "take an experiment of task=noisy_class"]),
        (["network.kind=other"], ["network: kind='other' is not known", "kind unet"]),
        ([*CLASSIFIER, "data.classes=null"], ["network.classes", "no classes", "set data.classes"]),
        ([*CLASSIFIER, "data.classes=null", "network.classes=6"], ["needs labelled data", "data.classes"]),
        ([*CLASSIFIER, "network.classes=7"], ["network.classes=7 but data.classes=6"]),
        ([*CLASSIFIER, "data.channels=1", "network.channels=3"], ["network.channels=3 but data.channels=1"]),
        ([*SMALL, "data.channels=1", "network.channels=3"], ["network.channels=3 but data.channels=1"]),
        ([*CLASSIFIER, "sampler=heun"], ["sampler=heun: task=noisy_classifier has no sampler", "task=denoising has"]),
        ([*CLASSIFIER, "sampler.steps=3", "sampler=heun"], ["sampler", "task=noisy_classifier has no sampler"]),
        ([*CLASSIFIER, "+sampler=heun"], ["unknown key 'sampler'"]),
        ([*CLASSIFIER, "conditioning=class"], ["conditioning=class: task=noisy_classifier has no conditioning"]),
        ([*CLASSIFIER, "guidance=classifier", "guidance.run=some"], ["task=noisy_classifier has no guidance"]),
        ([*SMALL, "sampler=ddim_inversion", "~sampler.eta"], ["sampler=ddim_inversion maps images to noise"]),
        ([*CLASSIFIER, "callbacks=default"], ["callbacks.sample_grid: a classifier draws no images", "=classifier"]),
        (
            [*CLASSIFIER, "callbacks.evaluation={at_end: true}", "metrics=shapes"],
            ["callbacks.evaluation: a"],
        ),
        (UPSAMPLER, ["network.concat_channels=0", "concatenates 3 channels", "set network.concat_channels=3"]),
        ([*UPSAMPLER, "network.concat_channels=6"], ["network.concat_channels=6", "set network.concat_channels=3"]),
        (
            [*SMALL, "network.concat_channels=3"],
            ["concatenates 0 channels", "conditioning=low_res", "concat_channels=0"],
        ),
        (
            [*SMALL, "network.concat_channels=3", "+conditioning.low_res={kind: low_res, size: 32}"],
            ["conditioning.low_res.size=32", "data.image_size=32"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else "",
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

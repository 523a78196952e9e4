from __future__ import annotations

import pytest

from difflab.errors import UserError
from difflab.interop.presets import PRESETS, network_choice, preset_named


def test_names_and_published_files_are_told_apart() -> None:
    assert all(preset_named(name).name == name for name in PRESETS)
    files = [preset.file for preset in PRESETS.values() if preset.file]
    assert not [(a, b) for a in files for b in files if a is not b and a.endswith(b)]


def test_the_one_model_in_the_newer_order() -> None:
    assert [p.name for p in PRESETS.values() if "guided-new-order" in p.layouts] == ["adm/imagenet64"]


def test_a_target_has_the_conditioners_of_its_model() -> None:
    upsampler = preset_named("adm/imagenet64_256_upsampler").target()
    assert {name: config.kind for name, config in upsampler.conditioning.items()} == {
        "class_label": "class",
        "low_res": "low_res",
    }
    assert preset_named("adm/imagenet256_uncond").target().conditioning == {}
    classifier = preset_named("adm/imagenet64_classifier").target()
    assert (classifier.network.kind, classifier.conditioning) == ("unet_encoder", {})


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UserError, match="no published model is called 'ddpm/mnist'; there are ddpm/cifar10, "):
        preset_named("ddpm/mnist")
    with pytest.raises(UserError, match=r"network=ddpm: no such choice; there are .*ddpm_cifar10"):
        network_choice("ddpm")

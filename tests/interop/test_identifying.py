from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from difflab.conditioning.config import ClassConditionerConfig
from difflab.errors import UserError
from difflab.interop.identifying import identify, published_as
from difflab.interop.layouts import LAYOUTS
from difflab.interop.native import save_export
from difflab.interop.presets import PRESETS
from difflab.interop.registry import export_weights, import_weights
from difflab.tasks.build import build_model
from interop.test_diffusers_folder import model_config
from interop.whole_models import saved

DENOISER, SIGMA = "denoiser of 3-channel images", "learned sigma"
UPSAMPLER = "upsampler (takes a low-resolution image beside x) of 3-channel images"


def released(tmp_path: Path, preset: str, file: str) -> Path:
    """A file with every key and shape of a released model, that takes no space on the disk or in memory."""
    keymap = LAYOUTS[PRESETS[preset].layouts[0]].keymap(PRESETS[preset].target())
    zero = torch.zeros(1, dtype=torch.float16)
    torch.save({key: zero.expand(shape) for key, shape in keymap.official_shapes.items()}, tmp_path / file)
    return tmp_path / file


def test_a_released_file_is_recognised(tmp_path: Path) -> None:
    found = identify(released(tmp_path, "ddpm/cifar10", "any.ckpt"))
    assert (found.layout, found.presets, found.facts) == ("pesser", ("ddpm/cifar10",), (DENOISER,))
    assert (found.tensors, found.parameters, found.dtypes) == (328, 35_746_307, ("float16",))


def test_the_published_model_tells_the_order_of_attention(tmp_path: Path) -> None:
    found = identify(released(tmp_path, "adm/imagenet64", "64x64_diffusion.pt"))
    assert (found.layout, found.presets) == ("guided-new-order", ("adm/imagenet64",))
    assert found.facts == (DENOISER, SIGMA, "class-conditional with 1000 classes")
    same = "the keys are the same in guided and guided-new-order"
    assert found.notes == (f"{same}; the layout of adm/imagenet64 is known to be guided-new-order",)


def test_models_of_one_architecture_are_told_apart_by_the_name_of_the_file(tmp_path: Path) -> None:
    found = identify(released(tmp_path, "improved/cifar10", "cifar10_uncond_vlb_50M_500K.pt"))
    assert found.presets == ("improved/cifar10", "improved/cifar10_vlb")
    assert found.notes[-1] == "the file has the name of improved/cifar10_vlb"
    assert published_as(Path("a/renamed.pt"), PRESETS) is None


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("adm-classifier-adaptive", ("classifier of 10 classes",)),
        ("adm-classifier-attention", ("classifier of 10 classes",)),
        ("adm-classifier-spatial", ("classifier of 10 classes",)),
        ("adm-classifier-spatialv2", ("classifier of 10 classes",)),
        ("adm-superres", (UPSAMPLER, SIGMA, "class-conditional with 6 classes")),
        ("adm-superres-uncond", (UPSAMPLER,)),
        ("adm-unet-four-channels", ("denoiser of 4-channel images", SIGMA)),
        ("adm-unet-legacy-cond", (DENOISER, SIGMA, "class-conditional with 10 classes")),
        ("adm-unet-uncond-plain", (DENOISER,)),
    ],
)
def test_what_a_model_is_in_words(tmp_path: Path, name: str, facts: tuple[str, ...]) -> None:
    found = identify(saved(tmp_path, name)[0])
    assert (found.layout, found.presets, found.facts) == ("guided", (), facts)


GREY = ["data.channels=1", "network.channels=1", "network.patch_size=2", "network.channel_mult=[1]"]
TOLD = ["conditioning=class", "conditioning.class_label.drop_rate=0.1"]


@pytest.mark.parametrize(
    ("overrides", "known", "deduced"),
    [
        ([], (DENOISER,), (DENOISER,)),
        (
            GREY,
            ("denoiser of 1-channel images",),
            ("denoiser of 4-channel images, or denoiser of 1-channel images in patches of 2",),
        ),
        (
            [*GREY, "diffusion=improved", "diffusion.timesteps=1000"],
            ("denoiser of 1-channel images", SIGMA),
            (f"denoiser of 4-channel images, {SIGMA}, or denoiser of 1-channel images in patches of 2, {SIGMA}",),
        ),
        (
            TOLD,
            (DENOISER, "class-conditional with 6 classes and a null class"),
            (DENOISER, "class-conditional with 7 classes, or with 6 and a null class"),
        ),
        (
            TOLD[:1],
            (DENOISER, "class-conditional with 6 classes"),
            (DENOISER, "class-conditional with 6 classes, or with 5 and a null class"),
        ),
        (["network.patch_size=2", "network.channel_mult=[1]"], (DENOISER,), (f"{DENOISER} in patches of 2",)),
    ],
    ids=str,
)
def test_our_own_weights_are_told_by_their_configuration_and_deduced_without(
    tmp_path: Path, overrides: list[str], known: tuple[str, ...], deduced: tuple[str, ...]
) -> None:
    config = model_config(*overrides)
    state = build_model(config).as_module().state_dict()
    save_export(tmp_path / "ours", state, config.model_dump(mode="json"))
    for path in (tmp_path / "ours", tmp_path / "ours" / "model.safetensors"):
        found = identify(path)
        assert (found.layout, found.facts, found.notes) == ("difflab", known, ())
    (tmp_path / "ours" / "config.json").unlink()
    assert identify(tmp_path / "ours").facts == deduced
    save_export(tmp_path / "ours", state, model_config("network.base_channels=32").model_dump(mode="json"))
    found = identify(tmp_path / "ours")
    assert found.facts == deduced
    assert found.notes == (f"{tmp_path / 'ours' / 'config.json'} beside it is of another model",)
    save_export(tmp_path / "ours", state, {})
    (note,) = identify(tmp_path / "ours").notes
    assert note.startswith(f"{tmp_path / 'ours' / 'config.json'} beside it is of no use: missing key")


def test_the_words_of_other_layouts(tmp_path: Path) -> None:
    path, target, _ = saved(tmp_path, "ddpm-model")
    found = identify(path)
    assert (found.layout, found.presets, found.facts) == ("pesser", (), (DENOISER,))
    told = replace(target, conditioning={"class_label": ClassConditionerConfig(kind="class", classes=7)})
    state = import_weights(path, target).state
    state["conditioners.class_label.embedding.weight"] = torch.ones(7, told.network.embedding_channels)
    export_weights(tmp_path / "folder", state, told, "diffusers")
    found = identify(tmp_path / "folder")
    assert (found.layout, found.facts) == ("diffusers", (DENOISER, "class-conditional with 7 classes"))


def test_odd_channels_are_counted(tmp_path: Path) -> None:
    path, _, state = saved(tmp_path, "adm-unet-uncond-plain")
    state["input_blocks.0.0.weight"] = torch.ones(32, 5, 3, 3)
    torch.save(state, path)
    assert identify(path).facts == ("denoiser with 5 channels in and 3 out",)


def test_what_is_none_of_the_known_layouts(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "other.pt")
    found = identify(tmp_path / "other.pt")
    assert (found.layout, found.presets, found.facts) == (None, (), ())


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights in this folder"):
        identify(tmp_path)

"""Files of GLIDE: each key and shape of the released one, and what imported weights compute."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.commands.composing import compose_and_validate
from difflab.conditioning.build import build_conditioners
from difflab.conditioning.config import ClassConditionerConfig
from difflab.config.train import TrainConfig
from difflab.errors import UserError
from difflab.interop.glide import GLIDE
from difflab.interop.guided import GUIDED
from difflab.interop.identifying import fitting_presets, identify
from difflab.interop.keymap import shapes_of
from difflab.interop.layout import CONDITIONERS, NETWORK, Layout, Target
from difflab.interop.presets import conditioning_choice, preset_named
from difflab.interop.registry import export_weights, import_weights, model_of_weights
from difflab.networks.build import build_network
from golden_fixtures import ROOT, Fixture, load
from interop.glide_files import glide_state, glide_target

NAMES = ["glide_text2im_tiny", "glide_text2im_tiny_3level"]
TEXT = "text transformer of 16 layers of 512 channels on 128 tokens"
UPSAMPLER = "upsampler (takes a low-resolution image beside x)"
INPAINTING = "inpainting model (takes the known pixels and a mask beside x)"
BOTH = "inpainting upsampler (takes the known pixels, a mask and a low-resolution image beside x)"


def released() -> dict[str, Any]:
    return json.loads(gzip.decompress((ROOT / "multimodal" / "released" / "glide_base.keys.json.gz").read_bytes()))


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, path)
    return path


def of_the_released_shapes(path: Path, **changed: tuple[int, ...] | None) -> Path:
    """A file of the released shapes that takes no space; changed: other shapes by key, None to leave one out."""
    zero = torch.zeros(1, dtype=torch.float16)
    shapes = {key: shape for key, shape in {**released()["keys"], **changed}.items() if shape is not None}
    return saved(path, {key: zero.expand(shape) for key, shape in shapes.items()})


def test_keys_shapes_and_order_of_the_experiment_are_the_released_ones() -> None:
    expected = released()
    config, _ = compose_and_validate("train", TrainConfig, ["experiment=glide/base64"])
    official = {key: torch.empty(shape, device="meta") for key, shape in expected["keys"].items()}
    keymap = GLIDE.keymap(Target.of(config.model()))
    ours = keymap.from_official(official)
    assert sum(tensor.numel() for tensor in ours.values()) == expected["parameters"] == 385_030_726
    back = keymap.to_official(ours)
    assert list(back) == list(expected["keys"])
    assert shapes_of(back) == shapes_of(official)
    assert fitting_presets(official) == {"glide/base64": "glide"}


@pytest.mark.parametrize("name", NAMES)
def test_imported_weights_compute_what_glide_does_and_leave_as_they_came(tmp_path: Path, name: str) -> None:
    fixture = load("multimodal", name)
    target, state = glide_target(fixture), glide_state(fixture)
    imported = import_weights(saved(tmp_path / "tiny.pt", state), target)
    assert (imported.layout, imported.notes) == ("glide", ())
    fixture.check_close("out", output(fixture, target, imported.state))
    export_weights(tmp_path / "again.pt", imported.state, target, "glide")
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert list(again) == list(state)
    assert all(torch.equal(again[key], value) for key, value in state.items())


def output(fixture: Fixture, target: Target, state: dict[str, Tensor]) -> Tensor:
    network = build_network(target.network, image_size=target.image_size, learned_variance=True).eval()
    conditioners = build_conditioners(
        target.conditioning, embedding_dim=target.network.embedding_channels, image_size=target.image_size
    ).eval()
    for module, prefix in ((network, NETWORK), (conditioners, CONDITIONERS)):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    x, ids, mask = (fixture.input(key) for key in ("x", "tokens", "mask"))
    ((field, _),) = conditioners.tokenizers.items()
    batch = {"index": torch.arange(len(x)), "caption": [""] * len(x), field: ids, f"{field}_mask": mask}
    with torch.no_grad():
        return network(x, fixture.input("timesteps").float(), conditioners.conditioning(batch))


def test_half_precision_stays_half_precision(tmp_path: Path) -> None:
    fixture = load("multimodal", NAMES[0])
    mixed = {key: value.half() if value.ndim > 2 else value for key, value in glide_state(fixture).items()}
    target = glide_target(fixture)
    imported = import_weights(saved(tmp_path / "mixed.pt", mixed), target)
    export_weights(tmp_path / "again.pt", imported.state, target, "glide")
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert {value.dtype for value in again.values()} == {torch.float16, torch.float32}
    assert all(again[key].dtype == value.dtype and torch.equal(again[key], value) for key, value in mixed.items())


def test_the_released_file_is_identified(tmp_path: Path) -> None:
    found = identify(of_the_released_shapes(tmp_path / "base.pt"))
    assert (found.layout, found.presets) == ("glide", ("glide/base64",))
    assert found.facts == ("denoiser of 3-channel images", "learned sigma", TEXT)
    assert found.parameters == 385_030_726


@pytest.mark.parametrize(("channels", "what"), [(6, UPSAMPLER), (7, INPAINTING), (10, BOTH)])
def test_other_models_of_glide_are_named_and_refused(tmp_path: Path, channels: int, what: str) -> None:
    path = of_the_released_shapes(tmp_path / "other.pt", **{"input_blocks.0.0.weight": (192, channels, 3, 3)})
    found = identify(path)
    assert (found.layout, found.presets) == ("glide", ())
    assert found.facts == (f"{what} of 3-channel images", "learned sigma", TEXT)
    imports: list[Callable[[], object]] = [lambda: import_weights(path, "glide/base64"), lambda: model_of_weights(path)]
    for reading in imports:
        with pytest.raises(UserError) as error:
            reading()
        refusal = "which difflab does not have yet; its base model is --preset glide/base64"
        assert str(error.value) == f"{path}: this is GLIDE's {what}, {refusal}"


def test_a_missing_key_and_one_too_many_are_named(tmp_path: Path) -> None:
    path = of_the_released_shapes(tmp_path / "base.pt", padding_embedding=None, odd=(3,))
    with pytest.raises(UserError) as error:
        import_weights(path, "glide/base64")
    assert "do not fit the glide layout of this network: padding_embedding [128, 512] is missing; " in str(error.value)
    assert "odd [3] is unexpected" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_text_of_another_length_is_named(tmp_path: Path) -> None:
    path = of_the_released_shapes(tmp_path / "base.pt", positional_embedding=(64, 512))
    with pytest.raises(UserError, match=r"positional_embedding is \[64, 512\], expected \[128, 512\]"):
        import_weights(path, "glide/base64")


def test_a_file_without_a_text_transformer_is_guided_diffusion_s(tmp_path: Path) -> None:
    text = ("positional_embedding", "padding_embedding", "transformer", "final_ln", "token_embedding")
    without = {key: None for key in released()["keys"] if key.startswith(text)}
    path = of_the_released_shapes(tmp_path / "unet.pt", **without)
    assert identify(path).layout == "guided"
    with pytest.raises(UserError, match=r"do not fit the glide layout of this network: .* \(they are none of the"):
        import_weights(path, "glide/base64")


def test_what_the_layout_cannot_hold_is_named() -> None:
    target = preset_named("glide/base64").target()
    (caption,) = target.conditioning.values()
    classes = ClassConditionerConfig(kind="class", classes=3)
    cases: list[tuple[Layout, Target, str]] = [
        (GLIDE, replace(target, conditioning={}), "openai/glide-text2im has no model without a text transformer; use"),
        (GLIDE, replace(target, conditioning={"a": caption, "b": caption}), "cannot hold b, a second conditioner of"),
        (GLIDE, replace(target, conditioning={"a": caption, "b": classes}), "cannot hold b, a conditioner of kind cla"),
        (GLIDE, replace(target, network=target.network.model_copy(update={"patch_size": 2})), "with patch_size=2"),
        (GUIDED, target, "no network with context_channels=512"),
    ]
    for layout, other, message in cases:
        with pytest.raises(UserError, match=message):
            layout.keymap(other)


def test_unknown_conditioning_lists_what_there_is() -> None:
    with pytest.raises(UserError, match=r"conditioning=text: no such choice; there are .*glide.*text_transformer"):
        conditioning_choice("text")

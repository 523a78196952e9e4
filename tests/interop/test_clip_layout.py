"""CLIPs under the keys of each program: shapes, outputs of the program itself, and the same bits back."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from difflab.errors import UserError
from difflab.interop.clip_layout import OPEN_CLIP_CUSTOM, OPENAI_CLIP, TRANSFORMERS_CLIP
from difflab.interop.identifying import fitting_presets, identify
from difflab.interop.keymap import shapes_of
from difflab.interop.layout import Target
from difflab.interop.pesser import PESSER
from difflab.interop.presets import PRESETS
from difflab.interop.registry import export_weights, import_weights, model_of_weights
from difflab.networks.build import build_network
from difflab.networks.towers.clip import CLIP
from golden_fixtures import ROOT, load
from interop.clip_files import RESNET, as_openai, inputs, logits, normalized, official, script_of, zeros
from networks.towers.clip_fixtures import clip_config, official_state

RELEASED = sorted((ROOT / "multimodal" / "released").glob("clip_*.keys.json.gz"))
LAYOUTS = [OPENAI_CLIP, OPEN_CLIP_CUSTOM, TRANSFORMERS_CLIP]
GOLDEN = ["clip_vit_tiny", "clip_vit_tiny_p16", "clip_rn_tiny", "clip_rn_tiny_deep", "open_clip_head80_tiny"]


def saved(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


def our_logits(target: Target, state: dict[str, Tensor], images: Tensor, ids: Tensor) -> Tensor:
    network = build_network(target.network, image_size=target.image_size, learned_variance=False)
    assert isinstance(network, CLIP)
    network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()})
    with torch.no_grad():
        found = network.eval()(images, ids)
    return found.scale * found.image @ found.text.T


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.name.removesuffix(".keys.json.gz"))
def test_a_released_clip_is_its_preset_alone_and_described_in_words(path: Path) -> None:
    released = json.loads(gzip.decompress(path.read_bytes()))
    official = {key: torch.empty(shape, device="meta") for key, shape in released["keys"].items()}
    name = path.name.removeprefix("clip_").removesuffix(".keys.json.gz")
    assert fitting_presets(official) == {f"clip/{name}": "openai_clip"}
    target = PRESETS[f"clip/{name}"].target()
    ours = OPENAI_CLIP.keymap(target).from_official(official)
    assert (
        sum(value.numel() for key, value in ours.items() if "running" not in key and "tracked" not in key)
        == (released["parameters"])
    )
    size = target.image_size
    words = {"vit_b32": "ViT-B/32", "vit_l14_336": "ViT-L/14", "rn50x64": "RN50x64"}
    (fact, activation) = OPENAI_CLIP.in_words(shapes_of(official))
    assert words.get(name, "CLIP with") in fact
    assert f"at {size} pixels, 77 tokens" in fact
    assert activation == "activation not told by keys and shapes"
    if "transformers_num_keys" in released:
        assert len(TRANSFORMERS_CLIP.keymap(target).official_shapes) == released["transformers_num_keys"]
    moved = OPEN_CLIP_CUSTOM.keymap(target).to_official(ours)
    assert fitting_presets(moved) == {f"clip/{name}": "open_clip_custom"}


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_go_out_and_come_back_to_the_bit(tmp_path: Path, name: str, layout, suffix: str) -> None:
    fixture = load("multimodal", name)
    config, size = clip_config(fixture)
    target = Target(config, size)
    ours = import_weights(saved(tmp_path / "official.pt", official_state(fixture)), target)
    assert ours.layout == "openai_clip"
    if layout is TRANSFORMERS_CLIP:
        if "_rn_" in name:
            with pytest.raises(UserError, match="transformers has no CLIP with a ResNet; use another layout"):
                layout.keymap(target)
            return
        suffix = ""
    out = tmp_path / f"out{suffix}"
    written = export_weights(out, ours.state, target, layout.name)
    assert out in written or (out / "model.safetensors") in written
    back = import_weights(out, target)
    assert back.layout == layout.name
    assert back.state.keys() == ours.state.keys()
    assert all(torch.equal(back.state[key], value) for key, value in ours.state.items())


def test_the_key_map_of_transformers_is_that_of_the_golden_rules() -> None:
    fixture = load("multimodal", "clip_vit_tiny")
    config, size = clip_config(fixture)
    official = official_state(fixture)
    target = Target(config, size)
    theirs = TRANSFORMERS_CLIP.keymap(target).to_official(OPENAI_CLIP.keymap(target).from_official(official))
    made = set()
    for key, other, rule in fixture.spec["keymap"]["map"]:
        value = official[key]
        if rule == "transpose":
            value = value.T
        elif rule.startswith("rows"):
            value = value.chunk(3)[int(rule.split()[1][0])]
        assert torch.equal(theirs[other], value), other
        made.add(other)
    assert made == theirs.keys()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("form", ["archive", "state dict", "training", "custom", "custom with a bias", "resnet"])
def test_files_of_each_program_compute_what_it_does(tmp_path: Path, activation: str, form: str) -> None:
    vision = RESNET if form == "resnet" else None
    bias = -10.0 if form == "custom with a bias" else None
    network = official(activation, custom=form.startswith("custom"), vision=vision, bias=bias)
    path, state = tmp_path / "weights.pt", network.state_dict()
    if form == "archive":
        path.write_bytes(script_of(state, input_resolution=32, context_length=16, vocab_size=49408))
    elif form == "training":
        optimizer = {"state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(3.0)}}}
        inner = {f"module.{key}": value for key, value in state.items()}
        saved(path, {"epoch": 3, "name": "run", "state_dict": inner, "optimizer": optimizer})
    else:
        saved(path, state)
    described = model_of_weights(path, activation=activation)
    target = Target.of(described.config)
    imported = import_weights(path, target)
    assert imported.layout == ("open_clip_custom" if form.startswith("custom") else "openai_clip")
    images, ids = inputs(64 if form == "resnet" else 32)
    found = our_logits(target, imported.state, images, ids)
    torch.testing.assert_close(found, logits(network, normalized(images), ids), rtol=0, atol=2e-5)
    assert ("network.logit_bias" in imported.state) == (bias is not None)


def test_half_precision_becomes_float32_and_is_said(tmp_path: Path) -> None:
    state = official().state_dict()
    path = tmp_path / "ViT.pt"
    path.write_bytes(script_of(as_openai(state)))
    target = Target.of(model_of_weights(path, activation="quick_gelu").config)
    imported = import_weights(path, target)
    assert {value.dtype for value in imported.state.values()} == {torch.float32}
    half = sum(value.dtype == torch.float16 for value in as_openai(state).values())
    assert f"{half} of {len(state)} tensors were in half precision, and are float32 now" in imported.notes
    assert torch.equal(imported.state["network.text.position"], state["positional_embedding"])
    assert torch.equal(imported.state["network.text.projection"], state["text_projection"].half().float())


@pytest.mark.parametrize(
    ("key", "value", "told"), [("input_resolution", 224, 32), ("context_length", 77, 16), ("vocab_size", 512, 49408)]
)
def test_what_an_archive_records_has_to_be_what_its_shapes_tell(
    tmp_path: Path, key: str, value: int, told: int
) -> None:
    path = tmp_path / "ViT.pt"
    path.write_bytes(script_of(official().state_dict(), **{key: value}))
    with pytest.raises(UserError, match=rf"ViT.pt: its {key} is {value}, but its shapes are of {told}; fetch it again"):
        identify(path)


def test_constants_and_shapes_of_other_versions_are_taken(tmp_path: Path) -> None:
    state = dict(official(vision=RESNET).state_dict())
    tracked = [key for key in state if key.endswith("num_batches_tracked")]
    older = {key: value for key, value in state.items() if key not in tracked}
    older |= {"logit_scale": older["logit_scale"].reshape(1), "attn_mask": torch.ones(16, 16)}
    path = saved(tmp_path / "older.pt", older)
    target = Target.of(model_of_weights(path, activation="quick_gelu").config)
    found = import_weights(path, target)
    expected = import_weights(saved(tmp_path / "newer.pt", state), target).state
    assert all(torch.equal(found.state[key], value) for key, value in expected.items())
    assert "left out constants that are no weights: attn_mask" in found.notes


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_the_text_half_alone_says_what_is_missing(tmp_path: Path, prefix: str) -> None:
    keys = ["embeddings.token_embedding.weight", "embeddings.position_embedding.weight", "final_layer_norm.weight"]
    path = saved(tmp_path / "text.pt", {prefix + key: torch.ones(2, 2) for key in keys})
    what = r"the text half of a CLIP \(CLIPTextModel\), which has no image tower: take the weights of the whole CLIP"
    with pytest.raises(UserError, match=f"text.pt: {what}"):
        import_weights(path, "clip/vit_b32")
    assert "which has no image tower" in identify(path).facts[0]


@pytest.mark.parametrize("prefix", ["", "vision_model."])
def test_the_image_half_alone_says_what_is_missing(tmp_path: Path, prefix: str) -> None:
    keys = ["embeddings.class_embedding", "embeddings.patch_embedding.weight", "pre_layrnorm.weight"]
    path = saved(tmp_path / "image.pt", {prefix + key: torch.ones(2, 2) for key in keys})
    with pytest.raises(UserError, match=r"image.pt: the image half of a CLIP .* which has no text tower"):
        model_of_weights(path, activation="gelu")


def test_without_an_activation_weights_are_refused_with_the_models_that_they_fit(tmp_path: Path) -> None:
    shapes = OPENAI_CLIP.keymap(PRESETS["clip/vit_b32"].target()).official_shapes
    path = saved(tmp_path / "any.pt", zeros(shapes))
    with pytest.raises(UserError) as error:
        model_of_weights(path)
    assert "nothing says which activation these weights were trained with" in str(error.value)
    assert "--activation quick_gelu (OpenAI's) or gelu (most others) (they fit clip/vit_b32)" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="--activation relu is none of quick_gelu, gelu"):
        model_of_weights(path, activation="relu")


def test_heads_that_shapes_do_not_tell_are_not_guessed(tmp_path: Path) -> None:
    shapes = OPENAI_CLIP.keymap(PRESETS["clip/vit_h14"].target()).official_shapes
    path = saved(tmp_path / "huge.pt", zeros(shapes))
    with pytest.raises(UserError, match=r"shapes do not tell image.heads, which is 16 in clip/vit_h14: give --preset"):
        model_of_weights(path, activation="gelu")
    odd = official(text={"width": 48, "heads": 3}).state_dict()
    with pytest.raises(UserError, match="the number of heads of its text tower cannot be told: 48 channels"):
        model_of_weights(saved(tmp_path / "odd.pt", odd), activation="gelu")


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    state = official(text={"vocab_size": 512}).state_dict()
    message = "these weights are for 512 token ids, CLIP's tokenizer has 49,408: another tokenizer belongs to them"
    with pytest.raises(UserError, match=message):
        model_of_weights(saved(tmp_path / "own.pt", state), activation="gelu")


def test_the_wrong_size_names_keys_and_the_right_model(tmp_path: Path) -> None:
    shapes = OPENAI_CLIP.keymap(PRESETS["clip/vit_l14_336"].target()).official_shapes
    path = saved(tmp_path / "any.pt", zeros(shapes))
    with pytest.raises(
        UserError, match=r"visual.positional_embedding is \[577, 1024\], expected \[257, 1024\]"
    ) as error:
        import_weights(path, "clip/vit_l14")
    assert str(error.value).endswith("(they fit clip/vit_l14_336)")


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("visual.conv1.weight", (64,)),
        ("visual.conv1.weight", (0, 3, 8, 8)),
        ("visual.conv1.weight", (64, 3, 0, 0)),
        ("token_embedding.weight", (49408,)),
        ("token_embedding.weight", (49408, 0)),
        ("visual.positional_embedding", ()),
        ("visual.proj", (64,)),
        ("transformer.resblocks.0.mlp.c_fc.weight", ()),
    ],
)
def test_shapes_of_no_clip_are_told_as_such(tmp_path: Path, key: str, shape: tuple[int, ...]) -> None:
    state = official().state_dict() | {key: torch.zeros(shape)}
    path = saved(tmp_path / "odd.pt", state)
    identify(path)
    with pytest.raises(UserError, match=r"odd\.pt: "):
        model_of_weights(path, activation="gelu")


@pytest.mark.parametrize("key", ["visual.proj", "visual.positional_embedding", "positional_embedding"])
def test_what_a_clip_lacks_is_named(tmp_path: Path, key: str) -> None:
    state = official().state_dict()
    del state[key]
    with pytest.raises(UserError, match=f"part.pt: this is no whole CLIP of openai/CLIP: {key} is missing"):
        model_of_weights(saved(tmp_path / "part.pt", state), activation="gelu")


def test_positions_that_are_no_square_are_named(tmp_path: Path) -> None:
    state = official().state_dict() | {"visual.positional_embedding": torch.zeros(16, 64)}
    with pytest.raises(UserError, match=r"odd.pt: visual.positional_embedding has 16 rows, which are not a square"):
        identify(saved(tmp_path / "odd.pt", state))


def test_a_unet_has_no_layout_of_clips_and_a_clip_none_of_unets() -> None:
    unet, clip = PRESETS["ddpm/cifar10"].target(), PRESETS["clip/vit_b32"].target()
    with pytest.raises(UserError, match="openai/CLIP has no network of kind unet; use another layout"):
        OPENAI_CLIP.keymap(unet)
    with pytest.raises(UserError, match=r"network\.kind=clip is no UNet; use another layout"):
        PESSER.keymap(clip)


def test_what_makes_another_clip() -> None:
    target = PRESETS["clip/vit_b32"].target()
    one = target.architecture()
    for change in (
        {"activation": "gelu"},
        {"mean": [0.5] * 3},
        {"std": [0.5] * 3},
        {"logit_bias_init": -10.0},
        {"embedding_dim": 256},
        {"text": target.network.text.model_copy(update={"heads": 4})},
    ):
        assert replace(target, network=target.network.model_copy(update=change)).architecture() != one
    for change in (
        {"log_scale_init": 1.0},
        {"mean": [0.4814547, 0.4578275, 0.4082107]},
        {"image": target.network.image.model_copy(update={"checkpoint_activations": True})},
    ):
        assert replace(target, network=target.network.model_copy(update=change)).architecture() == one

"""Checkpoints of CompVis' codes as whole models, and back."""

from __future__ import annotations

import collections
import gzip
import json
import os
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pydantic import TypeAdapter
from torch import Tensor

from difflab.commands.weights_latent import model_of_experiment
from difflab.conditioning.config import ConditioningConfig
from difflab.config.parts import FrozenConfig
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.diffusion.guidance.config import ClassifierFreeGuidance
from difflab.diffusion.samplers.config import DDIMConfig
from difflab.errors import UserError
from difflab.interop.keymap import shapes_of
from difflab.interop.latent.categories import with_categories
from difflab.interop.latent.checkpoint import Checkpoint, open_checkpoint
from difflab.interop.latent.compvis import preset_of, read_checkpoint
from difflab.interop.latent.conditions import conditions_keymap
from difflab.interop.latent.exported import save_latent
from difflab.interop.latent.parts import LatentModel
from difflab.interop.latent.presets import LATENT_PRESETS, fitting_latent_presets, unet_keymap
from difflab.interop.latent.tables import TABLES, tables_of
from difflab.interop.latent.whole import check_whole, save_whole
from difflab.interop.layout import Target
from difflab.interop.ldm_conditioners import UNUSED
from difflab.networks.config import UNetConfig
from difflab.networks.first_stage.config import FirstStageConfig
from difflab.pipelines.stored import find_stored, load_stored, load_weights
from difflab.tasks.denoising.config import DenoisingModelConfig
from golden_fixtures import ROOT, draw, load

UNET: dict[str, Any] = {
    "channels": 4, "base_channels": 32, "channel_mult": [1, 2], "blocks_per_level": 1, "attention_resolutions": [4],
    "attention_heads": 2, "resample": "symmetric_conv", "time_embedding": "adm", "norm_eps": 1e-5, "init": "adm",
}  # fmt: skip
WITH_TEXT: dict[str, Any] = {"context_channels": 64, "transformer": {"depth": 1}}
UNET_KEYS = "model.diffusion_model."


def config_of(**options: Any) -> DenoisingModelConfig:
    return DenoisingModelConfig(
        experiment="ldm/mine",
        image_size=16,
        channels=3,
        diffusion=DiscreteDiffusionConfig.model_validate(
            {"kind": "discrete", "schedule": {"kind": "scaled_linear"}, "prediction": "eps"}
        ),
        first_stage=FirstStageConfig(weights=FrozenConfig(path="elsewhere"), scale=0.18215),
        network=UNetConfig.model_validate(UNET | options),
        conditioning={},
        sampler=DDIMConfig(kind="ddim", steps=2),
        guidance=ClassifierFreeGuidance(kind="classifier_free", scale=7.5),
    )


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 3) -> dict[str, Tensor]:
    return {key: torch.as_tensor(draw(seed, key, shape)) for key, shape in shapes.items()}


def text_of_transformers(layers: int = 1, width: int = 64) -> dict[str, Tensor]:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    sizes = CLIPTextConfig(hidden_size=width, intermediate_size=96, num_hidden_layers=layers, num_attention_heads=1)
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(sizes)
    state = drawn({k: s for k, s in shapes_of(model.state_dict()).items() if k.startswith("text_model.")})
    return {f"transformer.{key}": value for key, value in state.items()}


def text_of_open_clip(layers: int = 2, width: int = 64) -> dict[str, Tensor]:
    from open_clip.transformer import TextTransformer

    with torch.device("meta"):
        text = TextTransformer(77, 49408, width, heads=1, layers=layers, mlp_ratio=1.5, output_dim=8)
    state = {key: value for key, value in shapes_of(text.state_dict()).items() if key != "attn_mask"}
    return {f"model.{key}": value for key, value in drawn(state).items()} | {"model.logit_scale": torch.tensor(4.6)}


def content_of(config: DenoisingModelConfig, condition: dict[str, Tensor], **more: Tensor) -> dict[str, Any]:
    fixture = load("latent", "diffusers_kl_noattn")
    stage = fixture.state_dict()
    unet = drawn(dict(unet_keymap(Target(config.network, 8)).official_shapes))
    parts = {"model.diffusion_model.": unet, "first_stage_model.": stage, "cond_stage_model.": condition}
    state = {prefix + key: value for prefix, part in parts.items() for key, value in part.items()}
    tables = tables_of(config.diffusion)
    return {"state_dict": {**tables, **state, **more}, "epoch": 3, "global_step": 7}


def averages(content: dict[str, Any]) -> dict[str, Tensor]:
    prefix = "model."
    names = [key for key in content["state_dict"] if key.startswith("model.diffusion_model.")]
    made = {f"model_ema.{key.removeprefix(prefix).replace('.', '')}": content["state_dict"][key] + 1 for key in names}
    return {**made, "model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5)}


def read(path: Path, config: DenoisingModelConfig, which: Any = "auto") -> LatentModel:
    checkpoint = open_checkpoint(path)
    assert checkpoint is not None
    return read_checkpoint(checkpoint, config, which)


TEXTS = {"none": dict, "transformers": text_of_transformers, "open_clip": text_of_open_clip}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_a_checkpoint_comes_in_and_goes_out_bit_for_bit(tmp_path: Path, text: str, ending: str) -> None:
    config = config_of(**({} if text == "none" else WITH_TEXT))
    content = content_of(config, TEXTS[text]())
    torch.save(content, tmp_path / "model.ckpt")
    found = read(tmp_path / "model.ckpt", config)
    assert "it has no averages (model_ema.*): took the weights as they are" in found.notes
    assert "its tables of the noise schedule are those of the model" in found.notes
    assert "left out epoch, global_step" in found.notes
    save_latent(tmp_path / "ours", found)
    model, stored = load_stored(tmp_path / "ours")
    out = tmp_path / f"back.{ending}"
    notes = check_whole(out, stored.config, "compvis")
    assert save_whole(out, stored.config, load_weights(stored), "compvis")[: len(notes)] == notes
    again = open_checkpoint(out)
    assert again is not None
    left = {"text_projection", "logit_scale"}
    expected = {
        key: value
        for key, value in content["state_dict"].items()
        if not (text == "open_clip" and (key.rpartition(".")[2] in left or ".resblocks.1." in key))
    }
    back = {
        **{f"model.diffusion_model.{key}": value for key, value in again.unet.items()},
        **{f"first_stage_model.{key}": value for key, value in again.first_stage.items()},
        **{f"cond_stage_model.{key}": value for key, value in again.condition.items()},
        **again.tables,
    }
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[key], value) for key, value in expected.items())
    assert model.as_module() is not None
    if text != "none":
        assert stored.config.conditioning["caption"].encoder.architecture.hidden_act in ("quick_gelu", "gelu")


def test_the_text_tower_of_open_clip_gives_what_it_gives_there(tmp_path: Path) -> None:
    """Up to the penultimate block and through the last norm (FrozenOpenCLIPEmbedder)."""
    import open_clip
    from open_clip.transformer import TextTransformer

    config = config_of(**WITH_TEXT)
    condition = text_of_open_clip(layers=3)
    torch.save(content_of(config, condition), tmp_path / "model.ckpt")
    save_latent(tmp_path / "ours", read(tmp_path / "model.ckpt", config))
    model, _ = load_stored(tmp_path / "ours")
    text = TextTransformer(77, 49408, 64, heads=1, layers=3, mlp_ratio=1.5, output_dim=8).eval()
    text.load_state_dict(
        {key.removeprefix("model."): v for key, v in condition.items() if "logit" not in key}, strict=False
    )
    captions = ["a red cat!", ""]
    with torch.inference_mode():
        x = text.token_embedding(open_clip.tokenize(captions)) + text.positional_embedding
        for block in text.transformer.resblocks[:2]:
            x = block(x, attn_mask=text.attn_mask)
        expected = text.ln_final(x)
        found = model.conditioners.conditioning({"caption": captions}, seeds=[0, 1])
    assert found is not None
    torch.testing.assert_close(found.tokens, expected, atol=2e-5, rtol=1e-5)


def trained(kind: str, **options: Any) -> ConditioningConfig:
    return TypeAdapter(ConditioningConfig).validate_python({"mine": {"kind": kind, **options}})


TRAINED = {
    "class": (trained("class_token", classes=5, width=64, drop_rate=0.1), {"embedding.weight": (6, 64)}, WITH_TEXT),
    "text": (
        trained("token_transformer", width=64, layers=1, heads=2,
                tokenizer={"kind": "clip", "context_length": 8}),
        {}, WITH_TEXT,
    ),
    "inpainting": (trained("masked_image"), {}, {"concat_channels": 5}),
    "layout": (
        trained("layout", width=64, layers=1, heads=2, max_objects=3, vocabulary=64, crop=True, categories=["a", "b"]),
        {"transformer.token_emb.weight": (64, 64)}, WITH_TEXT,
    ),
    "semantic": (
        trained("spatial_rescaler", classes=5, stages=1, channels=3), {"channel_mapper.weight": (3, 5, 1, 1)},
        {"concat_channels": 3},
    ),
    "super_resolution": (trained("low_res", size=8, downsample="bicubic"), {}, {"concat_channels": 3}),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAINED)
def test_conditioners_that_are_trained_come_in_and_go_out(tmp_path: Path, name: str) -> None:
    conditioning, shapes, options = TRAINED[name]
    config = config_of(**options).model_copy(update={"conditioning": conditioning})
    if name in ("text", "layout"):
        rows = shapes.get("transformer.token_emb.weight", (49408, 64))
        target = Target(config.network, 8, conditioning=conditioning)
        shapes = {**conditions_keymap(target).official_shapes, "transformer.to_logits.weight": rows}
        assert shapes["transformer.token_emb.weight"] == rows
    condition = drawn(dict(shapes))
    if name == "inpainting":
        condition = load("latent", "diffusers_kl_noattn").state_dict()
    content = content_of(config, condition)
    content["state_dict"] |= averages(content)
    torch.save(content, tmp_path / "model.ckpt")
    found = read(tmp_path / "model.ckpt", config)
    left = any("left out" in note and "condition" in note for note in found.notes)
    assert left is (name in ("text", "inpainting", "layout"))
    save_latent(tmp_path / "ours", found)
    _, stored = load_stored(tmp_path / "ours")
    assert stored.config.conditioning == conditioning
    save_whole(tmp_path / "back.ckpt", stored.config, load_weights(stored), "compvis")
    again = open_checkpoint(tmp_path / "back.ckpt")
    assert again is not None
    averaged = {key: value + 1 for key, value in content["state_dict"].items() if key.startswith(UNET_KEYS)}
    assert {f"{UNET_KEYS}{key}" for key in again.unet} == averaged.keys()
    assert all(torch.equal(value, averaged[f"{UNET_KEYS}{key}"]) for key, value in again.unet.items())
    stage = {k: v for k, v in content["state_dict"].items() if k.startswith("first_stage_model.")}
    assert len(again.first_stage) == len(stage)
    assert all(torch.equal(v, stage[f"first_stage_model.{k}"]) for k, v in again.first_stage.items())
    kept = {} if name == "inpainting" else {k: v for k, v in condition.items() if "to_logits" not in k}
    assert again.condition.keys() == kept.keys()
    assert all(torch.equal(again.condition[key], value) for key, value in kept.items())


def test_what_boxes_are_called_is_asked_for(tmp_path: Path) -> None:
    boxes = trained("layout", width=64, layers=1, heads=2, max_objects=3, vocabulary=16)
    config = config_of(**WITH_TEXT).model_copy(update={"conditioning": boxes})
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("tree\ncat\ndog, occluded\n")
    named = with_categories(config, phrases)
    shapes = conditions_keymap(Target(named.network, 8, conditioning=named.conditioning)).official_shapes
    torch.save(content_of(config, drawn(dict(shapes))), tmp_path / "model.ckpt")
    with pytest.raises(UserError, match=r"no checkpoint says of conditioning.mine which .* as --categories FILE$"):
        read(tmp_path / "model.ckpt", config)
    found = read(tmp_path / "model.ckpt", named)
    assert found.config.conditioning["mine"].categories == ["tree", "cat", "dog, occluded"]
    for content, message in (
        ("", "phrases.txt: categories is empty"),
        ("tree\ntree\n", "phrases.txt: categories names 'tree' twice"),
        ("tree\n\ncat\n", "phrases.txt: line 2 is empty"),
        ("\n".join(map(str, range(16))), "phrases.txt: .*no token for each of 16 categories"),
    ):
        phrases.write_text(content)
        with pytest.raises(UserError, match=message):
            with_categories(config, phrases)
    phrases.write_text("tree")
    with pytest.raises(UserError, match="ldm/mine is not conditioned on boxes: leave it out"):
        with_categories(config_of(), phrases)


def test_averages_are_taken_where_there_are_some(tmp_path: Path) -> None:
    config = config_of()
    content = content_of(config, {})
    content["state_dict"] |= averages(content)
    torch.save(content, tmp_path / "model.ckpt")
    taken, raw, asked = (read(tmp_path / "model.ckpt", config, which) for which in ("auto", "raw", "ema"))
    key = "network.conv_in.weight"
    own = content["state_dict"]["model.diffusion_model.input_blocks.0.0.weight"]
    assert torch.equal(taken.state[key], own + 1)
    assert torch.equal(asked.state[key], own + 1)
    assert torch.equal(raw.state[key], own)
    assert any("took the averages of training" in note for note in taken.notes)
    lacking = {k: v for k, v in content["state_dict"].items() if k != "model_ema.diffusion_modelinput_blocks00weight"}
    torch.save({"state_dict": lacking}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"have no input_blocks.0.0.weight: they are of another network"):
        open_checkpoint(tmp_path / "other.ckpt")


class Trap:
    """What is refused beside them."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return os.getcwd, ()


def of_framework(patch: pytest.MonkeyPatch, name: str, base: type = object) -> Any:
    """A class that pickles as that of a framework, which need not be installed, and cannot be read as itself."""
    module, _, own = name.rpartition(".")

    def runs(self: object, state: object) -> None:
        raise AssertionError("it runs")

    made = type(own, (base,), {"__module__": module, "__setstate__": runs})
    for end in (place for place, letter in enumerate(f"{module}.") if letter == "."):
        patch.setitem(sys.modules, module[:end], types.ModuleType(module[:end]))
    setattr(sys.modules[module], own, made)
    return made


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_callbacks_and_settings_are_left_out_and_do_not_run(
    tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's callbacks stand under their classes in official checkpoints, beside them what others left there."""
    config = config_of()
    content = content_of(config, {})
    callback = of_framework(monkeypatch, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    settings = of_framework(monkeypatch, "pytorch_lightning.utilities.parsing.AttributeDict", dict)
    one = callback()
    one.path = "somewhere"
    content["callbacks"] = {callback: {"best_model_score": torch.zeros(1)}, "again": one}
    content["hyper_parameters"] = settings(lr=1.0, counts=collections.defaultdict(int, a=1))
    content["configuration"] = OmegaConf.create({"a": [1, {"b": None}], "c": "${a}"})
    torch.save(content, tmp_path / "model.ckpt", _use_new_zipfile_serialization=not legacy)
    found = read(tmp_path / "model.ckpt", config)
    left = "left out epoch, global_step, callbacks, hyper_parameters, configuration"
    assert left in found.notes
    taken = open_checkpoint(tmp_path / "model.ckpt")
    assert taken is not None
    for key, value in taken.unet.items():
        assert torch.equal(value, content["state_dict"][UNET_KEYS + key])
    content["callbacks"]["evil"] = Trap()
    torch.save(content, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=rf"would run {os.getcwd.__module__}\.getcwd"):
        open_checkpoint(tmp_path / "evil.ckpt")


def test_the_scale_in_a_file_is_that_of_the_model(tmp_path: Path) -> None:
    config = config_of()
    torch.save(content_of(config, {}, scale_factor=torch.tensor(0.25)), tmp_path / "model.ckpt")
    found = read(tmp_path / "model.ckpt", config)
    assert found.config.first_stage.scale == 0.25
    save_latent(tmp_path / "ours", found)
    stored = find_stored(tmp_path / "ours")
    save_whole(tmp_path / "back.ckpt", stored.config, load_weights(stored), "compvis")
    again = open_checkpoint(tmp_path / "back.ckpt")
    assert again is not None
    assert float(again.tables["scale_factor"]) == 0.25
    unknown = config.model_copy(update={"first_stage": FirstStageConfig(weights=FrozenConfig(path="elsewhere"))})
    torch.save(content_of(config, {}), tmp_path / "model.ckpt")
    with pytest.raises(UserError, match="neither its scale_factor nor ldm/mine"):
        read(tmp_path / "model.ckpt", unknown)


@pytest.mark.parametrize(
    ("table", "value", "message"),
    [
        ("scale_factor", torch.tensor(0.0), "its scale_factor is 0.0, where a number above 0 is needed"),
        ("scale_factor", torch.tensor(torch.nan), "its scale_factor is nan, where a number above 0 is needed"),
        ("scale_factor", torch.ones(2), r"its scale_factor is \[1.0, 1.0\], where a number above 0 is needed"),
        ("betas", torch.tensor(0.1), r"its betas have shape \[\], which is no noise schedule"),
        ("betas", torch.zeros(0), r"its betas have shape \[0\], which is no noise schedule"),
    ],
)
def test_tables_that_are_none_are_one_line(tmp_path: Path, table: str, value: Tensor, message: str) -> None:
    config = config_of()
    torch.save(content_of(config, {}, **{table: value}), tmp_path / "model.ckpt")
    with pytest.raises(UserError, match=message):
        read(tmp_path / "model.ckpt", config)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_schedule_of_a_file_in_half_precision_is_that_of_the_model(tmp_path: Path, dtype: torch.dtype) -> None:
    config = config_of()
    content = {key: value.to(dtype) for key, value in content_of(config, {})["state_dict"].items()}
    torch.save({"state_dict": content}, tmp_path / "model.ckpt")
    assert "its tables of the noise schedule are those of the model" in read(tmp_path / "model.ckpt", config).notes


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    config = config_of()
    torch.save(content_of(config, {"embedding.weight": torch.zeros(3, 8)}), tmp_path / "class.ckpt")
    with pytest.raises(UserError, match=r"its condition .*: these weights do not fit .* embedding.weight \[3, 8\]"):
        read(tmp_path / "class.ckpt", config)
    torch.save(content_of(config, {}), tmp_path / "model.ckpt")
    with pytest.raises(UserError, match="do not fit the guided layout of this network"):
        read(tmp_path / "model.ckpt", config_of(base_channels=64))
    with pytest.raises(UserError, match="has no averages"):
        read(tmp_path / "model.ckpt", config, "ema")
    checkpoint = open_checkpoint(tmp_path / "model.ckpt")
    assert checkpoint is not None
    with pytest.raises(UserError, match="none of the published ones known here: name the experiment"):
        preset_of(checkpoint)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    assert open_checkpoint(tmp_path / "other.pt") is None
    assert open_checkpoint(tmp_path) is None


@pytest.mark.parametrize("name", ["ldm_schedule_sd", "ldm_schedule_default_0015_0195"])
def test_tables_are_the_official_ones(name: str) -> None:
    fixture = load("latent", name)
    args, kept = fixture.spec["args"]["schedule"], fixture.spec["args"]["indices"]
    ends = {"beta_start": args["linear_start"], "beta_end": args["linear_end"]}
    diffusion = DiscreteDiffusionConfig.model_validate(
        {"kind": "discrete", "schedule": {"kind": "scaled_linear", **ends}, "prediction": "eps"}
    )
    for key, value in tables_of(diffusion).items():
        assert torch.equal(value if key in fixture.spec["full"] else value[kept], torch.as_tensor(fixture.arrays[key]))


TASKS = {
    "ldm/semantic_256": "ldm_semantic_synthesis256",
    "ldm/layout_openimages256": "ldm_layout2img_openimages256",
    "ldm/bsr_sr": "ldm_bsr_sr",
}
"""Experiment -> the key list of its published checkpoint."""


def published(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((ROOT / "latent" / "released" / f"{name}.keys.json.gz").read_bytes()))


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_published_checkpoints_of_further_tasks_come_in_and_go_out(name: str, tmp_path: Path) -> None:
    """Every key and shape of the UNet, the first stage and the condition, without storage."""
    lists = published(f"{TASKS[name]}_unet")

    def empty(keys: dict[str, list[int]]) -> dict[str, Tensor]:
        return {key: torch.empty(shape, device="meta") for key, shape in keys.items()}

    config = model_of_experiment(name)
    assert isinstance(config, DenoisingModelConfig)
    if name == "ldm/layout_openimages256":
        (tmp_path / "phrases.txt").write_text("\n".join(f"thing {number}" for number in range(601)))
        config = with_categories(config, tmp_path / "phrases.txt")
    unet, condition = empty(lists["keys"]), empty(lists["cond_stage_keys"])
    stage = empty(published("ldm_first_stage_vq_f4")["keys"])
    tables = tables_of(config.diffusion)
    assert float(tables["betas"][-1]) == pytest.approx(lists["diffusion"]["linear_end"])
    checkpoint = Checkpoint(tmp_path / "model.ckpt", "torch zip", unet, unet, stage, condition, tables, ())
    assert preset_of(checkpoint) == name
    found = read_checkpoint(checkpoint, config, "auto")
    assert found.notes[-1] == "its tables of the noise schedule are those of the model"
    assert found.config.noised_shape == (3, 64, 64)
    whole = Target.of(found.config)
    assert shapes_of(found.state) == whole.shapes()
    alone = replace(whole, conditioning={})
    back = unet_keymap(alone).to_official({k: v for k, v in found.state.items() if k.startswith("network.")})
    assert shapes_of(back) == checkpoint.unet_shapes
    trained_ones = {key: value for key, value in found.state.items() if key.startswith("conditioners.")}
    assert shapes_of(conditions_keymap(whole).to_official(trained_ones)) == shapes_of(
        {key: value for key, value in condition.items() if key not in UNUSED}
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", LATENT_PRESETS)
def test_released_unets_fit_their_presets(name: str) -> None:
    files = {"sd/v1": "sd_v1", "sd/v2_base": "sd_v2_base", "sd/v2_768": "sd_v2_768_v", "sd/v2_zero_snr": "sd_v2_base"}
    files |= {"ldm/txt2img_large": "ldm_text2img_large", "sd/v2_inpainting": "sd_v2_inpainting"}
    files |= TASKS
    if name == "sd/v1_inpainting":
        pytest.skip("its keys are those of sd/v1 with a wider first convolution; no list of them is here")
    file = files.get(name, name.replace("/", "_"))
    shapes = {key: tuple(shape) for key, shape in published(f"{file}_unet")["keys"].items()}
    assert name in fitting_latent_presets(shapes)
    assert len(TABLES) == 12

"""LoRA files merged into a model: every way of naming the same layers gives W + scale alpha / rank up @ down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from difflab.errors import UserError
from difflab.interop.latent.exported import save_latent
from difflab.interop.latent.lora import merged, parsed
from difflab.interop.latent.parts import LatentModel
from difflab.interop.latent.pipeline import read_whole
from difflab.interop.latent.pipeline_out import network_target
from difflab.interop.latent_unets import DIFFUSERS_CONDITION_UNET
from interop.latent.small_pipelines import PNDM, small_pipeline

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
RANK, ALPHA, SCALE = 3, 1.5, 0.5
LAYERS = {  # module -> shapes of down and up, in the UNet and in the text encoder
    f"{ATTENTION}.to_q": ((RANK, 64), (64, RANK)),
    f"{ATTENTION}.to_out.0": ((RANK, 64), (64, RANK)),
}
TEXT = {"text_model.encoder.layers.1.self_attn.v_proj": ((RANK, 32), (32, RANK))}
CONVOLUTION = {
    "down_blocks.1.attentions.0.proj_in": ((RANK, 64, 1, 1), (64, RANK, 1, 1)),
    "down_blocks.0.resnets.0.conv1": ((RANK, 32, 3, 3), (32, RANK, 1, 1)),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LatentModel:
    from diffusers import PNDMScheduler

    folder = tmp_path_factory.mktemp("lora")
    small_pipeline(folder / "tokenizer", PNDMScheduler(**PNDM)).save_pretrained(folder / "sd")
    found = read_whole(folder / "sd")
    assert found is not None
    return found


def weights(layers: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return {
        name: (torch.randn(down, generator=generator), torch.randn(up, generator=generator))
        for name, (down, up) in layers.items()
    }


def official(model: LatentModel) -> dict[str, Tensor]:
    state = {key: value for key, value in model.state.items() if key.startswith("network.")}
    return DIFFUSERS_CONDITION_UNET.keymap(network_target(model.config)).to_official(state)


def check(before: LatentModel, after: LatentModel, unet: dict[str, Any], text: dict[str, Any], alpha: float) -> None:
    assert before.tower is not None
    assert after.tower is not None
    for old, new, layers in ((official(before), official(after), unet), (before.tower.state, after.tower.state, text)):
        changes = {f"{name}.weight": pair for name, pair in weights(layers).items()}
        for key, value in old.items():
            expected = value
            if key in changes:
                down, up = changes[key]
                expected = value + SCALE * alpha / RANK * (up.flatten(1) @ down.flatten(1)).reshape(value.shape)
            torch.testing.assert_close(new[key], expected, atol=1e-6, rtol=1e-6, msg=key)
            assert (key in changes) != torch.equal(new[key], value)


def names(style: str, part: str, module: str) -> tuple[str, str, str | None]:
    """down, up and alpha."""
    if style == "kohya":
        stem = f"{'lora_unet_' if part == 'unet' else 'lora_te_'}{module.replace('.', '_')}"
        return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"
    if style == "peft":
        return f"{part}.{module}.lora_A.weight", f"{part}.{module}.lora_B.weight", None
    if style == "diffusers":
        middle = "lora" if part == "unet" else "lora_linear_layer"
        return f"{part}.{module}.{middle}.down.weight", f"{part}.{module}.{middle}.up.weight", None
    layer = module.removeprefix(f"{ATTENTION}.").removesuffix(".0")
    stem = f"{ATTENTION}.processor.{layer}_lora"
    return f"{stem}.down.weight", f"{stem}.up.weight", None


def file_of(path: Path, style: str, unet: dict[str, Any], text: dict[str, Any]) -> Path:
    content: dict[str, Tensor] = {}
    for part, layers in (("unet", unet), ("text_encoder", text)):
        for module, (down, up) in weights(layers).items():
            down_name, up_name, alpha = names(style, part, module)
            content |= {down_name: down, up_name: up}
            content |= {} if alpha is None else {alpha: torch.tensor(ALPHA)}
    save_file(content, path)
    return path


@pytest.mark.parametrize("style", ["kohya", "peft", "diffusers", "processor"])
def test_all_names_of_a_layer_give_the_same(model: LatentModel, tmp_path: Path, style: str) -> None:
    unet, text = (LAYERS, {}) if style == "processor" else ({**LAYERS, **CONVOLUTION}, TEXT)
    path = file_of(tmp_path / "lora.safetensors", style, unet, text)
    after = merged(model, path, SCALE)
    check(model, after, unet, text, ALPHA if style == "kohya" else RANK)
    assert after.notes[-1] == f"merged {path} with scale 0.5 into {len(unet) + len(text)} layers"


def test_kohyas_names_of_compvis_layers(model: LatentModel, tmp_path: Path) -> None:
    down, up = weights(LAYERS)[f"{ATTENTION}.to_q"]
    stem = "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q"
    save_file({f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}, tmp_path / "a.safetensors")
    after = official(merged(model, tmp_path / "a.safetensors", 1.0))
    expected = official(model)[f"{ATTENTION}.to_q.weight"] + up @ down
    torch.testing.assert_close(after[f"{ATTENTION}.to_q.weight"], expected)


def test_several_are_merged_and_recorded_and_the_rest_is_listed(model: LatentModel, tmp_path: Path) -> None:
    one = file_of(tmp_path / "one.safetensors", "peft", LAYERS, {})
    other = file_of(tmp_path / "other.safetensors", "kohya", {**LAYERS, "mid.nowhere": ((3, 8), (8, 3))}, TEXT)
    twice = merged(merged(model, one, 1.0), other, -0.25)
    assert f"{other}: 1 of its 4 changes match no layer: mid_nowhere" in twice.notes
    save_latent(tmp_path / "out", twice)
    record = json.loads((tmp_path / "out" / "config.json").read_text())["difflab"]["made_of"]["lora"]
    assert [(entry["file"], entry["scale"]) for entry in record] == [
        ("one.safetensors", 1.0),
        ("other.safetensors", -0.25),
    ]


def test_diffusers_own_merge_agrees(model: LatentModel, tmp_path: Path) -> None:
    """W + scale alpha / rank up @ down, by the layers of the library where they can be run."""
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline

    from difflab.interop.latent.pipeline_out import save_pipeline

    path = file_of(tmp_path / "lora.safetensors", "peft", {**LAYERS, **CONVOLUTION}, TEXT)
    save_pipeline(tmp_path / "sd", model)
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / "sd")
    theirs.load_lora_weights(path)
    theirs.fuse_lora(lora_scale=SCALE)
    theirs.unload_lora_weights()
    after = official(merged(model, path, SCALE))
    for key, value in theirs.unet.state_dict().items():
        torch.testing.assert_close(after[key], value, atol=1e-6, rtol=1e-6)


def test_the_alpha_in_a_files_header_is_that_of_diffusers(model: LatentModel, tmp_path: Path) -> None:
    """peft's settings of both parts: one alpha, another for some modules, and one divided by the root of the rank."""
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline

    from difflab.interop.latent.pipeline_out import save_pipeline

    path = file_of(tmp_path / "lora.safetensors", "peft", LAYERS, TEXT)
    settings = {
        **{f"unet.{key}": value for key, value in {
            "r": RANK, "lora_alpha": 6, "alpha_pattern": {"to_out.0": 2}, "target_modules": ["to_q", "to_out.0"],
        }.items()},
        **{f"text_encoder.{key}": value for key, value in {
            "r": RANK, "lora_alpha": 5, "use_rslora": True, "target_modules": ["v_proj"],
        }.items()},
    }  # fmt: skip
    save_file(load_file(path), path, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(settings)})
    save_pipeline(tmp_path / "sd", model)
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / "sd")
    theirs.load_lora_weights(path)
    theirs.fuse_lora(lora_scale=SCALE)
    theirs.unload_lora_weights()
    found = merged(model, path, SCALE)
    assert found.tower is not None
    for ours, other in ((official(found), theirs.unet), (found.tower.state, theirs.text_encoder)):
        expected = {key.removeprefix("text_model."): value for key, value in other.state_dict().items()}
        for key, value in ours.items():
            torch.testing.assert_close(value, expected[key.removeprefix("text_model.")], atol=1e-6, rtol=1e-6)
    alone = file_of(tmp_path / "alone.safetensors", "peft", LAYERS, TEXT)
    assert any(
        not torch.equal(value, official(found)[key]) for key, value in official(merged(model, alone, SCALE)).items()
    )


def test_a_header_that_cannot_be_read_is_one_line(model: LatentModel, tmp_path: Path) -> None:
    path = file_of(tmp_path / "lora.safetensors", "peft", LAYERS, {})
    for header, message in (
        ("{", "is not valid JSON"),
        ("[]", "holds a list, not an object"),
        ('{"unet.lora_alpha": "much"}', "lora_alpha='much': input should be a valid number"),
        ('{"lora_alpha": 0}', "lora_alpha=0: input should be greater than 0"),
    ):
        save_file(load_file(path), path, metadata={"lora_adapter_metadata": header})
        with pytest.raises(UserError) as refusal:
            merged(model, path, 1.0)
        assert message in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no tensors"),
        ({"lora_unet_x.hada_w1_a": torch.zeros(2, 2)}, "lora_unet_x.hada_w1_a is not of a plain LoRA"),
        ({"unet.x.lora_A.weight": torch.zeros(2, 2)}, "unet x has only one of its two matrices"),
        (
            {"unet.x.lora_A.weight": torch.zeros(2, 2), "unet.x.lora_B.weight": torch.zeros(2, 2)},
            "none of its 1 changes is of a layer of this model, as x",
        ),
        (
            {
                f"unet.{ATTENTION}.to_q.lora_A.weight": torch.zeros(2, 96),
                f"unet.{ATTENTION}.to_q.lora_B.weight": torch.zeros(96, 2),
            },
            f"of another base: its change of {ATTENTION}.to_q is [96, 2] times [2, 96], for a weight of [64, 64]",
        ),
        (
            {"unet.x.lora_A.weight": torch.zeros(0, 64), "unet.x.lora_B.weight": torch.zeros(64, 0)},
            "unet x has tensors of shapes [64, 0] and [0, 64], which are not matrices of a rank",
        ),
        (
            {"unet.x.lora_A.weight": torch.zeros(64), "unet.x.lora_B.weight": torch.zeros(())},
            "unet x has tensors of shapes [] and [64], which are not matrices of a rank",
        ),
        (
            {
                "lora_unet_x.lora_down.weight": torch.zeros(2, 64),
                "lora_unet_x.lora_up.weight": torch.zeros(64, 2),
                "lora_unet_x.alpha": torch.zeros(2),
            },
            "lora_unet_x.alpha has shape [2], where one number is needed",
        ),
        (
            {
                f"unet.{ATTENTION}.to_q.lora_A.weight": torch.full((2, 64), torch.nan),
                f"unet.{ATTENTION}.to_q.lora_B.weight": torch.ones(64, 2),
            },
            f"with scale 1, its change of {ATTENTION}.to_q gives numbers that are not finite",
        ),
        (
            {
                f"unet.{ATTENTION}.to_q.{name}.weight": torch.ones(shape)
                for name, shape in {"lora_A": (2, 64), "lora_B": (64, 2), "lora.down": (2, 64)}.items()
            },
            "is of a layer that it names in another way, too",
        ),
        (
            {
                f"{name}.{leaf}.weight": torch.ones(shape)
                for name in (f"unet.{ATTENTION}.to_q", f"lora_unet_{ATTENTION.replace('.', '_')}_to_q")
                for leaf, shape in {"lora_down": (2, 64), "lora_up": (64, 2)}.items()
            },
            "are the same layer: take one of them out of the file",
        ),
    ],
)
def test_other_files_are_refused_in_a_line(
    model: LatentModel, tmp_path: Path, content: dict[str, Tensor], message: str
) -> None:
    save_file(content, tmp_path / "lora.safetensors")
    with pytest.raises(UserError) as refusal:
        merged(model, tmp_path / "lora.safetensors", 1.0)
    assert str(refusal.value).startswith(str(tmp_path / "lora.safetensors"))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_argument_of_a_command(tmp_path: Path) -> None:
    assert parsed("a/b.safetensors") == (Path("a/b.safetensors"), 1.0)
    assert parsed("a/b.safetensors:0.75") == (Path("a/b.safetensors"), 0.75)
    with pytest.raises(UserError, match=r"'x' is not a number; write FILE or FILE:0\.8"):
        parsed("a/b.safetensors:x")
    for scale in ("nan", "inf", "-inf"):
        with pytest.raises(UserError, match=f"'{scale}' is not a number"):
            parsed(f"a/b.safetensors:{scale}")
    odd = tmp_path / "a:1"
    odd.write_bytes(b"")
    assert parsed(str(odd)) == (odd, 1.0)

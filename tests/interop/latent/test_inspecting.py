"""Pipeline folders, part by part: what is in them, what difflab makes of it, and what it does not read."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from difflab.interop.diffusers_condition import from_condition_config
from difflab.interop.diffusers_config import from_diffusers_config
from difflab.interop.identifying import Component, Identification
from difflab.interop.latent.inspecting import identify_pipeline
from difflab.interop.latent.presets import presets_of_network
from golden_fixtures import ROOT
from interop.latent.small_pipelines import latent_pipeline

CHECKER = ["stable_diffusion", "StableDiffusionSafetyChecker"]


def changed(path: Path, **change: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def parts_of(found: Identification) -> dict[str, Component]:
    return {part.name: part for part in found.parts}


def test_every_part_of_stable_diffusion(copied: Path) -> None:
    changed(copied / "model_index.json", safety_checker=CHECKER)
    (copied / "safety_checker").mkdir()
    save_file({"a": torch.zeros(2, 3).half()}, copied / "safety_checker" / "model.fp16.safetensors")
    found = identify_pipeline(copied)
    parts = parts_of(found)
    assert found.format == "folder of StableDiffusionPipeline"
    assert found.facts == (
        "denoiser of 3-channel images", "through 4x8x8 latents of an autoencoder", "conditioned on text_encoder",
    )  # fmt: skip
    assert set(parts) == {"unet", "vae", "text_encoder", "tokenizer", "scheduler", "safety_checker"}
    assert {name: part.kind for name, part in parts.items() if name in ("unet", "vae", "scheduler")} == {
        "unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "PNDMScheduler",
    }  # fmt: skip
    assert parts["unet"].becomes == "network at 8x8"
    assert parts["vae"].becomes == "first stage, autoencoder (KL), f=2, latents of 4 channels"
    assert parts["text_encoder"].becomes == "text encoder, 2 layers of 32 channels, 77 tokens"
    assert parts["tokenizer"].becomes == "tokenizer, 518 ids, padded with '<|endoftext|>'"
    assert parts["scheduler"].becomes == "process, scaled_linear, prediction=eps, and sampler=plms"
    checker = parts["safety_checker"]
    assert (checker.becomes, checker.refused) == ("not read", False)
    assert (checker.parameters, checker.dtypes, checker.files) == (6, ("float16",), ("model.fp16.safetensors",))
    assert parts["unet"].files == ("diffusion_pytorch_model.safetensors",)
    assert "tokenizer_config.json" in parts["tokenizer"].files
    assert (parts["tokenizer"].parameters, parts["tokenizer"].dtypes) == (0, ())
    assert found.parameters == sum(part.parameters for part in found.parts)
    assert found.dtypes == ("float16", "float32")
    assert found.notes == ("left out the pipeline's safety_checker",)


def test_every_part_of_latent_diffusion(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False, prediction_type="v_prediction")
    latent_pipeline(scheduler).save_pretrained(tmp_path / "ldm", safe_serialization=False)
    found = identify_pipeline(tmp_path / "ldm")
    parts = parts_of(found)
    assert found.facts == ("denoiser of 3-channel images", "through 3x8x8 latents of an autoencoder")
    assert parts["unet"].files == ("diffusion_pytorch_model.bin",)
    assert parts["vqvae"].becomes == "first stage, autoencoder (VQ with 64 codes), f=2, latents of 3 channels"
    assert parts["scheduler"].becomes == "process, linear, prediction=v, and sampler=ddim"
    assert not found.notes


def test_what_is_wrong_with_a_part_is_beside_it(copied: Path) -> None:
    changed(copied / "unet" / "config.json", layers_per_block=2)
    changed(copied / "text_encoder" / "config.json", model_type="t5")
    changed(copied / "scheduler" / "scheduler_config.json", beta_schedule="odd")
    (copied / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(copied / "tokenizer")
    found = identify_pipeline(copied)
    parts = parts_of(found)
    for name, why in (
        ("unet", "these weights are not of the network that its config.json says: "),
        ("text_encoder", "config.json: model_type='t5'; read are the text encoders of CLIP"),
        ("scheduler", "scheduler_config.json: beta_schedule='odd' is not supported"),
        ("vae", "has no weights"),
        ("tokenizer", "the folder is missing: fetch it again"),
    ):
        assert parts[name].becomes.startswith(f"not read: {why}"), parts[name]
        assert parts[name].refused
    assert parts["unet"].parameters > 0
    assert found.facts == ("StableDiffusionPipeline of diffusers",)
    assert f"it is not imported whole: {copied}: has no folder tokenizer/" in found.notes[-1]


def test_weights_of_another_network_are_not_taken_for_the_whole(copied: Path) -> None:
    changed(copied / "unet" / "config.json", layers_per_block=2)
    found = identify_pipeline(copied)
    assert found.facts == ("StableDiffusionPipeline of diffusers",)
    assert found.notes[-1].startswith(f"it is not imported whole: {copied / 'unet'}: not read: these weights are not")


def test_other_pipelines_are_told_part_by_part_too(copied: Path) -> None:
    changed(
        copied / "model_index.json", _class_name="StableDiffusionXLPipeline", image_encoder=["x", "Other"], odd=[1, 2]
    )
    changed(copied / "unet" / "config.json", addition_embed_type="text_time")
    found = identify_pipeline(copied)
    parts = parts_of(found)
    assert "odd" not in parts
    assert (
        parts["unet"].becomes == "not read: config.json: addition_embed_type='text_time' is not supported (only None)"
    )
    assert parts["vae"].becomes.startswith("first stage, ")
    assert parts["image_encoder"] == Component("image_encoder", "Other", (), 0, (), "not read", False)
    assert "_class_name='StableDiffusionXLPipeline'; read of the pipelines" in found.notes[-1]


def test_notes_on_the_files_of_a_part(pipeline: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    theirs = StableDiffusionPipeline.from_pretrained(pipeline)
    theirs.save_pretrained(tmp_path / "sd", max_shard_size="200KB")
    found = identify_pipeline(tmp_path / "sd")
    unet = parts_of(found)["unet"]
    assert unet.files == ("diffusion_pytorch_model.safetensors.index.json",)
    assert unet.parameters == parts_of(identify_pipeline(pipeline))["unet"].parameters
    assert any(note.startswith("unet: put together from ") for note in found.notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "size", "names"),
    [
        ("sd_v1", 64, ["sd/v1"]),
        ("sd_v2_base", 64, ["sd/v2_base", "sd/v2_zero_snr"]),
        ("sd_v2_768_v", 96, ["sd/v2_768"]),
        ("sd_v2_inpainting", 64, ["sd/v2_inpainting"]),
        ("ldm_text2img_large", 32, ["ldm/txt2img_large"]),
        ("ldm_celeba256", 64, ["ldm/celeba256", "ldm/ffhq256", "ldm/lsun_beds256"]),
        ("ldm_layout2img_openimages256", 64, ["ldm/layout_openimages256"]),
    ],
)
def test_published_networks_are_told_by_their_configuration(file: str, size: int, names: list[str]) -> None:
    content = json.loads(
        gzip.decompress((ROOT / "latent" / "released" / f"{file}_unet.diffusers.json.gz").read_bytes())
    )
    config = {**content["diffusers_config"], "sample_size": size}
    conditional = config["_class_name"] == "UNet2DConditionModel"
    target = from_condition_config(Path("config.json"), config) if conditional else from_diffusers_config(config)
    assert presets_of_network(target) == names

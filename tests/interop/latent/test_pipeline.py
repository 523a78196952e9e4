"""Pipelines of diffusers as whole models: what they draw, what comes back, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.config.sampler import SamplerBase
from difflab.diffusion.build import build_guidance, build_sampler, build_threshold
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance.build import GuidanceParts
from difflab.errors import UserError
from difflab.files import sha256_of
from difflab.interop.latent.exported import save_latent
from difflab.interop.latent.pipeline import read_whole
from difflab.interop.latent.whole import check_whole, leaves_whole, save_whole
from difflab.pipelines.stored import find_stored, load_stored, load_weights
from difflab.tasks.build import NoisedModel
from difflab.text.clip import END
from diffusion.mixtures import Still
from interop.latent.small_pipelines import DDIM, PNDM, SD2, small_pipeline, tokenizer_folder

CAPTIONS = ["a red cat!", "cat"]
NEGATIVE = ["red", "a blue dog"]
STEPS = 7


def start() -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def imported(folder: Path, out: Path) -> Path:
    found = read_whole(folder)
    assert found is not None
    save_latent(out, found)
    return out


@torch.inference_mode()
def our_drawing(
    folder: Path, sampler: SamplerBase, negative: Sequence[str], shown: dict[str, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The latents and the images of the captions, guided away from others, as StableDiffusionPipeline does."""
    model, _ = load_stored(folder)
    assert isinstance(model, NoisedModel)
    assert model.first_stage is not None
    walk = build_sampler(sampler)
    process = walk.respace(model.process)
    config = model.config
    away = model.conditioners.conditioning({"caption": list(negative), **(shown or {})}, seeds=[0, 1])
    denoiser = NetworkDenoiser(
        model.network,
        process,
        model.conditioners.conditioning({"caption": CAPTIONS, **(shown or {})}, seeds=[0, 1]),
        guidance=build_guidance(config.guidance, GuidanceParts(away, process.prediction, {})),
        threshold=build_threshold(config.guidance.model_copy(update={"threshold": "none"})),
    )
    latents = walk(denoiser, process, start() * walk.starting_std(process), Still())
    return latents, model.first_stage.decode(latents).clamp(-1, 1) / 2 + 0.5


def their_drawing(pipeline: Any, negative: Sequence[str]) -> tuple[Tensor, Tensor]:
    call: dict[str, Any] = {"negative_prompt": list(negative), "num_inference_steps": STEPS, "guidance_scale": 7.5}
    latents = pipeline(CAPTIONS, latents=start(), output_type="latent", **call).images
    return latents, pipeline(CAPTIONS, latents=start(), output_type="pt", **call).images


@pytest.mark.parametrize(
    ("kind", "scheduler", "options"),
    [
        ("PNDMScheduler", PNDM, {}),
        pytest.param("DDIMScheduler", DDIM, {}, marks=pytest.mark.slow),
        ("DDIMScheduler", {**DDIM, "prediction_type": "v_prediction"}, {"padding": "!", "act": "gelu", **SD2}),
        pytest.param(
            "DDIMScheduler",
            {**DDIM, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
            {"padding": "!", "act": "gelu", **SD2},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "DPMSolverMultistepScheduler", {**PNDM, "timestep_spacing": "trailing"}, {}, marks=pytest.mark.slow
        ),
        pytest.param("UniPCMultistepScheduler", PNDM, {}, marks=pytest.mark.slow),
    ],
    ids=["sd1-pndm", "sd1-ddim", "sd2-v", "zero-snr", "dpm", "unipc"],
)
def test_it_draws_what_the_pipeline_draws_and_so_does_what_comes_back(
    tmp_path: Path, kind: str, scheduler: dict[str, Any], options: dict[str, Any]
) -> None:
    import diffusers

    scheduler = {key: value for key, value in scheduler.items() if key != "skip_prk_steps" or kind == "PNDMScheduler"}
    theirs = small_pipeline(tmp_path / "tokenizer", getattr(diffusers, kind)(**scheduler), **options)
    theirs.save_pretrained(tmp_path / "theirs")
    expected = their_drawing(theirs, NEGATIVE)
    ours = imported(tmp_path / "theirs", tmp_path / "ours")
    # Nothing in it is found by where it was first.
    moved = ours.rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "theirs")
    config = find_stored(moved).config
    sampler = config.sampler.model_copy(update={"steps": STEPS})
    found = our_drawing(moved, sampler, NEGATIVE)
    for mine, their in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, their, atol=1e-4 * float(their.abs().max()), rtol=0)
    other = their_drawing(theirs, ["", ""])[0]
    assert (other - expected[0]).abs().max() > 20 * (found[0] - expected[0]).abs().max(), "what is not said is told"
    stored = find_stored(moved)
    assert leaves_whole(stored.config, "diffusers")
    notes = save_whole(tmp_path / "back", stored.config, load_weights(stored), "diffusers")
    assert notes == check_whole(tmp_path / "other", stored.config, "diffusers")
    if kind in ("PNDMScheduler", "DDIMScheduler"):
        assert not notes
        back = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "back")
        back.set_progress_bar_config(disable=True)
        for mine, their in zip(their_drawing(back, NEGATIVE), expected, strict=True):
            assert torch.equal(mine, their)
    else:
        assert f"differ from the model's own (sampler={sampler.kind})" in notes[0]
    again = read_whole(tmp_path / "back")
    assert again is not None
    first = read_whole_of(moved)
    assert again.config.network == first.network
    assert again.config.diffusion == first.diffusion
    assert kind not in ("PNDMScheduler", "DDIMScheduler") or again.config.sampler == first.sampler


@pytest.mark.slow
def test_inpainting_draws_what_its_pipeline_draws(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline

    text = small_pipeline(tmp_path / "tokenizer", DDIMScheduler(**DDIM), in_channels=9)
    # Its pipeline shows a sample of the posterior, which is its mode where the variance is none.
    text.vae.quant_conv.weight.data[4:], text.vae.quant_conv.bias.data[4:] = 0.0, -30.0
    text.save_pretrained(tmp_path / "text")
    theirs = StableDiffusionInpaintPipeline.from_pretrained(tmp_path / "text")
    theirs.set_progress_bar_config(disable=True)
    theirs.save_pretrained(tmp_path / "theirs")
    generator = torch.Generator().manual_seed(5)
    image = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, 3:11, 5:13] = 1
    call: dict[str, Any] = {"image": image, "mask_image": mask, "height": 16, "width": 16, "strength": 1.0}
    call |= {"negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": 7.5, "latents": start()}
    expected = theirs(CAPTIONS, output_type="latent", **call).images
    ours = imported(tmp_path / "theirs", tmp_path / "ours")
    config = find_stored(ours).config
    assert config.conditioning["masked_image"].order == "mask_image"
    sampler = config.sampler.model_copy(update={"steps": STEPS})
    shown = {"image": image, "mask": (mask * 255).byte()}
    found, _ = our_drawing(ours, sampler, NEGATIVE, shown)
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    stored = find_stored(ours)
    assert not save_whole(tmp_path / "back", stored.config, load_weights(stored), "diffusers")
    back = StableDiffusionInpaintPipeline.from_pretrained(tmp_path / "back")
    back.set_progress_bar_config(disable=True)
    torch.testing.assert_close(back(CAPTIONS, output_type="latent", **call).images, expected, atol=1e-4, rtol=1e-4)
    other = config.conditioning["masked_image"].model_copy(update={"order": "image_mask"})
    conditioning = {**config.conditioning, "masked_image": other}
    with pytest.raises(UserError, match=r"on a mask before its image \(masked_image.order=mask_image, known=0\)"):
        check_whole(tmp_path / "o", config.model_copy(update={"conditioning": conditioning}), "diffusers")


def read_whole_of(folder: Path) -> Any:
    return find_stored(folder).config


def test_parts_are_recorded_and_verified(pipeline: Path, tmp_path: Path) -> None:
    out = imported(pipeline, tmp_path / "out")
    config = json.loads((out / "config.json").read_text())["config"]
    parts = [config["first_stage"]["weights"], config["conditioning"]["caption"]["encoder"]["weights"]]
    assert [part["path"] for part in parts] == ["first_stage/model.safetensors", "text_encoder/model.safetensors"]
    for part in (*parts, config["conditioning"]["caption"]["tokenizer"]["file"]):
        assert part["sha256"] == sha256_of(out / part["path"])
    assert config["first_stage"]["scale"] == pytest.approx(0.18215)
    assert config["guidance"]["scale"] == 7.5
    assert find_stored(out / "first_stage").config.image_size == 16
    (out / "first_stage" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"first_stage.*has sha256 .* the model was trained with"):
        load_stored(out)


@pytest.mark.parametrize(("options", "names"), [
    ({"safe_serialization": False}, ".bin"),
    ({"variant": "fp16"}, ".fp16.safetensors"),
    ({"max_shard_size": "200KB"}, ".safetensors.index.json"),
])  # fmt: skip
def test_weights_in_every_form_that_diffusers_writes(
    pipeline: Path, tmp_path: Path, options: dict[str, Any], names: str
) -> None:
    from diffusers import StableDiffusionPipeline

    half = options.get("variant") == "fp16"
    theirs = StableDiffusionPipeline.from_pretrained(pipeline, torch_dtype=torch.float16 if half else torch.float32)
    theirs.save_pretrained(tmp_path / "theirs", **options)
    written = [file.name for file in (tmp_path / "theirs" / "unet").iterdir()]
    assert any(name.endswith(names) for name in written), written
    first, other = read_whole(pipeline), read_whole(tmp_path / "theirs")
    assert first is not None
    assert other is not None
    assert first.tower is not None
    assert other.tower is not None
    for mine, its in (
        (first.state, other.state),
        (first.first_stage, other.first_stage),
        (first.tower.state, other.tower.state),
    ):
        assert mine.keys() == its.keys()
        for key, value in mine.items():
            same = value.half() if half and its[key].dtype == torch.float16 else value
            assert torch.equal(same, its[key]), key


def test_a_tokenizer_of_two_files_is_the_same(copied: Path, pipeline: Path) -> None:
    shutil.rmtree(copied / "tokenizer")
    tokenizer_folder(copied / "tokenizer", END, ("vocab.json", "merges.txt", "tokenizer_config.json"))
    one, other = read_whole(pipeline), read_whole(copied)
    assert one is not None
    assert other is not None
    assert one.config.conditioning["caption"].tokenizer == other.config.conditioning["caption"].tokenizer


def changed(path: Path, **change: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "read of the pipelines with a first stage"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "vae is a AutoencoderTiny; read is"),
        ("model_index.json", {"text_encoder": ["transformers", "T5EncoderModel"]}, "text_encoder is a T5EncoderModel"),
        ("text_encoder/config.json", {"model_type": "t5"}, "model_type='t5'; read are the text encoders of CLIP"),
        ("text_encoder/config.json", {"num_hidden_layers": 3}, "is not the text encoder that its configuration says"),
        ("text_encoder/config.json", {"vocab_size": 64}, "is not the text encoder"),
        ("unet/config.json", {"cross_attention_dim": 48}, "attends to tokens of 48 channels (cross_attention_dim)"),
        ("unet/config.json", {"in_channels": 8}, "unet reads concat, which the parts"),
        ("unet/config.json", {"in_channels": 3, "out_channels": 3}, "unet has 3 channels and vae latents of 4"),
        ("vae/config.json", {"use_quant_conv": False}, "use_quant_conv=False is not supported"),
        ("vae/config.json", {"block_out_channels": []}, "block_out_channels=[]: list should have at least 1 item"),
        ("vae/config.json", {"scaling_factor": 0}, "vae/config.json: scaling_factor=0: input should be greater than 0"),
        ("unet/config.json", {"block_out_channels": []}, "block_out_channels=[]: list should have at least 1 item"),
        ("tokenizer/tokenizer_config.json", {"pad_token": "<pad>"}, "tokenizer.json: has no '<pad>', with which"),
        ("tokenizer/tokenizer_config.json", {"pad_token": 5}, "pad_token=5 in the settings beside it is no token"),
        ("model_index.json", {"vae": [None, None]}, "vae has no class; read is AutoencoderKL"),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "'EDMEulerScheduler' is not"),
        ("scheduler/scheduler_config.json", {"_class_name": ["PNDMScheduler"]}, "['PNDMScheduler'] is not supported"),
        ("scheduler/scheduler_config.json", {"beta_end": 2}, "beta_end=2.0: input should be less than 1"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "where eps does not give x0"),
        ("scheduler/scheduler_config.json", {"skip_prk_steps": "no"}, "skip_prk_steps='no': input should be a valid"),
        ("scheduler/scheduler_config.json", {"solver_order": 7}, "solver_order=7: input should be less than or equal"),
        ("scheduler/scheduler_config.json", {"final_sigmas_type": "x"}, "final_sigmas_type='x': input should be"),
        ("scheduler/scheduler_config.json", {"sigma_min": 0.1}, "sigma_min=0.1 is not supported (only None)"),
        ("scheduler/scheduler_config.json", {"timestep_type": "continuous"}, "timestep_type='continuous' is not"),
        ("scheduler/scheduler_config.json", {"interpolation_type": "log_linear"}, "interpolation_type='log_linear' is"),
        ("scheduler/scheduler_config.json", {"lambda_min_clipped": -5.1}, "lambda_min_clipped=-5.1 is not supported"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "odd"}, "beta_schedule='odd' is not supported"),
        ("scheduler/scheduler_config.json", {"use_beta_sigmas": True}, "use_beta_sigmas=True is not supported"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction_type='flow' is not supported"),
    ],
)  # fmt: skip
def test_parts_that_difflab_has_not_are_one_line(copied: Path, part: str, change: dict[str, Any], message: str) -> None:
    changed(copied / part, **change)
    with pytest.raises(UserError) as refusal:
        read_whole(copied)
    assert str(copied) in str(refusal.value)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("part", "other"), [("vae", "unet"), ("unet", "vae")])
def test_a_part_with_the_configuration_of_another_is_named(copied: Path, part: str, other: str) -> None:
    shutil.copy(copied / other / "config.json", copied / part / "config.json")
    with pytest.raises(UserError, match=f"{part}/config.json: describes the network of another part"):
        read_whole(copied)


def test_settings_of_a_tokenizer_that_are_no_object_are_refused(copied: Path) -> None:
    (copied / "tokenizer" / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match=r"tokenizer_config\.json: holds a list, not an object"):
        read_whole(copied)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(copied: Path, part: str) -> None:
    shutil.rmtree(copied / part)
    with pytest.raises(UserError, match=f"has no folder {part}/, which is a part of a StableDiffusionPipeline"):
        read_whole(copied)
    (copied / part).mkdir()
    with pytest.raises(UserError) as refusal:
        read_whole(copied)
    assert str(copied / part) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_other_folders_are_none(tmp_path: Path, copied: Path) -> None:
    assert read_whole(tmp_path) is None
    assert read_whole(copied / "unet") is None


def test_parts_that_are_left_out_are_named(copied: Path) -> None:
    changed(copied / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    found = read_whole(copied)
    assert found is not None
    assert found.notes == ("left out the pipeline's safety_checker",)


def test_nothing_is_written_over(pipeline: Path, tmp_path: Path) -> None:
    out = imported(pipeline, tmp_path / "out")
    found = read_whole(pipeline)
    assert found is not None
    with pytest.raises(UserError, match="out: is there already"):
        save_latent(out, found)
    with pytest.raises(UserError, match="out: is there already"):
        check_whole(out, find_stored(out).config, "diffusers")

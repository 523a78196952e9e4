"""diffusers' LDMPipeline as a whole model: what it draws, what comes back, what is refused."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.config.sampler import SamplerBase
from difflab.diffusion.build import build_sampler
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.errors import UserError
from difflab.interop.diffusers_config import from_diffusers_config, to_diffusers_config
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.latent.exported import save_latent
from difflab.interop.latent.pipeline import read_whole
from difflab.interop.latent.presets import LATENT_PRESETS, unet_keymap
from difflab.interop.latent.whole import check_whole, leaves_whole, save_whole
from difflab.pipelines.stored import find_stored, load_stored, load_weights
from difflab.tasks.build import NoisedModel
from diffusion.mixtures import Still
from golden_fixtures import ROOT
from interop.latent.small_pipelines import latent_pipeline

LDM: dict[str, Any] = {
    "beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "clip_sample": False,
    "num_train_timesteps": 200,
}  # fmt: skip
STEPS = 7
RELEASED = ROOT / "latent" / "released"


def start(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(1))


def imported(folder: Path, out: Path) -> Path:
    found = read_whole(folder)
    assert found is not None
    save_latent(out, found)
    return out


def saved(folder: Path, scheduler: Any, **options: Any) -> Any:
    pipeline = latent_pipeline(scheduler, **options)
    pipeline.save_pretrained(folder)
    return pipeline


@torch.inference_mode()
def our_drawing(folder: Path, sampler: SamplerBase) -> tuple[Tensor, Tensor]:
    """What is decoded, and the images."""
    model, _ = load_stored(folder)
    assert isinstance(model, NoisedModel)
    assert model.first_stage is not None
    walk = build_sampler(sampler)
    process = walk.respace(model.process)
    noise = start(model.config.noised_shape[0]) * walk.starting_std(process)
    latents = walk(NetworkDenoiser(model.network, process), process, noise, Still())
    return model.first_stage.unscaled(latents), model.first_stage.decode(latents).clamp(-1, 1) / 2 + 0.5


def their_drawing(pipeline: Any, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    # It scales its start noise before it knows the steps.
    pipeline.scheduler.set_timesteps(steps)
    decode, decoded = pipeline.vqvae.decode, []
    pipeline.vqvae.decode = lambda latents: decoded.append(latents) or decode(latents)
    call = {"batch_size": 2, "generator": torch.Generator().manual_seed(1), "num_inference_steps": steps}
    images = pipeline(output_type="np", **call).images
    pipeline.vqvae.decode = decode
    return decoded[0], torch.from_numpy(images).permute(0, 3, 1, 2)


def refuse_difference(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for mine, their in zip(found, expected, strict=True):
        assert their.std() > 0.05, "there is something in it"
        torch.testing.assert_close(mine, their, atol=1e-4 * float(their.abs().max()), rtol=0)


@pytest.mark.parametrize(
    ("kind", "scheduler", "options"),
    [
        ("DDIMScheduler", LDM, {}),
        ("DDIMScheduler", {**LDM, "steps_offset": 1, "set_alpha_to_one": False, "prediction_type": "v_prediction"},
         {"scale": 0.4}),
        ("PNDMScheduler", {k: v for k, v in LDM.items() if k != "clip_sample"} | {"skip_prk_steps": True}, {}),
        ("DDIMScheduler", {**LDM, "timestep_spacing": "trailing"}, {"kl": True, "scale": 0.2}),
    ],
    ids=["ddim", "ddim-v", "pndm", "kl"],
)  # fmt: skip
def test_it_draws_what_the_pipeline_draws_and_so_does_what_comes_back(
    tmp_path: Path, kind: str, scheduler: dict[str, Any], options: dict[str, Any]
) -> None:
    import diffusers

    theirs = saved(tmp_path / "theirs", getattr(diffusers, kind)(**scheduler), **options)
    expected = their_drawing(theirs)
    other = their_drawing(theirs, STEPS - 1)
    assert (other[0] - expected[0]).abs().max() > 1e-2 * expected[0].abs().max(), "a step more is seen"
    ours = imported(tmp_path / "theirs", tmp_path / "ours")
    moved = ours.rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "theirs")
    stored = find_stored(moved)
    config = stored.config
    assert config.image_size == 16
    assert config.first_stage.scale == options.get("scale", 1.0)
    refuse_difference(our_drawing(moved, config.sampler.model_copy(update={"steps": STEPS})), expected)
    assert leaves_whole(config, "diffusers")
    notes = save_whole(tmp_path / "back", config, load_weights(stored), "diffusers")
    eta = ", eta=0.0" if kind == "DDIMScheduler" else ""
    call = f"LDMPipeline.from_pretrained({str(tmp_path / 'back')!r})(num_inference_steps=50{eta})"
    assert notes == [f"diffusers draws as the run's own sampler does with {call}"]
    back = diffusers.LDMPipeline.from_pretrained(tmp_path / "back")
    back.set_progress_bar_config(disable=True)
    for mine, their in zip(their_drawing(back), expected, strict=True):
        assert torch.equal(mine, their)
    again = read_whole(tmp_path / "back")
    assert again is not None
    assert again.config.network == config.network
    assert again.config.diffusion == config.diffusion
    assert again.config.sampler == config.sampler
    for mine, its in (
        (again.state, load_weights(stored)),
        (again.first_stage, load_weights(find_stored(moved / "first_stage"))),
    ):
        assert mine.keys() == its.keys()
        assert all(torch.equal(mine[key], value) for key, value in its.items())


@pytest.mark.slow
def test_the_published_network_of_faces_is_one_of_the_pipeline() -> None:
    """Its configuration and every key, as the converter of the library has them."""
    released = json.loads(gzip.decompress((RELEASED / "ldm_celeba256_unet.diffusers.json.gz").read_bytes()))
    target = LATENT_PRESETS["ldm/celeba256"].target()
    theirs, written = released["diffusers_config"], to_diffusers_config(target)
    assert {key: theirs[key] for key in written} == written
    assert from_diffusers_config(theirs).architecture() == target.architecture()
    renamed = [name for name, _ in released["key_map"].values()]
    names = {part for name in renamed for part in ([name] if isinstance(name, str) else name)}
    assert DIFFUSERS.keymap(target).official_shapes.keys() == names
    assert unet_keymap(target).official_shapes.keys() == released["key_map"].keys()


def test_files_of_before_scaling_factor_are_taken_as_they_were_meant(tmp_path: Path) -> None:
    """The published folder of CelebA-HQ is one (huggingface/diffusers#6725)."""
    from diffusers import DDIMScheduler

    theirs = saved(tmp_path / "theirs", DDIMScheduler(**LDM))
    config = tmp_path / "theirs" / "vqvae" / "config.json"
    content = json.loads(config.read_text())
    assert content.pop("scaling_factor") == 1.0
    config.write_text(json.dumps(content))
    found = read_whole(tmp_path / "theirs")
    assert found is not None
    assert any(f"{config} has no scaling_factor: latents are taken as they are" in note for note in found.notes)
    save_latent(tmp_path / "ours", found)
    sampler = found.config.sampler.model_copy(update={"steps": STEPS})
    refuse_difference(our_drawing(tmp_path / "ours", sampler), their_drawing(theirs))


def test_other_samplers_leave_with_a_remark(tmp_path: Path) -> None:
    from diffusers import EulerDiscreteScheduler, LDMPipeline

    scheduler = {key: value for key, value in LDM.items() if key != "clip_sample"} | {"timestep_spacing": "leading"}
    theirs = saved(tmp_path / "theirs", EulerDiscreteScheduler(**scheduler), kl=True)
    ours = imported(tmp_path / "theirs", tmp_path / "ours")
    stored = find_stored(ours)
    assert stored.config.sampler.kind == "euler"
    refuse_difference(
        our_drawing(ours, stored.config.sampler.model_copy(update={"steps": STEPS})), their_drawing(theirs)
    )
    (note,) = save_whole(tmp_path / "back", stored.config, load_weights(stored), "diffusers")
    assert "differ from the model's own (sampler=euler)" in note
    assert type(LDMPipeline.from_pretrained(tmp_path / "back").scheduler).__name__ == "DDIMScheduler"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import DDIMScheduler

    folder = tmp_path_factory.mktemp("pipeline") / "theirs"
    saved(folder, DDIMScheduler(**LDM))
    return folder


@pytest.fixture
def copied(pipeline: Path, tmp_path: Path) -> Path:
    shutil.copytree(pipeline, tmp_path / "ldm")
    return tmp_path / "ldm"


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("model_index.json", {"_class_name": "LDMSuperResolutionPipeline"}, "read of the pipelines with a first stage"),
        ("model_index.json", {"vqvae": ["diffusers", "AutoencoderTiny"]}, "vqvae is a AutoencoderTiny; read is"),
        ("model_index.json", {"vqvae": None}, "vqvae has no class; read is VQModel or AutoencoderKL"),
        ("unet/config.json", {"in_channels": 6}, "unet/config.json: out_channels=3 is neither in_channels nor twice"),
        ("unet/config.json", {"mid_block_type": None}, "unet/config.json: mid_block_type=None is not supported"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type='timestep' is not supported"),
        ("unet/config.json", {"num_class_embeds": 5}, "a network with classes (num_class_embeds), for which"),
        ("unet/config.json", {"out_channels": 6}, "a network with variances (out_channels), for which"),
        ("unet/config.json", {"in_channels": 4, "out_channels": 4}, "unet has 4 channels and vqvae latents of 3"),
        ("unet/config.json", {"layers_per_block": 2}, "these weights do not fit"),
        ("vqvae/config.json", {"lookup_from_codebook": True}, "lookup_from_codebook=True is not supported"),
        ("vqvae/config.json", {"norm_type": "spatial"}, "norm_type='spatial' is not supported"),
        ("scheduler/scheduler_config.json", {"clip_sample": True}, "clips latents to [-1, 1]"),
        ("scheduler/scheduler_config.json", {"thresholding": True}, "thresholding=True is not supported"),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "'EDMEulerScheduler' is not"),
    ],
)  # fmt: skip
def test_what_difflab_has_not_is_one_line(copied: Path, part: str, change: dict[str, Any], message: str) -> None:
    path = copied / part
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError) as refusal:
        read_whole(copied)
    assert str(copied) in str(refusal.value)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("part", ["unet", "vqvae", "scheduler"])
def test_a_missing_part_is_named(copied: Path, part: str) -> None:
    shutil.rmtree(copied / part)
    with pytest.raises(UserError, match=f"has no folder {part}/, which is a part of a LDMPipeline"):
        read_whole(copied)


def test_what_the_pipeline_has_not_does_not_leave(pipeline: Path, tmp_path: Path) -> None:
    config = find_stored(imported(pipeline, tmp_path / "ours")).config
    grown = config.network.model_copy(update={"decoder_attention_heads": 2})
    learned = config.diffusion.model_copy(update={"variance": "learned_range", "loss": "hybrid"})
    for change, message in (
        ({"network": grown}, "has no network with decoder_attention_heads=2"),
        ({"diffusion": learned}, "LDMPipeline has no diffusion.variance=learned_range"),
    ):
        with pytest.raises(UserError, match=message):
            check_whole(tmp_path / "back", config.model_copy(update=change), "diffusers")

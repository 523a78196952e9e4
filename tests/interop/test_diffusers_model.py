"""Folders that diffusers itself wrote, of nobody's published model: their network, process and pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.config.model import ModelConfig
from difflab.errors import UserError
from difflab.interop.diffusers_model import model_of_folder
from difflab.interop.layout import Target
from difflab.interop.opening import open_weights, program_of
from difflab.interop.registry import export_model, import_weights
from difflab.tasks.build import Model, build_model
from interop.test_diffusers_folder import GivenNoise, drawn, model_config
from interop.test_diffusers_sampling import our_pictures

UNET: dict[str, Any] = {
    "sample_size": 16, "block_out_channels": [32, 64], "layers_per_block": 1, "norm_num_groups": 8,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip


def save_pipeline(folder: Path, scheduler: Any, **unet: Any) -> Any:
    """A pipeline as diffusers saves it, with the weights that torch draws."""
    from diffusers import DDIMPipeline, DDPMPipeline, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(**UNET | unet)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.08)
    kind = DDIMPipeline if type(scheduler).__name__ == "DDIMScheduler" else DDPMPipeline
    pipeline = kind(network.eval(), scheduler)
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def imported(folder: Path) -> Model:
    described = model_of_folder(folder)
    assert described is not None
    model = build_model(described.config)
    model.load(import_weights(folder, Target.of(described.config)).state)
    model.as_module().eval()
    return model


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("DDIMScheduler", {}),
        ("DDIMScheduler", {"beta_schedule": "scaled_linear", "beta_start": 0.001, "clip_sample": False}),
        ("DDIMScheduler", {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2", "steps_offset": 1}),
        ("DDIMScheduler", {"prediction_type": "sample", "timestep_spacing": "trailing", "set_alpha_to_one": False}),
        ("DDIMScheduler", {"timestep_spacing": "linspace", "clip_sample_range": 1.5}),
        ("DDIMScheduler", {"thresholding": True, "sample_max_value": 2.0, "dynamic_thresholding_ratio": 0.9}),
        ("DDIMScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
        ("DDPMScheduler", {"num_train_timesteps": 30}),
        ("DDPMScheduler", {"num_train_timesteps": 30, "variance_type": "fixed_large", "beta_schedule": "sigmoid"}),
        ("DDPMScheduler", {"num_train_timesteps": 30, "variance_type": "fixed_small_log"}),
        ("DDPMScheduler", {"num_train_timesteps": 30, "variance_type": "learned_range", "prediction_type": "sample"}),
    ],
)  # fmt: skip
def test_it_draws_what_its_own_pipeline_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, Any]
) -> None:
    import diffusers

    scheduler = getattr(diffusers, kind)(**options)
    doubled = {"out_channels": 6} if options.get("variance_type") == "learned_range" else {}
    pipeline = save_pipeline(tmp_path / "theirs", scheduler, **doubled)
    generator = torch.Generator().manual_seed(1)
    start, *sigmas = (torch.randn(2, 3, 16, 16, generator=generator) for _ in range(31))
    given = GivenNoise(sigmas)
    for name in ("ddim", "ddpm"):
        monkeypatch.setattr(f"diffusers.pipelines.{name}.pipeline_{name}.randn_tensor", lambda *_, **__: start.clone())
        monkeypatch.setattr(
            f"diffusers.schedulers.scheduling_{name}.randn_tensor", lambda *_, **__: given.randn_like(start)
        )
    steps = {} if kind == "DDIMScheduler" else {"num_inference_steps": options["num_train_timesteps"]}
    theirs = torch.as_tensor(pipeline(batch_size=2, output_type="pt", return_dict=False, **steps)[0])
    ours = our_pictures(imported(tmp_path / "theirs"), start, sigmas)
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["diffusion=improved", "diffusion.timesteps=1000"],
        ["diffusion/schedule=warmup10", "sampler.spacing=leading"],
        [
            "conditioning=class",
            "conditioning.class_label.drop_rate=0.1",
            "guidance=classifier_free",
            "guidance.scale=2",
        ],
        ["sampler=heun", "~sampler.eta"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("saved_again", [False, True])
def test_what_was_exported_comes_back_whole(tmp_path: Path, overrides: list[str], saved_again: bool) -> None:
    model = drawn(model_config(*overrides))
    export_model(tmp_path / "theirs", model.as_module().state_dict(), model.config, "diffusers")
    if saved_again:
        from diffusers import DDPMScheduler, UNet2DModel

        UNet2DModel.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "again" / "unet")
        DDPMScheduler.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "again" / "scheduler")
        shutil.rmtree(tmp_path / "theirs")
        (tmp_path / "again").rename(tmp_path / "theirs")
    back = imported(tmp_path / "theirs")
    assert back.config == model.config
    state = model.as_module().state_dict()
    assert all(torch.equal(value, state[key]) for key, value in back.as_module().state_dict().items())


def exported(folder: Path, *overrides: str) -> ModelConfig:
    model = drawn(model_config(*overrides))
    export_model(folder, model.as_module().state_dict(), model.config, "diffusers")
    return model.config


def changed(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content))


def test_what_was_changed_after_the_export_counts(tmp_path: Path) -> None:
    config = exported(tmp_path)
    changed(tmp_path / "scheduler_config.json", beta_end=0.01, beta_schedule="linear", trained_betas=None)
    described = model_of_folder(tmp_path)
    assert described.config != config
    assert described.config.diffusion.schedule.beta_end == 0.01
    assert described.notes == (
        f"{tmp_path / 'scheduler_config.json'}: its _difflab is of another model than the rest says, and was not used",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "PNDMScheduler"}, "_class_name='PNDMScheduler' is not supported"),
        ({"beta_schedule": "laplace"}, "beta_schedule='laplace' is not supported"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas is not supported"),
        ({"prediction_type": "flow_prediction"}, "prediction_type='flow_prediction' is not supported"),
        ({"variance_type": "learned"}, "variance_type='learned' is not supported"),
        ({"variance_type": "fixed_large_log"}, "variance_type='fixed_large_log' is not supported"),
        ({"variance_type": "learned_range"}, "variance_type='learned_range', but the out_channels of the network"),
        ({"beta_start": "small"}, "beta_start='small': input should be a valid number"),
        ({"beta_end": 7.0}, "beta_end=7.0: input should be less than 1"),
        ({"num_train_timesteps": 0}, "num_train_timesteps=0: input should be greater than or equal to 1"),
        ({"timestep_spacing": "odd"}, "timestep_spacing='odd'"),
        ({"rescale_betas_zero_snr": True}, "zero_terminal_snr"),
        ({"clip_sample": None}, "clip_sample=None"),
    ],
)  # fmt: skip
def test_a_process_that_is_none_of_ours_names_the_file_and_the_key(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    exported(tmp_path, "diffusion=ddpm")
    changed(tmp_path / "scheduler_config.json", _difflab=None, **change)
    with pytest.raises(UserError) as error:
        model_of_folder(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'scheduler_config.json'}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_out_channels": "wide"}, "block_out_channels="),
        ({"block_out_channels": []}, "block_out_channels=[]"),
        ({"block_out_channels": [32, 64, 64]}, "down_block_types has 2 entries and block_out_channels 3"),
        ({"layers_per_block": None}, "layers_per_block=None"),
        ({"norm_num_groups": 7, "attn_norm_num_groups": 7}, "16 channels cannot be normalised in norm_groups=7"),
        ({"norm_eps": "tiny"}, "norm_eps='tiny'"),
        ({"sample_size": [16, 32]}, "sample_size=[16, 32]"),
        ({"act_fn": "gelu"}, "act_fn='gelu' is not supported"),
        ({"dropout": 1.5}, "less than 1"),
        ({"_class_name": "UNet2DConditionModel"}, "mid_block_type='UNetMidBlock2D' is not supported"),
        ({"_class_name": "AutoencoderTiny"}, "_class_name is 'AutoencoderTiny'; read are UNet2DModel, AutoencoderKL"),
    ],
)  # fmt: skip
def test_a_network_that_is_none_of_ours_names_the_file_and_the_key(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    exported(tmp_path)
    changed(tmp_path / "config.json", **change)
    with pytest.raises(UserError) as error:
        model_of_folder(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_scheduler_the_way_out_is_named(tmp_path: Path) -> None:
    exported(tmp_path)
    (tmp_path / "scheduler_config.json").unlink()
    with pytest.raises(UserError, match=r"there is no scheduler_config\.json in it or in \.\./scheduler/.* --preset"):
        model_of_folder(tmp_path)
    assert model_of_folder(tmp_path / "elsewhere") is None


def test_of_a_network_and_its_averages_one_has_to_be_given(tmp_path: Path) -> None:
    exported(tmp_path / "unet")
    shutil.copytree(tmp_path / "unet", tmp_path / "unet_ema")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "unet" / "scheduler_config.json").rename(tmp_path / "scheduler" / "scheduler_config.json")
    with pytest.raises(UserError, match=f"holds both unet and unet_ema; give one of them, as {tmp_path / 'unet'}"):
        model_of_folder(tmp_path)
    assert model_of_folder(tmp_path / "unet") is not None
    assert model_of_folder(tmp_path / "unet_ema") is not None


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("size", ["10GB", "100KB"])
def test_weights_in_every_form_that_diffusers_writes(
    tmp_path: Path, variant: str | None, safe: bool, size: str
) -> None:
    from diffusers import UNet2DModel

    exported(tmp_path / "first")
    network = UNet2DModel.from_pretrained(tmp_path / "first")
    if variant:
        network = network.half()
    folder = tmp_path / "saved"
    network.save_pretrained(folder, variant=variant, safe_serialization=safe, max_shard_size=size)
    found = open_weights(folder)
    expected = network.state_dict()
    assert found.state.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.state.items())
    assert program_of(folder) == "diffusers"
    said = " ".join(found.notes)
    assert ("put together from" in said) == (size == "100KB")
    assert ("the only variant" in said) == (variant is not None)
    shutil.copy(tmp_path / "first" / "scheduler_config.json", folder)
    assert imported(folder).config.image_size == 16
    file = next(file for file in folder.iterdir() if file.name == found.path.name)
    assert open_weights(file).state.keys() == expected.keys()
    assert model_of_folder(file) == model_of_folder(folder)


def test_several_forms_of_the_weights_are_named(tmp_path: Path) -> None:
    exported(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    for name in ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bf16.safetensors"):
        shutil.copy(weights, tmp_path / name)
    (note,) = open_weights(tmp_path).notes
    assert note == (
        "took diffusion_pytorch_model.safetensors; beside it lie diffusion_pytorch_model.bf16.safetensors, "
        "diffusion_pytorch_model.fp16.safetensors"
    )
    weights.unlink()
    with pytest.raises(UserError, match=r"several variants of the weights, .*; give one of the files"):
        open_weights(tmp_path)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    from diffusers import UNet2DModel

    exported(tmp_path / "first")
    UNet2DModel.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    return tmp_path / "parts"


def test_parts_that_are_not_those_of_the_index_are_named(sharded: Path) -> None:
    index = sharded / "diffusion_pytorch_model.safetensors.index.json"
    listed = json.loads(index.read_text())
    parts = sorted(sharded.glob("*-of-*"))
    with pytest.raises(UserError, match="one part of several"):
        open_weights(parts[0])
    for bad, message in (
        ({"conv_in.weight": "../first/diffusion_pytorch_model.safetensors"}, "is no file beside it"),
        ({"conv_in.weight": 3}, "is no file beside it"),
        ({"conv_in.weight": parts[-1].name}, "conv_in.weight"),
        ({"more": parts[0].name}, "more is missing from it"),
    ):
        changed(index, weight_map=listed["weight_map"] | bad)
        with pytest.raises(UserError, match=message):
            open_weights(sharded)
    for content in ("{}", '{"weight_map": []}'):
        index.write_text(content)
        with pytest.raises(UserError, match="no weight_map in it"):
            open_weights(sharded)
    index.write_text(json.dumps(listed))
    parts[0].unlink()
    with pytest.raises(UserError, match=f"{parts[0].name}: no such file"):
        open_weights(sharded)

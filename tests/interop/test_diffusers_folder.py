"""A whole model as diffusers' pipeline: the same start noise and step noise give the same samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from difflab.commands.composing import compose_and_validate
from difflab.config.model import ModelConfig
from difflab.config.train import TrainConfig
from difflab.diffusion.build import build_process, build_threshold
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.errors import UserError
from difflab.interop.diffusers_scheduler import to_scheduler_config
from difflab.interop.registry import export_model, import_weights
from difflab.tasks.build import Model, build_model

TINY = [
    "experiment=ddpm/shapes32", "data.image_size=16", "network.patch_size=1", "network.base_channels=16",
    "network.channel_mult=[1,2]", "network.blocks_per_level=1", "diffusion.timesteps=1000",
]  # fmt: skip


def model_config(*overrides: str) -> ModelConfig:
    return compose_and_validate("train", TrainConfig, [*TINY, *overrides])[0].model()


def drawn(config: ModelConfig) -> Model:
    torch.manual_seed(0)
    model = build_model(config)
    for parameter in model.as_module().parameters():
        parameter.data.normal_(std=0.08)
    model.as_module().eval()
    return model


class GivenNoise:
    """Hands out sigmas in turn."""

    def __init__(self, sigmas: list[Tensor]) -> None:
        self.sigmas = list(sigmas)

    def randn_like(self, x: Tensor) -> Tensor:
        return self.sigmas.pop(0)


def our_samples(model: Model, start: Tensor, sigmas: list[Tensor], steps: int) -> Tensor:
    sampler = AncestralSampler(steps=steps, spacing="leading")
    process = sampler.respace(build_process(model.config.diffusion))
    threshold = build_threshold(model.config.guidance)
    denoiser = NetworkDenoiser(model.network, process, threshold=threshold)
    return sampler(denoiser, process, start, GivenNoise(sigmas))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["diffusion=ddpm_lsun"],
        ["diffusion=improved", "diffusion.timesteps=1000"],
        ["diffusion=v_cosine", "diffusion.variance=fixed_large"],
        ["diffusion=x0_cosine", "guidance.threshold=dynamic"],
        ["diffusion/schedule=sigmoid", "guidance.threshold=none"],
        ["diffusion/schedule=scaled_linear", "guidance.static_limit=2.0"],
        ["diffusion/schedule=linear_scaled", "diffusion.timesteps=500"],
        ["diffusion=v_cosine", "diffusion.schedule.zero_terminal_snr=true"],
        ["diffusion=v_cosine", "diffusion.schedule.shift=2"],
        ["diffusion/schedule=scaled_linear", "diffusion.schedule.shift=0.5", "guidance.threshold=none"],
        ["diffusion/schedule=warmup10"],
        ["diffusion/schedule=laplace", "guidance.threshold=none"],
    ],
    ids=" ".join,
)
def test_the_pipeline_gives_our_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]) -> None:
    from diffusers import DDPMPipeline
    from diffusers.schedulers import scheduling_ddpm

    model = drawn(model_config(*overrides))
    export_model(tmp_path, model.as_module().state_dict(), model.config, "diffusers")
    pipeline = DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    steps = 10
    generator = torch.Generator().manual_seed(1)
    start, *sigmas = (torch.randn(2, 3, 16, 16, generator=generator) for _ in range(steps))
    expected = our_samples(model, start, sigmas, steps).clamp(-1, 1) / 2 + 0.5

    given = GivenNoise(sigmas)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, **_: given.randn_like(start))
    monkeypatch.setattr("diffusers.pipelines.ddpm.pipeline_ddpm.randn_tensor", lambda shape, **_: start.clone())
    found = pipeline(batch_size=2, num_inference_steps=steps, output_type="pt", return_dict=False)[0]
    found = torch.as_tensor(found)
    assert expected.std() > 0.01
    assert not given.sigmas
    assert (found - expected).abs().max() < 2e-5


def test_the_folder_is_flat(tmp_path: Path) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    model = drawn(model_config())
    state = model.as_module().state_dict()
    written = export_model(tmp_path, state, model.config, "diffusers")
    names = {"config.json", "diffusion_pytorch_model.safetensors", "model_index.json", "scheduler_config.json"}
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()} == names
    assert UNet2DModel.from_pretrained(tmp_path).config.sample_size == 16
    assert DDPMScheduler.from_pretrained(tmp_path).config.num_train_timesteps == 1000
    imported = import_weights(tmp_path).state
    assert all(torch.equal(imported[key], value) for key, value in state.items())


def test_a_pipeline_that_diffusers_itself_saved_comes_in(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline

    model = drawn(model_config())
    state = model.as_module().state_dict()
    export_model(tmp_path / "flat", state, model.config, "diffusers")
    DDPMPipeline.from_pretrained(tmp_path / "flat").save_pretrained(tmp_path / "pipeline")
    assert (tmp_path / "pipeline" / "unet").is_dir()
    imported = import_weights(tmp_path / "pipeline").state
    assert all(torch.equal(imported[key], value) for key, value in state.items())


def test_a_class_conditional_model_is_a_network_and_a_scheduler(tmp_path: Path) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    model = drawn(model_config("conditioning=class"))
    written = export_model(tmp_path, model.as_module().state_dict(), model.config, "diffusers")
    assert "model_index.json" not in {path.name for path in written}
    classes = model.config.conditioning["class_label"].classes
    assert UNet2DModel.from_pretrained(tmp_path).config.num_class_embeds == classes
    assert DDPMScheduler.from_pretrained(tmp_path).config.prediction_type == "sample"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["diffusion.prediction=prev", "diffusion.weighting=none"], "no prediction=prev"),
        (["diffusion.variance=learned", "diffusion.loss=kl", "diffusion.weighting=none"], "no variance=learned "),
        (["diffusion.time_input=log_snr"], "not time_input=log_snr with timesteps=1000"),
        (["diffusion=improved", "diffusion.timesteps=4000"], "not time_input=scaled_index with timesteps=4000"),
    ],
)
def test_a_process_that_diffusers_has_not_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    config = model_config(*overrides)
    state = build_model(config).as_module().state_dict()
    with pytest.raises(UserError, match=message):
        export_model(tmp_path / "out", state, config, "diffusers")
    assert not (tmp_path / "out").exists()


def test_betas_without_a_name_are_listed() -> None:
    config = to_scheduler_config(model_config("diffusion/schedule=warmup10"))
    betas = build_process(model_config("diffusion/schedule=warmup10").diffusion).betas
    assert json.loads(json.dumps(config))["trained_betas"] == betas.tolist()
    named = to_scheduler_config(model_config("diffusion/schedule=linear_scaled"))
    assert (named["beta_schedule"], named["beta_start"], named["beta_end"]) == ("linear", 1e-4, 0.02)

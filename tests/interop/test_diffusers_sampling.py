"""What is exported draws in diffusers what it draws here, or the export says that it does not and why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from difflab.config.model import ModelConfig
from difflab.diffusion.build import build_process, build_sampler, build_threshold
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.interop.registry import check_export, export_model
from difflab.tasks.build import Model
from interop.test_diffusers_folder import GivenNoise, drawn, model_config

LEADING = ["sampler.spacing=leading", "sampler.steps=10"]


def our_pictures(model: Model, start: Tensor, sigmas: list[Tensor]) -> Tensor:
    config = model.config
    sampler = build_sampler(config.sampler)
    process = sampler.respace(build_process(config.diffusion))
    denoiser = NetworkDenoiser(
        model.network,
        process,
        threshold=build_threshold(config.guidance),
        rederive_eps=config.guidance.rederive_eps,
    )
    return sampler(denoiser, process, start, GivenNoise(sigmas)).clamp(-1, 1) / 2 + 0.5


def their_pictures(
    folder: Path, call: str, start: Tensor, sigmas: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """What the call that the export names returns."""
    import diffusers

    given = GivenNoise(sigmas)
    for name in ("ddim", "ddpm"):
        monkeypatch.setattr(f"diffusers.pipelines.{name}.pipeline_{name}.randn_tensor", lambda *_, **__: start.clone())
        monkeypatch.setattr(
            f"diffusers.schedulers.scheduling_{name}.randn_tensor", lambda *_, **__: given.randn_like(start)
        )
    name, path, options = re.fullmatch(r"(\w+)\.from_pretrained\('(.*)'\)\((.*)\)", call).groups()
    assert path == str(folder)
    pipeline = getattr(diffusers, name).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    keywords = eval(f"dict({options})", {"dict": dict})
    return torch.as_tensor(pipeline(batch_size=len(start), output_type="pt", return_dict=False, **keywords)[0])


@pytest.mark.parametrize(
    "overrides",
    [
        ["diffusion=ddpm", *LEADING],
        ["diffusion=ddpm", *LEADING, "guidance.rederive_eps=false"],
        ["diffusion=ddpm", *LEADING, "guidance.threshold=none", "sampler.eta=0"],
        ["diffusion=ddpm", *LEADING, "guidance.static_limit=1.5", "sampler.eta=0.5"],
        ["diffusion=ddpm", *LEADING, "sampler.steps_offset=1", "sampler.final_level=first"],
        ["diffusion=v_cosine", *LEADING, "sampler.eta=0"],
        ["diffusion=v_cosine", "sampler.spacing=trailing", "sampler.steps=10"],
        ["diffusion=v_cosine", "sampler.spacing=linspace", "sampler.steps=10", "sampler.stride=constant"],
        ["diffusion=v_cosine", "sampler.spacing=trailing", "sampler.steps=7", "sampler.stride=constant"],
        ["diffusion=v_cosine", *LEADING, "diffusion.schedule.zero_terminal_snr=true"],
        ["diffusion=x0_cosine", *LEADING, "guidance.rederive_eps=false", "sampler.eta=0.3"],
        ["diffusion=x0_cosine", *LEADING, "guidance.threshold=dynamic", "guidance.dynamic_percentile=0.9"],
        ["diffusion=x0_cosine", "sampler.spacing=ddim", "sampler.steps=8"],
        ["diffusion/schedule=sigmoid", *LEADING],
        ["diffusion=ddpm", "sampler=ancestral", "~sampler.eta", *LEADING],
        [
            "diffusion=ddpm",
            "sampler=ancestral",
            "~sampler.eta",
            "sampler.spacing=trailing",
            "sampler.steps=7",
            "diffusion.variance=fixed_small",
        ],
        ["diffusion=ddpm", "sampler=ancestral", "~sampler.eta", "sampler.spacing=linspace", "sampler.steps=6"],
        ["diffusion=improved", "diffusion.timesteps=1000", "sampler=ancestral", "~sampler.eta", *LEADING],
        ["diffusion=ddpm", "diffusion.timesteps=20", "sampler=ancestral", "~sampler.eta", "sampler.steps=null"],
        ["diffusion=ddpm", "data.channels=1", "network.channels=1", *LEADING],
    ],
    ids=" ".join,
)
def test_the_call_that_is_named_draws_our_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    model = drawn(model_config("diffusion.timesteps=1000", *overrides))
    folder = tmp_path / "out"
    note, *_ = check_export(folder, model.config, "diffusers")
    export_model(folder, model.as_module().state_dict(), model.config, "diffusers")
    generator = torch.Generator().manual_seed(1)
    start, *sigmas = (torch.randn(2, model.config.channels, 16, 16, generator=generator) for _ in range(30))
    expected = our_pictures(model, start, sigmas)
    begin = "diffusers draws as the run's own sampler does with "
    assert note.startswith(begin)
    found = their_pictures(folder, note.removeprefix(begin), start, sigmas, monkeypatch)
    assert expected.std() > 0.01
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["sampler.spacing=sections", "sampler.steps=7"], "does not take the steps of spacing=sections, steps=7"),
        (["sampler.spacing=sections", "sampler.steps=[5,5]"], r"steps=\[5, 5\], stride=listed of 1000"),
        (["sampler.spacing=linspace", "sampler.steps=10"], "spacing=linspace, steps=10, stride=listed of 1000"),
        (["sampler.spacing=trailing", "sampler.steps=7"], "spacing=trailing, steps=7, stride=listed of 1000"),
        (["sampler=heun", "~sampler.eta"], r"\(sampler=heun\): diffusers' DDPM and DDIM are all"),
        (["diffusion=improved", "diffusion.timesteps=1000", *LEADING], "takes no network with variance=learned_range"),
        (
            ["diffusion.variance=fixed_large", "sampler=ancestral", "~sampler.eta", *LEADING, "sampler.steps_offset=1"],
            "its last step adds noise",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_diffusers_draws_otherwise_is_said_with_the_reason(
    tmp_path: Path, overrides: list[str], reason: str
) -> None:
    note, *_ = check_export(tmp_path / "out", model_config("diffusion=ddpm", *overrides), "diffusers")
    assert note.startswith("diffusers' images differ from the run's own")
    assert re.search(reason, note)


@pytest.mark.parametrize("overrides", [["sampler=ancestral", "~sampler.eta"], ["sampler=heun", "~sampler.eta"], []])
def test_how_their_ddim_becomes_ours_is_said_for_every_sampler(tmp_path: Path, overrides: list[str]) -> None:
    line = "DDIM of diffusers is that of difflab with use_clipped_model_output=True in its call"
    for options, said in (([], True), (["guidance.rederive_eps=false"], False), (["guidance.threshold=none"], False)):
        config = model_config("diffusion=ddpm", *overrides, *options)
        assert (line in notes_of(config, tmp_path / "out").splitlines()) == said


def notes_of(config: ModelConfig, folder: Path) -> str:
    return "\n".join(check_export(folder, config, "diffusers"))


def test_what_a_pipeline_has_no_part_for_is_said(tmp_path: Path) -> None:
    told = model_config("conditioning=class", *LEADING, "guidance=classifier_free", "guidance.scale=2")
    said = notes_of(told, tmp_path / "out")
    assert "no pipeline that passes class_label to UNet2DModel" in said
    assert "guidance=classifier_free is not part of the folder" in said
    assert "DDIMScheduler with num_inference_steps=10, eta=1.0, use_clipped_model_output=True" in said

"""The experiments of OpenAI's released files have the flags those files were made with, and fit each other."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from difflab.commands.composing import choices_of, compose_and_validate
from difflab.conditioning.config import LowResConditionerConfig
from difflab.config.sample import SampleConfig
from difflab.config.train import TrainConfig
from golden_fixtures import ROOT

RELEASED = {
    "adm/imagenet64": "guided-64x64_diffusion",
    "adm/imagenet128": "guided-128x128_diffusion",
    "adm/imagenet256": "guided-256x256_diffusion",
    "adm/imagenet256_uncond": "guided-256x256_diffusion_uncond",
    "adm/imagenet512": "guided-512x512_diffusion",
    "adm/lsun_bedroom": "guided-lsun_bedroom",
    "adm/lsun_cat": "guided-lsun_cat",
    "adm/lsun_horse": "guided-lsun_horse",
    "adm/lsun_horse_nodropout": "guided-lsun_horse_nodropout",
    "adm/imagenet64_256_upsampler": "guided-64_256_upsampler",
    "adm/imagenet128_512_upsampler": "guided-128_512_upsampler",
    "adm/imagenet64_classifier": "guided-64x64_classifier",
    "adm/imagenet128_classifier": "guided-128x128_classifier",
    "adm/imagenet256_classifier": "guided-256x256_classifier",
    "adm/imagenet512_classifier": "guided-512x512_classifier",
    "improved/cifar10": "improved-cifar10_uncond_50M_500K",
    "improved/cifar10_vlb": "improved-cifar10_uncond_vlb_50M_500K",
    "improved/imagenet64": "improved-imagenet64_uncond_100M_1500K",
    "improved/imagenet64_vlb": "improved-imagenet64_uncond_vlb_100M_1500K",
    "improved/imagenet64_cond": "improved-imagenet64_cond_270M_250K",
    "improved/imagenet64_256_upsampler": "improved-upsample_cond_500K",
    "improved/lsun_bedroom_bs128": "improved-lsun_uncond_100M_1200K_bs128",
    "improved/lsun_bedroom_bs64": "improved-lsun_uncond_100M_2400K_bs64",
}
NOT_RELEASED = {"improved/cifar10_simple": "improved/cifar10", "improved/imagenet64_simple": "improved/imagenet64"}
"""The paper's baselines with L_simple -> the released experiment that they are compared with."""

ADM, WITHOUT_FLIPS = (0.9999, True), (0.9999, False)
CLASSIFIER = (None, True)
RECIPES = {  # iterations, batch size, learning rate, weight decay, annealed; decay of the average, flips
    "adm/imagenet64": (540_000, 2048, 3e-4, 0.0, False, *ADM),
    "adm/imagenet128": (4_360_000, 256, 1e-4, 0.0, False, *ADM),
    "adm/imagenet256": (1_980_000, 256, 1e-4, 0.0, False, *ADM),
    "adm/imagenet256_uncond": (2_000_000, 256, 1e-4, 0.0, False, *ADM),
    "adm/imagenet512": (1_940_000, 256, 1e-4, 0.0, False, *ADM),
    "adm/lsun_bedroom": (500_000, 256, 1e-4, 0.0, False, *ADM),
    "adm/lsun_cat": (200_000, 256, 1e-4, 0.0, False, *ADM),
    "adm/lsun_horse": (250_000, 256, 1e-4, 0.0, False, *ADM),
    "adm/lsun_horse_nodropout": (250_000, 256, 1e-4, 0.0, False, *ADM),
    "adm/imagenet64_256_upsampler": (500_000, 256, 1e-4, 0.0, False, *ADM),
    "adm/imagenet128_512_upsampler": (1_050_000, 256, 1e-4, 0.0, False, *ADM),
    "adm/imagenet64_classifier": (300_000, 1024, 6e-4, 0.2, True, *CLASSIFIER),
    "adm/imagenet128_classifier": (300_000, 256, 3e-4, 0.05, True, *CLASSIFIER),
    "adm/imagenet256_classifier": (500_000, 256, 3e-4, 0.05, True, *CLASSIFIER),
    "adm/imagenet512_classifier": (500_000, 256, 3e-4, 0.05, True, *CLASSIFIER),
    "improved/cifar10": (500_000, 128, 1e-4, 0.0, False, *WITHOUT_FLIPS),
    "improved/cifar10_simple": (500_000, 128, 1e-4, 0.0, False, *WITHOUT_FLIPS),
    "improved/cifar10_vlb": (500_000, 128, 1e-4, 0.0, False, *WITHOUT_FLIPS),
    "improved/imagenet64": (1_500_000, 128, 1e-4, 0.0, False, *WITHOUT_FLIPS),
    "improved/imagenet64_simple": (200_000, 128, 1e-4, 0.0, False, *WITHOUT_FLIPS),
    "improved/imagenet64_vlb": (1_500_000, 128, 1e-4, 0.0, False, *WITHOUT_FLIPS),
    "improved/imagenet64_cond": (250_000, 2048, 3e-4, 0.0, False, *WITHOUT_FLIPS),
    "improved/imagenet64_256_upsampler": (500_000, 256, 3e-4, 0.0, False, *WITHOUT_FLIPS),
    "improved/lsun_bedroom_bs128": (1_200_000, 128, 1e-4, 0.0, False, *WITHOUT_FLIPS),
    "improved/lsun_bedroom_bs64": (2_400_000, 64, 2e-5, 0.0, False, *WITHOUT_FLIPS),
}
"""ADM tables 11, 12 and 13; the READMEs of both codes; the names of the files."""


def test_every_published_experiment_of_both_codes_is_here() -> None:
    published = {name for name in choices_of("experiment") if name.startswith(("adm/", "improved/"))}
    assert {name for name in published if "shapes" not in name} == {*RELEASED, *NOT_RELEASED} == RECIPES.keys()


@pytest.mark.parametrize("experiment", RECIPES)
def test_a_published_model_is_trained_as_it_was(experiment: str) -> None:
    config, _ = compose_and_validate("train", TrainConfig, [f"experiment={experiment}"])
    steps, batch_size, lr, weight_decay, annealed, average, flips = RECIPES[experiment]
    optimizer, ema = config.optimizer, config.callbacks.ema
    assert (config.trainer.max_steps, config.data.batch_size) == (steps, batch_size)
    assert (optimizer.kind, optimizer.lr, optimizer.weight_decay) == ("adamw", lr, weight_decay)
    assert (optimizer.betas, optimizer.eps) == ([0.9, 0.999], 1e-8)
    assert (optimizer.schedule.warmup_steps, optimizer.schedule.decay) == (0, "linear" if annealed else "none")
    assert (None if ema is None else (ema.decay, ema.warmup, ema.every)) == (average and (average, "none", 1))
    assert (config.trainer.gradient_clip, config.data.flip) == (0.0, flips)
    assert (config.data.crop == "adm_random") == experiment.endswith("_classifier")


@pytest.mark.parametrize("experiment", NOT_RELEASED)
def test_a_baseline_differs_in_what_it_is_the_baseline_of(experiment: str) -> None:
    ours, theirs = (
        compose_and_validate("train", TrainConfig, [f"experiment={name}"])[0]
        for name in (experiment, NOT_RELEASED[experiment])
    )
    assert (ours.diffusion.loss, ours.diffusion.variance) == ("mse", "fixed_large")
    assert ours.diffusion.model_copy(update={"loss": "hybrid", "variance": "learned_range"}) == theirs.diffusion
    assert (ours.network, ours.data, ours.optimizer) == (theirs.network, theirs.data, theirs.optimizer)


@pytest.mark.parametrize("experiment", RELEASED)
def test_a_released_model_has_the_flags_of_its_file(experiment: str) -> None:
    _, plain = compose_and_validate("train", TrainConfig, [f"experiment={experiment}"])
    path = ROOT / "diffusion" / "released" / f"{RELEASED[experiment]}.keys.json.gz"
    released = json.loads(gzip.decompress(path.read_bytes()))
    wanted = {**network_of(released), **diffusion_of(released["flags"])}
    assert {key: at(plain, key) for key in wanted} == wanted
    told = plain.get("conditioning", {})
    assert told.get("class_label", {}).get("classes") == released["constructor"].get("num_classes")
    assert told.get("low_res", {}).get("size") == released["flags"].get("small_size")


def network_of(released: dict[str, Any]) -> dict[str, Any]:
    """The network's and the data's keys, from the flags and the arguments of the official constructor."""
    flags, arguments = released["flags"], released["constructor"]
    size = flags.get("image_size") or flags["large_size"]
    fixed_width = arguments.get("num_head_channels", -1) != -1
    wanted = {
        "data.image_size": size,
        "network.base_channels": arguments["model_channels"],
        "network.channel_mult": arguments["channel_mult"],
        "network.blocks_per_level": arguments["num_res_blocks"],
        "network.attention_resolutions": [size // factor for factor in sorted(arguments["attention_resolutions"])],
        "network.attention_heads": None if fixed_width else arguments["num_heads"],
        "network.attention_head_channels": arguments["num_head_channels"] if fixed_width else None,
        "network.dropout": arguments["dropout"],
        "network.adaptive_norm": arguments["use_scale_shift_norm"],
        "network.resample": "residual" if arguments.get("resblock_updown") else "symmetric_conv",
        "network.time_embedding": "adm",
        "network.norm_eps": 1e-5,
    }
    if "classifier" in released["name"]:
        return wanted | {"network.pool": arguments["pool"], "network.classes": arguments["out_channels"]}
    return wanted | {"network.concat_channels": 3 if "large_size" in flags else 0}


def diffusion_of(flags: dict[str, Any]) -> dict[str, Any]:
    """The keys of the diffusion; the classifiers' files have no flags of it."""
    if "diffusion_steps" not in flags:
        return {"task": "noisy_classifier"}
    hybrid = "hybrid" if flags["rescale_learned_sigmas"] else "hybrid_unscaled"
    return {
        "task": "denoising",
        "diffusion.timesteps": flags["diffusion_steps"],
        "diffusion.schedule.kind": flags["noise_schedule"],
        "diffusion.prediction": "x0" if flags["predict_xstart"] else "eps",
        "diffusion.variance": "learned_range" if flags["learn_sigma"] else "fixed_large",
        "diffusion.time_input": "scaled_index" if flags["rescale_timesteps"] else "index",
        "diffusion.loss": "rescaled_kl" if flags["use_kl"] else hybrid,
        "diffusion.timestep_sampling.kind": "loss_aware" if flags["use_kl"] else "uniform",
        **({"diffusion.schedule.scale_with_steps": True} if flags["noise_schedule"] == "linear" else {}),
    }


def at(config: dict[str, Any], key: str) -> Any:
    """The value under a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize("name", ["adm_u_256", "adm_gu_256", "adm_u_512", "adm_gu_512"])
def test_the_stages_of_a_published_cascade_fit(name: str) -> None:
    config, _ = compose_and_validate("sample", SampleConfig, [f"pipeline={name}"])
    assert config.pipeline.kind == "cascade"
    assert list(config.pipeline.stages) == ["base", "upsampler"]
    base, upsampler = (experiment_of(stage.run) for stage in config.pipeline.stages.values())
    low_res = upsampler.conditioning["low_res"]
    assert isinstance(low_res, LowResConditionerConfig)
    assert low_res.size == base.data.image_size
    assert name.endswith(f"_{upsampler.data.image_size}")
    assert [stage.sampler.steps for stage in config.pipeline.stages.values()] == [250, 250]
    guidance = config.pipeline.stages["base"].guidance
    assert guidance.kind == ("classifier" if name.startswith("adm_gu_") else "none")
    if guidance.kind == "classifier":
        assert experiment_of(guidance.run).experiment == f"{base.experiment}_classifier"
        assert guidance.scale == {64: 1.0, 128: 0.5}[base.data.image_size]
    assert config.pipeline.stages["upsampler"].guidance.kind == "none"


def experiment_of(run: str) -> TrainConfig:
    """The experiment whose released weights `difflab weights import` has written to weights/<system>-<name>."""
    system, name = run.removeprefix("weights/").split("-")
    return compose_and_validate("train", TrainConfig, [f"experiment={system}/{name}"])[0]


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_a_published_classifier_knows_the_noise_and_classes_of_the_model_it_guides(size: int) -> None:
    model, classifier = (experiment_of(f"weights/adm-imagenet{size}{part}") for part in ("", "_classifier"))
    assert classifier.diffusion == model.diffusion
    assert classifier.data.classes == model.data.classes == 1000
    assert classifier.data.image_size == model.data.image_size == size

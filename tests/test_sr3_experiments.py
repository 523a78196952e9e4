"""SR3's experiments have the numbers of the paper, and the unofficial code's those of its JSON files."""

from __future__ import annotations

import math

import pytest

from difflab.commands.composing import choices_of, compose_and_validate
from difflab.config.sample import SampleConfig
from difflab.config.train import TrainConfig
from difflab.diffusion.build import build_process
from difflab.networks.count import meta_network

PAPER = {  # channels, multipliers, blocks, dropout, data, low_res, blurred; millions of parameters
    "16_128": (128, [1, 2, 4, 8, 8], 3, 0.2, (128, 16), False, 550),
    "64_256": (128, [1, 2, 4, 4, 8, 8], 3, 0.0, (256, 64), True, 625),
    "64_512": (64, [1, 2, 4, 8, 8, 16, 16], 3, 0.0, (512, 64), False, 625),
    "256_1024": (16, [1, 2, 4, 8, 16, 32, 32, 32], 2, 0.0, (1024, 256), True, 150),
    "128_1024": (16, [1, 2, 4, 8, 16, 32, 32, 32], 2, 0.0, (1024, 128), True, 150),
}
JANSPIRY = {  # channels, multipliers, blocks, attention, groups, data, low_res, batch
    "janspiry_16_128": (64, [1, 2, 4, 8, 8], 2, [16], 32, (128, 16), 4),
    "janspiry_64_512": (64, [1, 2, 4, 8, 16], 1, [], 16, (512, 64), 2),
}


def test_every_experiment_is_here() -> None:
    published = {name.removeprefix("sr3/") for name in choices_of("experiment") if name.startswith("sr3/")}
    small = {"shapes32", "shapes64", "shapes32_regression", "shapes64_regression"}
    assert published == {*PAPER, *JANSPIRY, *small}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_models(name: str) -> None:
    channels, mult, blocks, dropout, sizes, blurred, millions = PAPER[name]
    config, plain = compose_and_validate("train", TrainConfig, [f"experiment=sr3/{name}"])
    network, told = config.model().network, plain["conditioning"]["low_res"]
    assert (network.base_channels, network.channel_mult, network.blocks_per_level) == (channels, mult, blocks)
    assert (network.dropout, network.resample) == (dropout, "residual")
    assert network.residual_scale == pytest.approx(math.sqrt(0.5), rel=1e-15)
    assert (config.data.image_size, told["size"]) == sizes
    assert (told["downsample"], told["upsample"], told["blur"] is not None) == ("bicubic", "bicubic", blurred)
    meta = meta_network(network, image_size=config.data.image_size, learned_variance=False)
    assert sum(p.numel() for p in meta.parameters()) == pytest.approx(millions * 1e6, rel=0.025)
    diffusion = plain["diffusion"]
    assert (diffusion["timesteps"], diffusion["prediction"], diffusion["loss"]) == (2000, "eps", "l1")
    assert (diffusion["time_input"], diffusion["variance"]) == ("alpha_bar", "fixed_large")
    assert diffusion["timestep_sampling"] == {"kind": "piecewise_uniform", "of": "alpha_bar"}
    assert (config.data.batch_size, config.trainer.max_steps) == (256, 1_000_000)
    assert (config.optimizer.kind, config.optimizer.lr, config.optimizer.schedule.warmup_steps) == (
        "adam",
        1e-4,
        10_000,
    )
    assert config.callbacks.ema is not None
    assert config.callbacks.ema.decay == 0.9999


@pytest.mark.parametrize("name", JANSPIRY)
def test_the_unofficial_models(name: str) -> None:
    channels, mult, blocks, attention, groups, sizes, batch = JANSPIRY[name]
    config, plain = compose_and_validate("train", TrainConfig, [f"experiment=sr3/{name}"])
    network, told, diffusion = config.model().network, plain["conditioning"]["low_res"], plain["diffusion"]
    assert (network.base_channels, network.channel_mult, network.blocks_per_level) == (channels, mult, blocks)
    assert (network.attention_resolutions, network.norm_groups, network.dropout) == (attention, groups, 0.2)
    assert (network.init, network.qkv_bias, network.embedding_activation) == ("orthogonal", False, False)
    assert ((config.data.image_size, told["size"]), told["blur"]) == (sizes, None)
    assert (diffusion["time_input"], diffusion["variance"]) == ("sqrt_alpha_bar", "fixed_small")
    assert (diffusion["posterior_clip"], diffusion["loss"], diffusion["timesteps"]) == ("floor", "l1", 2000)
    assert diffusion["timestep_sampling"] == {"kind": "piecewise_uniform", "of": "sqrt_alpha_bar"}
    assert (diffusion["schedule"]["beta_start"], diffusion["schedule"]["beta_end"]) == (1e-6, 1e-2)
    assert (config.data.batch_size, config.trainer.max_steps) == (batch, 1_000_000)
    assert (config.optimizer.lr, config.optimizer.schedule.warmup_steps, config.callbacks.ema) == (1e-4, 0, None)


@pytest.mark.parametrize("size", [32, 64])
def test_regression_is_the_same_recipe_of_one_step_that_sees_nothing_but_the_small_image(size: int) -> None:
    one, plain_one = compose_and_validate("train", TrainConfig, [f"experiment=sr3/shapes{size}_regression"])
    many, plain_many = compose_and_validate("train", TrainConfig, [f"experiment=sr3/shapes{size}"])
    other = {key for key in plain_one if plain_one[key] != plain_many[key]}
    assert other == {"diffusion", "sampler", "experiment"}
    process = build_process(one.model().diffusion)
    assert process.alphas_cumprod.tolist() == [0.0]
    assert (plain_one["diffusion"]["prediction"], plain_one["diffusion"]["loss"]) == ("x0", "mse")
    assert one.model().network == many.model().network


@pytest.mark.parametrize("name", ["sr3_16_128_1024", "sr3_64_256_1024"])
def test_the_stages_of_the_papers_cascades_fit(name: str) -> None:
    config, _ = compose_and_validate("sample", SampleConfig, [f"pipeline={name}"])
    assert config.pipeline.kind == "cascade"
    sizes = [int(size) for size in name.removeprefix("sr3_").split("_")]
    for stage, small, large in zip(config.pipeline.stages.values(), sizes, sizes[1:], strict=False):
        experiment = stage.run.removeprefix("runs/").removesuffix("/faces")
        trained, plain = compose_and_validate("train", TrainConfig, [f"experiment={experiment}"])
        assert (plain["conditioning"]["low_res"]["size"], trained.data.image_size) == (small, large)
        assert (stage.sampler.kind, stage.sampler.steps) == ("ancestral", 100)
    assert len(config.pipeline.stages) == 2

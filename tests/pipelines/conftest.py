"""Runs for the tests of stored models, and pipelines over networks with drawn weights."""

import functools

import pytest
import torch

from difflab.commands.composing import compose_and_validate
from difflab.config.model import ModelConfig
from difflab.config.train import TrainConfig
from difflab.pipelines.single import SinglePipeline
from difflab.tasks.build import build_model
from golden_fixtures import draw
from tiny_runs import CLASSES, TRAINING, class_run, own_run, tiny_run

__all__ = ["class_run", "own_run", "tiny_run"]

UPSAMPLER = ("conditioning=low_res", "conditioning.low_res.size=8", "network.concat_channels=3")
"""Overrides that make the tiny model one that enlarges 8 px to 16."""


@functools.cache
def configuration(*overrides):
    return compose_and_validate("train", TrainConfig, [*TRAINING, *overrides])[0]


@pytest.fixture
def pipeline_of():
    """pipeline_of(*overrides, **options of SinglePipeline): weights are drawn, so nothing cancels or is zero."""

    def make(*overrides, **options):
        config = configuration(*overrides)
        model = build_model(ModelConfig.of(config))
        for key, parameter in model.as_module().named_parameters():
            parameter.data.copy_(torch.from_numpy(draw(0, key, tuple(parameter.shape))))
        defaults = {"sampler": config.sampler, "guidance": config.guidance}
        return SinglePipeline(
            model.network,
            model.conditioners,
            model.process,
            ModelConfig.of(config).shape,
            **{**defaults, **options},
        )

    return make


@pytest.fixture
def class_pipeline(pipeline_of):
    return pipeline_of(*CLASSES)

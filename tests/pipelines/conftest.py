"""Runs for the tests of stored models, and pipelines over networks with drawn weights."""

import functools

import pytest
import torch

from difflab.commands.composing import compose_and_validate
from difflab.config.request import RequestConfig
from difflab.config.train import TrainConfig
from difflab.pipelines import build
from difflab.pipelines.diffusing import DiffusingStage
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
def stage_of():
    """stage_of(*overrides, **options of DiffusingStage): weights are drawn, so nothing cancels or is zero."""

    def make(*overrides, **options):
        config = configuration(*overrides)
        model = build_model(config.described().model())
        for key, parameter in model.as_module().named_parameters():
            parameter.data.copy_(torch.from_numpy(draw(0, key, tuple(parameter.shape))))
        defaults = {"sampler": config.sampler, "guidance": config.guidance}
        return DiffusingStage(
            model.network,
            model.conditioners,
            model.process,
            config.model().shape,
            **{**defaults, **options},
        )

    return make


@pytest.fixture
def pipeline_of(stage_of):
    """pipeline_of(*overrides, asked={keys of a request}, rounding=..., **options of DiffusingStage)."""

    def make(*overrides, asked=None, rounding="truncate", data=None, **options):
        stages = {"single": stage_of(*overrides, **options)}
        return build.pipeline_of(stages, RequestConfig(**(asked or {})), data=data, split="val", rounding=rounding)

    return make


@pytest.fixture
def cascade_of(stage_of):
    """cascade_of(base=overrides, upsampler=overrides, asked={keys of a request})."""

    def make(asked=None, **stages):
        built = {name: stage_of(*overrides) for name, overrides in stages.items()}
        return build.pipeline_of(built, RequestConfig(**(asked or {})))

    return make


@pytest.fixture
def class_pipeline(pipeline_of):
    return pipeline_of(*CLASSES)

"""From the configuration of a drawing to the pipeline that draws."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from difflab.config.data import DataConfig
from difflab.config.guidance import GuidanceConfig, Weights
from difflab.config.model import ModelConfig
from difflab.config.pipeline import CascadePipelineConfig, ResizePipelineConfig
from difflab.config.sample import DrawConfig, EvaluateConfig
from difflab.config.sampler import SamplerConfig
from difflab.errors import UserError
from difflab.pipelines.base import Pipeline
from difflab.pipelines.cascade import CascadePipeline
from difflab.pipelines.guides import load_guides
from difflab.pipelines.low_res import LowRes, low_res_of, open_low_res
from difflab.pipelines.resizing import ResizePipeline
from difflab.pipelines.single import SinglePipeline
from difflab.pipelines.stored import Stored, load_stored
from difflab.tasks.build import Model


class StoredModels:
    """Stored models on one device, each loaded once, whoever asks for it: a stage, a guidance, a sweep's next value."""

    def __init__(self, device: torch.device | str, memory_format: torch.memory_format | None = None) -> None:
        self.device = torch.device(device)
        self.memory_format = memory_format
        self._loaded: dict[tuple[str, Weights], tuple[Model, Stored]] = {}

    def load(self, run: str, which: Weights) -> Model:
        """The model of a run, an exported folder or a checkpoint. Raises UserError where there is none."""
        return self.stored(run, which)[0]

    def stored(self, run: str, which: Weights) -> tuple[Model, Stored]:
        """The same, with what is known of where it lies."""
        if (run, which) not in self._loaded:
            model, stored = load_stored(run, which, self.device)
            if self.memory_format is not None:
                model.network.to(memory_format=self.memory_format)
            self._loaded[run, which] = model, stored
        return self._loaded[run, which]


def build_pipeline(
    config: DrawConfig, models: StoredModels, *, autocast: torch.dtype | None = None
) -> tuple[Pipeline, Stored]:
    """The pipeline of a drawing, and the stored model that its pictures belong to: the run, or the last stage's.

    Raises UserError where a run is none, draws nothing, or does not fit the others.
    """
    if isinstance(config.pipeline, CascadePipelineConfig):
        return _cascade(config, config.pipeline, models, autocast)
    assert config.run is not None, "the configuration asks for a run, except in a cascade"
    model, stored = models.stored(config.run, config.weights)
    low_res = open_low_res(config.low_res, model.config, _data_of(config, stored), config.split)
    if isinstance(config.pipeline, ResizePipelineConfig):
        return _resize(config, config.pipeline, model, low_res), stored
    pipeline = _single(config.run, model, models, config, config.sampler, config.guidance, low_res, autocast)
    return pipeline, stored


def files_of(config: DrawConfig, models: StoredModels) -> list[Path]:
    """The files that decide what a drawing shows besides its configuration: all weights, and the archive to enlarge."""
    files = [models.stored(run, which)[1].weights for run, which in _runs_of(config)]
    given = [] if config.low_res is None or not Path(config.low_res).is_file() else [Path(config.low_res)]
    return files + given


def _runs_of(config: DrawConfig) -> Iterator[tuple[str, Weights]]:
    if isinstance(config.pipeline, CascadePipelineConfig):
        for stage in config.pipeline.stages.values():
            yield stage.run, stage.weights
            yield from _guides_of(stage.guidance)
    elif config.run is not None:
        yield config.run, config.weights
        if config.pipeline.kind == "single":
            yield from _guides_of(config.guidance)


def _guides_of(guidance: GuidanceConfig) -> Iterator[tuple[str, Weights]]:
    classifier, free = guidance.classifier_options(), guidance.classifier_free_options()
    if classifier is not None:
        yield classifier.run, classifier.weights
    if free is not None and free.reference is not None:
        yield free.reference.run, free.reference.weights


def require_drawing(run: str, model: ModelConfig) -> None:
    """Raises UserError for a stored model that draws nothing by itself."""
    if model.task == "noisy_classifier":
        raise UserError(
            f"run={run} is a noisy classifier and draws nothing: give run= a diffusion model, and the classifier as "
            f"guidance=classifier guidance.run={run}"
        )


def _single(
    run: str,
    model: Model,
    models: StoredModels,
    config: DrawConfig,
    sampler: SamplerConfig,
    guidance: GuidanceConfig,
    low_res: LowRes | None,
    autocast: torch.dtype | None,
) -> SinglePipeline:
    require_drawing(run, model.config)
    return SinglePipeline(
        model.network,
        model.conditioners,
        model.process,
        model.config.shape,
        sampler=sampler,
        guidance=guidance,
        guides=load_guides(guidance, model.config, models.load),
        low_res=low_res,
        rounding=config.rounding,
        autocast=autocast,
    )


def _cascade(
    config: DrawConfig, cascade: CascadePipelineConfig, models: StoredModels, autocast: torch.dtype | None
) -> tuple[CascadePipeline, Stored]:
    stages: dict[str, SinglePipeline] = {}
    stored: Stored | None = None
    for name, stage in cascade.stages.items():
        model, stored = models.stored(stage.run, stage.weights)
        stages[name] = _single(stage.run, model, models, config, stage.sampler, stage.guidance, None, autocast)
    assert stored is not None, "a cascade has stages"
    return CascadePipeline(stages), stored


def _resize(config: DrawConfig, resize: ResizePipelineConfig, model: Model, low_res: LowRes | None) -> ResizePipeline:
    upsampler = low_res_of(model.config)
    if upsampler is None or low_res is None:
        raise UserError(f"pipeline=resize enlarges what an upsampler would; run={config.run} is none")
    return ResizePipeline(upsampler, model.config.image_size, low_res, filter=resize.filter, rounding=config.rounding)


def _data_of(config: DrawConfig, stored: Stored) -> DataConfig | None:
    if isinstance(config, EvaluateConfig) and config.data is not None:
        return config.data
    return None if stored.train is None else stored.train.data

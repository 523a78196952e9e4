"""Builds the pipeline of a sampling configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from difflab.compiling import Compilation, CompiledNetworks
from difflab.config.data import DataConfig
from difflab.config.guidance import GuidanceBase, Weights
from difflab.config.model import DrawingModelConfig, ModelConfig
from difflab.config.pipeline import CascadePipelineConfig, ResizePipelineConfig, StageConfig
from difflab.config.request import RequestConfig
from difflab.config.sample import DrawConfig, EvaluateConfig, SampleConfig
from difflab.config.sampler import SamplerConfig
from difflab.errors import UserError
from difflab.images import Rounding
from difflab.pipelines.base import Pipeline, Stage, wanted_by
from difflab.pipelines.diffusing import DiffusingStage
from difflab.pipelines.editing import Editing
from difflab.pipelines.guides import load_guides
from difflab.pipelines.measuring import commands_of
from difflab.pipelines.resizing import ResizingStage
from difflab.pipelines.stored import Stored, load_stored
from difflab.requests.base import Request
from difflab.requests.build import build_request
from difflab.requests.sample_file import gives
from difflab.tasks.build import Model, NoisedModel
from difflab.text.config import TooLong


class StoredModels:
    """Loads stored models onto one device, each once however often it is needed: by a stage, a guidance, or a sweep.

    compiled: the compiled code of their networks.
    """

    def __init__(self, device: torch.device | str, memory_format: torch.memory_format | None = None) -> None:
        self.device = torch.device(device)
        self.memory_format = memory_format
        self.compiled = CompiledNetworks()
        self._loaded: dict[tuple[str, Weights], tuple[Model, Stored]] = {}

    def load(self, run: str, which: Weights) -> Model:
        """The model of a run, an exported folder or a checkpoint. Raises UserError if there is none."""
        return self.stored(run, which)[0]

    def stored(self, run: str, which: Weights) -> tuple[Model, Stored]:
        """The same, together with its location and configuration."""
        if (run, which) not in self._loaded:
            model, stored = load_stored(run, which, self.device)
            if self.memory_format is not None:
                model.network.to(memory_format=self.memory_format)
            self._loaded[run, which] = model, stored
        return self._loaded[run, which]


def build_pipeline(
    config: DrawConfig,
    models: StoredModels,
    *,
    autocast: torch.dtype | None = None,
    compilation: Compilation | None = None,
) -> tuple[Pipeline, Stored]:
    """Builds the pipeline, and returns it with the stored model that its images belong to: the run, or the last
    stage's.

    compilation: which of the networks are compiled; None for none.

    Raises UserError if a run does not exist, cannot generate images or does not fit the others, and for a request that
    the pipeline cannot follow.
    """
    running = _Running(autocast, compilation, config.too_long)
    masked = config.mask is not None or (config.request is not None and gives(config.request, "mask"))
    if isinstance(config.pipeline, CascadePipelineConfig):
        stages, stored = _cascade(config.pipeline, models, running, masked)
    else:
        assert config.run is not None, "the configuration requires a run, except in a cascade"
        model, stored = models.stored(config.run, config.weights)
        drawing = require_drawing(config.run, model.config)
        if isinstance(config.pipeline, ResizePipelineConfig):
            stage: Stage = ResizingStage(model.conditioners, drawing.shape, filter=config.pipeline.filter)
        else:
            editing = Editing(config, masked)
            size = config.size if isinstance(config, SampleConfig) else None
            shape = drawing.shape if size is None else sized(drawing, size)
            stage = _diffusing(config.run, model, models, config.sampler, config.guidance, running, editing, shape)
        stages = {"single": stage}
    pipeline = pipeline_of(stages, config, data=_data_of(config, stored), split=config.split, rounding=config.rounding)
    return pipeline, stored


def pipeline_of(
    stages: Mapping[str, Stage],
    request: RequestConfig,
    *,
    data: DataConfig | None = None,
    split: str = "train",
    rounding: Rounding = "truncate",
) -> Pipeline:
    """Combines stages with their request; fields that are not given come from the seed or from `split` of `data`.

    Raises UserError if the stages do not fit together, and for a request that they cannot follow.
    """
    wanted = wanted_by(stages)
    return Pipeline(stages, build_request(request, wanted, data, split), wanted, rounding)


def files_of(config: DrawConfig, models: StoredModels, request: Request) -> list[Path]:
    """The files besides the configuration that determine the samples: all weights, and the files of the request."""
    weights = [models.stored(run, which)[1].weights for run, which in _runs_of(config)]
    return [*weights, *request.files]


def _runs_of(config: DrawConfig) -> Iterator[tuple[str, Weights]]:
    if isinstance(config.pipeline, CascadePipelineConfig):
        for stage in config.pipeline.stages.values():
            yield stage.run, stage.weights
            yield from _guides_of(stage.guidance)
    elif config.run is not None:
        yield config.run, config.weights
        if config.pipeline.kind == "single":
            yield from _guides_of(config.guidance)


def _guides_of(guidance: GuidanceBase) -> Iterator[tuple[str, Weights]]:
    for guide in guidance.guides.values():
        yield guide.run, guide.weights


def require_drawing(run: str, model: ModelConfig) -> DrawingModelConfig:
    """The configuration of a stored generative model. Raises UserError for a model that generates no images."""
    if not isinstance(model, DrawingModelConfig):
        use = "" if model.use is None else f"; this one is for `difflab {model.use.format(run=run)}`"
        commands = [f"`difflab {name} run={run}`" for name in commands_of(model.measures)]
        tells = f"; of this one {', '.join(commands)} can be measured" if commands else ""
        raise UserError(f"run={run} is {model.title} and draws no images: give run= a diffusion model{use}{tells}")
    return model


def sized(model: DrawingModelConfig, size: int | Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of samples of another size than the training images'. Raises UserError if the model draws no such."""
    height, width = (size, size) if isinstance(size, int) else size
    multiple = 1 if model.network.pads else model.network.size_multiple
    if model.first_stage is not None:
        multiple *= model.first_stage.autoencoder.downsampling
    if height % multiple or width % multiple:
        near = [max(round(side / multiple), 1) * multiple for side in (height, width)]
        raise UserError(f"size={size}: this model draws multiples of {multiple} pixels: set size={near}")
    return (model.channels, height, width)


@dataclass(frozen=True)
class _Running:
    """How all networks of a pipeline are run, and what becomes of captions that are too long for them."""

    autocast: torch.dtype | None
    compilation: Compilation | None
    too_long: TooLong | None


def _diffusing(
    run: str,
    model: Model,
    models: StoredModels,
    sampler: SamplerConfig,
    guidance: GuidanceBase,
    running: _Running,
    editing: Editing | None = None,
    shape: tuple[int, int, int] | None = None,
) -> DiffusingStage:
    drawing = require_drawing(run, model.config)
    assert isinstance(model, NoisedModel), "what draws by diffusion looks at noised images"
    for tokenizer in model.conditioners.tokenizers.values():
        tokenizer.take_too_long(running.too_long)
    guides = load_guides(guidance, drawing, models.load)
    leading = [] if model.conditioners.classes is not None else [g for g in guides.values() if g.classes is not None]
    names = leading[0].class_names if leading else drawing.class_names
    return DiffusingStage(
        model.network,
        model.conditioners,
        model.process,
        shape or model.config.shape,
        sampler=sampler,
        guidance=guidance,
        first_stage=model.first_stage,
        guides=guides,
        editing=editing,
        class_names=names,
        autocast=running.autocast,
        compilation=running.compilation,
    )


def _cascade(
    cascade: CascadePipelineConfig, models: StoredModels, running: _Running, masked: bool
) -> tuple[dict[str, Stage], Stored]:
    stages: dict[str, Stage] = {}
    stored: Stored | None = None
    before: Stage | None = None
    for name, stage in cascade.stages.items():
        with _naming(name):
            model, stored = models.stored(stage.run, stage.weights)
            editing = editing_of(stage, before, masked, model.config.image_size)
            before = _diffusing(stage.run, model, models, stage.sampler, stage.guidance, running, editing)
        stages[name] = before
    assert stored is not None, "a cascade has stages"
    return stages, stored


def editing_of(stage: StageConfig, before: Stage | None, masked: bool, size: int) -> Editing:
    """Where a stage of a cascade begins and ends, and what it keeps of an image.

    before: the previous stage, None for the first. size: pixels per side of its output.
    """
    return Editing(
        stage,
        masked,
        begins_with="image" if before is None else "low_res",
        end=stage.end,
        continued=before.ends_at if before is not None and stage.continues else None,
        size=size,
    )


@contextlib.contextmanager
def _naming(stage: str) -> Iterator[None]:
    """Attributes UserErrors raised inside to this stage."""
    try:
        yield
    except UserError as error:
        raise UserError(f"pipeline.stages.{stage}: {error}") from error


def _data_of(config: DrawConfig, stored: Stored) -> DataConfig | None:
    if isinstance(config, EvaluateConfig) and config.data is not None:
        return config.data
    return None if stored.train is None else stored.train.data

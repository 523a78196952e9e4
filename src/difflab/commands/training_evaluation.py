"""Drawing and measuring during a training, with the run's own sampler and guidance."""

from __future__ import annotations

from collections.abc import Sequence

from difflab.config.model import DrawingModelConfig
from difflab.config.request import RequestConfig
from difflab.config.train import TrainConfig
from difflab.console import say_on_stderr
from difflab.data.build import class_names_of
from difflab.devices import Accelerator, is_first_process, sampling_autocast
from difflab.errors import UserError
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.suiting import without_unsuited
from difflab.pipelines.base import Pipeline
from difflab.pipelines.build import pipeline_of
from difflab.pipelines.diffusing import DiffusingStage
from difflab.pipelines.evaluating import build_evaluator, reference_of, refuse_other_samples
from difflab.tasks.noised_module import NoisedModule
from difflab.tasks.training_module import TrainingModule


def with_checked_evaluation(config: TrainConfig, overrides: Sequence[str]) -> TrainConfig:
    """The configuration with the metrics that its data supports; the others are reported and left out.

    Raises UserError if the evaluations of this run would be impossible, according to its configuration and data.
    """
    if not config.callbacks.measured:
        return config
    metrics, left_out = without_unsuited(config.metrics, config.data, overrides, image_size=config.data.image_size)
    if all(metric is None for metric in metrics.values()):
        raise UserError("callbacks.evaluation has no metrics: choose some, or set callbacks.evaluation=null")
    model = config.model()
    classes = model.classes if isinstance(model, DrawingModelConfig) else None
    refuse_other_samples(metrics, model.shape, classes, class_names_of(config.data))
    for n in config.callbacks.measured:
        reference_of(metrics, n, config.data, config.data.train_split)
    if is_first_process():
        for line in left_out:
            say_on_stderr(f"note: {line}")
    return config.model_copy(update={"metrics": metrics})


def build_run_evaluator(
    config: TrainConfig, pipeline: Pipeline, n: int, seed: int, rank: int = 0, world_size: int = 1
) -> Evaluator:
    """The evaluator of samples 0..n-1 of a seed during training, of which process `rank` has its share.

    Raises UserError if a metric cannot be computed on them.
    """
    return build_evaluator(
        config.metrics,
        pipeline,
        n=n,
        seed=seed,
        weights="ema" if config.callbacks.averages else "raw",
        data=config.data,
        split=config.data.train_split,
        class_names=class_names_of(config.data),
        rank=rank,
        world_size=world_size,
    )


def sampling_pipeline(config: TrainConfig, module: TrainingModule, accelerator: Accelerator) -> Pipeline | None:
    """The pipeline of the sample grid and the evaluation during training, with the run's own sampler and guidance.

    None if the task is not generative. Captions, and the images that an upsampler enlarges, are from the validation
    split, if there is one.
    Raises UserError for a guidance with additional networks, which are not available in training.
    """
    model = config.model()
    if not isinstance(model, DrawingModelConfig):
        return None
    if model.guidance.guides:
        raise UserError(
            f"guidance.kind={model.guidance.kind} needs another network: train with guidance=none or classifier_free "
            "alone, and use it in `difflab sample` and `difflab evaluate`"
        )
    assert isinstance(module, NoisedModule), "diffusion models train on noised images"
    stages = {
        "single": DiffusingStage(
            module.network,
            module.conditioners,
            module.process,
            model.shape,
            sampler=model.sampler,
            guidance=model.guidance,
            first_stage=module.first_stage,
            class_names=model.class_names,
            autocast=sampling_autocast("auto", accelerator),
        )
    }
    split = config.data.val_split or config.data.train_split
    return pipeline_of(stages, RequestConfig(), data=config.data, split=split)

"""The whole configuration of a training run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from difflab.config.base import Config
from difflab.config.callbacks import CallbacksConfig
from difflab.config.conditioning import (
    AugmentConditionerConfig,
    ClassConditionerConfig,
    ConditioningConfig,
    LowResConditionerConfig,
)
from difflab.config.data import DataConfig
from difflab.config.diffusion import DiffusionConfig
from difflab.config.guidance import GuidanceConfig
from difflab.config.init import InitConfig
from difflab.config.logger import LoggerConfig
from difflab.config.metrics import MetricsConfig
from difflab.config.network import NetworkConfig
from difflab.config.optimizer import OptimizerConfig
from difflab.config.sampler import SamplerConfig
from difflab.config.trainer import TrainerConfig

Task = Literal["denoising", "noisy_classifier"]


class TrainConfig(Config):
    """`difflab train`.

    task: what the network learns: to denoise, or to tell the class of a noised image (ADM, section 4).
    name: the run's name below output_root/experiment; made from the configuration when null, so the same command
        goes on with the same run.
    resume: auto = go on from checkpoints/last.ckpt if there is one; never = refuse a directory that holds a run;
        or the path of a checkpoint, of this run or of another one, which the run begins with. The same command given
        again, after a requeue say, goes on from the run's own last.ckpt.
    """

    experiment: str
    task: Task = "denoising"
    name: str | None
    output_root: str
    seed: Annotated[int, Field(ge=0)]
    resume: str
    diffusion: DiffusionConfig
    network: NetworkConfig
    conditioning: ConditioningConfig
    guidance: GuidanceConfig
    sampler: SamplerConfig
    data: DataConfig
    optimizer: OptimizerConfig
    init: InitConfig
    trainer: TrainerConfig
    callbacks: CallbacksConfig
    logger: LoggerConfig
    metrics: MetricsConfig

    @model_validator(mode="after")
    def _parts_fit(self) -> TrainConfig:
        if self.data.batch_size % self.trainer.accumulate:
            raise ValueError(
                f"data.batch_size={self.data.batch_size} cannot be split into trainer.accumulate="
                f"{self.trainer.accumulate} equal parts; choose a divisor of the batch size"
            )
        if self.network.channels != self.data.channels:
            raise ValueError(
                f"network.channels={self.network.channels} but data.channels={self.data.channels}; set them alike"
            )
        refuse_other_task(self.task, self.network)
        if self.network.kind == "unet_encoder":
            self._check_classifier(self.network.classes)
        else:
            self._check_conditioning(self.network.concat_channels)
        if self.callbacks.evaluation is not None and not any(self.metrics.values()):
            raise ValueError(
                "callbacks.evaluation has nothing to measure: choose metrics, as metrics=shapes, or "
                "callbacks.evaluation=null"
            )
        return self

    def _check_classifier(self, classes: int) -> None:
        if self.data.classes is None:
            raise ValueError("task=noisy_classifier needs labelled data: set data.classes to the number of classes")
        if classes != self.data.classes:
            raise ValueError(
                f"network.classes={classes} but data.classes={self.data.classes}; "
                "set data.classes to the number of classes and leave network.classes out"
            )
        if self.conditioning:
            raise ValueError(
                f"conditioning.{next(iter(self.conditioning))} tells a classifier what it has to find out: "
                "choose conditioning=none with task=noisy_classifier"
            )
        if self.guidance.kind != "none":
            raise ValueError(
                f"guidance.kind={self.guidance.kind}, but a classifier draws nothing: choose guidance=none"
            )
        for name in ("sample_grid", "evaluation"):
            if getattr(self.callbacks, name) is not None:
                raise ValueError(f"callbacks.{name}: a classifier draws nothing: choose callbacks=classifier")

    def _check_conditioning(self, concat_channels: int) -> None:
        for name, conditioner in self.conditioning.items():
            if isinstance(conditioner, ClassConditionerConfig) and conditioner.classes != self.data.classes:
                raise ValueError(
                    f"conditioning.{name}.classes={conditioner.classes} but data.classes="
                    f"{'null' if self.data.classes is None else self.data.classes}; set data.classes to the number of "
                    f"classes and leave conditioning.{name}.classes out"
                )
            if isinstance(conditioner, LowResConditionerConfig) and conditioner.size >= self.data.image_size:
                raise ValueError(
                    f"conditioning.{name}.size={conditioner.size} is not below data.image_size="
                    f"{self.data.image_size}; set the size of the images that are to be enlarged"
                )
        self._check_augmentation()
        joined = sum(isinstance(conditioner, LowResConditionerConfig) for conditioner in self.conditioning.values())
        if concat_channels != joined * self.data.channels:
            raise ValueError(
                f"network.concat_channels={concat_channels}, but the conditioning joins "
                f"{joined * self.data.channels} channels to the input; "
                + (
                    f"set network.concat_channels={joined * self.data.channels}"
                    if joined
                    else "choose conditioning=low_res, or network.concat_channels=0"
                )
            )

    def _check_augmentation(self) -> None:
        augments = [name for name, one in self.conditioning.items() if isinstance(one, AugmentConditionerConfig)]
        if len(augments) > 1:
            raise ValueError(f"conditioning.{augments[1]} augments the images a second time: leave one of the two out")
        small = [name for name, one in self.conditioning.items() if isinstance(one, LowResConditionerConfig)]
        if augments and small:
            raise ValueError(
                f"conditioning.{augments[0]} changes the image, of which conditioning.{small[0]} would show the "
                "unchanged one: leave one of the two out"
            )


def refuse_other_task(task: Task, network: NetworkConfig) -> None:
    """Raises ValueError where a network is not made for its task."""
    classifies = network.kind == "unet_encoder"
    if classifies and task != "noisy_classifier":
        raise ValueError(
            f"task={task} cannot train network.kind={network.kind}, which gives logits: "
            "set task=noisy_classifier, or choose a network of kind unet"
        )
    if task == "noisy_classifier" and not classifies:
        raise ValueError(
            f"task=noisy_classifier needs a network of kind unet_encoder, this one is {network.kind}: choose one "
            "of that kind, as in network=adm_classifier_64, or set task=denoising"
        )

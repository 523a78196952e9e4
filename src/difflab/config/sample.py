"""The configurations of `difflab sample` and `difflab evaluate`: a stored run, and how to draw from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from difflab.config.base import Config
from difflab.config.data import DataConfig
from difflab.config.guidance import GuidanceConfig
from difflab.config.logger import LoggerConfig
from difflab.config.metrics import MetricsConfig
from difflab.config.sampler import SamplerConfig


class DrawConfig(Config):
    """What sampling and evaluation share.

    run: a run directory, an exported folder, or a checkpoint file.
    n: number of samples; sample i depends on (seed, i) alone.
    weights: the averaged (ema) or the raw weights.
    rounding: floats to uint8, by the rule of an official code (see difflab.images).
    classes: null draws classes uniformly from the seed where the model has classes; or a list that is cycled through.
    devices: processes, each with its share of the samples; auto = one for each GPU, one on a CPU.
    precision: auto = bf16 autocast where the device makes it faster, fp32 elsewhere.
    """

    run: str
    n: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=1)]
    weights: Literal["ema", "raw"]
    rounding: Literal["truncate", "nearest", "edm"]
    classes: list[int] | None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Annotated[int, Field(ge=1)] | Literal["auto"]
    precision: Literal["auto", "32-true", "bf16-mixed"]
    sampler: SamplerConfig
    guidance: GuidanceConfig


class SampleConfig(DrawConfig):
    """`difflab sample`.

    out: where pictures go; null = <run>/samples/<sampler>-<steps>-seed<seed>-<hash of the rest>.
    npz: also write the ADM archive (arr_0 uint8 NHWC, arr_1 labels).
    trajectory: number of moments of the sampling path to draw for the first samples (0 = none).
    """

    out: str | None
    npz: bool
    png: bool
    grid: bool
    trajectory: Annotated[int, Field(ge=0)]


class EvaluateConfig(DrawConfig):
    """`difflab evaluate`.

    data: the data set compared with; null = the one the run was trained on. split: which part of it.
    out: where the records go; null = <run>/evaluations/<sampler>-<steps>-seed<seed>-<hash of the rest>-n<n>. They are
        also added to the run's evaluations.jsonl.
    """

    data: DataConfig | None = None
    split: str
    metrics: MetricsConfig
    logger: LoggerConfig
    out: str | None

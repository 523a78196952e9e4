"""The configuration of everything that watches training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from difflab.config.base import Config

# Up to the plain mean of all steps: difflab.averaging.profiles.SIGMA_REL_LIMIT, which this layer cannot import.
SigmaRel = Annotated[float, Field(gt=0.0, lt=12**-0.5)]


class EMAConfig(Config):
    """The moving average of the trainable parameters.

    decay is per optimised step; half_life, in images, takes its place when decay is null (EDM). warmup lowers it at the
    start; with n the number of steps averaged so far:
    none: always `decay`. count: min(decay, (1 + n) / (10 + n)), as TensorFlow and latent diffusion.
    inv_gamma: min(decay, 1 - (1 + (n - 1) / inv_gamma) ** -power), as k-diffusion and diffusers.
    ramp_up: the half-life is at most this part of the training so far, as EDM.
    """

    decay: float | None = Field(default=0.9999, ge=0.0, lt=1.0)
    half_life: float | None = Field(default=None, gt=0.0)
    warmup: Literal["none", "count", "inv_gamma", "ramp_up"] = "none"
    power: float = Field(default=0.75, gt=0.0)
    inv_gamma: float = Field(default=1.0, gt=0.0)
    ramp_up: float = Field(default=0.05, gt=0.0)
    every: int = Field(default=1, ge=1)
    start_step: int = Field(default=0, ge=0)
    validate_with: Literal["ema", "raw"] = "ema"

    @model_validator(mode="after")
    def _one_horizon(self) -> EMAConfig:
        if (self.decay is None) == (self.half_life is None):
            raise ValueError(
                f"decay={self.decay} and half_life={self.half_life} both say how long the average is: "
                "give one of them, and null for the other"
            )
        return self


class PowerEMAConfig(Config):
    """Averages with power profiles beside `ema`, and snapshots of them, of which any length is made after training.

    sigma_rel: their lengths relative to the training so far (the standard deviation of the profile).
    every: steps between updates. snapshot_every_steps: a multiple of it. at_end: one more snapshot when training ends.
    """

    sigma_rel: list[SigmaRel] = Field(default=[0.05, 0.10], min_length=1)
    every: int = Field(default=1, ge=1)
    snapshot_every_steps: int = Field(default=1000, ge=1)
    snapshot_dtype: Literal["float32", "float16"] = "float32"
    at_end: bool = True

    @model_validator(mode="after")
    def _snapshots_are_up_to_date(self) -> PowerEMAConfig:
        if len(set(self.sigma_rel)) != len(self.sigma_rel):
            raise ValueError(f"sigma_rel={self.sigma_rel} has a length twice; give each once")
        if self.snapshot_every_steps % self.every:
            raise ValueError(
                f"snapshot_every_steps={self.snapshot_every_steps} is no multiple of every={self.every}, "
                "the steps between updates; give one that is"
            )
        return self


class CheckpointConfig(Config):
    """Training checkpoints: every `every_steps` optimised steps, the newest `keep_last` kept besides `last.ckpt`."""

    every_steps: int = Field(default=1000, ge=1)
    keep_last: int = Field(default=2, ge=1)
    at_end: bool = True
    on_exception: bool = True
    export_weights: bool = True


class SampleGridConfig(Config):
    """A picture of `n` samples with fixed seeds every `every_steps` optimised steps."""

    every_steps: int = Field(default=1000, ge=1)
    n: int = Field(default=64, ge=1, le=4096)
    columns: int = Field(default=8, ge=1)
    batch_size: int = Field(default=64, ge=1, le=4096)
    seed: int = Field(default=0, ge=0)
    min_side: int = Field(default=64, ge=1, le=1024)
    table: bool = True
    at_end: bool = True

    @model_validator(mode="after")
    def _columns_fit(self) -> SampleGridConfig:
        if self.columns > self.n:
            raise ValueError(f"callbacks.sample_grid.columns={self.columns} exceeds n={self.n}; lower columns")
        return self


class EvaluationConfig(Config):
    """Metrics on `n` samples every `every_steps` optimised steps (null: only at the end)."""

    every_steps: int | None = Field(default=None, ge=1)
    n: int = Field(default=512, ge=2, le=10_000_000)
    batch_size: int = Field(default=64, ge=1, le=65_536)
    seed: int = Field(default=0, ge=0)
    at_end: bool = True

    @model_validator(mode="after")
    def _happens_at_all(self) -> EvaluationConfig:
        if self.every_steps is None and not self.at_end:
            raise ValueError(
                "callbacks.evaluation never runs: give every_steps, or at_end=true, or callbacks.evaluation=null"
            )
        return self


class ThroughputConfig(Config):
    """Images per second and the share of time spent waiting for data, over windows of `window` batches."""

    window: int = Field(default=50, ge=1)


class GuardConfig(Config):
    """A step with a loss that is not finite is skipped; after `max_in_a_row` of them training stops."""

    max_in_a_row: int = Field(default=10, ge=1)


class ProgressConfig(Config):
    """A progress bar in a terminal, elsewhere a plain line every `line_every_s` seconds."""

    line_every_s: float = Field(default=10.0, gt=0.0)


class PreemptionConfig(Config):
    """On a signal: save after the current step and exit.

    exit_status: for SIGTERM and SIGUSR1, which schedulers send (75: EX_TEMPFAIL, try again). Ctrl-C (SIGINT) is 130 and
        SIGHUP 129, always.
    check_every: with several processes the signal is agreed on at least every so many steps.
    """

    exit_status: int = Field(default=75, ge=1, le=255)
    check_every: int = Field(default=10, ge=1)


class CallbacksConfig(Config):
    """Each callback, or null for none."""

    ema: EMAConfig | None = EMAConfig()
    power_ema: PowerEMAConfig | None = None
    checkpoint: CheckpointConfig | None = CheckpointConfig()
    sample_grid: SampleGridConfig | None = SampleGridConfig()
    evaluation: EvaluationConfig | None = None
    throughput: ThroughputConfig | None = ThroughputConfig()
    guard: GuardConfig | None = GuardConfig()
    progress: ProgressConfig | None = ProgressConfig()
    preemption: PreemptionConfig | None = PreemptionConfig()

    @model_validator(mode="after")
    def _preemption_has_something_to_save(self) -> CallbacksConfig:
        if self.preemption is not None and self.checkpoint is None:
            raise ValueError(
                "callbacks.preemption needs callbacks.checkpoint: give that one, or callbacks.preemption=null"
            )
        return self

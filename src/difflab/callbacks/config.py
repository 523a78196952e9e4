"""The configurations of the callbacks, in the order in which callbacks of one place run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from difflab.config.axes import CALLBACKS
from difflab.config.callbacks import CallbackBase, Place

if TYPE_CHECKING:
    from difflab.config.train import TrainConfig

# Up to the plain mean of all steps: difflab.averaging.profiles.SIGMA_REL_LIMIT, which this layer cannot import.
SigmaRel = Annotated[float, Field(gt=0.0, lt=12**-0.5)]


@CALLBACKS.register("ema", "difflab.callbacks.ema:EMA.from_config", default=True)
class EMAConfig(CallbackBase):
    """The exponential moving average of the trainable parameters.

    warmup lowers the decay at the start; with n the number of steps averaged so far:
    none: always `decay`. count: min(decay, (1 + n) / (10 + n)), as in TensorFlow and latent diffusion.
    inv_gamma: min(decay, 1 - (1 + (n - 1) / inv_gamma) ** -power), as in k-diffusion and diffusers.
    ramp_up: the half-life is at most this fraction of the training so far, as in EDM.
    """

    place: ClassVar[Place] = Place.AVERAGES
    averages: ClassVar[bool] = True

    decay: float | None = Field(default=0.9999, ge=0.0, lt=1.0)
    """Per optimized step; 0.9999 in DDPM, appendix B (CIFAR10, LSUN, CelebA-HQ)."""
    half_life: float | None = Field(default=None, gt=0.0)
    """In images, instead of decay (EDM: decay null, half_life 500000)."""
    warmup: Literal["none", "count", "inv_gamma", "ramp_up"] = "none"
    """none, count, inv_gamma or ramp_up."""
    power: float = Field(default=0.75, gt=0.0)
    """Exponent of inv_gamma; 3/4 is the default of diffusers for long training."""
    inv_gamma: float = Field(default=1.0, gt=0.0)
    """Scale of inv_gamma, in steps."""
    ramp_up: float = Field(default=0.05, gt=0.0)
    """Fraction of ramp_up; EDM, training_loop.py: ema_rampup_ratio."""
    every: int = Field(default=1, ge=1)
    """Steps between updates."""
    start_step: int = Field(default=0, ge=0)
    """Up to this step the average is a copy of the weights."""
    validate_with: Literal["ema", "raw"] = "ema"
    """Weights used in validation: ema or raw."""

    @model_validator(mode="after")
    def _one_horizon(self) -> EMAConfig:
        if (self.decay is None) == (self.half_life is None):
            raise ValueError(
                f"decay={self.decay} and half_life={self.half_life} both set the length of the average: "
                "give one of them, and null for the other"
            )
        return self


@CALLBACKS.register("power_ema", "difflab.callbacks.power_ema:PowerEMA.from_config")
class PowerEMAConfig(CallbackBase):
    """Averages with power profiles besides `ema`, with snapshots from which any length is computed after training."""

    place: ClassVar[Place] = Place.AVERAGES

    sigma_rel: list[SigmaRel] = Field(default=[0.05, 0.10], min_length=1)
    """Lengths relative to the training so far (the standard deviation of the profile); the two of EDM2, section 3.2."""
    every: int = Field(default=1, ge=1)
    """Steps between updates."""
    snapshot_every_steps: int = Field(default=1000, ge=1)
    """A multiple of `every`; 16 over a run give lengths between the two within 0.4% (EDM2 has 256)."""
    snapshot_dtype: Literal["float32", "float16"] = "float32"
    """float16 (EDM2) takes half the disk space, but lengths below 0.05 amplify its rounding."""
    at_end: bool = True
    """Also at the end of training."""

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


@CALLBACKS.register("checkpoint", "difflab.callbacks.checkpoint:build", default=True)
class CheckpointConfig(CallbackBase):
    """Training checkpoints: every `every_steps` optimized steps, of which the newest `keep_last` are kept."""

    place: ClassVar[Place] = Place.SAVES

    every_steps: int = Field(default=1000, ge=1)
    """Optimized steps between two checkpoints."""
    keep_last: int = Field(default=2, ge=1)
    """Number of newest checkpoints kept besides last.ckpt."""
    at_end: bool = True
    """Also at the end of training."""
    on_exception: bool = True
    """Also when training fails."""
    export_weights: bool = True
    """weights/ema.safetensors (raw.safetensors without averages) at every checkpoint."""


@CALLBACKS.register("sample_grid", "difflab.callbacks.sample_grid:SampleGrid.from_config", default=True)
class SampleGridConfig(CallbackBase):
    """A grid of `n` samples with fixed seeds every `every_steps` optimized steps."""

    draws: ClassVar[bool] = True

    every_steps: int = Field(default=1000, ge=1)
    """Optimized steps between two grids."""
    n: int = Field(default=64, ge=1, le=4096)
    """Number of samples."""
    columns: int | None = Field(default=None, ge=1)
    """Samples per row; null = as many as make the grid about as wide as high, in full rows if n can be divided so."""
    batch_size: int = Field(default=64, ge=1, le=4096)
    """Samples generated at once."""
    seed: int = Field(default=0, ge=0)
    """Seed of the samples."""
    min_side: int = Field(default=64, ge=1, le=1024)
    """Smaller images are enlarged to this size, without smoothing."""
    table: bool = True
    """Also log samples/table: image, index, seed, class, and the caption where there are captions."""
    at_end: bool = True
    """Also at the end of training."""

    @model_validator(mode="after")
    def _columns_fit(self) -> SampleGridConfig:
        if self.columns is not None and self.columns > self.n:
            raise ValueError(
                f"callbacks.sample_grid.columns={self.columns} exceeds n={self.n}; lower columns, or leave it null"
            )
        return self


@CALLBACKS.register("reconstruction_grid", "difflab.callbacks.reconstruction_grid:ReconstructionGrid.from_config")
class ReconstructionGridConfig(CallbackBase):
    """A grid of held-out images, each beside its reconstruction, every `every_steps` optimized steps."""

    every_steps: int = Field(default=1000, ge=1)
    """Optimized steps between two grids."""
    n: int = Field(default=32, ge=1, le=4096)
    """Number of images: the first of the validation split, or of the training split if there is no other."""
    columns: int = Field(default=4, ge=1)
    """Pairs per row."""
    batch_size: int = Field(default=32, ge=1, le=4096)
    """Images reconstructed at once."""
    min_side: int = Field(default=64, ge=1, le=1024)
    """Smaller images are enlarged to this size, without smoothing."""
    at_end: bool = True
    """Also at the end of training."""

    def refuse_training(self, config: TrainConfig) -> None:
        if "reconstructions" not in config.model().measures:
            raise ValueError(
                "callbacks.reconstruction_grid is for autoencoders, and this task reconstructs nothing: set "
                "callbacks.reconstruction_grid=null"
            )


@CALLBACKS.register("evaluation", "difflab.callbacks.evaluation:Evaluation.from_config")
class EvaluationConfig(CallbackBase):
    """Metrics on `n` samples every `every_steps` optimized steps (null: only at the end)."""

    draws: ClassVar[bool] = True

    every_steps: int | None = Field(default=None, ge=1)
    """Optimized steps between two evaluations; null is only at the end."""
    n: int = Field(default=512, ge=2, le=10_000_000)
    """Number of samples."""
    batch_size: int = Field(default=64, ge=1, le=65_536)
    """Samples generated at once."""
    seed: int = Field(default=0, ge=0)
    """Seed of the samples."""
    at_end: bool = True
    """Also at the end of training."""

    @property
    def measures(self) -> int | None:
        return self.n

    def refuse_training(self, config: TrainConfig) -> None:
        if not any(config.metrics.values()):
            raise ValueError(
                "callbacks.evaluation has nothing to measure: choose metrics, as metrics=shapes, or "
                "callbacks.evaluation=null"
            )

    @model_validator(mode="after")
    def _happens_at_all(self) -> EvaluationConfig:
        if self.every_steps is None and not self.at_end:
            raise ValueError(
                "callbacks.evaluation never runs: give every_steps, or at_end=true, or callbacks.evaluation=null"
            )
        return self


@CALLBACKS.register("throughput", "difflab.callbacks.throughput:Throughput.from_config", default=True)
class ThroughputConfig(CallbackBase):
    """Images per second and the fraction of time spent waiting for data, over windows of `window` batches."""

    place: ClassVar[Place] = Place.LOGS

    window: int = Field(default=50, ge=1)
    """Batches over which the numbers are averaged."""


@CALLBACKS.register("guard", "difflab.callbacks.guard:NonFiniteGuard.from_config", default=True)
class GuardConfig(CallbackBase):
    """Skips steps whose loss is not finite; training stops after `max_in_a_row` of them."""

    place: ClassVar[Place] = Place.COUNTS

    max_in_a_row: int = Field(default=10, ge=1)
    """Consecutive skipped steps after which training stops."""


@CALLBACKS.register("progress", "difflab.callbacks.progress:Progress.from_config", default=True)
class ProgressConfig(CallbackBase):
    """A progress bar in a terminal, otherwise a plain line every `line_every_s` seconds."""

    place: ClassVar[Place] = Place.LOGS

    line_every_s: float = Field(default=10.0, gt=0.0)
    """Seconds between two lines."""


@CALLBACKS.register("preemption", "difflab.callbacks.preemption:Preemption.from_config", default=True)
class PreemptionConfig(CallbackBase):
    """On a signal: saves after the current step and exits. The status for Ctrl-C (SIGINT) is 130, for SIGHUP 129."""

    place: ClassVar[Place] = Place.ENDS

    exit_status: int = Field(default=75, ge=1, le=255)
    """For SIGTERM and SIGUSR1, which schedulers send (75: EX_TEMPFAIL, the job may be started again)."""
    check_every: int = Field(default=10, ge=1)
    """With several processes, they agree on a signal at least every so many steps."""

    def refuse_beside(self, others: Mapping[str, Any]) -> None:
        if "checkpoint" not in others:
            raise ValueError(
                "callbacks.preemption needs callbacks.checkpoint: give that one, or callbacks.preemption=null"
            )

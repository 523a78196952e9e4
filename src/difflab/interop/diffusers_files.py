"""The types of all keys in the JSON files of a diffusers folder; their meaning is interpreted elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from difflab.interop.diffusers_levels import require_blocks
from difflab.interop.native import validated

Count = Annotated[int, Field(ge=1)]


class _File(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class UNetFile(_File):
    """config.json of `UNet2DModel`."""

    sample_size: Count | list[Count] | None = None
    in_channels: Count = 3
    out_channels: Count = 3
    freq_shift: int = 0
    flip_sin_to_cos: bool = True
    down_block_types: Annotated[list[str], Field(min_length=1)] = [
        "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"
    ]  # fmt: skip
    up_block_types: Annotated[list[str], Field(min_length=1)] = [
        "AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"
    ]  # fmt: skip
    block_out_channels: Annotated[list[Count], Field(min_length=1)] = [224, 448, 672, 896]
    layers_per_block: Count = 2
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    attention_head_dim: Count | None = 8
    norm_num_groups: Count = 32
    attn_norm_num_groups: Count | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    num_class_embeds: Count | None = None


class SchedulerFile(_File):
    """scheduler_config.json of `DDPMScheduler` and `DDIMScheduler`, with the defaults that both have."""

    num_train_timesteps: Count = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: list[float] | None = None
    variance_type: str = "fixed_small"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    prediction_type: str = "epsilon"
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float | None = 1.0
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"
    steps_offset: Annotated[int, Field(ge=0)] = 0
    set_alpha_to_one: bool = True
    rescale_betas_zero_snr: bool = False


def checked_unet(path: Path, content: Mapping[str, Any]) -> UNetFile:
    """The file at `path`; UserError that names the first key of the wrong type."""
    found = validated(UNetFile, content, path)
    require_blocks(path, found)
    return found


def checked_scheduler(path: Path, content: Mapping[str, Any]) -> SchedulerFile:
    """The file at `path`; UserError that names the first key of the wrong type."""
    return validated(SchedulerFile, content, path)

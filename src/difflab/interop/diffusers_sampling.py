"""How diffusers has to be called to sample as a model's own sampler does, or why it cannot."""

from __future__ import annotations

from typing import Any

from difflab.config.guidance import GuidanceBase
from difflab.config.model import DrawingModelConfig
from difflab.config.sampler_families import StridedConfig, StridingConfig
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.diffusion.levels.rows import Spacing, sampling_timesteps
from difflab.diffusion.samplers.config import AncestralConfig, DDIMConfig

_SPACINGS: tuple[Spacing, ...] = ("leading", "trailing", "linspace")
_DEFAULT = {"timestep_spacing": "leading", "steps_offset": 0, "set_alpha_to_one": True}


def sampling_keys(config: DrawingModelConfig) -> dict[str, Any]:
    """The keys of scheduler_config.json with which diffusers takes the steps of the model's own sampler.

    The library's defaults if it has no such steps; `how_to_draw` reports that.
    """
    sampler, diffusion = config.sampler, config.diffusion
    if not isinstance(diffusion, DiscreteDiffusionConfig) or not isinstance(sampler, AncestralConfig | DDIMConfig):
        return _DEFAULT
    return steps_of(sampler, diffusion) or {**_DEFAULT, "set_alpha_to_one": _ends_clean(sampler)}


def how_to_draw(config: DrawingModelConfig, folder: str) -> list[str]:
    """In lines: the diffusers call that reproduces the images of `difflab sample`, and what no call can reproduce."""
    sampler, diffusion, guidance = config.sampler, config.diffusion, config.guidance
    lines = []
    if config.conditioning:
        conditioners = ", ".join(config.conditioning)
        lines.append(
            f"diffusers has no pipeline that passes {conditioners} to UNet2DModel: the folder has none; load "
            "UNet2DModel and DDPMScheduler from it and give class_labels at every step"
        )
    if guidance.acts:
        lines.append(f"guidance={guidance.kind} is not part of the folder: diffusers' images are without it")
    assert isinstance(diffusion, DiscreteDiffusionConfig), "diffusers has no continuous time"
    strided = isinstance(sampler, AncestralConfig | DDIMConfig)
    reason = _why_not(sampler, diffusion) if strided else "diffusers' DDPM and DDIM are all that the folder has"
    clips_anew = (
        guidance.rederive_eps and guidance.threshold_of(latents=False) != "none" and not diffusion.learns_variance
    )
    if clips_anew and (reason is not None or not isinstance(sampler, DDIMConfig)):
        lines.append("DDIM of diffusers is that of difflab with use_clipped_model_output=True in its call")
    if reason is not None or not strided:
        return [f"diffusers' images differ from the run's own (sampler={sampler.kind}): {reason}", *lines]
    pipeline = "DDIMPipeline" if isinstance(sampler, DDIMConfig) else "DDPMPipeline"
    options = {"num_inference_steps": len(kept_timesteps(sampler, diffusion))}
    call = ", ".join(f"{key}={value}" for key, value in (options | _call(sampler, guidance)).items())
    if config.conditioning:
        scheduler = pipeline.replace("Pipeline", "Scheduler")
        lines.append(f"the run's own sampler is {scheduler} with {call}")
    else:
        lines.insert(
            0, f"diffusers draws as the run's own sampler does with {pipeline}.from_pretrained({folder!r})({call})"
        )
    return lines


def _call(sampler: AncestralConfig | DDIMConfig, guidance: GuidanceBase) -> dict[str, Any]:
    if not isinstance(sampler, DDIMConfig):
        return {}
    # If nothing is clipped, rederiving eps changes nothing.
    rederived = guidance.rederive_eps and guidance.threshold_of(latents=False) != "none"
    return {"eta": sampler.eta, "use_clipped_model_output": rederived}


def _why_not(sampler: AncestralConfig | DDIMConfig, diffusion: DiscreteDiffusionConfig) -> str | None:
    if isinstance(sampler, DDIMConfig) and diffusion.learns_variance:
        return f"its DDIM takes no network with variance={diffusion.variance}"
    if steps_of(sampler, diffusion) is None:
        stride = f", stride={sampler.stride}" if isinstance(sampler, DDIMConfig) else ""
        return (
            f"it does not take the steps of spacing={sampler.spacing}, steps={sampler.steps}{stride} of "
            f"{diffusion.timesteps}; those of spacing=leading, with a number of steps that divides "
            f"{diffusion.timesteps}, are the same in both"
        )
    if (
        isinstance(sampler, AncestralConfig)
        and kept_timesteps(sampler, diffusion)[0] > 0
        and diffusion.variance != "fixed_small"
    ):
        return "its last step adds noise where it does not end at timestep 0"
    return None


def kept_timesteps(sampler: StridedConfig, diffusion: DiscreteDiffusionConfig) -> list[int]:
    """The timesteps that a sampler visits. Raises ValueError for levels that are none."""
    if sampler.spacing == "listed":
        raise ValueError("listed levels need not be timesteps")
    if sampler.steps is None:
        return list(range(diffusion.timesteps))
    return sampling_timesteps(diffusion.timesteps, sampler.steps, sampler.spacing, sampler.steps_offset)


def steps_of(sampler: StridedConfig, diffusion: DiscreteDiffusionConfig) -> dict[str, Any] | None:
    """The keys with which diffusers visits exactly the timesteps of the sampler, in the same strides; None if none do
    so."""
    total = diffusion.timesteps
    try:
        kept = kept_timesteps(sampler, diffusion)
    except ValueError:
        # The run samples with other options, which this sampler never had.
        return None
    stride = total // len(kept)
    if isinstance(sampler, StridingConfig) and sampler.stride == "listed":
        following = [t - stride for t in kept]
        if following[1:] != kept[:-1] or following[0] >= 0:
            return None
    # The same timesteps may have several names.
    for spacing in sorted(_SPACINGS, key=lambda spacing: spacing != sampler.spacing):
        offset = kept[0] if spacing == "leading" else 0
        try:
            theirs = sampling_timesteps(total, len(kept), spacing, offset)
        except ValueError:
            continue
        if theirs == kept:
            return {"timestep_spacing": spacing, "steps_offset": offset, "set_alpha_to_one": _ends_clean(sampler)}
    return None


def _ends_clean(sampler: StridedConfig) -> bool:
    return not isinstance(sampler, StridingConfig) or sampler.final_level == "clean"

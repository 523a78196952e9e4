"""Reads a diffusers folder as a whole model: its network, its process, and its sampler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from difflab.config.sampler import SamplerConfig
from difflab.config.validate import problem_in_words, validate
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.diffusion.guidance.config import NoGuidance
from difflab.diffusion.samplers.config import AncestralConfig, DDIMConfig
from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.diffusers_config import to_diffusers_config
from difflab.interop.diffusers_files import SchedulerFile, checked_scheduler
from difflab.interop.diffusers_scheduler import PREDICTIONS, VARIANCES, to_scheduler_config
from difflab.interop.latent_unets import DIFFUSERS_CONDITION_UNET
from difflab.interop.layout import Described, Target
from difflab.interop.opening import PIPELINE, described_by_folder, network_folder
from difflab.networks.config import UNetConfig
from difflab.tasks.denoising.config import DenoisingModelConfig

SCHEDULER = "scheduler_config.json"
OWN = "_difflab"
"""The key of scheduler_config.json for what diffusers cannot represent; diffusers ignores keys with an underscore."""

_SAMPLERS = ("DDPMScheduler", "DDIMScheduler")
_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "sigmoid": "sigmoid", "squaredcos_cap_v2": "cosine"}
_DDIM_STEPS = 50
"""The default number of steps of DDIMPipeline."""


def model_of_folder(path: Path) -> Described[DenoisingModelConfig] | None:
    """The model described by a diffusers folder (or by that of a weights file in one); None for anything else.

    Raises UserError naming the file and the key if difflab has no such model, or if its scheduler is missing.
    """
    target = described_by_folder(path)
    if target is None or target.network.gives != "images":
        return None
    folder = network_folder(path)
    if DIFFUSERS_CONDITION_UNET.takes(target.network):
        raise UserError(
            f"{folder}: the network alone of a latent diffusion model; give the folder of its pipeline, which has "
            f"{PIPELINE}, its first stage and its text encoder"
        )
    places = [folder / SCHEDULER, folder.parent / "scheduler" / SCHEDULER]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UserError(
            f"{folder}: there is no {SCHEDULER} in it or in ../scheduler/, which defines its noise schedule; put one "
            "there, or name an experiment of the same process with --preset"
        )
    content = native.read_json(file)
    stored, notes = _stored_beside(target, content), []
    if stored is not None:
        return Described(stored)
    if OWN in content:
        notes.append(f"{file}: its {OWN} is of another model than the rest says, and was not used")
    return Described(_model(file, content, target, folder.resolve().name), tuple(notes))


def _stored_beside(target: Target, content: Mapping[str, Any]) -> DenoisingModelConfig | None:
    """The configuration that an export left in the scheduler's file, unless the files were changed since."""
    if not isinstance(content.get(OWN), Mapping):
        return None
    try:
        config = validate(DenoisingModelConfig, content[OWN])
        written = to_scheduler_config(config)
        same_network = to_diffusers_config(Target.of(config)) == to_diffusers_config(target)
    except UserError:
        return None
    return config if same_network and all(content.get(key) == value for key, value in written.items()) else None


def _model(path: Path, content: Mapping[str, Any], target: Target, name: str) -> DenoisingModelConfig:
    kind = content.get("_class_name", "DDPMScheduler")
    if kind not in _SAMPLERS:
        raise UserError(
            f"{path}: _class_name={kind!r} is not supported (only {' and '.join(_SAMPLERS)}); in diffusers, "
            f"DDPMScheduler.from_config(scheduler.config).save_pretrained({str(path.parent)!r}) writes it as one"
        )
    scheduler = checked_scheduler(path, content)
    try:
        return DenoisingModelConfig(
            experiment=f"diffusers/{name}",
            image_size=target.image_size,
            channels=target.network.channels,
            diffusion=process_of(path, scheduler, target.learned_variance),
            network=cast(UNetConfig, target.network),
            conditioning=target.conditioning,
            sampler=_sampler(scheduler, kind),
            guidance=_range_of_x0(scheduler, kind),
        )
    except ValidationError as error:
        raise UserError(f"{path}: {problem_in_words(error)}") from error


def process_of(path: Path, c: SchedulerFile, learned_variance: bool) -> DiscreteDiffusionConfig:
    """The process of a scheduler's file at `path`. Raises UserError naming the key for one that difflab has not.

    learned_variance: whether its network has twice as many channels out as in.
    """
    predictions = {theirs: ours for ours, theirs in PREDICTIONS.items()}
    if c.prediction_type not in predictions:
        raise UserError(
            f"{path}: prediction_type={c.prediction_type!r} is not supported (only {', '.join(predictions)})"
        )
    if c.trained_betas is not None:
        raise UserError(f"{path}: trained_betas is not supported; a schedule needs a name, as beta_schedule='linear'")
    if c.beta_schedule not in _SCHEDULES:
        raise UserError(f"{path}: beta_schedule={c.beta_schedule!r} is not supported (only {', '.join(_SCHEDULES)})")
    # For a fixed variance the library's own `_log` is another way to compute the same.
    variance = c.variance_type.removesuffix("_log") if c.variance_type == "fixed_small_log" else c.variance_type
    if variance not in VARIANCES:
        raise UserError(f"{path}: variance_type={c.variance_type!r} is not supported (only {', '.join(VARIANCES)})")
    if learned_variance != (variance == "learned_range"):
        channels = "twice its in_channels" if learned_variance else "as many as its in_channels"
        raise UserError(f"{path}: variance_type={variance!r}, but the out_channels of the network are {channels}")
    ends = {} if c.beta_schedule == "squaredcos_cap_v2" else {"beta_start": c.beta_start, "beta_end": c.beta_end}
    schedule = {"kind": _SCHEDULES[c.beta_schedule], **ends, "zero_terminal_snr": c.rescale_betas_zero_snr}
    content = {
        "schedule": schedule,
        "timesteps": c.num_train_timesteps,
        "prediction": predictions[c.prediction_type],
        "variance": variance,
        "loss": "hybrid" if learned_variance else "mse",
    }
    return native.validated(DiscreteDiffusionConfig, content, path)


def _sampler(c: SchedulerFile, kind: str) -> SamplerConfig:
    offset = c.steps_offset if c.timestep_spacing == "leading" else 0
    if kind == "DDPMScheduler":
        return AncestralConfig(kind="ancestral", spacing=c.timestep_spacing, steps_offset=offset)
    return DDIMConfig(
        kind="ddim",
        steps=min(_DDIM_STEPS, c.num_train_timesteps),
        spacing=c.timestep_spacing,
        steps_offset=offset,
        final_level="clean" if c.set_alpha_to_one else "first",
        stride="constant",
    )


def _range_of_x0(c: SchedulerFile, kind: str) -> NoGuidance:
    clipped = "static" if c.clip_sample else "none"
    return NoGuidance(
        kind="none",
        threshold="dynamic" if c.thresholding else clipped,
        static_limit=c.clip_sample_range,
        dynamic_percentile=c.dynamic_thresholding_ratio,
        dynamic_maximum=c.sample_max_value,
        # The library's DDIM keeps the network's eps unless a call requests otherwise.
        rederive_eps=kind == "DDPMScheduler",
    )

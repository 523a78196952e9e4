"""The schedulers of diffusers' pipelines in our words: the process, and the sampler that takes the same steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from difflab.config.sampler import SamplerConfig
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.errors import UserError
from difflab.interop.diffusers_files import SchedulerFile
from difflab.interop.diffusers_model import process_of
from difflab.interop.native import validated

STEPS = 50
"""The default number of steps of all pipelines of latents."""
_BETWEEN = {"linspace": "fractional", "leading": "leading", "trailing": "trailing"}
"""timestep_spacing of the schedulers that step between levels -> our spacing."""
_SOLVERS = {"linspace": "linspace_inner", "leading": "leading_inner", "trailing": "trailing"}
"""The same of DPM-Solver and UniPC."""
_REFUSED = (
    "thresholding", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas",
    "use_dynamic_shifting", "euler_at_final",
)  # fmt: skip
"""Options that are off in every released pipeline of Stable Diffusion."""
_FIXED: dict[str, Any] = {
    "interpolation_type": "linear", "timestep_type": "discrete", "sigma_min": None, "sigma_max": None,
    "lambda_min_clipped": -math.inf,
}  # fmt: skip
"""Options that move the steps of single schedulers, with the library's defaults."""


class SolverFile(SchedulerFile):
    """scheduler_config.json of the schedulers of latents, with the library's defaults."""

    skip_prk_steps: bool = False
    use_karras_sigmas: bool | None = False
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    algorithm_type: str = "dpmsolver++"
    solver_order: Annotated[int, Field(ge=1, le=3)] = 2
    solver_type: str | None = None
    lower_order_final: bool = True
    predict_x0: bool = True
    disable_corrector: list[Annotated[int, Field(ge=0)]] | None = None


def read_scheduler(
    path: Path, content: Mapping[str, Any], learned_variance: bool
) -> tuple[DiscreteDiffusionConfig, SamplerConfig, list[str]]:
    """The process, the sampler and remarks of a scheduler_config.json at `path`, with what its pipeline sets in it.

    learned_variance: whether the network has twice as many channels out as in.

    Raises UserError naming the file and the key if difflab has no such.
    """
    kind = content.get("_class_name")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(
            f"{path}: _class_name={kind!r} is not supported (only {', '.join(_KINDS)}); in diffusers, "
            f"DDIMScheduler.from_config(scheduler.config).save_pretrained({str(path.parent)!r}) writes it as one"
        )
    given = [key for key in _REFUSED if content.get(key)]
    if given:
        raise UserError(f"{path}: {given[0]}={content[given[0]]!r} is not supported; set it to false")
    for key, value in _FIXED.items():
        if content.get(key, value) != value:
            raise UserError(f"{path}: {key}={content[key]!r} is not supported (only {value!r})")
    defaults, sampler = _KINDS[kind]
    # Which variance a step has matters to DDPM alone; other schedulers write null.
    own = {key: value for key, value in content.items() if key != "variance_type" or kind == "DDPMScheduler"}
    scheduler = validated(SolverFile, {**defaults, **own}, path)
    process = process_of(path, scheduler, learned_variance)
    notes = []
    if kind == "PNDMScheduler" and process.prediction != "eps":
        notes.append(
            f"{path}: with prediction_type={scheduler.prediction_type!r}, diffusers' PNDM extrapolates the network's "
            "output, and sampler=plms here eps: pictures differ a little; sampler=ddim gives the same in both"
        )
    return process, TypeAdapter(SamplerConfig).validate_python(sampler(path, scheduler)), notes


def _spaced(c: SolverFile) -> dict[str, Any]:
    return {"spacing": c.timestep_spacing, "steps_offset": c.steps_offset if c.timestep_spacing == "leading" else 0}


def _strided(kind: str, c: SolverFile) -> dict[str, Any]:
    final = "clean" if c.set_alpha_to_one else "first"
    steps = min(STEPS, c.num_train_timesteps)
    return {"kind": kind, "steps": steps, **_spaced(c), "final_level": final, "stride": "constant"}


def _ddim(path: Path, c: SolverFile) -> dict[str, Any]:
    return _strided("ddim", c)


def _plms(path: Path, c: SolverFile) -> dict[str, Any]:
    warm_up = "improved_euler" if c.skip_prk_steps else "runge_kutta"
    return {**_strided("plms", c), "warm_up": warm_up}


def _ancestral(path: Path, c: SolverFile) -> dict[str, Any]:
    return {"kind": "ancestral", "steps": min(STEPS, c.num_train_timesteps), **_spaced(c)}


def _levels(c: SolverFile, spacings: Mapping[str, str], snap: str) -> dict[str, Any]:
    if c.use_karras_sigmas:
        return {"steps": STEPS, "spacing": "karras", "snap": snap}
    final = "lowest" if c.final_sigmas_type == "sigma_min" else "clean"
    spacing = {**_spaced(c), "spacing": spacings[c.timestep_spacing]}
    return {"steps": min(STEPS, c.num_train_timesteps), **spacing, "final": final, "interpolate": "linear"}


def _between(kind: str) -> Callable[[Path, SolverFile], dict[str, Any]]:
    return lambda path, c: {"kind": kind, **_levels(c, _BETWEEN, "none")}


def _dpm_solver(path: Path, c: SolverFile) -> dict[str, Any]:
    known = {"dpmsolver++": "x0", "dpmsolver": "eps"}
    algorithm = _one_of(path, "algorithm_type", c.algorithm_type, tuple(known))
    return {
        "kind": "dpm_solver_pp",
        **_levels(c, _SOLVERS, "time"),
        "prediction": known[algorithm],
        "order": c.solver_order,
        "variant": _one_of(path, "solver_type", c.solver_type or "midpoint", ("midpoint", "heun")),
        "lower_order_final": c.lower_order_final,
    }


def _unipc(path: Path, c: SolverFile) -> dict[str, Any]:
    return {
        "kind": "unipc",
        **_levels(c, _SOLVERS, "time"),
        "prediction": "x0" if c.predict_x0 else "eps",
        "order": c.solver_order,
        "variant": _one_of(path, "solver_type", c.solver_type or "bh2", ("bh1", "bh2")),
        "lower_order_final": c.lower_order_final,
        "disable_corrector": c.disable_corrector or [],
    }


def _one_of(path: Path, key: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UserError(f"{path}: {key}={value!r} is not supported (only {' and '.join(known)})")
    return value


Read = Callable[[Path, SolverFile], dict[str, Any]]
_LINSPACE = {"timestep_spacing": "linspace"}
_KINDS: dict[str, tuple[dict[str, Any], Read]] = {
    "DDIMScheduler": ({}, _ddim),
    "PNDMScheduler": ({"set_alpha_to_one": False}, _plms),
    "DDPMScheduler": ({}, _ancestral),
    "EulerDiscreteScheduler": (_LINSPACE, _between("euler")),
    "EulerAncestralDiscreteScheduler": (_LINSPACE, _between("euler_ancestral")),
    "HeunDiscreteScheduler": ({**_LINSPACE, "beta_start": 0.00085, "beta_end": 0.012}, _between("heun")),
    "LMSDiscreteScheduler": (_LINSPACE, _between("lms")),
    "DPMSolverMultistepScheduler": (_LINSPACE, _dpm_solver),
    "UniPCMultistepScheduler": (_LINSPACE, _unipc),
}
"""The class of a scheduler -> the defaults in which it differs from DDIM's, and the sampler."""

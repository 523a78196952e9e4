"""The installed release of diffusers beside ours: ten steps on an exact denoiser, one last sample each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.levels.grid import Grid
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.samplers.dpm_solver_pp import DPMSolverPPSampler
from difflab.diffusion.samplers.euler import EulerSampler, HeunSampler
from difflab.diffusion.samplers.exponential import ExponentialSampler
from difflab.diffusion.samplers.levels import LevelSampler
from difflab.diffusion.samplers.plms import PLMSSampler
from difflab.diffusion.samplers.unipc import UniPCSampler
from diffusion.fakes import Mixture
from diffusion.mixtures import Still
from diffusion.schedulers import first_scale, grid_of, process_of, their_run

MIXTURE = {"w": [0.3, 0.5, 0.2], "m": [-0.6, 0.1, 0.7], "s": [0.2, 0.1, 0.3]}
SCHEDULE = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
SPACINGS = [{"timestep_spacing": spacing} for spacing in ("linspace", "leading", "trailing")]
BY_NOISE = [{"use_karras_sigmas": True}, {"use_exponential_sigmas": True}]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
PREDICTIONS = ["epsilon", "sample", "v_prediction"]


def options(*groups: list[dict[str, Any]]) -> list[Any]:
    """Every combination of one choice from each group, as parameters with readable names."""
    combined: list[dict[str, Any]] = [{}]
    for group in groups:
        combined = [{**left, **right} for left in combined for right in group]
    return [pytest.param(one, id="-".join(str(value) for value in one.values())) for one in combined]


def their_options(chosen: dict[str, Any], predicts: str) -> dict[str, Any]:
    return {**SCHEDULE, **chosen, "prediction_type": predicts}


def start() -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class WholeTimesteps(Mixture):
    """diffusers' DPM-Solver and UniPC cut the fraction off the timesteps of exponential sigmas."""

    def __init__(self, network: Mixture) -> None:
        self.network = network

    def __call__(self, x: Tensor, time: Tensor, conditioning: Any = None) -> Tensor:
        return self.network(x, time.floor())


def compare(scheduler: Any, sampler: Any, constructor: dict[str, Any], scale: float = 1.0, steps: int = 10) -> None:
    """Both from one start, ours scaled as x is."""
    process = process_of(constructor)
    network = Mixture(MIXTURE, constructor["prediction_type"])
    if constructor.get("use_exponential_sigmas") and isinstance(sampler, ExponentialSampler):
        network = WholeTimesteps(network)
    sigmas = [level.edm_sigma for level in sampler.levels(process)] if isinstance(sampler, LevelSampler) else []
    if isinstance(sampler, HeunSampler):
        sigmas = [sigmas[0], *(noise for noise in sigmas[1:-1] for _ in range(2)), sigmas[-1]]
    theirs = their_run(scheduler, steps, network, start(), process, sigmas)
    spaced = sampler.respace(process)
    ours = sampler(NetworkDenoiser(network, spaced), spaced, start() * scale, Still())
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("chosen", options(SPACINGS))
def test_ddim(chosen: dict[str, Any], predicts: str) -> None:
    from diffusers import DDIMScheduler

    constructor = their_options(chosen, predicts)
    sampler = DDIMSampler(steps=10, spacing=chosen["timestep_spacing"], stride="constant")
    compare(DDIMScheduler(**constructor, clip_sample=False), sampler, constructor)


@pytest.mark.parametrize(("skip_prk", "steps"), [(True, 3), (True, 10), (True, 15), (False, 10), (False, 15)])
@pytest.mark.parametrize("chosen", options(SPACINGS))
def test_pndm(chosen: dict[str, Any], skip_prk: bool, steps: int) -> None:
    # With prediction v, diffusers extrapolates v and makes eps of it at the newest level: first order. Not ours.
    from diffusers import PNDMScheduler

    constructor = their_options(chosen, "epsilon")
    sampler = PLMSSampler(
        Grid(steps, chosen["timestep_spacing"]),
        warm_up="improved_euler" if skip_prk else "runge_kutta",
        final_level="clean",
        stride="constant",
    )
    compare(
        PNDMScheduler(**constructor, skip_prk_steps=skip_prk, set_alpha_to_one=True), sampler, constructor, steps=steps
    )


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("chosen", options([*SPACINGS, *BY_NOISE]))
def test_dpm_solver_pp(chosen: dict[str, Any], order: int, predicts: str) -> None:
    compare_dpm({**chosen, "solver_order": order}, predicts)


@pytest.mark.parametrize("steps", [10, 16])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize(
    "chosen",
    options(
        SPACINGS,
        [{"solver_order": order} for order in (2, 3)],
        [{"solver_type": "midpoint"}, {"solver_type": "heun"}],
        [{"algorithm_type": "dpmsolver"}, {"algorithm_type": "dpmsolver++"}],
    ),
)
@pytest.mark.filterwarnings("ignore:.*algorithm_type.*")
def test_dpm_solver_to_the_lowest_level(chosen: dict[str, Any], lower: bool, steps: int) -> None:
    compare_dpm({**chosen, "final_sigmas_type": "sigma_min", "lower_order_final": lower}, "epsilon", steps)


def compare_dpm(chosen: dict[str, Any], predicts: str, steps: int = 10) -> None:
    from diffusers import DPMSolverMultistepScheduler

    constructor = their_options(chosen, predicts)
    sampler = DPMSolverPPSampler(
        dpm_grid(constructor, steps),
        order=chosen["solver_order"],
        variant=chosen.get("solver_type", "midpoint"),
        prediction="eps" if chosen.get("algorithm_type") == "dpmsolver" else "x0",
        lower_order_final=chosen.get("lower_order_final", True),
    )
    compare(DPMSolverMultistepScheduler(**constructor), sampler, constructor, steps=steps)


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("chosen", options([*SPACINGS, *BY_NOISE]))
def test_unipc(chosen: dict[str, Any], order: int, predicts: str) -> None:
    compare_unipc({**chosen, "solver_order": order}, predicts)


@pytest.mark.parametrize(
    "chosen",
    options(
        [{"solver_order": order} for order in (1, 2, 3)],
        [{"solver_type": "bh1"}, {"solver_type": "bh2"}],
        [{"predict_x0": True}, {"predict_x0": False}],
        [{"lower_order_final": True}, {"lower_order_final": False}],
        [{"disable_corrector": []}, {"disable_corrector": [0, 3]}],
    ),
)
def test_unipc_to_the_lowest_level(chosen: dict[str, Any]) -> None:
    compare_unipc({**chosen, "final_sigmas_type": "sigma_min"}, "v_prediction")


def compare_unipc(chosen: dict[str, Any], predicts: str) -> None:
    from diffusers import UniPCMultistepScheduler

    constructor = their_options(chosen, predicts)
    sampler = UniPCSampler(
        dpm_grid(constructor, 10),
        order=chosen["solver_order"],
        variant=chosen.get("solver_type", "bh2"),
        prediction="x0" if chosen.get("predict_x0", True) else "eps",
        lower_order_final=chosen.get("lower_order_final", True),
        disable_corrector=chosen.get("disable_corrector", []),
    )
    compare(UniPCMultistepScheduler(**constructor), sampler, constructor)


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("chosen", options(SPACINGS))
def test_euler(chosen: dict[str, Any], predicts: str) -> None:
    from diffusers import EulerDiscreteScheduler

    compare_sigma(EulerDiscreteScheduler, EulerSampler, their_options(chosen, predicts))


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("chosen", options([*SPACINGS, *BY_NOISE]))
def test_heun(chosen: dict[str, Any], predicts: str) -> None:
    from diffusers import HeunDiscreteScheduler

    compare_sigma(HeunDiscreteScheduler, HeunSampler, their_options(chosen, predicts))


def compare_sigma(theirs: Any, ours: type[LevelSampler], constructor: dict[str, Any]) -> None:
    process = process_of(constructor)
    sampler = ours(grid_of(constructor, 10, process, "sigma"))
    first = sampler.levels(process)[0]
    compare(theirs(**constructor), sampler, constructor, first_scale(constructor, first) * first.alpha)


def dpm_grid(constructor: dict[str, Any], steps: int) -> Grid:
    return grid_of(constructor, steps, process_of(constructor), "dpm")


@pytest.mark.parametrize("name", ["DPMSolverMultistep", "UniPCMultistep", "EulerDiscrete", "HeunDiscrete", "PNDM"])
@pytest.mark.parametrize("chosen", options(SPACINGS))
def test_spacings_for_many_numbers_of_steps(chosen: dict[str, Any], name: str) -> None:
    import diffusers

    constructor = their_options(chosen, "epsilon")
    process: GaussianProcess = process_of(constructor)
    options = {"skip_prk_steps": True} if name == "PNDM" else {}
    scheduler = getattr(diffusers, f"{name}Scheduler")(**constructor, **options)
    for steps in (1, 2, 5, 10, 15, 20, 25, 30, 50, 70, 150):
        scheduler.set_timesteps(steps)
        theirs = sorted(set(scheduler.timesteps.tolist()), reverse=True)
        if name == "PNDM":
            grid = Grid(steps, chosen["timestep_spacing"])
        else:
            grid = grid_of(constructor, steps, process, "dpm" if "Multistep" in name else "sigma")
        times = [level.timestep for level in grid.levels(process)[:-1]]
        assert times == pytest.approx(theirs, abs=1e-4), steps

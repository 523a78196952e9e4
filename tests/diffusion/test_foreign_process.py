"""A process of an installed package: what its parts are worth here, and that the ordinary commands work with it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from difflab.commands.composing import compose_and_validate
from difflab.config.axes import PREDICTIONS
from difflab.config.model import ModelConfig
from difflab.config.schedule import ScheduleConfig
from difflab.config.train import TrainConfig
from difflab.config.validate import validate
from difflab.diffusion.base_process import Process
from difflab.diffusion.build import build_loss, build_process, build_sampler, build_timesteps
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.noise import SampleNoise
from difflab.errors import UserError
from difflab.types import Conditioning, NoiseLevel
from plugin_packages import Packages, packages  # noqa: F401 - a fixture
from rectified_flow_package import install_rectified_flow

FLOW = ["experiment=rectified_flow/shapes32", "diffusion.prediction=flow", "diffusion.weighting=none"]
"""The paper's own regression."""
SAMPLERS = ["flow_euler", "heun", "euler", "ddim", "ancestral", "dpm_solver_pp"]


@pytest.fixture
def config(packages: Packages) -> TrainConfig:  # noqa: F811
    install_rectified_flow(packages)
    return compose_and_validate("train", TrainConfig, FLOW)[0]


def process_of(config: TrainConfig) -> Process:
    return build_process(config.model().diffusion)


def test_its_network_sees_and_regresses_what_its_paper_says(config: TrainConfig) -> None:
    process, t = process_of(config), torch.tensor([0.0, 0.2, 0.9], dtype=torch.float64)
    x0, eps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_t = process.q_sample(x0, t, eps)
    share = t[:, None, None]
    torch.testing.assert_close(process.network_input(x_t, t), (1 - share) * x0 + share * eps)
    assert torch.equal(process.target(x0, eps, x_t, t), eps - x0)
    times, weights = build_timesteps(config.model().diffusion, process).sample(t)
    assert (times.tolist(), weights.tolist()) == (t.tolist(), [1.0, 1.0, 1.0])
    loss = build_loss(config.model().diffusion, process)(eps - x0, x0, x_t, t, eps)["loss"]
    assert loss.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_the_data_of_an_exact_flow(config: TrainConfig, name: str) -> None:
    """Of data at one point the flow is straight: Euler finds it in any number of steps, and so do the others."""
    process, point = process_of(config), 0.7

    def network(x: torch.Tensor, time: torch.Tensor, conditioning: Conditioning | None = None) -> torch.Tensor:
        return (x - point) / (time / 1000.0).reshape(-1, 1, 1)

    for steps in (1, 3, 8):
        chosen = compose_and_validate("train", TrainConfig, [*FLOW, f"sampler={name}", f"sampler.steps={steps}"])[0]
        sampler = build_sampler(chosen.model().sampler)
        spaced = sampler.respace(process)
        noise = SampleNoise(range(4), dtype=torch.float64)
        x = noise.randn((2, 3)) * sampler.starting_std(spaced)
        out = sampler(NetworkDenoiser(network, spaced), spaced, x, noise)
        torch.testing.assert_close(out, torch.full_like(out, point), rtol=0, atol=1e-4)


def test_x0_is_regressed_where_that_is_chosen(packages: Packages) -> None:  # noqa: F811
    install_rectified_flow(packages)
    process = process_of(compose_and_validate("train", TrainConfig, FLOW[:1])[0])
    x0, eps = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x_t = process.q_sample(x0, t, eps)
    assert torch.equal(process.target(x0, eps, x_t, t), x0)
    assert torch.equal(process.network_input(x_t, t), x_t)


def test_its_sampler_is_eulers_method_in_t(config: TrainConfig) -> None:
    """Beside the two lines of the paper, on a velocity that is no straight flow."""
    process = process_of(config)

    def velocity(x: torch.Tensor, time: torch.Tensor, conditioning: Conditioning | None = None) -> torch.Tensor:
        t = (time / 1000.0).reshape(-1, 1, 1).to(x)
        return torch.sin(3.0 * x) + t * x**2

    def sampled(steps: int, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
        overrides = ["sampler=flow_euler", f"sampler.steps={steps}", f"sampler.shift={shift}"]
        sampler = build_sampler(compose_and_validate("train", TrainConfig, [*FLOW, *overrides])[0].model().sampler)
        noise = SampleNoise(range(4), dtype=torch.float64)
        x = noise.randn((2, 3))
        assert sampler.starting_std(process) == 1.0
        return x, sampler(NetworkDenoiser(velocity, sampler.respace(process)), process, x, noise)

    for steps, shift in ((1, 1.0), (2, 1.0), (7, 1.0), (7, 3.0)):
        x, out = sampled(steps, shift)
        times = [shift * t / (1 + (shift - 1) * t) for t in (1 - i / steps for i in range(steps + 1))]
        for t, following in pairwise(times):
            x = x + (following - t) * velocity(x, torch.full((4,), 1000.0 * t))
        torch.testing.assert_close(out, x, rtol=1e-5, atol=1e-5)


def test_times_can_be_logit_normal(config: TrainConfig) -> None:
    told = compose_and_validate("train", TrainConfig, [*FLOW, "diffusion.times=logit_normal"])[0].model().diffusion
    times, weights = build_timesteps(told, build_process(told)).sample(torch.tensor([0.0, 0.158655, 0.5, 0.841345]))
    torch.testing.assert_close(
        times[1:], torch.tensor([-1.0, 0.0, 1.0]).sigmoid(), rtol=0, atol=1e-5, check_dtype=False
    )
    assert 0.0 < times[0] < 0.01
    assert weights.tolist() == [1.0] * 4


def test_what_it_brought_is_recorded_words_too(config: TrainConfig, packages: Packages) -> None:  # noqa: F811
    assert "flow" in PREDICTIONS
    stored = config.model().plain()
    kinds = {"diffusion": "rectified_flow", "diffusion.prediction": "flow", "sampler": "flow_euler"}
    assert stored["plugins"] == {"difflab-rectified-flow": {"version": "0.1.0", "kinds": kinds}}
    packages.uninstall_all()
    with pytest.raises(
        UserError, match=r"diffusion\.kind='rectified_flow' comes with difflab-rectified-flow 0\.1\.0, which"
    ):
        validate(ModelConfig, stored)


def test_no_levels_are_searched_for_a_sampler_that_takes_no_list(config: TrainConfig) -> None:
    assert not config.model().sampler.takes_a_list
    with pytest.raises(UserError, match="sampler=flow_euler has fixed levels and accepts no list of others"):
        compose_and_validate("schedule", ScheduleConfig, ["run=somewhere", "sampler=flow_euler"])


def test_a_prediction_alone_can_be_foreign(config: TrainConfig, packages: Packages) -> None:  # noqa: F811
    """On a table of difflab's own; its views are all that is needed."""
    overrides = ["experiment=ddpm/shapes32", "diffusion=v_cosine", "diffusion.prediction=flow"]
    ours = compose_and_validate("train", TrainConfig, [*overrides, "diffusion.weighting=min_snr"])[0]
    process = process_of(ours)
    x0, eps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0, 500, 999])
    x_t = process.q_sample(x0, t, eps)
    table = process.table
    assert table is not None
    read = table.predict(process.target(x0, eps, x_t, t), x_t, t)
    torch.testing.assert_close(read.x0, x0)
    torch.testing.assert_close(read.eps, eps)
    assert build_loss(ours.model().diffusion, process)(eps - x0, x0, x_t, t, eps)["loss"].max() == 0.0
    level = table.level(500)
    assert isinstance(level, NoiseLevel)
    torch.testing.assert_close(process.predict_at((eps - x0)[1:2], x_t[1:2], level).x0, x0[1:2])
    stored = ours.model().plain()
    packages.uninstall_all()
    with pytest.raises(
        UserError, match=r"diffusion\.prediction='flow' comes with difflab-rectified-flow 0\.1\.0, which"
    ):
        validate(ModelConfig, stored)

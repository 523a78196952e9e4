"""SR3's process as the unofficial code has it: a training step between two rows, reverse steps, a whole chain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.build import build_loss, build_process, build_timesteps
from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.thresholding import StaticThreshold
from difflab.types import Conditioning, StepContext
from diffusion.fakes import Checked, ReplayedNoise
from golden_fixtures import Fixture, draw, load
from networks.official_networks import build_target, network_keymap, target_and_layout

NAMES = ["sr3-process", "sr3-process-early"]


def config(schedule: dict[str, Any], loss: str = "l1") -> DiscreteDiffusionConfig:
    kind, ends = schedule["schedule"], {"beta_start": schedule["linear_start"], "beta_end": schedule["linear_end"]}
    if kind == "cosine":
        ends = {}
    if kind.startswith("warmup"):
        kind, ends = "warmup", {**ends, "fraction": int(kind.removeprefix("warmup")) / 100}
    return DiscreteDiffusionConfig.model_validate(
        {
            "schedule": {"kind": kind, **ends},
            "timesteps": schedule["n_timestep"],
            "prediction": "eps",
            "variance": "fixed_small",
            "posterior_clip": "floor",
            "time_input": "sqrt_alpha_bar",
            "loss": loss,
            "timestep_sampling": {"kind": "piecewise_uniform", "of": "sqrt_alpha_bar"},
        }
    )


def process_of(schedule: dict[str, Any]) -> GaussianProcess:
    process = build_process(config(schedule))
    assert isinstance(process, GaussianProcess)
    return process


def network_of(fixture: Fixture) -> torch.nn.Module:
    target, layout = target_and_layout(fixture)
    network = build_target(target)
    network.load_state_dict(network_keymap(layout, target).from_official(fixture.state_dict()))
    return network


@pytest.fixture(params=NAMES)
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return load("diffusion", request.param)


def test_a_training_step_at_a_given_level(fixture: Fixture) -> None:
    checked = Checked(fixture)
    schedule, train = fixture.spec["schedule"], fixture.spec["train"]
    process = process_of(schedule)
    hr, sr, noise = (fixture.input(name) for name in ("hr", "sr", "noise"))
    u = (train["t"] - 1 + torch.tensor(train["uniform_fraction"], dtype=torch.float64)) / len(process)
    t, weight = build_timesteps(config(schedule), process).sample(u)
    assert weight.tolist() == [1.0, 1.0]
    x_t = process.q_sample(hr, t, noise)
    checked("sqrt_alpha_bar_levels", process.network_time(t))
    # The code takes 1 - level^2 in float32, which near the clean image has lost digits that ours has.
    checked("x_noisy", x_t, rel=None if train["t"] > 1 else 1e-4)
    level = process.network_time(t).reshape(-1, 1, 1, 1)
    checked("x_noisy", level * hr + (1 - level**2).sqrt() * noise)
    with torch.inference_mode():
        output = network_of(fixture)(x_t, process.network_time(t), Conditioning(concat=sr))
    for ours, theirs in (("l1", "l1"), ("mse", "l2")):
        loss = build_loss(config(schedule, ours), process)(output, hr, x_t, t, noise)["loss"].mean()
        checked(f"loss_{theirs}_per_value", loss)
        checked(f"loss_{theirs}_sum", loss * hr.numel())


def test_reverse_steps(fixture: Fixture) -> None:
    checked = Checked(fixture)
    process, network = process_of(fixture.spec["schedule"]), network_of(fixture)
    x_t, told = fixture.input("x_t"), Conditioning(concat=fixture.input("sr"))
    for t in fixture.spec["sample_t"]:
        step = StepContext(0, 1, process.level(t), process.level(t - 1), table_index=t)
        with torch.inference_mode():
            clipped = NetworkDenoiser(network, process, told, threshold=StaticThreshold())(x_t, step)
            mean, _, log_variance = process.reverse_mean_variance(clipped, x_t, t)
            checked(f"p_mean_t{t}", mean)
            checked(f"log_variance_t{t}", log_variance)
            noise = fixture.input("noise")
            checked(f"p_sample_t{t}", mean + (t > 0) * (0.5 * log_variance).exp() * noise)
            if f"p_mean_noclip_t{t}" in fixture.arrays:
                plain = NetworkDenoiser(network, process, told)(x_t, step)
                checked(f"p_mean_noclip_t{t}", process.reverse_mean_variance(plain, x_t, t)[0])


def drawn(fixture: Fixture, name: str) -> Tensor:
    return torch.as_tensor(draw(fixture.spec["seed"], f"input:{name}", (2, 3, 16, 16), "input"))


class LoopNoise(ReplayedNoise):
    """The i-th noise of a chain."""

    def __init__(self, fixture: Fixture) -> None:
        super().__init__(fixture.spec["seed"])
        self.fixture = fixture

    def randn_like(self, x: Tensor) -> Tensor:
        self.calls += 1
        return drawn(self.fixture, f"loop_noise_{self.calls - 1}")


def test_a_whole_chain_on_another_schedule(fixture: Fixture) -> None:
    checked = Checked(fixture)
    process = process_of(fixture.spec["loop_schedule"])
    told = Conditioning(concat=fixture.input("sr"))
    denoiser = NetworkDenoiser(network_of(fixture), process, told, threshold=StaticThreshold())
    noise = LoopNoise(fixture)
    with torch.inference_mode():
        out = AncestralSampler()(denoiser, process, drawn(fixture, "loop_start"), noise)
    checked("loop_stacked_last_batch", out)
    checked("loop_noise_calls", noise.calls)

"""The order inside a step, batching of guidance, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance.base import Guidance, NetworkInput
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.schedules import linear_betas
from difflab.diffusion.thresholding import StaticThreshold
from difflab.types import Conditioning, Denoised, StepContext
from diffusion.fakes import context_at

PROCESS = GaussianProcess(linear_betas(20), prediction="x0")


class Recorder:
    """A network that predicts x0 = x + the sum of its vector, and keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, ...], Tensor]] = []

    def __call__(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        self.calls.append((tuple(x.shape), time))
        if conditioning is None or conditioning.vector is None:
            return x
        return x + conditioning.vector.sum(dim=1).reshape(-1, 1, 1, 1)


class Doubling(Guidance):
    """Classifier-free guidance with a null of zeros, written for this test."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def prepare(self, x: Tensor, conditioning: Conditioning | None, step: StepContext) -> list[NetworkInput]:
        assert conditioning is not None
        return [NetworkInput(x, conditioning), NetworkInput(x, conditioning.map(torch.zeros_like))]

    def combine(self, predictions: Sequence[Denoised], step: StepContext) -> Denoised:
        told, null = predictions
        return Denoised(null.x0 + self.scale * (told.x0 - null.x0), null.eps + self.scale * (told.eps - null.eps))


def test_guidance_runs_in_one_call_and_composes() -> None:
    x, vector = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([[1.0], [2.0]])
    step = context_at(PROCESS, 7)
    network = Recorder()
    once = NetworkDenoiser(network, PROCESS, Conditioning(vector=vector), guidance=[Doubling(3.0)])(x, step)
    torch.testing.assert_close(once.x0, x + 3 * vector.reshape(-1, 1, 1, 1))
    assert [shape for shape, _ in network.calls] == [(4, 3, 4, 4)]
    assert network.calls[0][1].tolist() == [7.0] * 4
    assert network.calls[0][1].dtype == torch.float32
    twice = NetworkDenoiser(network, PROCESS, Conditioning(vector=vector), guidance=[Doubling(3.0), Doubling(0.5)])(
        x, step
    )
    torch.testing.assert_close(twice.x0, x + 1.5 * vector.reshape(-1, 1, 1, 1))
    assert network.calls[-1][0] == (8, 3, 4, 4)


def test_inputs_can_go_through_the_network_one_after_the_other() -> None:
    x, told = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), Conditioning(vector=torch.ones(2, 1))
    step, network = context_at(PROCESS, 7), Recorder()
    together = NetworkDenoiser(network, PROCESS, told, guidance=[Doubling(3.0)])
    apart = NetworkDenoiser(network, PROCESS, told, guidance=[Doubling(3.0)], one_batch=False)
    expected, actual = together(x, step), apart(x, step)
    assert torch.equal(expected.x0, actual.x0)
    assert torch.equal(expected.eps, actual.eps)
    assert [len(time) for _, time in network.calls] == [4, 2, 2]
    assert not apart.on(PROCESS).one_batch


def test_another_denoiser_is_asked_for_its_own_inputs_alone() -> None:
    """A guidance in front of it sees no input of the reference; the results come back in the order asked."""
    x, step = torch.ones(2, 1, 2, 2), context_at(PROCESS, 7)
    told = Conditioning(vector=torch.tensor([[1.0], [2.0]]))
    asked: list[StepContext] = []

    def reference(x: Tensor, step: StepContext) -> Denoised:
        asked.append(step)
        return Denoised(100 * x, 200 * x)

    class Besides(Guidance):
        def prepare(self, x: Tensor, conditioning: Conditioning | None, step: StepContext) -> list[NetworkInput]:
            return [NetworkInput(x, denoiser=reference), NetworkInput(x, conditioning)]

        def combine(self, predictions: Sequence[Denoised], step: StepContext) -> Denoised:
            other, own = predictions
            return Denoised(other.x0 + own.x0, other.eps + own.eps)

    network = Recorder()
    denoised = NetworkDenoiser(network, PROCESS, told, guidance=[Besides(), Doubling(3.0)])(x, step)
    assert asked == [step]
    assert [len(time) for _, time in network.calls] == [4]
    assert denoised.x0[:, 0, 0, 0].tolist() == [100.0 + 1 + 3 * 1, 100.0 + 1 + 3 * 2]


def test_the_threshold_clips_x0_and_eps_follows() -> None:
    x = torch.full((1, 1, 2, 2), 5.0)
    step = context_at(PROCESS, 9)
    denoised = NetworkDenoiser(Recorder(), PROCESS, threshold=StaticThreshold())(x, step)
    assert denoised.x0.flatten().tolist() == [1.0, 1.0, 1.0, 1.0]
    again = step.level.alpha * denoised.x0 + step.level.sigma * denoised.eps
    torch.testing.assert_close(again, x)
    kept = NetworkDenoiser(Recorder(), PROCESS, threshold=StaticThreshold(), rederive_eps=False)(x, step)
    torch.testing.assert_close(kept.eps, PROCESS.eps_from_x0(x, x, 9))


def test_a_denoiser_on_another_process_is_refused() -> None:
    sampler = AncestralSampler(steps=5)
    spaced = sampler.respace(PROCESS)
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"build the denoiser with sampler.respace\(process\)"):
        NetworkDenoiser(Recorder(), PROCESS)(x, context_at(spaced, 3))
    moved = NetworkDenoiser(Recorder(), PROCESS, threshold=StaticThreshold()).on(spaced)
    assert moved(x, context_at(spaced, 3)).x0.shape == x.shape


def test_a_step_between_rows_is_predicted_from_its_level() -> None:
    x = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    denoiser = NetworkDenoiser(Recorder(), PROCESS)
    level = PROCESS.level(3)
    on_row = denoiser(x, context_at(PROCESS, 3))
    at_level = denoiser(x, StepContext(0, 1, level, level))
    torch.testing.assert_close(at_level.x0, on_row.x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(at_level.eps, on_row.eps, rtol=1e-5, atol=1e-5)


def test_a_half_conditioned_batch_is_refused() -> None:
    class Half(Doubling):
        def prepare(self, x: Tensor, conditioning: Conditioning | None, step: StepContext) -> list[NetworkInput]:
            return [NetworkInput(x, conditioning), NetworkInput(x)]

    denoiser = NetworkDenoiser(Recorder(), PROCESS, Conditioning(vector=torch.ones(1, 1)), guidance=[Half(2.0)])
    with pytest.raises(ValueError, match="some inputs with conditioning and some without"):
        denoiser(torch.zeros(1, 1, 2, 2), context_at(PROCESS, 0))


def test_low_precision_output_is_worked_on_in_the_precision_of_x() -> None:
    def network(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        return x.bfloat16()

    denoised = NetworkDenoiser(network, PROCESS)(torch.ones(1, 1, 2, 2), context_at(PROCESS, 3))
    assert denoised.x0.dtype == denoised.eps.dtype == torch.float32

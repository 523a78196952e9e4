"""How guidance composes: inputs, predictions and shifts."""

from __future__ import annotations

import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance.base import Guidance, NetworkInput, combine_all, prepare_all, shift_eps, shift_mean
from difflab.diffusion.guidance.classifier import ClassifierGuidance
from difflab.diffusion.guidance.classifier_free import ClassifierFree
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import linear_betas
from difflab.types import Conditioning, Denoised, NoiseLevel, StepContext
from diffusion.fakes import context_at

PROCESS = GaussianProcess(linear_betas(20))
STEP = context_at(PROCESS, 7)
X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
TOLD, NULL = Conditioning(vector=torch.ones(2, 1)), Conditioning(vector=torch.zeros(2, 1))


def log_prob(x: Tensor, level: NoiseLevel) -> Tensor:
    return x.sum(dim=1)


def test_the_base_does_nothing() -> None:
    guidance, denoised = Guidance(), Denoised(X, X)
    assert guidance.prepare(X, TOLD, STEP) == [NetworkInput(X, TOLD)]
    assert guidance.combine([denoised], STEP) is denoised
    assert guidance.shift_mean(X, X, X, STEP) is X
    assert guidance.shift_eps(X, X, STEP) is X


def test_every_guidance_prepares_what_the_one_before_it_asked_for() -> None:
    pair = [ClassifierFree(3.0, null=NULL), ClassifierFree(2.0, null=NULL)]
    inputs, counts = prepare_all(pair, X, TOLD, STEP)
    assert [one.conditioning for one in inputs] == [TOLD, NULL, NULL, NULL]
    assert counts == [[2], [2, 2]]
    values = [5.0, 1.0, 2.0, 2.0]
    predictions = [Denoised(torch.full((2, 3), value), torch.full((2, 3), -value)) for value in values]
    combined = combine_all(pair, predictions, counts, STEP)
    expected = 2.0 + 3.0 * ((1.0 + 2.0 * 4.0) - 2.0)
    assert torch.equal(combined.x0, torch.full((2, 3), expected))
    assert torch.equal(combined.eps, torch.full((2, 3), -expected))


def test_the_question_to_a_reference_is_not_asked_again() -> None:
    def reference(x: Tensor, step: StepContext) -> Denoised:
        return Denoised(x, x)

    pair = [ClassifierFree(3.0, reference=reference), ClassifierFree(2.0, null=NULL)]
    inputs, counts = prepare_all(pair, X, TOLD, STEP)
    assert [one.denoiser for one in inputs] == [None, None, reference]
    assert counts == [[2], [2, 0]]
    predictions = [Denoised(torch.full((2, 3), value), X) for value in (5.0, 1.0, 2.0)]
    assert torch.equal(combine_all(pair, predictions, counts, STEP).x0, torch.full((2, 3), 2.0 + 3.0 * (9.0 - 2.0)))


def test_shifts_add_up_in_order_and_strangers_have_none() -> None:
    def network(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        return x

    twice = [ClassifierGuidance(log_prob, 2.0), Guidance(), ClassifierGuidance(log_prob, 0.5)]
    denoiser = NetworkDenoiser(network, PROCESS, guidance=twice)
    variance = torch.tensor(0.25)
    torch.testing.assert_close(shift_mean(denoiser, X, variance, X, STEP), X + 2.5 * 0.25)
    torch.testing.assert_close(shift_eps(denoiser, X, X, STEP), X - 2.5 * STEP.level.sigma)

    def stranger(x: Tensor, step: StepContext) -> Denoised:
        return Denoised(x, x)

    assert shift_mean(stranger, X, variance, X, STEP) is X
    assert shift_eps(stranger, X, X, STEP) is X

"""Classifier guidance against the official code, where its gradient is taken, and from within inference mode."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance.base import LogProb
from difflab.diffusion.guidance.classifier import ClassifierGuidance
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.ancestral import AncestralSampler
from difflab.diffusion.samplers.base import StridedSampler
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.diffusion.schedules import linear_betas, zero_terminal_snr
from difflab.diffusion.thresholding import StaticThreshold
from difflab.types import Conditioning, NoiseLevel, StepContext
from diffusion.fakes import VARIANCES, Checked, FakeNetwork, context_at, official_process
from golden_fixtures import Fixture, load

Classify = Callable[[Tensor], Tensor]
X = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
PROCESS = GaussianProcess(linear_betas(1000))


class Rows:
    """Noise for one row of a batch."""

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise

    def randn_like(self, x: Tensor) -> Tensor:
        return self.noise


def linear_in(gradient: Tensor) -> LogProb:
    """A log p whose gradient is the given one everywhere."""
    return lambda x, level: (x * gradient).flatten(1).sum(dim=1)


def sine(fixture: Fixture, process: GaussianProcess) -> LogProb:
    """The log p whose gradient is the fixture's c sin x + d cos(t / 100)."""
    spec = fixture.spec["fake_grad"]

    def log_prob(x: Tensor, level: NoiseLevel) -> Tensor:
        along = spec["d"] * torch.cos(torch.tensor(process.time_at(level)) / 100)
        return (along * x - spec["c"] * torch.cos(x)).flatten(1).sum(dim=1)

    return log_prob


@pytest.mark.parametrize("name", ["classifier-guidance", "classifier-guidance-respaced"])
def test_steps_are_those_of_the_official_code(name: str) -> None:
    fixture = load("diffusion", name)
    checked = Checked(fixture)
    grad, scale = fixture.input("grad"), fixture.spec["fake_grad"]["scale"]

    def given(i: int, process: GaussianProcess) -> ClassifierGuidance:
        return ClassifierGuidance(linear_in(grad[i : i + 1]))

    def made(i: int, process: GaussianProcess) -> ClassifierGuidance:
        return ClassifierGuidance(sine(fixture, process), scale)

    for variance in VARIANCES:
        checked(f"condition_mean.{variance}", _rows(fixture, variance, given, _shifted_mean))
    for variance in ("FIXED_LARGE", "LEARNED_RANGE"):
        checked(f"condition_score.{variance}.pred_xstart", _rows(fixture, variance, given, _shifted_x0))
        checked(f"condition_score.{variance}.mean", _rows(fixture, variance, given, _mean_of_shifted_x0))
        checked(f"p_sample.{variance}", _rows(fixture, variance, given, AncestralSampler()))
        checked(f"p_sample_fn.{variance}", _rows(fixture, variance, made, AncestralSampler()))
        for eta in fixture.spec["etas"]:
            checked(f"ddim.{variance}.eta{eta}", _rows(fixture, variance, given, DDIMSampler(eta=eta)))
    logits, gradient = _classifier(fixture)
    checked("classifier.logits", logits)
    checked("classifier.grad_scaled", gradient)
    checked.assert_all()


def _rows(fixture: Fixture, variance: str, guidance_of: object, what: object) -> Tensor:
    """`what` of every row of the fixture's batch, whose rows stand at different steps."""
    assert callable(guidance_of)
    process = official_process(fixture.spec["process"], "EPSILON", variance)
    network = FakeNetwork(fixture, "EPSILON", variance)
    x, noise, rows = fixture.input("x"), fixture.input("noise"), fixture.input("t").tolist()
    made = []
    for i, row in enumerate(rows):
        guidance = guidance_of(i, process)
        denoiser = NetworkDenoiser(network, process, guidance=[guidance], threshold=StaticThreshold())
        one, step = x[i : i + 1], context_at(process, row)
        if isinstance(what, StridedSampler):
            made.append(what.step(denoiser, process, one, step, Rows(noise[i : i + 1]))[0])
        else:
            assert callable(what)
            made.append(what(denoiser, process, one, step, guidance))
    return torch.cat(made)


def _shifted_mean(
    denoiser: NetworkDenoiser, process: GaussianProcess, x: Tensor, step: StepContext, guidance: ClassifierGuidance
) -> Tensor:
    assert step.table_index is not None
    mean, variance, _ = process.reverse_mean_variance(denoiser(x, step), x, step.table_index)
    return guidance.shift_mean(mean, variance, x, step)


def _shifted_x0(
    denoiser: NetworkDenoiser, process: GaussianProcess, x: Tensor, step: StepContext, guidance: ClassifierGuidance
) -> Tensor:
    assert step.table_index is not None
    return process.x0_from_eps(guidance.shift_eps(denoiser(x, step).eps, x, step), x, step.table_index)


def _mean_of_shifted_x0(
    denoiser: NetworkDenoiser, process: GaussianProcess, x: Tensor, step: StepContext, guidance: ClassifierGuidance
) -> Tensor:
    assert step.table_index is not None
    x0 = _shifted_x0(denoiser, process, x, step, guidance)
    return process.q_posterior_mean_variance(x0, x, step.table_index)[0]


def _classifier(fixture: Fixture) -> tuple[Tensor, Tensor]:
    """The fixture's small classifier: its logits, and the scaled gradient as what it adds to a mean of variance 1."""
    process = official_process(fixture.spec["process"])
    weight, y, x = fixture.input("W"), fixture.input("y"), fixture.input("x")
    logits, gradients = [], []
    for i, row in enumerate(fixture.input("t").tolist()):

        def classify(x: Tensor, row: int = row) -> Tensor:
            return torch.tanh(x).flatten(1) @ weight.flatten(1).T * (1 + row / 1000)

        def log_prob(x: Tensor, level: NoiseLevel, i: int = i, classify: Classify = classify) -> Tensor:
            return torch.log_softmax(classify(x), dim=1)[:, y[i]]

        one, step = x[i : i + 1], context_at(process, row)
        logits.append(classify(one))
        guidance = ClassifierGuidance(log_prob, fixture.spec["classifier_scale"])
        gradients.append(guidance.shift_mean(torch.zeros_like(one), torch.tensor(1.0), one, step))
    return torch.cat(logits), torch.cat(gradients)


def quadratic(asked: list[tuple[Tensor, NoiseLevel]]) -> LogProb:
    """log p = -|x|^2 / 2, with gradient -x; keeps what it was asked."""

    def log_prob(x: Tensor, level: NoiseLevel) -> Tensor:
        asked.append((x.detach().clone(), level))
        return -0.5 * x.square().flatten(1).sum(dim=1)

    return log_prob


@pytest.mark.parametrize(("row", "told"), [(500, 499), (1, 0), (0, 0)])
def test_the_gradient_at_the_mean_is_told_the_level_of_the_mean(row: int, told: int) -> None:
    asked: list[tuple[Tensor, NoiseLevel]] = []
    step, mean = context_at(PROCESS, row), X + 1
    guidance = ClassifierGuidance(quadratic(asked), 2.0, "mean")
    torch.testing.assert_close(guidance.shift_mean(mean, torch.tensor(0.3), X, step), mean - 2.0 * 0.3 * mean)
    at, level = asked.pop()
    assert torch.equal(at, mean)
    assert level == PROCESS.level(told)
    guidance.shift_eps(X, X, step)
    assert asked.pop()[1] == step.level, "a DDIM step follows the score at x_t"


def test_the_gradient_as_released_is_taken_at_x_t() -> None:
    asked: list[tuple[Tensor, NoiseLevel]] = []
    step = context_at(PROCESS, 500)
    guidance = ClassifierGuidance(quadratic(asked), 2.0)
    torch.testing.assert_close(guidance.shift_mean(X + 1, torch.tensor(0.3), X, step), X + 1 - 2.0 * 0.3 * X)
    torch.testing.assert_close(guidance.shift_eps(X + 1, X, step), X + 1 + step.level.sigma * 2.0 * X)
    assert all(torch.equal(at, X) and level == step.level for at, level in asked)
    assert len(asked) == 2


def test_at_scale_0_the_classifier_is_not_asked() -> None:
    asked: list[tuple[Tensor, NoiseLevel]] = []
    guidance, step = ClassifierGuidance(quadratic(asked), 0.0), context_at(PROCESS, 500)
    assert guidance.shift_mean(X, X, X, step) is X
    assert guidance.shift_eps(X, X, step) is X
    assert not asked


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_it_works_in_every_gradient_mode_and_leaves_no_graph(mode: type[AbstractContextManager[None]]) -> None:
    torch.manual_seed(0)
    classifier, step = torch.nn.Linear(4, 5), context_at(PROCESS, 500)

    def log_prob(x: Tensor, level: NoiseLevel) -> Tensor:
        return torch.log_softmax(classifier(x.flatten(1)), dim=1)[:, 1]

    with mode():
        x = X.clone()
        shifted = ClassifierGuidance(log_prob, 3.0).shift_eps(x, x, step)
        assert not shifted.requires_grad
    probabilities = torch.softmax(classifier(X.flatten(1)), dim=1)
    gradient = (classifier.weight[1] - probabilities @ classifier.weight).detach().reshape(X.shape)
    torch.testing.assert_close(shifted.clone(), X - 3.0 * step.level.sigma * gradient)
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_rows_do_not_see_each_other() -> None:
    step = context_at(PROCESS, 500)
    guidance = ClassifierGuidance(quadratic([]))
    together = guidance.shift_eps(X, X, step)
    apart = torch.cat([guidance.shift_eps(X[i : i + 1], X[i : i + 1], step) for i in range(3)])
    assert torch.equal(together, apart)


def test_a_log_prob_of_another_shape_is_a_bug() -> None:
    guidance = ClassifierGuidance(lambda x, level: x.flatten(1))
    with pytest.raises(AssertionError, match="one number per row"):
        guidance.shift_eps(X, X, context_at(PROCESS, 500))


def test_pure_noise_leads_to_no_class() -> None:
    """DDIM from a table that ends without signal: its first step has no score to be led by, the others have."""
    sampler = DDIMSampler(steps=4, spacing="trailing")
    process = sampler.respace(GaussianProcess(zero_terminal_snr(linear_betas(100)), prediction="v"))

    def network(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        return 0.1 * x

    def drawn(*guidance: ClassifierGuidance) -> list[Tensor]:
        seen: list[Tensor] = []
        denoiser = NetworkDenoiser(network, process, guidance=guidance)
        sampler(denoiser, process, X, SampleNoise(range(3)), lambda step, x, denoised: seen.append(x))
        return seen

    led, free = drawn(ClassifierGuidance(linear_in(torch.ones(2, 2)), 2.0)), drawn()
    assert torch.equal(led[0], free[0])
    assert torch.isfinite(torch.stack(led)).all()
    assert (led[1] > free[1]).all()


@pytest.mark.parametrize(("low", "high", "acts"), [(0.0, 10.0, True), (10.0, 20.0, False), (0.0, 0.5, False)])
def test_it_acts_within_its_interval_alone(low: float, high: float, acts: bool) -> None:
    row = int(abs(PROCESS.sigmas - 1.0).argmin())
    step = context_at(PROCESS, row)
    guidance = ClassifierGuidance(linear_in(torch.ones(1, 2, 2)), 2.0, interval=(low, high))
    moved = (
        not torch.equal(guidance.shift_eps(X, X, step), X),
        not torch.equal(guidance.shift_mean(X, torch.ones(1), X, step), X),
    )
    assert moved == (acts, acts)


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"interval=\[2.0, 1.0\] must be \[low, high\]"):
        ClassifierGuidance(linear_in(X), interval=(2.0, 1.0))

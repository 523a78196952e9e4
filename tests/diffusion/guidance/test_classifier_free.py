"""Classifier-free guidance: the conventions of the official codes, and its options by their definitions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.diffusion.denoiser import NetworkDenoiser
from difflab.diffusion.guidance.classifier_free import ClassifierFree
from difflab.diffusion.levels.distributions import cfg_log_snr
from difflab.diffusion.predictions import Previous, PreviousDenoised, prediction_of
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import linear_betas
from difflab.types import Conditioning, Denoised, NoiseLevel, StepContext
from diffusion.fakes import Checked, Mixture, context_at
from golden_fixtures import Fixture, load

PROCESS = GaussianProcess(linear_betas(1000))
STEP = context_at(PROCESS, 500)
TOLD, NULL = Conditioning(vector=torch.ones(2, 1)), Conditioning(vector=torch.zeros(2, 1))


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or (2, 3, 4, 4), generator=torch.Generator().manual_seed(seed))


X = drawn(0)


def at(eps: Tensor, process: GaussianProcess = PROCESS) -> Denoised:
    """The prediction of eps for X at row 500."""
    return Denoised(process.x0_from_eps(eps, X, 500), eps)


STRONG, WEAK = at(drawn(1)), at(drawn(2))


def test_conventions_of_the_official_codes() -> None:
    """(1 + w) cond - w uncond; uncond + s (cond - uncond); lerp(uncond, cond, g): one formula, s = g = 1 + w."""
    fixture = load("diffusion", "cfg-conventions")
    checked = Checked(fixture)
    told, null = (Denoised(fixture.input(f"eps_{name}"), fixture.input(f"eps_{name}")) for name in ("cond", "uncond"))

    def eps(scale: float) -> Tensor:
        guided = guide(ClassifierFree(scale, null=NULL), told, null)
        assert torch.equal(guided.eps, guided.x0), "x0 is guided as eps is"
        return guided.eps

    for w in fixture.spec["w"]:
        checked(f"paper.w{w}", eps(1 + w))
    for s in fixture.spec["s"]:
        checked(f"scale.s{s}", eps(s))
        checked(f"dit_first3.s{s}", in_channels(fixture, s, 3))
        checked(f"all_eps_channels.s{s}", in_channels(fixture, s, 4))
    for g in fixture.spec["g"]:
        checked(f"lerp.g{g}", eps(g))
    check_continuous_process(fixture, checked)
    checked.assert_all()


def guide(guidance: ClassifierFree, told: Denoised, null: Denoised) -> Denoised:
    """What is made of the predictions that it asks for; 3 rows of x."""
    asked = guidance.prepare(X, TOLD, STEP)
    return guidance.combine([told if one.conditioning is TOLD else null for one in asked], STEP)


def in_channels(fixture: Fixture, scale: float, channels: int) -> Tensor:
    """DiT's output, [cond; uncond] on top of each other: both halves guided alike, each with its own other channels."""
    out = fixture.input("model_out")
    eps, values = out[:, :4], out[:, 4:]
    halves = [Denoised(eps[rows], eps[rows], values[rows]) for rows in (slice(2), slice(2, 4))]
    guided = guide(ClassifierFree(scale, null=NULL, channels=channels), *halves)
    assert guided.log_variance is halves[0].log_variance
    below = torch.cat([guided.eps[:, :channels], eps[2:, channels:], values[2:]], dim=1)
    return torch.cat([torch.cat([guided.eps, values[:2]], dim=1), below])


def check_continuous_process(fixture: Fixture, checked: Checked) -> None:
    """The paper's log-SNR schedule, and its step as one of a process of two rows with a learned range at v."""
    spec = fixture.spec["lambda"]
    log_snr = cfg_log_snr(torch.linspace(0, 1, spec["n"], dtype=torch.float64), spec["min"], spec["max"])
    checked("lambda_u", log_snr)
    checked("alpha2", torch.sigmoid(log_snr))
    checked("sigma2", torch.sigmoid(-log_snr))
    noisy, clean = (float(torch.sigmoid(torch.tensor(spec[name]).double())) for name in ("step_from", "step_to"))
    process = GaussianProcess([1 - clean, 1 - noisy / clean], prediction="x0", variance="learned_range")
    z, xhat = fixture.input("z").double(), fixture.input("xhat").double()
    values = torch.full_like(xhat, 2 * spec["v"] - 1)
    denoised = process.predict(torch.cat([xhat, values], dim=1), z, 1)
    mean, variance, _ = process.reverse_mean_variance(denoised, z, 1)
    checked("step.mean", mean)
    checked("step.variance_small", process.posterior_variance[1])
    checked("step.variance_large", process.betas[1])
    checked("step.variance", variance.flatten()[0])


def test_a_reference_as_edm2_leads_away_from_it() -> None:
    """Autoguidance: D_ref + g (D - D_ref), the networks being exact denoisers of two mixtures."""
    fixture = load("diffusion", "edm2-guided-sampler")
    x = fixture.input("x").double()
    main, other = Mixture(fixture.spec["mixture"]), Mixture(fixture.spec["mixture_ref"])
    for label in fixture.spec["sigmas"]:
        sigma = float(torch.tensor(label, dtype=torch.float32))  # as the official code passes it on
        level = NoiseLevel(1.0, sigma)
        step = StepContext(0, 1, level, level)

        def denoised(network: Mixture, sigma: float = sigma) -> Denoised:
            x0 = network.denoise(x, sigma)
            return Denoised(x0, (x - x0) / sigma)

        def reference(x: Tensor, step: StepContext) -> Denoised:
            raise AssertionError("the denoiser asks it, not the guidance")

        for g in fixture.spec["lerp"]:
            guidance = ClassifierFree(g, reference=reference)
            asked = guidance.prepare(x, None, step)
            made = [denoised(main) if one.denoiser is None else denoised(other) for one in asked]
            fixture.check(f"lerp.sigma{label}.g{g}", guidance.combine(made, step).x0)


def test_a_reference_is_asked_through_the_denoiser() -> None:
    def network(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        return STRONG.eps

    def reference(x: Tensor, step: StepContext) -> Denoised:
        assert torch.equal(x, X)
        assert step is STEP
        return WEAK

    guided = NetworkDenoiser(network, PROCESS, guidance=[ClassifierFree(2.1, reference=reference)])(X, STEP)
    torch.testing.assert_close(guided.eps, torch.lerp(WEAK.eps, STRONG.eps, 2.1))
    torch.testing.assert_close(guided.x0, torch.lerp(WEAK.x0, STRONG.x0, 2.1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scale": 3.0}, [TOLD, NULL]),
        ({"scale": 1.0}, [TOLD]),
        ({"scale": 1.0, "rescale": 0.7, "channels": 2}, [TOLD]),
        ({"scale": 0.0}, [NULL]),
        ({"scale": 0.0, "rescale": 0.7}, [TOLD, NULL]),
        ({"scale": 0.0, "channels": 2}, [TOLD, NULL]),
        ({"scale": -1.0}, [TOLD, NULL]),
    ],
)
def test_only_what_is_needed_is_asked(options: dict[str, Any], expected: list[Conditioning]) -> None:
    asked = ClassifierFree(null=NULL, **options).prepare(X, TOLD, STEP)
    assert [one.conditioning for one in asked] == expected
    assert all(one.x is X and one.denoiser is None for one in asked)


def test_the_interval_is_open_below_and_closed_above() -> None:
    noise = STEP.level.sigma / STEP.level.alpha

    def acts(low: float, high: float, step: StepContext = STEP) -> bool:
        return len(ClassifierFree(3.0, null=NULL, interval=(low, high)).prepare(X, TOLD, step)) == 2

    assert acts(noise / 2, noise)
    assert acts(0.0, 2 * noise)
    assert not acts(noise, 2 * noise)
    assert not acts(0.0, noise * 0.999)
    pure = StepContext(0, 1, NoiseLevel(0.0, 1.0), STEP.level)
    assert not acts(0.0, 1e9, pure)
    outside = ClassifierFree(0.0, null=NULL, interval=(noise, 2 * noise))
    assert [one.conditioning for one in outside.prepare(X, TOLD, STEP)] == [TOLD]


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("phi", [0.7, 1.0])
def test_rescale_is_that_of_the_paper_in_the_space_of_the_network(prediction: str, phi: float) -> None:
    guided = ClassifierFree(5.0, null=NULL, rescale=phi, prediction=prediction_of(prediction)).combine(
        [STRONG, WEAK], STEP
    )
    alpha, sigma = STEP.level.alpha, STEP.level.sigma

    def predicted(one: Denoised) -> Tensor:
        return {"eps": one.eps, "x0": one.x0, "v": alpha * one.eps - sigma * one.x0}[prediction]

    strong, weak = predicted(STRONG), predicted(WEAK)
    cfg = weak + 5.0 * (strong - weak)
    back = cfg * (strong.std(dim=(1, 2, 3), keepdim=True) / cfg.std(dim=(1, 2, 3), keepdim=True))
    torch.testing.assert_close(predicted(guided), phi * back + (1 - phi) * cfg)
    torch.testing.assert_close(alpha * guided.x0 + sigma * guided.eps, X)


def test_rescale_looks_at_the_guided_channels_alone() -> None:
    guided = ClassifierFree(5.0, null=NULL, rescale=1.0, channels=2).combine([STRONG, WEAK], STEP)
    assert torch.equal(guided.eps[:, 2:], STRONG.eps[:, 2:])
    assert torch.equal(guided.x0[:, 2:], STRONG.x0[:, 2:])
    for item in (0, 1):
        assert float(guided.eps[item, :2].std()) == pytest.approx(float(STRONG.eps[item, :2].std()), rel=1e-5)


@pytest.mark.parametrize("channels", [None, 2])
def test_a_predicted_mean_is_guided_too(channels: int | None) -> None:
    strong, weak = (PreviousDenoised(one.x0, one.eps, previous=2 * one.x0 + 0.5 * one.eps) for one in (STRONG, WEAK))
    guided = ClassifierFree(3.0, null=NULL, channels=channels).combine([strong, weak], STEP)
    assert isinstance(guided, PreviousDenoised)
    torch.testing.assert_close(guided.previous, 2 * guided.x0 + 0.5 * guided.eps)
    beside = ClassifierFree(3.0, null=NULL, channels=channels).combine([strong, WEAK], STEP)
    assert type(beside) is Denoised, "a mean that only one of both predicts cannot be guided"


def test_the_variance_is_the_conditional_one() -> None:
    strong, weak = (Denoised(one.x0, one.eps, torch.full_like(X, v)) for one, v in ((STRONG, -1.0), (WEAK, -2.0)))
    for options in ({}, {"rescale": 0.5}, {"channels": 1}):
        guided = ClassifierFree(3.0, null=NULL, **options).combine([strong, weak], STEP)
        assert guided.log_variance is strong.log_variance


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_guidance_of_one_batch_and_of_two_passes_agree(scale: float) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 3, 3, padding=1)

    @torch.no_grad()
    def network(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        assert conditioning is not None
        assert conditioning.vector is not None
        return layer(x) + conditioning.vector[:, :, None, None] + time[:, None, None, None] / 1000

    guidance = [ClassifierFree(scale, null=NULL)]
    one, two = (
        NetworkDenoiser(network, PROCESS, TOLD, guidance=guidance, one_batch=one_batch)(X, STEP)
        for one_batch in (True, False)
    )
    torch.testing.assert_close(one.eps, two.eps, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(one.x0, two.x0, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"scale": 3.0}, "classifier-free guidance of scale 3 needs a null condition or a reference"),
        ({"scale": 0.0}, "scale 0 needs a null condition"),
        ({"scale": 2.0, "null": NULL, "reference": lambda x, step: STRONG}, "not from both"),
        ({"scale": 2.0, "null": NULL, "interval": (2.0, 1.0)}, r"interval=\[2.0, 1.0\] must be \[low, high\]"),
        ({"scale": 2.0, "null": NULL, "interval": (-1.0, 1.0)}, "0 <= low < high"),
        ({"scale": 2.0, "null": NULL, "rescale": 1.5}, r"rescale=1.5 must be in \[0, 1\]"),
        ({"scale": 2.0, "null": NULL, "rescale": math.nan}, "rescale=nan"),
        ({"scale": 2.0, "null": NULL, "rescale": 0.5, "prediction": Previous()}, "not of the mean of x_"),
        ({"scale": 2.0, "null": NULL, "channels": 0}, "channels=0 must be 1 or more"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        ClassifierFree(**options)


def test_more_channels_than_there_are_cannot_be_guided() -> None:
    with pytest.raises(ValueError, match="channels=4 is more than the 3 channels of x"):
        ClassifierFree(2.0, null=NULL, channels=4).combine([STRONG, WEAK], STEP)


def test_a_scale_of_1_needs_nothing_to_lead_away_from() -> None:
    assert ClassifierFree(1.0).combine([STRONG], STEP) is STRONG


def flat(*shape: int, value: float, offset: float = 0.0) -> Denoised:
    """x0 and eps of one value each."""
    return Denoised(torch.full(shape, value + offset), torch.full(shape, value))


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.3])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 1, 1, 1), (2, 1)])
def test_a_flat_prediction_has_no_spread_to_rescale(prediction: str, value: float, shape: tuple[int, ...]) -> None:
    told, weak = flat(*shape, value=value, offset=0.2), flat(*shape, value=0.3 * value)
    options: dict[str, Any] = {"null": NULL, "prediction": prediction_of(prediction)}
    guided = ClassifierFree(3.0, rescale=0.7, **options).combine([told, weak], STEP)
    plain = ClassifierFree(3.0, **options).combine([told, weak], STEP)
    assert torch.equal(guided.x0, plain.x0)
    assert torch.equal(guided.eps, plain.eps)


def test_one_value_up_to_rounding_is_flat() -> None:
    rounded = 0.1 + 1e-8 * drawn(3)
    assert float(rounded.std()) > 0
    told, weak = Denoised(STRONG.x0, STRONG.eps), Denoised(STRONG.x0, (3.0 * STRONG.eps - rounded) / 2.0)
    guided = ClassifierFree(3.0, null=NULL, rescale=1.0).combine([told, weak], STEP)
    assert float(guided.eps.abs().max()) < 1.0


def test_a_flat_item_leaves_the_others_as_they_are() -> None:
    guidance = ClassifierFree(3.0, null=NULL, rescale=0.7)
    alone = guidance.combine([STRONG, WEAK], STEP)
    pair = [Denoised(*(torch.cat([view, torch.zeros(1, 3, 4, 4)]) for view in (a.x0, a.eps))) for a in (STRONG, WEAK)]
    beside = guidance.combine(pair, STEP)
    assert torch.equal(beside.eps[:2], alone.eps)
    assert not beside.eps[2].any()


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="0 <= low < high"):
        ClassifierFree(2.0, null=NULL, interval=(1.0, 1.0))

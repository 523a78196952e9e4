from __future__ import annotations

import math

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from difflab.config.sampler import SamplerConfig
from difflab.diffusion.guidance.config import ClassifierFreeGuidance, ReferenceConfig
from difflab.errors import UserError
from difflab.pipelines.finite import NonFiniteSamplesError, first_broken_weight, named
from difflab.pipelines.guides import guide_of
from difflab.tasks.build import build_model
from pipelines.conftest import UPSAMPLER, configuration
from tiny_runs import CLASSES

GUIDED = [*CLASSES, "conditioning.class_label.drop_rate=0.1", "guidance=classifier_free", "guidance.scale=2"]


def sampler(kind: str, steps: int = 5):
    return TypeAdapter(SamplerConfig).validate_python({"kind": kind, "steps": steps})


class BreaksAt(nn.Module):
    """The network, but from some call on one sample's output has one value that is none."""

    def __init__(self, network: nn.Module, call: int, row: int, value: float) -> None:
        super().__init__()
        self.network, self.call, self.row, self.value = network, call, row, value
        self.calls = 0

    def forward(self, x, time, conditioning=None):
        output = self.network(x, time, conditioning)
        self.calls += 1
        if self.calls > self.call and len(output) > self.row:
            output = output.clone()
            output[self.row, 0, 1, 2] = self.value
        return output


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["ddim", "ancestral", "heun", "dpm_solver_pp", "plms", "euler_ancestral"])
def test_the_samples_and_the_first_step_are_named(pipeline_of, value: float, kind: str) -> None:
    pipeline = pipeline_of(sampler=sampler(kind))
    # Two steps of heun are four calls; the first step of plms is two.
    calls = {"heun": 4, "plms": 3}.get(kind, 2)
    pipeline.last.network = BreaksAt(pipeline.last.network, calls, 1, value)
    with pytest.raises(NonFiniteSamplesError) as caught:
        pipeline([7, 8, 9], 0)
    assert str(caught.value).startswith("sample 8 is not finite from step 3 of ")
    assert caught.value.steps == [0, 3, 0]
    drawn = caught.value.drawn
    assert torch.isfinite(drawn).all()
    assert not drawn[1].any()
    assert drawn[0].any()


def test_of_several_samples_the_first_bad_step_is_named(pipeline_of) -> None:
    pipeline = pipeline_of(sampler=sampler("ddim"))
    pipeline.last.network = BreaksAt(BreaksAt(pipeline.last.network, 3, 0, math.nan), 1, 2, math.inf)
    with pytest.raises(NonFiniteSamplesError, match=r"^samples 4, 6 are not finite from step 2 of 5 on") as caught:
        pipeline.draw([4, 5, 6], 0)
    assert caught.value.steps == [4, 0, 2]


def test_infinity_that_clipping_would_hide_is_noticed(pipeline_of) -> None:
    pipeline = pipeline_of("guidance.threshold=static", sampler=sampler("ddim", 4))
    pipeline.last.network = BreaksAt(pipeline.last.network, 0, 0, math.inf)
    with pytest.raises(NonFiniteSamplesError, match="sample 0 is not finite from step 1 of 4"):
        pipeline([0, 1], 0)


def test_a_guidance_that_overflows_says_to_lower_it(pipeline_of) -> None:
    pipeline = pipeline_of(
        *CLASSES, "conditioning.class_label.drop_rate=0.1", "guidance=classifier_free", "guidance.scale=1e60"
    )
    with pytest.raises(UserError, match="samples 0, 1 are not finite from step 1 of 5 on: lower the scale") as caught:
        pipeline([0, 1], 0)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_said_instead(pipeline_of) -> None:
    pipeline = pipeline_of()
    next(pipeline.last.network.parameters()).data[0] = math.nan
    key = next(name for name, _ in pipeline.last.network.named_parameters())
    with pytest.raises(NonFiniteSamplesError, match=rf"the weights themselves are not finite \(network.{key}\)"):
        pipeline.draw([0], 0)
    assert first_broken_weight([("network", pipeline.last.network)]) == f"network.{key}"


def test_the_weights_of_guides_are_looked_at_too(pipeline_of) -> None:
    reference = build_model(configuration().model())
    guidance = ClassifierFreeGuidance(kind="classifier_free", scale=2.0, reference=ReferenceConfig(run="weak"))
    pipeline = pipeline_of(guidance=guidance, guides={"reference": guide_of(reference, guidance.guides["reference"])})
    next(reference.network.parameters()).data.fill_(math.nan)
    with pytest.raises(NonFiniteSamplesError, match=r"the weights themselves are not finite \(guidance reference\."):
        pipeline.draw([0], 0)


def test_buffers_are_weights_too() -> None:
    module = nn.BatchNorm2d(2)
    assert first_broken_weight([("conditioners", module)]) is None
    module.running_var[1] = math.inf
    assert first_broken_weight([("conditioners", module)]) == "conditioners.running_var"


@pytest.mark.parametrize(
    ("overrides", "autocast", "fix"),
    [
        ([], None, "take more sampler.steps, another sampler, or another checkpoint"),
        ([], torch.bfloat16, "set precision=32-true, take more sampler.steps, or another checkpoint"),
        (GUIDED, None, "lower the scale of the guidance"),
        (GUIDED, torch.bfloat16, "lower the scale of the guidance, or set precision=32-true"),
    ],
)
def test_the_advice_fits_the_drawing(pipeline_of, overrides: list[str], autocast: torch.dtype | None, fix: str) -> None:
    pipeline = pipeline_of(*overrides, autocast=autocast)
    pipeline.last.network = BreaksAt(pipeline.last.network, 0, 0, math.nan)
    with pytest.raises(NonFiniteSamplesError) as caught:
        pipeline.draw([0], 0)
    assert str(caught.value).endswith(f"of 5 on: {fix}")


def test_the_stage_of_a_cascade_is_named(cascade_of) -> None:
    cascade = cascade_of(base=("data.image_size=8",), up=UPSAMPLER)
    first, second = cascade.stages.values()
    whole = first.network
    first.network = BreaksAt(whole, 3, 0, math.nan)
    with pytest.raises(NonFiniteSamplesError, match=r"^pipeline.stages.base: sample 4 is not finite from step 4 of 5"):
        cascade([4], 0)
    first.network = whole
    second.network = BreaksAt(second.network, 0, 0, math.nan)
    with pytest.raises(NonFiniteSamplesError, match=r"^pipeline.stages.up: sample 4 is"):
        cascade.draw([4], 0)


def test_watching_changes_no_bit(pipeline_of, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_of(sampler=sampler("ancestral"))
    watched = pipeline.draw([0, 1], 3)
    monkeypatch.setattr("difflab.pipelines.finite.FiniteWatch.threshold", property(lambda self: self._inner))
    monkeypatch.setattr("difflab.pipelines.finite.FiniteWatch.denoiser", lambda self, denoiser: denoiser)
    assert torch.equal(pipeline.draw([0, 1], 3), watched)


def test_many_samples_are_counted() -> None:
    assert named([3]) == "sample 3 is"
    assert named([3, 5]) == "samples 3, 5 are"
    assert named(range(8)) == "samples 0, 1, 2, 3, 4, 5, 6, 7 are"
    assert named(range(9)) == "samples 0, 1, 2, 3, 4, 5, 6, 7, ... (9 of them) are"
    assert named(range(64)).endswith("7, ... (64 of them) are")


def test_a_step_that_spoils_x_is_the_one_that_is_named(pipeline_of) -> None:
    """Not the next one, whose network only gets it: the shift of a guidance or a hook changes x behind the network."""
    pipeline = pipeline_of(sampler=sampler("ddim"))

    def spoil(step, x, denoised):
        return torch.where(torch.arange(len(x))[:, None, None, None] == 1, math.nan, x) if step.index == 1 else None

    with pytest.raises(NonFiniteSamplesError, match=r"^sample 6 is not finite from step 2 of 5 on"):
        pipeline.draw([5, 6], 0, hook=spoil)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_last_step_counts_too(pipeline_of, value: float) -> None:
    pipeline = pipeline_of(sampler=sampler("ddim"))
    with pytest.raises(NonFiniteSamplesError, match=r"^sample 0 is not finite from step 5 of 5 on"):
        pipeline.draw([0], 0, hook=lambda step, x, _: x + value if step.index == 4 else None)

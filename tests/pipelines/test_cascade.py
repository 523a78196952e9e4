from __future__ import annotations

import pytest
import torch

from difflab.diffusion.samplers import StridedSampler
from difflab.errors import UserError
from difflab.images import to_uint8
from difflab.pipelines.cascade import CascadePipeline, check_stage
from pipelines.conftest import UPSAMPLER

BASE = ("data.image_size=8", "network.attention_resolutions=[4]")
CLASSES = ("conditioning=class",)
WITH_CLASSES = ("conditioning=class_low_res",)


@pytest.fixture
def cascade(pipeline_of) -> CascadePipeline:
    return CascadePipeline({"base": pipeline_of(*BASE, *CLASSES), "upsampler": pipeline_of(*UPSAMPLER, *WITH_CLASSES)})


def test_the_first_stage_draws_what_it_would_draw_alone_and_the_last_enlarges_it(cascade: CascadePipeline) -> None:
    small: list[torch.Tensor] = []
    base, upsampler = cascade.stages["base"], cascade.stages["upsampler"]
    asked = upsampler._asked_for

    def seen(indices, seed, classes, low_res):
        small.append(low_res)
        return asked(indices, seed, classes, low_res)

    upsampler._asked_for = seen
    drawn = cascade([0, 5], 3)
    assert drawn.shape == (2, 3, 16, 16)
    assert torch.equal(small[0], base([0, 5], 3))
    assert drawn.float().std() > 20, "the pictures should not be flat, or this test sees nothing"
    assert (cascade([5], 3)[0].int() - drawn[1].int()).abs().max() <= 1


def test_every_stage_is_told_the_same_classes(cascade: CascadePipeline) -> None:
    labels = cascade.labels([0, 1, 2], seed=0)
    assert labels == cascade.stages["base"].labels([0, 1, 2], seed=0)
    assert torch.equal(cascade([0, 1, 2], 0, classes=labels), cascade([0, 1, 2], 0))
    cascade.check_classes([5])
    with pytest.raises(UserError, match="class 6 is not in 0"):
        cascade.check_classes([6])


def test_stages_have_noise_of_their_own(cascade: CascadePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[torch.Tensor] = []
    draws = StridedSampler.__call__

    def noting(self, denoiser, process, x, noise, hook=None) -> torch.Tensor:
        starts.append(x.flatten()[:64])
        return draws(self, denoiser, process, x, noise, hook)

    monkeypatch.setattr(StridedSampler, "__call__", noting)
    cascade([0], 0)
    assert len(starts) == 2
    assert not torch.equal(*starts)


def test_an_unconditional_stage_is_told_no_class(pipeline_of) -> None:
    cascade = CascadePipeline({"base": pipeline_of(*BASE, *CLASSES), "upsampler": pipeline_of(*UPSAMPLER)})
    assert cascade([0], 0, classes=[3]).shape == (1, 3, 16, 16)
    plain = CascadePipeline({"base": pipeline_of(*BASE), "upsampler": pipeline_of(*UPSAMPLER)})
    assert plain.labels([0], 0) is None
    with pytest.raises(UserError, match="no stage of this cascade has classes"):
        plain.check_classes([0])


def test_the_hook_follows_the_last_stage_and_its_floats_are_rounded_once(cascade: CascadePipeline) -> None:
    steps: list[int] = []
    drawn = cascade.draw([0], 0, hook=lambda step, x, found: steps.append(x.shape[-1]))
    assert steps == [16] * cascade.n_steps
    assert torch.equal(to_uint8(drawn), cascade([0], 0))


def test_stages_that_do_not_fit_are_named(pipeline_of) -> None:
    base, upsampler = pipeline_of(*BASE), pipeline_of(*UPSAMPLER)
    with pytest.raises(UserError, match=r"^pipeline\.stages\.second enlarges nothing: only the first stage draws"):
        CascadePipeline({"first": base, "second": base})
    with pytest.raises(UserError, match=r"second enlarges 8x8 images, the stage before it draws 16x16$"):
        CascadePipeline({"first": pipeline_of(), "second": upsampler})


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ((3, 4, 4), "enlarges 8x8 images, the stage before it draws 4x4"),
        ((3, 16, 16), "enlarges 8x8 images, the stage before it draws 16x16"),
        ((1, 8, 8), "enlarges images of 3 channels, the stage before it draws 1"),
        ((4, 8, 8), "enlarges images of 3 channels, the stage before it draws 4"),
    ],
)
def test_a_stage_takes_what_the_one_before_it_draws(pipeline_of, before: tuple[int, ...], message: str) -> None:
    upsampler = pipeline_of(*UPSAMPLER)
    check_stage("up", (3, 8, 8), upsampler)
    with pytest.raises(UserError, match=rf"^pipeline\.stages\.up {message}$"):
        check_stage("up", before, upsampler)


def test_each_stage_rounds_its_pictures_as_it_is_told(pipeline_of) -> None:
    base, upsampler = pipeline_of(*BASE, rounding="nearest"), pipeline_of(*UPSAMPLER, rounding="truncate")
    cascade = CascadePipeline({"base": base, "up": upsampler})
    assert not torch.equal(base([0, 1], 3), to_uint8(base.draw([0, 1], 3), "truncate"))
    given: list[torch.Tensor] = []
    upsampler.draw, draws = (
        (lambda *a, low_res, **k: given.append(low_res) or draws(*a, low_res=low_res, **k)),
        upsampler.draw,
    )
    drawn = cascade([0, 1], 3)
    assert torch.equal(given[0], base([0, 1], 3))
    assert torch.equal(drawn, to_uint8(cascade.draw([0, 1], 3), "truncate"))


def test_the_record_has_every_stage(cascade: CascadePipeline) -> None:
    record = cascade.record()["pipeline"]
    assert record["kind"] == "cascade"
    assert record["stages"]["upsampler"]["sampler"]["kind"] == "ddim"


def test_a_hook_sees_the_last_stage_alone(pipeline_of) -> None:
    cascade = CascadePipeline({"base": pipeline_of("data.image_size=8"), "up": pipeline_of(*UPSAMPLER)})
    sides: list[int] = []
    cascade.draw([0], 0, hook=lambda step, x, _: sides.append(x.shape[-1]))
    assert sides == [16] * cascade.n_steps

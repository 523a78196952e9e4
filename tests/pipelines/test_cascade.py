from __future__ import annotations

import pytest
import torch

from difflab.diffusion.samplers.base import StridedSampler
from difflab.errors import UserError
from difflab.images import to_uint8
from difflab.pipelines.base import Pipeline, check_stage
from pipelines.conftest import UPSAMPLER

BASE = ("data.image_size=8", "network.attention_resolutions=[4]")
CLASSES = ("conditioning=class",)
WITH_CLASSES = ("conditioning=class_low_res",)


@pytest.fixture
def cascade(cascade_of) -> Pipeline:
    return cascade_of(base=(*BASE, *CLASSES), upsampler=(*UPSAMPLER, *WITH_CLASSES))


def test_the_first_stage_draws_what_it_would_draw_alone_and_the_last_enlarges_its_floats(
    cascade: Pipeline, pipeline_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, object]] = []
    upsampler = cascade.stages["upsampler"]
    call = type(upsampler).__call__

    def noting(self, batch, seed, hook=None):
        told.append(batch)
        return call(self, batch, seed, hook)

    monkeypatch.setattr(type(upsampler), "__call__", noting)
    drawn = cascade([0, 5], 3)
    assert drawn.shape == (2, 3, 16, 16)
    base = pipeline_of(*BASE, *CLASSES).draw([0, 5], 3)
    assert torch.equal(told[1]["low_res"], base)
    assert told[1]["low_res"].dtype == torch.float32, "nothing is rounded on the way"
    assert "image" not in told[1]
    assert drawn.float().std() > 20, "the pictures should not be flat, or this test sees nothing"
    assert (cascade([5], 3)[0].int() - drawn[1].int()).abs().max() <= 1


def test_every_stage_is_told_the_same_classes(cascade: Pipeline, cascade_of, pipeline_of) -> None:
    labels = cascade.request([0, 1, 2], 0)["label"].tolist()
    assert labels == pipeline_of(*BASE, *CLASSES).request([0, 1, 2], 0)["label"].tolist()
    parts = {"base": (*BASE, *CLASSES), "upsampler": (*UPSAMPLER, *WITH_CLASSES)}
    given = cascade_of(**parts, asked={"classes": labels})
    assert torch.equal(given([0, 1, 2], 0), cascade([0, 1, 2], 0))
    with pytest.raises(UserError, match="class 6 is not in 0"):
        cascade_of(**parts, asked={"classes": [6]})


def test_stages_of_other_classes_are_refused(cascade_of) -> None:
    with pytest.raises(
        UserError, match=r"all stages need the same number of classes, but they have: base 6, upsampler 7$"
    ):
        cascade_of(base=(*BASE, *CLASSES), upsampler=(*UPSAMPLER, *WITH_CLASSES, "data.classes=7"))


def test_stages_have_noise_of_their_own(cascade: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[torch.Tensor] = []
    draws = StridedSampler.__call__

    def noting(self, denoiser, process, x, noise, *rest) -> torch.Tensor:
        starts.append(x.flatten()[:64])
        return draws(self, denoiser, process, x, noise, *rest)

    monkeypatch.setattr(StridedSampler, "__call__", noting)
    cascade([0], 0)
    assert len(starts) == 2
    assert not torch.equal(*starts)


def test_an_unconditional_stage_is_told_no_class(cascade_of) -> None:
    cascade = cascade_of(base=(*BASE, *CLASSES), upsampler=UPSAMPLER, asked={"classes": [3]})
    assert cascade([0], 0).shape == (1, 3, 16, 16)
    assert cascade_of(base=BASE, upsampler=UPSAMPLER).request([0], 0).keys() == {"index"}
    with pytest.raises(UserError, match="has no classes"):
        cascade_of(base=BASE, upsampler=UPSAMPLER, asked={"classes": [3]})


def test_the_hook_follows_the_last_stage_and_its_floats_are_rounded_once(cascade: Pipeline) -> None:
    steps: list[int] = []
    drawn = cascade.draw([0], 0, hook=lambda step, x, found: steps.append(x.shape[-1]))
    assert steps == [16] * cascade.n_steps
    assert torch.equal(to_uint8(drawn), cascade([0], 0))


def test_stages_that_do_not_fit_are_named(cascade_of) -> None:
    with pytest.raises(UserError, match=r"^pipeline\.stages\.second enlarges nothing: only the first stage starts"):
        cascade_of(first=BASE, second=BASE)
    with pytest.raises(UserError, match=r"second enlarges 8x8 images, the stage before it draws 16x16$"):
        cascade_of(first=(), second=UPSAMPLER)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ((3, 4, 4), "enlarges 8x8 images, the stage before it draws 4x4"),
        ((3, 16, 16), "enlarges 8x8 images, the stage before it draws 16x16"),
        ((1, 8, 8), "enlarges images of 3 channels, the stage before it draws 1"),
        ((4, 8, 8), "enlarges images of 3 channels, the stage before it draws 4"),
    ],
)
def test_a_stage_takes_what_the_one_before_it_draws(stage_of, before: tuple[int, ...], message: str) -> None:
    upsampler = stage_of(*UPSAMPLER)
    check_stage("up", (3, 8, 8), upsampler)
    with pytest.raises(UserError, match=rf"^pipeline\.stages\.up {message}$"):
        check_stage("up", before, upsampler)


def test_the_record_has_every_stage(cascade: Pipeline) -> None:
    record = cascade.record()["pipeline"]
    assert record["kind"] == "cascade"
    assert record["stages"]["upsampler"]["sampler"]["kind"] == "ddim"

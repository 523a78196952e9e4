"""Stages that begin in the middle: with what another left at a noise level, with its image, around a mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.config.editing import InpaintConfig
from difflab.config.pipeline import StageConfig
from difflab.diffusion.guidance.config import NoGuidance
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.samplers.config import (
    AncestralConfig,
    DDIMConfig,
    DPMSolverPPConfig,
    DPMSolverPPSDEConfig,
    EulerAncestralConfig,
    EulerConfig,
    HeunConfig,
)
from difflab.errors import UserError
from difflab.images import resize, to_float
from difflab.pipelines.base import Pipeline, Stage, check_stage, wanted_by
from difflab.pipelines.build import editing_of
from difflab.pipelines.diffusing import DiffusingStage
from difflab.pipelines.handover import Unfinished
from difflab.requests.base import Merged, Nothing
from difflab.types import Batch, NoiseLevel
from pipelines.conftest import UPSAMPLER

BASE = ("data.image_size=8", "network.attention_resolutions=[4]")
CLASSES = ("conditioning=class",)
STEPS = 10
MEMORYLESS = {
    "ddim": DDIMConfig(kind="ddim", steps=STEPS),
    "ddim-noisy": DDIMConfig(kind="ddim", steps=STEPS, eta=1.0),
    "ddim-constant": DDIMConfig(kind="ddim", steps=STEPS, stride="constant", spacing="linspace"),
    "ancestral": AncestralConfig(kind="ancestral", steps=STEPS),
    "euler": EulerConfig(kind="euler", steps=STEPS),
    "heun": HeunConfig(kind="heun", steps=STEPS),
    "euler_ancestral": EulerAncestralConfig(kind="euler_ancestral", steps=STEPS),
    "dpm_solver_pp_sde": DPMSolverPPSDEConfig(kind="dpm_solver_pp_sde", steps=STEPS),
}
DDIM = MEMORYLESS["ddim"]

Chain = Callable[..., Pipeline]


class Given(Nothing):
    """The first rows of fields."""

    def __init__(self, **fields: Tensor) -> None:
        self.values, self.fields = fields, tuple(fields)

    def __call__(self, indices: Any, seed: int) -> Batch:
        return {**super().__call__(indices, seed), **{k: v[list(indices)] for k, v in self.values.items()}}


@pytest.fixture
def chain(stage_of) -> Chain:
    """chain({name: (overrides, keys of the stage)}, **fields of the request)"""

    def make(stages: dict[str, tuple[tuple[str, ...], dict[str, Any]]], **fields: Tensor) -> Pipeline:
        built: dict[str, Stage] = {}
        before: DiffusingStage | None = None
        for name, (overrides, keys) in stages.items():
            sampler = keys.get("sampler", DDIM)
            config = StageConfig(run="r", guidance=NoGuidance(kind="none"), **{**keys, "sampler": sampler})
            size = stage_of(*overrides).shape[-1]
            editing = editing_of(config, before, "mask" in fields, size)
            built[name] = before = stage_of(*overrides, sampler=sampler, editing=editing)
        return Pipeline(built, Merged([Given(**fields)]), wanted_by(built))

    return make


@pytest.mark.parametrize("name", MEMORYLESS)
@pytest.mark.parametrize("start", [None, 0.3])
def test_two_stages_of_one_model_are_the_single_walk_to_the_bit(chain: Chain, name: str, start: float | None) -> None:
    sampler = MEMORYLESS[name]
    labels = torch.tensor([1, 4, 0])
    whole = chain({"single": (CLASSES, {"sampler": sampler})}, label=labels).draw([0, 2], 3)
    first = {"sampler": sampler, "end": 0.3}
    second = {"sampler": sampler, "start": start, "continues": True}
    two = chain({"base": (CLASSES, first), "refiner": (CLASSES, second)}, label=labels)
    assert torch.equal(two.draw([0, 2], 3), whole)
    assert two.n_steps == 3
    assert whole.std() > 0.1


def test_three_experts_of_a_schedule_are_the_single_walk(chain: Chain) -> None:
    whole = chain({"single": ((), {})}).draw([0, 1], 0)
    experts = {"a": ((), {"end": 0.6}), "b": ((), {"continues": True, "end": 0.2}), "c": ((), {"continues": True})}
    assert torch.equal(chain(experts).draw([0, 1], 0), whole)


def test_a_sampler_that_remembers_begins_a_new_history(chain: Chain) -> None:
    sampler = DPMSolverPPConfig(kind="dpm_solver_pp", steps=STEPS)
    whole = chain({"single": ((), {"sampler": sampler})}).draw([0], 0)
    stages = {"a": ((), {"sampler": sampler, "end": 0.3}), "b": ((), {"sampler": sampler, "continues": True})}
    drawn = chain(stages).draw([0], 0)
    assert not torch.equal(drawn, whole)
    torch.testing.assert_close(drawn, whole, atol=0.5, rtol=0)


def test_another_model_and_another_sampler_go_on_at_the_same_noise(chain: Chain) -> None:
    other = ("diffusion.prediction=x0", "network.base_channels=64")
    stages = {"a": ((), {"end": 0.3}), "b": (other, {"continues": True})}
    drawn = chain(stages).draw([0, 5], 0)
    assert drawn.shape == (2, 3, 16, 16)
    assert not torch.equal(drawn, chain({"single": ((), {})}).draw([0, 5], 0))
    alone = chain(stages).draw([5], 0)
    torch.testing.assert_close(alone, drawn[1:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("keys", [{"start": 0.2}, {"start": 0.3, "sampler": DDIMConfig(kind="ddim", steps=20)}])
def test_noise_that_does_not_agree_is_refused(chain: Chain, keys: dict[str, Any]) -> None:
    line = (
        r"^pipeline\.stages\.refiner begins at sigma .*, and the stage before it ends at .*: give both as many sampler"
    )
    with pytest.raises(UserError, match=line):
        chain({"base": ((), {"end": 0.3}), "refiner": ((), {"continues": True, **keys})})


def test_noise_that_nobody_takes_is_refused(chain: Chain) -> None:
    with pytest.raises(UserError, match=r"^pipeline\.stages\.up begins anew, but the stage before it ends at sigma"):
        chain({"base": (BASE, {"end": 0.3}), "up": (UPSAMPLER, {})})


def test_a_level_that_the_next_sampler_does_not_visit_is_refused(chain: Chain) -> None:
    heun = HeunConfig(kind="heun", steps=5)
    with pytest.raises(UserError, match=r"^sampler: start: the sampler visits no level with sigma"):
        chain({"base": ((), {"end": 0.3}), "refiner": ((), {"continues": True, "sampler": heun})})


def test_x_of_other_shapes_is_not_handed_over(chain: Chain) -> None:
    gray = ("data.channels=1", "network.channels=1")
    with pytest.raises(UserError, match=r"\.b continues with 16x16 images, the stage before it draws 8x8$"):
        chain({"a": (BASE, {"end": 0.3}), "b": ((), {"continues": True})})
    with pytest.raises(UserError, match=r"\.b continues with images of 1 channels, the stage before it draws 3$"):
        chain({"a": ((), {"end": 0.3}), "b": (gray, {"continues": True})})


def test_experts_of_an_upsampler_are_told_of_one_image(chain: Chain) -> None:
    small = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    whole = chain({"single": (UPSAMPLER, {})}, low_res=small).draw([0, 1], 0)
    experts = {"a": (UPSAMPLER, {"end": 0.3}), "b": (UPSAMPLER, {"continues": True})}
    assert torch.equal(chain(experts, low_res=small).draw([0, 1], 0), whole)
    other = ("conditioning=low_res", "conditioning.low_res.size=4", "network.concat_channels=3")
    for before in ({}, {"base": (BASE, {})}):
        with pytest.raises(
            UserError, match=r"\.b continues enlarging 4x4 images, the stage before it begins to enlarge 8x8"
        ):
            chain({**before, "a": (UPSAMPLER, {"end": 0.3}), "b": (other, {"continues": True})})
    behind = chain({"base": (BASE, {}), **experts})
    plain = chain({"base": (BASE, {}), "up": (UPSAMPLER, {})})
    assert torch.equal(behind.draw([0], 0), plain.draw([0], 0))


# -- beginning with the image of the stage before ---------------------------------------------------------------------


def noticing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the sampler of a stage is given to begin with."""
    assert isinstance(stage, DiffusingStage)
    begun: list[Tensor] = []
    original = stage.sampler

    class Noticing:
        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def __call__(self, denoiser, process, x, noise, hook, part) -> Tensor:
            begun.append(part.image)
            return original(denoiser, process, x, noise, hook, part)

    monkeypatch.setattr(stage, "sampler", Noticing())
    return begun


@pytest.mark.parametrize("upsampler", [UPSAMPLER, ()], ids=["upsampler", "other model"])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_stage_begins_with_the_enlarged_image(chain: Chain, monkeypatch, upsampler, inverted: bool) -> None:
    base = chain({"base": (BASE, {})}).draw([0, 1], 0)
    keys = {"start": 0.5, "inverted": inverted}
    pipeline = chain({"base": (BASE, {}), "up": (upsampler, keys)})
    begun = noticing(pipeline.last, monkeypatch)
    drawn = pipeline.draw([0, 1], 0)
    assert torch.equal(begun[0], resize(base, 16, "bilinear"))
    nearer = chain({"base": (BASE, {}), "up": (upsampler, {**keys, "start": 0.1})}).draw([0, 1], 0)
    distance = [(image - begun[0]).abs().mean() for image in (nearer, drawn)]
    assert distance[0] < distance[1]
    assert pipeline.wanted.reads == ()


def test_a_stage_of_one_size_begins_with_the_image_as_it_is(chain: Chain, monkeypatch) -> None:
    pipeline = chain({"base": ((), {}), "again": ((), {"start": 0.3})})
    begun = noticing(pipeline.last, monkeypatch)
    pipeline.draw([0], 0)
    assert torch.equal(begun[0], chain({"base": ((), {})}).draw([0], 0))


def test_a_larger_image_is_not_begun_with(chain: Chain) -> None:
    with pytest.raises(
        UserError, match=r"\.b begins with 8x8 images, or smaller ones, the stage before it draws 16x16"
    ):
        chain({"a": ((), {}), "b": (BASE, {"start": 0.3})})


def test_the_first_stage_begins_with_images_made_smaller(chain: Chain, monkeypatch) -> None:
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    stages = {"base": (BASE, {"start": 0.5}), "up": (UPSAMPLER, {})}
    pipeline = chain(stages, image=image)
    assert pipeline.wanted.reads == ("image",)
    assert pipeline.wanted.sizes["image"] == 16
    begun = noticing(pipeline.stages["base"], monkeypatch)
    pipeline.draw([1], 0)
    assert torch.equal(begun[0], resize(to_float(image[1:]), 8, "area"))


def test_a_stage_that_takes_nothing_is_told_how(stage_of) -> None:
    with pytest.raises(UserError, match=r"or start from the image before it, as in pipeline\.stages\.up\.start=0\.5$"):
        check_stage("up", (3, 16, 16), stage_of())


# -- masks ------------------------------------------------------------------------------------------------------------


def a_mask() -> Tensor:
    """One pixel in the middle of a block, and a corner of whole blocks, are drawn anew."""
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    mask[..., 5, 9] = 255
    mask[..., :4, :6] = 128
    mask[..., 12, 12] = 127
    return mask.expand(3, -1, -1, -1)


@pytest.mark.parametrize("replaced", ["x_t", "x0"])
@pytest.mark.parametrize("resamplings", [1, 2])
def test_a_mask_holds_in_every_stage(chain: Chain, replaced: Any, resamplings: int) -> None:
    image = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    keys = {"inpaint": InpaintConfig(replaced=replaced, jump_length=2, resamplings=resamplings)}
    stages = {"base": (BASE, keys), "up": (UPSAMPLER, keys)}
    pipeline = chain(stages, image=image, mask=a_mask())
    assert set(pipeline.wanted.reads) == {"image", "mask"}
    assert pipeline.wanted.sizes == {"image": 16, "mask": 16}
    drawn = pipeline([0, 1, 2], 0)
    stays = (a_mask() < 128).expand(-1, 3, -1, -1)
    assert torch.equal(drawn[stays], image[stays])
    assert (drawn[~stays] != image[~stays]).float().mean() > 0.5
    batch = pipeline.request([0, 1, 2], 0)
    small = pipeline.stages["base"](batch, 0)["image"]
    known = torch.ones(8, 8, dtype=torch.bool)
    known[2, 4] = False
    known[:2, :3] = False
    expected = resize(to_float(image), 8, "area")
    assert torch.equal(small[..., known], expected[..., known])
    assert (small[..., ~known] != expected[..., ~known]).all(), "also where one pixel of four is drawn anew"


def test_a_mask_holds_across_a_hand_over(chain: Chain) -> None:
    fields = {"image": torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8), "mask": a_mask()}
    whole = chain({"single": ((), {})}, **fields)([0, 1], 0)
    two = chain({"a": ((), {"end": 0.3}), "b": ((), {"continues": True})}, **fields)
    assert torch.equal(two([0, 1], 0), whole)


def test_the_record_says_where_stages_begin_and_end(chain: Chain) -> None:
    stages = {"a": ((), {"end": 0.3}), "b": ((), {"continues": True}), "c": ((), {"start": 0.2})}
    recorded = chain(stages).record()["pipeline"]["stages"]
    assert [recorded[name].get("pipeline") for name in stages] == [
        {"end": 0.3},
        {"continues": True},
        {"start": 0.2, "inverted": False},
    ]


def test_x_is_handed_over_in_the_scale_of_the_next_process() -> None:
    left, edm = NoiseLevel(alpha=0.6, sigma=0.8), NoiseLevel(alpha=1.0, sigma=0.8 / 0.6)
    x = torch.tensor([[0.3, -1.2]])
    unfinished = Unfinished(x, left, SampleNoise([0], torch.device("cpu")), [0])
    assert unfinished.at(left) is x
    torch.testing.assert_close(unfinished.at(edm), x / 0.6)

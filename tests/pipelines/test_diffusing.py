from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difflab.diffusion.samplers.config import AncestralConfig, DDIMConfig
from difflab.diffusion.samplers.ddim import DDIMSampler
from difflab.errors import UserError
from difflab.images import to_uint8
from difflab.seeding import stream_seed
from tiny_runs import CLASSES

EIGHT = list(range(8))
SAMPLERS = {
    "ddim": DDIMConfig(kind="ddim", steps=4),
    "noisy-ddim": DDIMConfig(kind="ddim", steps=4, eta=1.0),
    "ancestral": AncestralConfig(kind="ancestral", steps=4),
}


def in_batches(draw, indices: list[int], size: int) -> Tensor:
    return torch.cat([draw(indices[i : i + size]) for i in range(0, len(indices), size)])


@pytest.mark.parametrize("size", [1, 3])
def test_start_and_step_noise_are_the_same_bits_in_any_batch(pipeline_of, size: int) -> None:
    pipeline = pipeline_of()

    class Sigmas(DDIMSampler):
        def __call__(self, denoiser, process, x, noise, *rest) -> Tensor:
            return torch.cat([x, noise.randn_like(x), noise.randn_like(x)], 1)

    pipeline.last.sampler = Sigmas()
    together = pipeline.draw(EIGHT, seed=3)
    assert together.shape == (8, 9, 16, 16)
    assert torch.equal(in_batches(lambda i: pipeline.draw(i, 3), EIGHT, size), together)
    backwards = in_batches(lambda i: pipeline.draw(i, 3), EIGHT[::-1], size)
    assert torch.equal(backwards.flip(0), together)
    assert len(together.flatten(1).unique(dim=0)) == 8
    assert not torch.equal(pipeline.draw(EIGHT, seed=4), together)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("size", [1, 3])
def test_pixels_agree_within_one_level_in_any_batch(pipeline_of, sampler: str, size: int) -> None:
    pipeline = pipeline_of(sampler=SAMPLERS[sampler])
    together = pipeline(EIGHT, 0).int()
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    alone = in_batches(lambda i: pipeline(i, 0), order, size).int()
    assert (alone - together[order]).abs().max() <= 1
    assert together.float().std() > 20, "the pictures should not be flat, or this test sees nothing"


def test_classes_come_from_the_seed_and_the_index_alone(class_pipeline) -> None:
    labels = class_pipeline.request(range(600), 0)["label"]
    assert [class_pipeline.request([i], 0)["label"].tolist() for i in (0, 599)] == [[labels[0]], [labels[599]]]
    assert not torch.equal(class_pipeline.request(range(600), 1)["label"], labels)
    assert labels[:4].tolist() == [stream_seed(0, "class", i) % 6 for i in range(4)]
    counts = torch.bincount(labels, minlength=6)
    # 100 expected, standard deviation 9.
    assert counts.tolist() == [c for c in counts.tolist() if 60 < c < 140]


def test_given_classes_are_drawn(pipeline_of, class_pipeline) -> None:
    labels = class_pipeline.request([0, 1, 2], 0)["label"].tolist()
    own = class_pipeline([0, 1, 2], 0)
    assert torch.equal(pipeline_of(*CLASSES, asked={"classes": labels})([0, 1, 2], 0), own)
    others = [(label + 1) % 6 for label in labels]
    assert not torch.equal(pipeline_of(*CLASSES, asked={"classes": others})([0, 1, 2], 0), own)


@pytest.mark.parametrize("label", [6, -1])
def test_a_class_out_of_range_is_named(pipeline_of, class_pipeline, label: int) -> None:
    with pytest.raises(UserError, match=rf"^class {label} is not in 0\.\.5, the classes of this model$"):
        pipeline_of(*CLASSES, asked={"classes": [0, label]})
    batch = {"index": torch.arange(2), "label": torch.tensor([0, label])}
    with pytest.raises(UserError, match=rf"^class {label} is not in 0\.\.5, the classes of this model$"):
        class_pipeline.follow(batch, 0)


def test_classes_of_a_model_without_any_are_refused(pipeline_of) -> None:
    pipeline = pipeline_of()
    assert pipeline.request([0], 0).keys() == {"index"}
    with pytest.raises(UserError, match=r"^this model has no classes: leave classes=null$"):
        pipeline_of(asked={"classes": [0]})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampler.steps=51", "cannot take 51 steps of a section with 50"),
        ("sampler.steps=ddim30", "no integer stride takes exactly 30 of 50 steps"),
        ('sampler.steps="30,30"', "cannot take 30 steps of a section with 25"),
        ("sampler.steps_offset=1", "reaches step 50, beyond 49"),
    ],
)
def test_steps_that_do_not_fit_the_schedule_are_one_line(pipeline_of, override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        pipeline_of(override)
    assert str(error.value).startswith("sampler: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_autocast_reaches_the_network_and_nothing_else(pipeline_of) -> None:
    pipeline = pipeline_of(autocast=torch.bfloat16)
    inside: list[tuple[bool, torch.dtype, torch.dtype]] = []
    outside: list[tuple[bool, torch.dtype, torch.dtype]] = []

    def network_hook(module, arguments, output) -> None:
        inside.append((torch.is_autocast_enabled("cpu"), arguments[0].dtype, output.dtype))

    pipeline.last.network.conv_in.register_forward_hook(network_hook)
    drawn = pipeline.draw(
        [0], 0, hook=lambda step, x, found: outside.append((torch.is_autocast_enabled("cpu"), x.dtype, found.x0.dtype))
    )
    assert set(inside) == {(True, torch.float32, torch.bfloat16)}
    assert set(outside) == {(False, torch.float32, torch.float32)}
    assert len(inside) == len(outside) == 5
    assert drawn.dtype == torch.float32
    assert not torch.equal(drawn, pipeline_of().draw([0], 0))


def test_full_precision_needs_no_autocast(pipeline_of) -> None:
    pipeline = pipeline_of()
    seen: list[bool] = []
    pipeline.last.network.conv_in.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    pipeline.draw([0], 0)
    assert seen == [False] * 5


def test_drawing_is_without_dropout_and_leaves_the_mode_as_it_was(pipeline_of) -> None:
    pipeline = pipeline_of("network.dropout=0.5")
    pipeline.last.network.train()
    drawn = pipeline.draw([0], 0)
    assert pipeline.last.network.training
    assert torch.equal(pipeline.draw([0], 0), drawn)
    pipeline.last.network.eval()
    pipeline.draw([0], 0)
    assert not pipeline.last.network.training


def test_the_mode_is_given_back_after_an_error(class_pipeline) -> None:
    class_pipeline.last.network.train()

    def stop(step, x, found) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        class_pipeline.draw([0], 0, hook=stop)
    assert class_pipeline.last.network.training


@pytest.mark.parametrize("limit", [0.25, 1.0])
def test_the_threshold_of_the_guidance_is_kept(pipeline_of, limit: float) -> None:
    predicted: list[float] = []
    pipeline = pipeline_of(f"guidance.static_limit={limit}")
    pipeline.draw([0, 1], 0, hook=lambda step, x, found: predicted.append(float(found.x0.abs().max())))
    assert max(predicted) == pytest.approx(limit)


def test_a_hook_may_change_the_sample(pipeline_of) -> None:
    drawn = pipeline_of().draw([0], 0, hook=lambda step, x, found: torch.zeros_like(x))
    assert torch.equal(drawn, torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("rounding", ["truncate", "nearest", "edm"])
def test_pixels_are_rounded_by_the_rule_asked_for(pipeline_of, rounding: str) -> None:
    pipeline = pipeline_of(rounding=rounding)
    assert torch.equal(pipeline([0, 1], 0), to_uint8(pipeline.draw([0, 1], 0), rounding))

"""One training step, against the same step written out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difflab.conditioning.augment import AugmentConditioner
from difflab.conditioning.augmentation import Augmentation
from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.class_label import ClassConditioner
from difflab.config.optimizer import OptimizerConfig
from difflab.diffusion.losses import DiffusionLoss
from difflab.diffusion.noise import SampleNoise
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import linear_betas
from difflab.diffusion.timesteps import LossAwareTimesteps, UniformTimesteps
from difflab.seeding import stream_seed
from difflab.tasks.denoising.module import DenoisingModule
from difflab.types import Batch, Conditioning
from tasks.alone import with_optimizers, without_trainer

T = 20
SIDE = 4
SEED = 5


class Recorder(nn.Module):
    """A network small enough to see through, which keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Conv2d(3, 3, 3, padding=1)
        self.x: list[Tensor] = []
        self.time: list[Tensor] = []
        self.vector: list[Tensor] = []

    def forward(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        self.x.append(x.detach().clone())
        self.time.append(time.clone())
        if conditioning is not None and conditioning.vector is not None:
            self.vector.append(conditioning.vector.detach().clone())
        return self.mix(x) * (1 + time[:, None, None, None] / T)


def make_module(
    *,
    loss_aware: bool = False,
    drop_rate: float | None = None,
    rank: int = 0,
    world_size: int = 1,
    prediction: Any = "eps",
    precision: str = "32-true",
    max_steps: int = 10,
    augment: Augmentation | None = None,
    accumulate: int = 1,
    gradient_clip: float = 0.0,
) -> DenoisingModule:
    process = GaussianProcess(linear_betas(T), prediction=prediction, variance="fixed_small")
    timesteps = LossAwareTimesteps(T, history_per_term=1) if loss_aware else UniformTimesteps(T)
    conditioners = ConditionerSet({} if drop_rate is None else {"class": ClassConditioner(6, 2, drop_rate)})
    if augment is not None:
        conditioners["augment"] = AugmentConditioner(augment, augment.label_size)
        torch.nn.init.eye_(conditioners["augment"].map.weight)
    config = OptimizerConfig(kind="adam", lr=0.5)
    module = DenoisingModule(
        Recorder(),
        process,
        DiffusionLoss(process),
        timesteps,
        conditioners,
        config,
        seed=SEED,
        max_steps=max_steps,
        accumulate=accumulate,
        gradient_clip=gradient_clip,
    )
    without_trainer(module, rank=rank, world_size=world_size, precision=precision)
    return module


def make_batch(images: Tensor, first: int = 0, labels: Tensor | None = None) -> Batch:
    n = len(images)
    batch: Batch = {
        "image": images,
        "index": torch.arange(first, first + n),
        "position": torch.arange(first, first + n),
        "weight": torch.ones(n),
        "key": [str(i) for i in range(n)],
    }
    return batch if labels is None else {**batch, "label": labels}


def images(n: int, side: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(99)
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)


def by_hand(image: Tensor, step: int, position: int) -> tuple[int, Tensor, Tensor]:
    """Timestep, noise and x_t of one sample: algorithm 1 of Ho et al. (2020), lines 2 to 5."""
    generator = torch.Generator().manual_seed(stream_seed(SEED, "train", step, position))
    t = int(torch.rand((), generator=generator).item() * T)
    noise = torch.randn(3, SIDE, SIDE, generator=generator)
    alpha_bar = math.prod(1 - (1e-4 + (0.02 - 1e-4) * i / (T - 1)) for i in range(t + 1))
    x0 = image.float() / 127.5 - 1
    return t, noise, math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * noise


def test_the_loss_of_a_step_is_the_one_written_out_by_hand() -> None:
    module, data = make_module(), images(3)
    module.train_step = 4
    loss = module.training_step(make_batch(data), 0)
    expected = []
    for position, image in enumerate(data):
        t, noise, x_t = by_hand(image, 4, position)
        torch.testing.assert_close(module.network.x[0][position], x_t, rtol=1e-5, atol=1e-5)
        assert module.network.time[0][position] == t
        out = module.network.mix(x_t[None])[0] * (1 + t / T)
        expected.append((noise - out).square().mean())
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-5, atol=1e-6)


def test_a_model_that_predicts_x0_is_compared_with_x0() -> None:
    module, data = make_module(prediction="x0"), images(1)
    loss = module.training_step(make_batch(data), 0)
    t, _, x_t = by_hand(data[0], 0, 0)
    out = module.network.mix(x_t[None])[0] * (1 + t / T)
    torch.testing.assert_close(loss, (data[0] / 127.5 - 1 - out).square().mean(), rtol=1e-5, atol=1e-6)


def test_every_step_draws_anew_and_the_same_step_draws_the_same() -> None:
    module, batch = make_module(), make_batch(images(2))
    for step in (0, 1, 0):
        module.train_step = step
        module.training_step(batch, 0)
    first, second, again = module.network.x
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_of_a_batch_give_the_draws_and_the_gradients_of_the_whole(accumulate: int) -> None:
    data = images(8)
    whole, parted = make_module(), make_module(accumulate=accumulate)
    loss = whole.training_step(make_batch(data), 0)
    torch.testing.assert_close(parted.training_step(make_batch(data), 0), loss, rtol=1e-5, atol=1e-6)
    assert len(parted.network.x) == accumulate
    assert torch.equal(torch.cat(parted.network.x), whole.network.x[0])
    assert torch.equal(torch.cat(parted.network.time), whole.network.time[0])
    torch.testing.assert_close(parted.network.mix.weight.grad, whole.network.mix.weight.grad, rtol=1e-5, atol=1e-6)


def test_two_ranks_with_two_parts_give_the_draws_of_one_process() -> None:
    data = images(8)
    whole = make_module()
    whole.training_step(make_batch(data), 0)
    seen = []
    for rank, share in enumerate(data.chunk(2)):
        module = make_module(rank=rank, world_size=2, accumulate=2)
        module.training_step(make_batch(share, first=4 * rank), 0)
        seen += module.network.x
    assert len(seen) == 4
    assert torch.equal(torch.cat(seen), whole.network.x[0])


def test_a_share_that_has_no_equal_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="6 samples cannot be split into 4 equal parts"):
        make_module(accumulate=4).training_step(make_batch(images(6)), 0)


def test_the_clock_counts_optimised_batches_and_images_of_all_ranks_and_parts() -> None:
    module = make_module(world_size=2, accumulate=2)
    with_optimizers(module)
    for _ in range(3):
        module.training_step(make_batch(images(6)), 0)
    assert (module.train_step, module.train_images) == (3, 3 * 2 * 3 * 2)


def test_a_skipped_step_is_not_counted_and_draws_again() -> None:
    module = make_module()
    module.step_skipped = True
    module.training_step(make_batch(images(2)), 0)
    assert (module.train_step, module.train_images) == (0, 0)
    module.training_step(make_batch(images(2)), 1)
    assert torch.equal(*module.network.x)


def test_the_learning_rate_of_a_step_follows_the_clock() -> None:
    module = make_module()
    module.optimizer_config = OptimizerConfig.model_validate(
        {"kind": "adam", "lr": 0.5, "schedule": {"warmup_steps": 4}}
    )
    (optimizer,) = with_optimizers(module)
    used = []
    for _ in range(5):
        module.training_step(make_batch(images(1)), 0)
        used.append(optimizer.param_groups[0]["lr"])
    assert used == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5])


@pytest.mark.parametrize(("limit", "after"), [(0.0, 5.0), (2.0, 2.0), (50.0, 5.0)])
def test_gradients_are_clipped_by_their_global_norm_which_is_kept(limit: float, after: float) -> None:
    module = make_module(gradient_clip=limit)
    (optimizer,) = with_optimizers(module)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    module.network.mix.weight.grad[0, 0, 0, 0], module.network.mix.bias.grad[0] = 3.0, 4.0
    module.on_before_optimizer_step(optimizer)
    assert {name: float(norm) for name, norm in module.grad_norms.items()} == {"optimizer": pytest.approx(5.0)}
    norm = torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item()
    assert norm == pytest.approx(after, rel=1e-5)


@pytest.mark.parametrize(("precision", "fused"), [("32-true", True), ("bf16-mixed", True), ("16-mixed", False)])
def test_no_fused_optimizer_where_gradients_are_clipped_under_a_loss_scale(precision: str, fused: bool) -> None:
    assert with_optimizers(make_module(precision=precision))[0].param_groups[0]["fused"] is fused


def test_the_class_of_a_sample_is_dropped_at_the_rate_asked_for_and_by_its_own_stream() -> None:
    module = make_module(drop_rate=0.2)
    conditioner = module.conditioners["class"]
    conditioner.embedding.weight.data[:, 0] = torch.arange(7.0)
    n = 600
    labels = torch.arange(n) % 6
    module.training_step(make_batch(images(n, side=1), labels=labels), 0)
    got = module.network.vector[0][:, 0].long()
    dropped = got == 6
    assert torch.equal(got[~dropped], labels[~dropped])
    assert 0.15 < dropped.float().mean() < 0.25
    alone = make_module(drop_rate=0.2)
    alone.conditioners["class"].embedding.weight.data[:, 0] = torch.arange(7.0)
    for start in range(0, n, 150):
        alone.train_step = 0
        alone.training_step(make_batch(images(n, side=1)[:150], first=start, labels=labels[start : start + 150]), 0)
    assert torch.equal(torch.cat(alone.network.vector)[:, 0].long(), got)


def test_whether_classes_are_dropped_changes_neither_noise_nor_timesteps() -> None:
    data, labels = images(4), torch.tensor([0, 1, 2, 3])
    seen = []
    for drop_rate in (0.0, 0.5, 1.0):
        module = make_module(drop_rate=drop_rate)
        module.training_step(make_batch(data, labels=labels), 0)
        seen.append(module.network.x[0])
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_augmented_images_are_trained_on_and_the_network_is_told_how() -> None:
    """The noise stays that of the step without augmentation, and so does the timestep."""
    data, augment = images(8), Augmentation(0.9)
    plain, module = make_module(), make_module(augment=augment)
    plain.training_step(make_batch(data), 0)
    module.training_step(make_batch(data), 0)
    assert torch.equal(module.network.time[0], plain.network.time[0])
    for position, image in enumerate(data):
        generator = torch.Generator().manual_seed(stream_seed(SEED, "train", 0, position))
        t, noise = int(torch.rand((), generator=generator).item() * T), torch.randn(3, SIDE, SIDE, generator=generator)
        source = SampleNoise([0])
        source._generators = [generator]
        x0, label = augment((image.float() / 127.5 - 1)[None], source)
        assert label.any()
        expected = module.process.q_sample(x0, torch.tensor([t]), noise[None])
        torch.testing.assert_close(module.network.x[0][position], expected[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(module.network.vector[0][position], label[0])


def test_augmentation_does_not_depend_on_the_parts_of_a_batch() -> None:
    data, augment = images(8), Augmentation(0.5)
    whole, parted = make_module(augment=augment), make_module(augment=augment, accumulate=4)
    for module in (whole, parted):
        module.training_step(make_batch(data), 0)
    assert torch.equal(torch.cat(parted.network.vector), whole.network.vector[0])
    torch.testing.assert_close(torch.cat(parted.network.x), whole.network.x[0], rtol=1e-5, atol=1e-5)


def test_validation_never_augments() -> None:
    plain, module = make_module(), make_module(augment=Augmentation(1.0))
    assert validated(module, [make_batch(images(3))]) == validated(plain, [make_batch(images(3))])
    assert torch.equal(module.network.x[0], plain.network.x[0])
    assert module.network.vector == []


def validated(module: DenoisingModule, batches: list[Batch]) -> float:
    module.on_validation_epoch_start()
    with torch.no_grad():
        for i, batch in enumerate(batches):
            module.validation_step(batch, i)
    return module.validation_means()["val/loss"]


def test_the_validation_loss_depends_on_nothing_but_the_weights() -> None:
    module, data, labels = make_module(drop_rate=0.5), images(6), torch.arange(6)
    whole = validated(module, [make_batch(data, labels=labels)])
    module.train_step = 77
    torch.manual_seed(123)
    halves = [make_batch(data[:3], 0, labels[:3]), make_batch(data[3:], 3, labels[3:])]
    assert validated(module, halves) == pytest.approx(whole, rel=1e-6)
    assert validated(module, halves) == validated(module, halves)
    module.network.mix.bias.data += 0.1
    assert validated(module, halves) != pytest.approx(whole, rel=1e-4)


def test_validation_never_drops_a_class() -> None:
    module, labels = make_module(drop_rate=1.0), torch.arange(3)
    validated(module, [make_batch(images(3), labels=labels)])
    expected = module.conditioners["class"].embedding.weight[:3]
    assert torch.equal(module.network.vector[0], expected)


def test_padding_counts_nothing_in_validation() -> None:
    module, data = make_module(), images(3)
    padded = make_batch(torch.cat([data, data[-1:]]))
    padded["weight"][-1] = 0.0
    assert validated(module, [padded]) == pytest.approx(validated(module, [make_batch(data)]), rel=1e-6)


def train_loss_aware(module: DenoisingModule, steps: int) -> None:
    """Batches of 20 whose samples lie in every timestep soon, so that the weights stop being uniform."""
    for _ in range(steps):
        module.training_step(make_batch(images(20)), 0)


def test_loss_aware_timesteps_go_on_from_a_checkpoint() -> None:
    module, fresh = make_module(loss_aware=True), make_module(loss_aware=True)
    train_loss_aware(module, 6)
    assert module.timesteps.warmed_up
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    fresh.on_load_checkpoint(checkpoint)
    assert fresh.train_step == 6
    assert fresh.train_images == 120
    torch.testing.assert_close(fresh.timesteps.weights(), module.timesteps.weights(), rtol=0, atol=0)
    for each in (module, fresh):
        train_loss_aware(each, 1)
    assert torch.equal(module.network.time[-1], fresh.network.time[-1])
    uniform = make_module()
    uniform.train_step = 6
    train_loss_aware(uniform, 1)
    assert not torch.equal(uniform.network.time[-1], fresh.network.time[-1])


def test_loss_aware_timesteps_do_not_depend_on_the_parts_of_a_batch() -> None:
    whole, parted = make_module(loss_aware=True), make_module(loss_aware=True, accumulate=4)
    train_loss_aware(whole, 7)
    train_loss_aware(parted, 7)
    assert torch.equal(torch.cat(parted.network.time), torch.cat(whole.network.time))
    torch.testing.assert_close(parted.timesteps.weights(), whole.timesteps.weights(), rtol=1e-5, atol=0)


def test_loss_aware_timesteps_forget_losses_that_are_not_finite() -> None:
    module = make_module(loss_aware=True)
    module.network.mix.weight.data[0, 0, 0, 0] = math.nan
    train_loss_aware(module, 2)
    assert not module.timesteps.counts.any()


def test_the_losses_since_the_last_line_of_the_log_are_in_the_checkpoint() -> None:
    module, fresh = make_module(), make_module()
    module.training_step(make_batch(images(4)), 0)
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    fresh.on_load_checkpoint(checkpoint)
    assert torch.equal(fresh.window.sums(), module.window.sums())
    assert fresh.window.sums()[1].sum() == 4
    other_rank = make_module(rank=1, world_size=2)
    other_rank.on_load_checkpoint(checkpoint)
    assert other_rank.window.sums()[1].sum() == 0, "the losses would be counted once per rank"

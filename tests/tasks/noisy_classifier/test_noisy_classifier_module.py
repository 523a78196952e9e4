"""The noisy classifier's training step, against the same step written out by hand, and on images it can learn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.config.optimizer import OptimizerConfig
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import linear_betas
from difflab.diffusion.timesteps import TimestepSampler, UniformTimesteps
from difflab.networks.build import build_network
from difflab.networks.config import UNetEncoderConfig
from difflab.tasks.noisy_classifier.module import NoisyClassifierModule
from difflab.types import Batch
from tasks.alone import with_optimizers, without_trainer
from tasks.denoising.test_denoising_module import SEED, T, by_hand, images, make_batch

CLASSES = 7


class Probe(nn.Module):
    """Logits from the mean colour of the image, which keeps what it was given."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.out = nn.Linear(3, classes)
        self.x: list[Tensor] = []
        self.time: list[Tensor] = []

    def forward(self, x: Tensor, time: Tensor, conditioning: Any = None) -> Tensor:
        assert conditioning is None
        self.x.append(x.detach().clone())
        self.time.append(time.clone())
        return self.out(x.mean(dim=(2, 3)))


class Answers(nn.Module):
    """Gives the logits it was made with, whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: Tensor, time: Tensor, conditioning: Any = None) -> Tensor:
        return self.logits[: len(x)]


class Weighted(UniformTimesteps):
    """Uniform, with weights that are not 1."""

    def sample(self, u: Tensor) -> tuple[Tensor, Tensor]:
        t, weight = super().sample(u)
        return t, weight * (1 + t)


def make_module(
    network: nn.Module | None = None,
    *,
    classes: int = CLASSES,
    timesteps: TimestepSampler | None = None,
    process: GaussianProcess | None = None,
    lr: float = 0.5,
    accumulate: int = 1,
) -> NoisyClassifierModule:
    process = process or GaussianProcess(linear_betas(T))
    module = NoisyClassifierModule(
        network or Probe(classes),
        process,
        timesteps or UniformTimesteps(process.num_timesteps),
        OptimizerConfig(kind="adamw", lr=lr),
        classes=classes,
        seed=SEED,
        max_steps=1000,
        accumulate=accumulate,
    )
    without_trainer(module)
    return module


def labelled(labels: list[int], first: int = 0) -> Batch:
    return make_batch(images(len(labels)), first, torch.tensor(labels))


def validated(module: NoisyClassifierModule, *batches: Batch) -> dict[str, float]:
    module.on_validation_epoch_start()
    with torch.no_grad():
        for i, batch in enumerate(batches):
            module.validation_step(batch, i)
    return module.validation_means()


def test_the_loss_of_a_step_is_the_one_written_out_by_hand() -> None:
    module, labels = make_module(), [2, 0, 6]
    module.train_step = 4
    loss = module.training_step(labelled(labels), 0)
    expected = []
    for position, (image, label) in enumerate(zip(images(3), labels, strict=True)):
        t, _, x_t = by_hand(image, 4, position)
        torch.testing.assert_close(module.network.x[0][position], x_t, rtol=1e-5, atol=1e-5)
        assert module.network.time[0][position] == t
        logits = module.network.out(x_t.mean(dim=(1, 2))).double()
        expected.append(math.log(sum(math.exp(z) for z in logits.tolist())) - logits[label].item())
    assert loss.item() == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_importance_weights_of_the_timesteps_weigh_what_is_minimised_and_not_what_is_logged() -> None:
    module, plain = make_module(timesteps=Weighted(T)), make_module()
    weighted = module.training_step(labelled([1, 5]), 0)
    plain.training_step(labelled([1, 5]), 0)
    t = module.network.time[0]
    losses = F.cross_entropy(
        module.network.out(module.network.x[0].mean(dim=(2, 3))), torch.tensor([1, 5]), reduction="none"
    )
    torch.testing.assert_close(weighted, (losses * (1 + t)).mean())
    assert module.training_means() == plain.training_means()


def test_top1_and_top5_count_the_true_class_among_the_likeliest() -> None:
    # Classes from the likeliest to the least likely: 0, 1, ..., 6.
    module = make_module(Answers(torch.arange(CLASSES, 0, -1.0).repeat(4, 1)))
    module.training_step(labelled([0, 1, 4, 5]), 0)
    means = module.training_means()
    assert means["train/top1"] == 1 / 4
    assert means["train/top5"] == 3 / 4


@pytest.mark.parametrize(
    ("classes", "logged"), [(2, {"loss", "top1"}), (5, {"loss", "top1"}), (6, {"loss", "top1", "top5"})]
)
def test_top5_of_five_classes_says_nothing_and_is_not_logged(classes: int, logged: set[str]) -> None:
    module = make_module(classes=classes)
    module.training_step(labelled([0, 1]), 0)
    assert {name.removeprefix("train/").split("_")[0] for name in module.training_means()} == logged


def test_everything_is_logged_by_quartile_of_the_timestep() -> None:
    module, n = make_module(Answers(torch.zeros(64, CLASSES))), 64
    module.training_step(labelled([0] * n), 0)
    assert set(module.training_means()) == {
        f"train/{name}{quartile}" for name in ("loss", "top1", "top5") for quartile in ("", "_q0", "_q1", "_q2", "_q3")
    }
    assert module.training_means() == {}, "the next line begins anew"


def test_accuracy_at_a_noise_level_is_of_the_samples_at_that_level() -> None:
    module = make_module(timesteps=UniformTimesteps(T))
    labels = [0, 1, 2, 3] * 8
    module.training_step(labelled(labels), 0)
    hits = module.network.out(module.network.x[0].mean(dim=(2, 3))).argmax(dim=1) == torch.tensor(labels)
    quartile = (module.network.time[0] * 4 / T).long()
    means = module.training_means()
    for q in range(4):
        assert means[f"train/top1_q{q}"] == pytest.approx(float(hits[quartile == q].float().mean()))


@pytest.mark.parametrize("wrong", [-1, CLASSES])
def test_a_class_out_of_range_is_refused_in_one_line(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"^class {wrong} is not in 0\.\.6, the classes of this classifier$"):
        make_module().training_step(labelled([0, wrong]), 0)


def test_the_loader_has_to_bring_labels() -> None:
    assert make_module().batch_keys() == ("label",)


def test_parts_of_a_batch_give_the_draws_and_the_gradients_of_the_whole() -> None:
    labels = torch.arange(8) % CLASSES
    whole, parted = make_module(), make_module(accumulate=4)
    for module in (whole, parted):
        module.training_step(make_batch(images(8), labels=labels), 0)
    assert torch.equal(torch.cat(parted.network.x), whole.network.x[0])
    torch.testing.assert_close(parted.network.out.weight.grad, whole.network.out.weight.grad, rtol=1e-5, atol=1e-6)
    assert parted.training_means() == pytest.approx(whole.training_means())


def test_validation_depends_on_nothing_but_the_weights_and_padding_counts_nothing() -> None:
    module, whole = make_module(), labelled([0, 1, 2, 3])
    means = validated(module, whole)
    module.train_step = 77
    halves = [make_batch(images(4)[:2], 0, torch.tensor([0, 1])), make_batch(images(4)[2:], 2, torch.tensor([2, 3]))]
    assert validated(module, *halves) == pytest.approx(means)
    padded = make_batch(torch.cat([images(4), images(4)[:1]]), 0, torch.tensor([0, 1, 2, 3, 6]))
    padded["weight"][-1] = 0.0
    assert validated(module, padded) == pytest.approx(means)
    assert {"val/loss", "val/top1", "val/top5"} < means.keys()
    assert any(name.startswith("val/top1_q") for name in means)


def test_the_means_since_the_last_line_of_the_log_are_in_the_checkpoint() -> None:
    module, fresh = make_module(), make_module()
    module.training_step(labelled([0, 1, 2]), 0)
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    fresh.on_load_checkpoint(checkpoint)
    assert fresh.training_means() == module.training_means()


def tinted(labels: Tensor) -> Tensor:
    """Random 8 px images, those of class 1 with more red."""
    tint = torch.zeros(len(labels), 3, 1, 1)
    tint[:, 0, 0, 0] = labels
    return (images(len(labels), side=8) * 0.5 + 127 * tint).byte()


@pytest.mark.parametrize("pool", ["adaptive", "attention", "spatial", "spatial_v2"])
def test_a_small_encoder_learns_classes_best_where_there_is_little_noise(pool: str) -> None:
    torch.manual_seed(1)
    labels = torch.arange(32) % 2
    config = UNetEncoderConfig.model_validate(
        {
            "kind": "unet_encoder",
            "base_channels": 8,
            "channel_mult": [1, 2],
            "blocks_per_level": 1,
            "middle_attention": False,
            "attention_heads": None,
            "attention_head_channels": 8,
            "norm_groups": 4,
            "adaptive_norm": True,
            "resample": "residual",
            "init": "adm",
            "classes": 2,
            "pool": pool,
        }
    )
    network = build_network(config, image_size=8, learned_variance=False)
    module = make_module(network, classes=2, process=GaussianProcess(linear_betas(T) * 10), lr=1e-2)
    with_optimizers(module)
    lines: list[dict[str, float]] = []
    for _ in range(30):
        module.training_step(make_batch(tinted(labels), labels=labels), 0)
        if module.train_step % 10 == 0:
            lines.append(module.training_means())
    assert lines[-1]["train/loss"] < 0.7 * lines[0]["train/loss"]
    assert lines[-1]["train/top1_q0"] > 0.9
    # At the end of this schedule nothing of the image is left.
    assert lines[-1]["train/top1_q3"] < lines[-1]["train/top1_q0"]

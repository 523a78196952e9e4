"""The classifier of clean images: its step against the same one written out by hand, and on images it can learn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.config.optimizer import OptimizerConfig
from difflab.images import to_float
from difflab.networks.build import build_network
from difflab.networks.config import UNetEncoderConfig
from difflab.tasks.classifier.module import ClassifierModule
from difflab.tasks.classifying import Classes
from difflab.types import Batch
from tasks.alone import with_optimizers, without_trainer
from tasks.denoising.test_denoising_module import images, make_batch

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
        self.x.append(x.detach().clone())
        self.time.append(time.clone())
        return self.out(x.mean(dim=(2, 3)))


def make_module(network: nn.Module | None = None, classes: int = CLASSES, accumulate: int = 1) -> ClassifierModule:
    module = ClassifierModule(
        network or Probe(classes),
        OptimizerConfig(kind="adamw", lr=1e-2),
        classes=classes,
        seed=3,
        max_steps=1000,
        accumulate=accumulate,
    )
    without_trainer(module)
    return module


def labelled(labels: list[int]) -> Batch:
    return make_batch(images(len(labels)), 0, torch.tensor(labels))


def test_the_loss_is_the_cross_entropy_of_the_image_as_it_is() -> None:
    module, labels = make_module(), [2, 0, 6]
    loss = module.training_step(labelled(labels), 0)
    assert torch.equal(module.network.x[0], to_float(images(3)))
    assert module.network.time[0].tolist() == [0.0] * 3
    logits = module.network.out(to_float(images(3)).mean(dim=(2, 3))).double()
    expected = [
        math.log(sum(math.exp(z) for z in row.tolist())) - row[label].item()
        for row, label in zip(logits, labels, strict=True)
    ]
    assert loss.item() == pytest.approx(sum(expected) / 3, rel=1e-5)


@pytest.mark.parametrize(("classes", "logged"), [(5, {"loss", "top1"}), (6, {"loss", "top1", "top5"})])
def test_accuracy_is_logged_without_quartiles_of_noise(classes: int, logged: set[str]) -> None:
    module = make_module(classes=classes)
    module.training_step(labelled([0, 1, 4]), 0)
    hits = module.network.out(to_float(images(3)).mean(dim=(2, 3))).argmax(dim=1) == torch.tensor([0, 1, 4])
    means = module.training_means()
    assert means.keys() == {f"train/{name}" for name in logged}
    assert means["train/top1"] == pytest.approx(float(hits.float().mean()))


def test_padding_of_the_validation_counts_nothing() -> None:
    module = make_module()
    module.on_validation_epoch_start()
    module.validation_step(labelled([0, 1, 2]), 0)
    means = module.validation_means()
    assert means.keys() == {"val/loss", "val/top1", "val/top5"}
    padded = labelled([0, 1, 2, 6])
    padded["weight"][-1] = 0.0
    module.on_validation_epoch_start()
    module.validation_step(padded, 0)
    assert module.validation_means() == pytest.approx(means)


def test_parts_of_a_batch_give_the_gradients_of_the_whole() -> None:
    labels = torch.arange(8) % CLASSES
    whole, parted = make_module(), make_module(accumulate=4)
    for module in (whole, parted):
        module.training_step(make_batch(images(8), labels=labels), 0)
    torch.testing.assert_close(parted.network.out.weight.grad, whole.network.out.weight.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [-1, CLASSES])
def test_a_class_out_of_range_is_refused_in_one_line(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"^class {wrong} is not in 0\.\.6, the classes of this classifier$"):
        make_module().training_step(labelled([0, wrong]), 0)


def test_an_encoder_learns_classes() -> None:
    torch.manual_seed(1)
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
            "init": "adm",
            "classes": 2,
            "pool": "attention",
        }
    )
    labels = torch.arange(32) % 2
    tint = torch.zeros(32, 3, 1, 1)
    tint[:, 0, 0, 0] = labels
    batch = make_batch((images(32, side=8) * 0.5 + 127 * tint).byte(), labels=labels)
    module = make_module(build_network(config, image_size=8, learned_variance=False), classes=2)
    module.training_step(batch, 0)
    # DistributedDataParallel wants a gradient of every parameter.
    assert all(parameter.grad is not None for parameter in module.network.parameters())
    with_optimizers(module)
    for _ in range(20):
        module.training_means()
        module.training_step(batch, 0)
    assert module.training_means()["train/top1"] > 0.95


def test_the_loss_of_bf16_logits_is_computed_in_float32() -> None:
    logits = torch.tensor([[3.0, 1.0, -2.0], [0.5, 0.25, 0.125]], dtype=torch.bfloat16)
    values = Classes(3).values(logits, torch.tensor([1, 0]))
    assert torch.equal(values["loss"], F.cross_entropy(logits.float(), torch.tensor([1, 0]), reduction="none"))
    assert {name: value.dtype for name, value in values.items()} == dict.fromkeys(("loss", "top1"), torch.float32)

"""EDM and its kin as something that trains: each small experiment takes a step, and a network learns one batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difflab.commands.composing import compose_and_validate
from difflab.config.train import TrainConfig
from difflab.tasks.build import build_training_module
from difflab.tasks.training_module import TrainingModule
from difflab.types import Batch
from tasks.alone import with_optimizers, without_trainer

AUGMENTED = "conditioning=augment"
TINY = [
    "network.base_channels=32",
    "network.blocks_per_level=1",
    "network.channel_mult=[1]",
    "network.attention_resolutions=[]",
    "network.middle_attention=false",
    "network.patch_size=1",
    "network.init=adm",
    "data.image_size=8",
    "optimizer.lr=3e-3",
    "optimizer.schedule={warmup_steps: 0, decay: none}",
]


def module_of(*overrides: str) -> TrainingModule:
    config, _ = compose_and_validate("train", TrainConfig, list(overrides))
    torch.manual_seed(0)
    module = build_training_module(config)
    without_trainer(module)
    return module


def batch_of(images: Tensor) -> Batch:
    n = len(images)
    return {
        "image": images,
        "index": torch.arange(n),
        "position": torch.arange(n),
        "weight": torch.ones(n),
        "label": torch.arange(n) % 6,
        "key": [str(i) for i in range(n)],
    }


def squares(n: int, side: int) -> Tensor:
    """A coloured square each, on a coloured ground."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 1, 1), dtype=torch.uint8, generator=generator).repeat(1, 1, side, side)
    half = side // 2
    images[:, :, half // 2 : -half // 2, half // 2 : -half // 2] = torch.randint(
        0, 256, (n, 3, 1, 1), dtype=torch.uint8, generator=generator
    )
    return images


def steps(module: TrainingModule, batch: Batch, n: int) -> None:
    with_optimizers(module)
    for _ in range(n):
        module.training_step(batch, 0)


def validation_loss(module: TrainingModule, batch: Batch) -> float:
    module.on_validation_epoch_start()
    module.eval()
    with torch.no_grad():
        module.validation_step(batch, 0)
    module.train()
    return module.validation_means()["val/loss"]


@pytest.mark.parametrize(
    "overrides",
    [
        ("experiment=edm/shapes32",),
        ("experiment=edm/shapes32", AUGMENTED),
        ("experiment=edm/shapes32", "conditioning=class_augment"),
        ("experiment=edm/shapes32", "diffusion=edm_vp"),
        ("experiment=edm/shapes32", "diffusion=edm_ve"),
        ("experiment=cfg/shapes32_continuous",),
        ("experiment=p2/shapes32",),
        ("experiment=zero_snr/shapes32",),
    ],
    ids=" ".join,
)
def test_a_small_experiment_takes_a_step(overrides: tuple[str, ...]) -> None:
    module = module_of(*overrides)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    loss = module.training_step(batch_of(squares(8, 32)), 0)
    assert 0 < float(loss) < 100
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert module.train_step == 1
    with_optimizers(module)
    module.update()
    assert any(not torch.equal(p, before[name]) for name, p in module.named_parameters())


def test_edms_loss_begins_at_the_square_of_the_target_which_is_1_for_data_of_its_spread() -> None:
    """A network that says 0: E[F_target^2] = 1 whatever the noise, if the data have a spread of sigma_data."""
    module = module_of("experiment=edm/shapes32", *TINY)
    uniform = torch.rand(256, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = ((uniform * 0.5 * 3**0.5 + 1) * 127.5).round().byte()
    assert validation_loss(module, batch_of(images)) == pytest.approx(1.0, abs=0.02)


def test_a_tiny_network_learns_one_batch() -> None:
    """In 60 steps the loss of EDM falls below 0.6 of what it was (to 0.45 of it)."""
    module = module_of("experiment=edm/shapes32", *TINY)
    batch = batch_of(squares(2, 8).repeat(8, 1, 1, 1))
    before = validation_loss(module, batch)
    steps(module, batch, 60)
    after = validation_loss(module, batch)
    assert after < 0.6 * before, (before, after)

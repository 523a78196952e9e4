"""One training step of a class-conditional model against guided-diffusion's: loss, gradients, AdamW, average."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from difflab.callbacks.ema import EMA
from difflab.conditioning.augmentation import Augmentation
from difflab.conditioning.build import build_conditioners
from difflab.conditioning.config import ClassConditionerConfig
from difflab.config.optimizer import OptimizerConfig
from difflab.diffusion.losses import DiffusionLoss
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import cosine_betas
from difflab.diffusion.timesteps import UniformTimesteps
from difflab.interop.guided import GUIDED
from difflab.interop.keymap import KeyMap
from difflab.interop.layout import Target
from difflab.networks.build import build_network
from difflab.tasks.denoising.module import DenoisingModule
from difflab.tasks.noised_module import Noised
from difflab.types import Batch
from golden_fixtures import Fixture, load
from networks.official_networks import guided_target
from tasks.alone import with_optimizers, without_trainer

FIXTURE = load("diffusion", "train-step")


class GivenDraws(DenoisingModule):
    """The module with the images, timesteps, importance weights and noise of the fixture."""

    def noised(self, batch: Batch, seeds: Sequence[int], augmentation: Augmentation | None = None) -> Noised:
        x0, noise, t = (FIXTURE.input(name) for name in ("x_start", "noise", "t"))
        drawn = super().noised({"image": torch.zeros(x0.shape, dtype=torch.uint8)}, seeds)
        return Noised(x0, noise, self.process.q_sample(x0, t, noise), t, FIXTURE.input("weights"), drawn.source)


@pytest.fixture(scope="module")
def keymap() -> KeyMap:
    return GUIDED.keymap(_target(FIXTURE))


@pytest.fixture
def module(keymap: KeyMap) -> DenoisingModule:
    """The model of the fixture with its drawn weights."""
    target = _target(FIXTURE)
    process = GaussianProcess(cosine_betas(FIXTURE.spec["process"]["T"]), variance="learned_range")
    optim = FIXTURE.spec["optim"]
    module = GivenDraws(
        build_network(target.network, image_size=target.image_size, learned_variance=True),
        process,
        DiffusionLoss(process, "hybrid"),
        UniformTimesteps(process.num_timesteps),
        build_conditioners(
            target.conditioning, embedding_dim=target.network.embedding_channels, image_size=target.image_size
        ),
        OptimizerConfig(kind="adamw", lr=optim["lr"], weight_decay=optim["weight_decay"]),
        seed=0,
        max_steps=1,
    )
    module.load_state_dict(keymap.from_official(FIXTURE.state_dict()))
    without_trainer(module)
    return module


def _target(fixture: Fixture) -> Target:
    plain = guided_target(fixture.spec["constructor"], fixture.spec["constructor"]["image_size"])
    classes = ClassConditionerConfig(kind="class", classes=fixture.spec["constructor"]["num_classes"])
    return Target(plain.network, plain.image_size, plain.learned_variance, {"class_label": classes})


def _batch() -> Batch:
    return {"image": torch.empty(2, 0), "position": torch.arange(2), "label": FIXTURE.input("y")}


def _official(keymap: KeyMap, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in keymap.to_official(dict(tensors)).items()}


def test_the_loss_and_its_terms_are_the_official_ones(module: DenoisingModule) -> None:
    terms = module.terms(_batch(), [0, 0], training=True)
    FIXTURE.check("terms.loss", terms.values["loss"])
    FIXTURE.check("loss_weighted_mean", terms.minimised)
    noised = module.noised(_batch(), [0, 0])
    conditioning = module.conditioners.conditioning(_batch())
    output = module.network(noised.x_t, module.process.network_time(noised.t), conditioning)
    parts = module.loss(output, noised.x0, noised.x_t, noised.t, noised.noise)
    FIXTURE.check("terms.mse", parts["mse"])
    FIXTURE.check("terms.vb", parts["vb"])


def test_the_gradient_of_every_parameter_is_the_official_one(module: DenoisingModule, keymap: KeyMap) -> None:
    module.training_step(_batch(), 0)
    # Gradients are permuted like the weights they belong to.
    gradients = _official(keymap, ((name, p.grad) for name, p in module.named_parameters() if p.grad is not None))
    ordered = [gradients[key].double() for key in FIXTURE.spec["keys"]]
    assert len(ordered) == len(gradients) == 145
    norms, sums = (np.array([float(f(g)) for g in ordered]) for f in (torch.linalg.vector_norm, torch.sum))
    # Biases before a norm of one channel per group have no gradient but rounding.
    np.testing.assert_allclose(norms, FIXTURE.arrays["grad_norm"], rtol=1e-5, atol=1e-7)
    # A sum of entries that cancel is as exact as the entries are.
    exactness = FIXTURE.arrays["grad_norm"] * np.sqrt([g.numel() for g in ordered])
    assert (np.abs(sums - FIXTURE.arrays["grad_sum"]) <= 1e-5 * exactness + 1e-6).all()
    head = gradients["out.2.weight"].flatten()[:256]
    FIXTURE.check("grad_head.out.2.weight", head, rel=1e-5)


def test_the_weights_and_their_average_after_the_step_are_the_official_ones(
    module: DenoisingModule, keymap: KeyMap
) -> None:
    ema = EMA(FIXTURE.spec["optim"]["ema_rate"])
    with_optimizers(module)
    ema.start(module)
    module.training_step(_batch(), 0)
    ema.update(module.train_step)
    # The first step of Adam is about lr * sign(gradient), which is arbitrary where the gradient is nearly 0.
    sure = np.abs(FIXTURE.arrays["grad_head.out.2.weight"]) > 1e-6
    assert sure.mean() > 0.9
    for name, tensors in (("after_step", module.named_parameters()), ("ema", ema.averages.items())):
        head = _official(keymap, tensors)["out.2.weight"].flatten()[:256].numpy()
        expected = FIXTURE.arrays[f"{name}_head.out.2.weight"]
        np.testing.assert_allclose(head[sure], expected[sure], rtol=0, atol=1e-5)
    assert module.train_step == 1

"""The training of an autoencoder: its gradients, the discriminator's start, exact stops, and what is logged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from difflab.callbacks.checkpoint import LAST, Checkpoint
from difflab.callbacks.ema import EMA
from difflab.callbacks.guard import NonFiniteGuard
from difflab.callbacks.training_log import TrainingLog
from difflab.images import to_float
from difflab.parts.selection import averaged_parameters, exported, trained
from difflab.tasks.autoencoder.adversarial import adaptive_weight, generator_loss
from difflab.tasks.autoencoder.module import AutoencoderModule
from difflab.tracking.csv import CSVLogger
from difflab.tracking.csv_rows import read_csv
from run_files import differing
from tasks.alone import with_optimizers, without_trainer
from tasks.autoencoder.small_autoencoders import START, STEPS, small_module
from tasks.toys import fit

KINDS = ("kl", "vq")


def batch(size: int = 4) -> dict[str, Any]:
    pixels = torch.randint(0, 256, (size, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return {"image": pixels, "position": torch.arange(size), "weight": torch.ones(size)}


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def saved(root: Path) -> dict[str, Any]:
    return torch.load(root / LAST, weights_only=True)


def everything(root: Path) -> list[Callback]:
    return [NonFiniteGuard(), EMA(0.8), TrainingLog(2), Checkpoint(root, every_steps=1, keep_last=9)]


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_whole_loss_written_down(kind: str, learned: bool) -> None:
    module = small_module(kind, start=0, learned=learned, network={"tanh_output": True})
    without_trainer(module)
    with_optimizers(module)
    stepped: list[dict[str, Tensor]] = []
    vars(module)["update"] = lambda name: stepped.append(gradients(module))
    module.training_step(batch(), 0)

    straight = small_module(kind, start=0, learned=learned, network={"tanh_output": True})
    without_trainer(straight)
    assert straight.adversary is not None
    (part,) = straight.parts(batch())
    images, found = straight._passed(part.batch, part.seeds)
    errors = straight.error(found.images, images)
    g = generator_loss(straight.adversary.discriminator(found.images)).mean()
    last = straight.network.decoder.conv_out.weight
    of_nll, of_g = (torch.autograd.grad(one, last, retain_graph=True)[0] for one in (errors.nll.mean(), g))
    weight = straight.adversary.weight * adaptive_weight(of_nll, of_g)
    assert 0 < float(weight) < 1e4
    loss = errors.nll.mean() + straight.regularizer_weight * found.regularization.mean() + weight * g
    own = {name: p for name, p in trained(straight).items() if not name.startswith("discriminator")}
    assert ("error.log_variance" in own) == learned
    expected = dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))
    assert stepped[0].keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(stepped[0][name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_each_optimizer_changes_its_own_parameters_alone(kind: str) -> None:
    module = small_module(kind, start=0)
    without_trainer(module)
    first, second = with_optimizers(module)
    seen: list[set[str]] = []
    for one in (first, second):
        one.register_step_pre_hook(lambda *_: seen.append(set(gradients(module))))
    module.training_step(batch(), 0)
    assert seen[0] == {name for name in trained(module) if name.startswith("network.")}
    assert seen[1] == {name for name in trained(module) if name.startswith("discriminator.")}


@pytest.mark.parametrize("norm", ["batch", "actnorm"])
def test_the_discriminator_is_idle_before_its_start(norm: str, tiny_shapes: Path, tmp_path: Path) -> None:
    module = small_module(norm=norm)
    assert module.discriminator is not None
    before = {name: value.clone() for name, value in module.discriminator.state_dict().items()}
    fit(module, tiny_shapes, tmp_path, everything(tmp_path), steps=START)
    assert differing(module.discriminator.state_dict(), before) == [], "neither weights nor running statistics"
    autoencoder, discriminator = saved(tmp_path)["optimizer_states"]
    assert autoencoder["state"]
    assert not discriminator["state"]
    later = small_module(norm=norm)
    fit(later, tiny_shapes, tmp_path, everything(tmp_path), steps=START + 1, resume=tmp_path / LAST)
    assert later.discriminator is not None
    assert differing(later.discriminator.state_dict(), before)
    assert {int(one["step"]) for one in saved(tmp_path)["optimizer_states"][1]["state"].values()} == {1}


def test_without_an_adversary_there_is_one_optimizer_and_the_same_training_until_its_start(
    tiny_shapes: Path, tmp_path: Path
) -> None:
    alone, before = small_module(start=None), small_module()
    for module, name in ((alone, "alone"), (before, "before")):
        fit(module, tiny_shapes, tmp_path / name, steps=START)
    assert len(alone.optimized()) == 1
    assert differing(alone.network.state_dict(), before.network.state_dict()) == []


@pytest.mark.parametrize("stop", [START - 1, START, START + 1])
@pytest.mark.parametrize("options", [{"kind": "kl", "learned": True}, {"kind": "vq", "restart_codes_every": 2}])
def test_stopped_and_continued_is_exact(stop: int, options: dict[str, Any], tiny_shapes: Path, tmp_path: Path) -> None:
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    made = {**options, "accumulate": 2, "gradient_clip": 1.0}
    logs = [CSVLogger(root / "metrics.csv") for root in (straight, halves, halves)]
    fit(small_module(**made), tiny_shapes, straight, everything(straight), logger=logs[0])
    fit(small_module(**made), tiny_shapes, halves, everything(halves), steps=stop, logger=logs[1])
    fit(small_module(**made), tiny_shapes, halves, everything(halves), resume=halves / LAST, logger=logs[2])
    assert differing(saved(halves), saved(straight)) == []
    last = [[row for row in read_csv(root / "metrics.csv") if row["train/step"] == "4"] for root in (straight, halves)]
    for one, two in zip(last[0][0].items(), last[1][0].items(), strict=True):
        assert one == two


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_parts_is_the_batch_before_the_adversary(kind: str, tiny_shapes: Path, tmp_path: Path) -> None:
    whole, parted = small_module(kind), small_module(kind, accumulate=4)
    for module in (whole, parted):
        fit(module, tiny_shapes, tmp_path, steps=START)
    for name, parameter in whole.network.named_parameters():
        torch.testing.assert_close(parted.network.get_parameter(name), parameter, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_discriminator_sees_the_autoencoder_before_or_after_its_update(recompute: bool) -> None:
    module = small_module(start=0, recompute=recompute)
    without_trainer(module)
    with_optimizers(module)
    assert module.discriminator is not None
    seen: list[Tensor] = []
    module.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    module.training_step(batch(), 0)
    against, real, judged = seen
    assert torch.equal(real, to_float(batch()["image"]))
    assert torch.equal(judged, against) != recompute


def test_a_loss_that_is_not_finite_leaves_everything_as_it_is(tiny_shapes: Path, tmp_path: Path) -> None:
    class Spoilt(AutoencoderModule):
        def _minimised(self, images: Tensor, found: Any) -> Any:
            nan = float("nan") if self.train_step == START and not self.was_bad else 1.0
            self.was_bad |= self.train_step == START
            return super()._minimised(images * nan, found)

    module = small_module()
    module.__class__ = Spoilt
    vars(module)["was_bad"] = False
    guard = NonFiniteGuard()
    fit(module, tiny_shapes, tmp_path, [guard])
    assert (guard.skipped, module.train_step) == (1, STEPS)
    assert all(p.isfinite().all() for p in module.parameters())


def test_what_is_exported_is_the_network_alone() -> None:
    module = small_module(learned=True)
    assert all(name.startswith("network.") for name in exported(module))
    assert set(averaged_parameters(module)) == {f"network.{name}" for name, _ in module.network.named_parameters()}
    assert "error.log_variance" in trained(module)
    assert "error.log_variance" not in trained(small_module())


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_the_loss_are_logged(kind: str, tiny_shapes: Path, tmp_path: Path) -> None:
    module = small_module(kind)
    csv = CSVLogger(tmp_path / "metrics.csv")
    fit(module, tiny_shapes, tmp_path, [TrainingLog(1)], logger=csv)
    rows = read_csv(csv.path)
    term = "kl" if kind == "kl" else "codebook"
    before, after = rows[START - 1], rows[START]
    for row in (before, after):
        loss = float(row["train/nll"]) + module.regularizer_weight * float(row[f"train/{term}"])
        if row is after:
            loss += float(row["train/d_weight"]) * float(row["train/g"])
        assert float(row["train/loss"]) == pytest.approx(loss, rel=1e-5)
    for name in ("g", "d", "d_weight", "logits_real", "logits_fake", "grad_norm_discriminator"):
        assert before.get(f"train/{name}", "") == ""
        assert math.isfinite(float(after[f"train/{name}"]))
    assert float(after["train/g"]) == pytest.approx(-float(after["train/logits_fake"]), rel=0.1)
    if kind == "vq":
        assert 0 < float(after["train/codes_used"]) <= 1
        assert 1 <= float(after["train/perplexity"]) <= 16
    else:
        assert "train/perplexity" not in after


@pytest.mark.parametrize("kind", KINDS)
def test_validation_leaves_padding_out_and_has_no_adversarial_loss(kind: str) -> None:
    module = small_module(kind, start=0)
    without_trainer(module)
    module.eval()
    held_out = {**batch(), "index": torch.arange(4)}
    padded = {**held_out, "weight": torch.tensor([1.0, 1.0, 1.0, 0.0])}
    three = {name: value[:3] for name, value in held_out.items()}
    found = []
    for one in (padded, three):
        module.on_validation_epoch_start()
        module.validation_step(one, 0)
        found.append(module.validation_means())
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    term = "kl" if kind == "kl" else "codebook"
    loss = found[0]["val/nll"] + module.regularizer_weight * found[0][f"val/{term}"]
    assert found[0]["val/loss"] == pytest.approx(loss, rel=1e-5)
    assert {"val/d", "val/logits_real", "val/logits_fake"} <= found[0].keys()
    assert ("val/perplexity" in found[0]) == (kind == "vq")


def test_reconstructions_take_the_mode_of_the_latent() -> None:
    module = small_module()
    images = to_float(batch()["image"])
    posterior = module.network.encode(images)
    torch.testing.assert_close(module.reconstruct(images), module.network.decode(posterior.mode()))

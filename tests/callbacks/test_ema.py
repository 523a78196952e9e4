from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks.checkpoint import Checkpoint
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.config import EMAConfig
from difflab.callbacks.context import CallbackContext
from difflab.callbacks.ema import EMA, ema_decay
from difflab.commands.composing import compose_and_validate
from difflab.config.train import TrainConfig
from difflab.tracking.rundir import RunDirectory
from difflab.types import Batch
from golden_fixtures import draw, load


def context_of(batch_size: int) -> CallbackContext:
    """Of a training with that global batch."""
    asked = ["experiment=ddpm/shapes32", f"data.batch_size={batch_size}"]
    config = compose_and_validate("train", TrainConfig, asked)[0]
    return CallbackContext(config, RunDirectory(Path("run")), config.model())


class History(Callback):
    """The weights after every batch."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        self.weights.append(pl_module.network.weight.detach().clone())


def closed_form(start: torch.Tensor, weights: list[torch.Tensor], decays: list[float]) -> torch.Tensor:
    average = start.double()
    for w, d in zip(weights, decays, strict=True):
        average = d * average + (1 - d) * w.double()
    return average


def test_decay_schedules() -> None:
    assert ema_decay(5, 0.9) == 0.9
    assert ema_decay(1, 0.9999, "count") == pytest.approx(2 / 11)
    assert ema_decay(10**6, 0.9999, "count") == 0.9999
    assert ema_decay(1, 0.9999, "inv_gamma") == 0.0
    assert ema_decay(16, 0.9999, "inv_gamma", power=0.75) == pytest.approx(1 - 16**-0.75)
    assert ema_decay(10**9, 0.9999, "inv_gamma", power=0.75) == 0.9999
    assert ema_decay(1, 0.9999, "ramp_up") == 0.0
    assert ema_decay(21, 0.9999, "ramp_up", ramp_up=0.05) == pytest.approx(0.5)
    assert ema_decay(10**9, 0.9999, "ramp_up") == 0.9999


def test_averages_are_those_of_latent_diffusion() -> None:
    fixture = load("latent", "ldm_ema")
    seed, decay = fixture.spec["seed"], fixture.spec["args"]["decay"]
    for key, shape in fixture.spec["keys"].items():
        start, *weights = (torch.as_tensor(draw(seed + i, key, shape)) for i in range(fixture.spec["num_updates"] + 1))
        for n in range(1, len(weights) + 1):
            decays = [ema_decay(i, decay, "count") for i in range(1, n + 1)]
            fixture.check_close(f"{fixture.spec['name_map'][key]}@{n}", closed_form(start, weights[:n], decays))


@pytest.mark.parametrize("step", [0, 1, 3, 100, 10**6])
def test_a_half_life_in_images_decays_as_edms_training_loop(step: int) -> None:
    """Line for line what it computes before it counts the batch, from the images of the steps that were done."""
    batch_size, half_life_kimg, images = 512, 500, step * 512
    half_life = min(half_life_kimg * 1000, images * 0.05)
    expected = 0.5 ** (batch_size / max(half_life, 1e-8))
    config = EMAConfig(decay=None, half_life=500_000, warmup="ramp_up")
    ema = EMA.from_config(config, context_of(batch_size))
    assert ema_decay(step + 1, ema.decay, ema.warmup, ramp_up=ema.ramp_up) == pytest.approx(expected)


def test_a_weight_counts_half_after_the_half_life() -> None:
    ema, module = EMA.from_config(EMAConfig(decay=None, half_life=64), context_of(16)), nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    ema.start(module)
    nn.init.zeros_(module.weight)
    for step in range(1, 5):
        ema.update(step)
    assert ema.averages["weight"].item() == pytest.approx(0.5)


@pytest.mark.parametrize("warmup", ["none", "count", "inv_gamma", "ramp_up"])
def test_average_has_the_closed_form(tmp_path: Path, warmup: Any) -> None:
    model, ema, history = Tiny(), EMA(0.8, warmup), History()
    start = model.network.weight.detach().clone()
    trainer(tmp_path, 7, [ema, history]).fit(model, loader(7))
    decays = [ema_decay(n, 0.8, warmup) for n in range(1, 8)]
    expected = closed_form(start, history.weights, decays)
    torch.testing.assert_close(ema.averages["network.weight"].double(), expected, rtol=0, atol=1e-6)
    assert not torch.equal(ema.averages["network.weight"], model.network.weight)


def test_average_equals_torch_averaged_model() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    theirs = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(module)  # its first update copies
    ours = EMA(0.9)
    ours.start(module)
    for step in range(1, 20):
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.randn_like(p))
        theirs.update_parameters(module)
        ours.update(step)
    for name, p in theirs.module.named_parameters():
        torch.testing.assert_close(ours.averages[name], p.detach(), rtol=0, atol=1e-6)


def test_accumulated_batches_count_once(tmp_path: Path) -> None:
    model, ema, history = Tiny(accumulate=2), EMA(0.8), History()
    start = model.network.weight.detach().clone()
    trainer(tmp_path, 3, [ema, history]).fit(model, loader(3))
    assert model.train_step == 3
    expected = closed_form(start, history.weights, [0.8] * 3)
    torch.testing.assert_close(ema.averages["network.weight"].double(), expected, rtol=0, atol=1e-6)


def test_every_k_steps_keeps_the_horizon(tmp_path: Path) -> None:
    model, ema, history = Tiny(), EMA(0.8, every=3), History()
    start = model.network.weight.detach().clone()
    trainer(tmp_path, 7, [ema, history]).fit(model, loader(7))
    expected = closed_form(start, history.weights[2:6:3], [0.8**3] * 2)
    torch.testing.assert_close(ema.averages["network.weight"].double(), expected, rtol=0, atol=1e-6)


def test_average_is_a_copy_until_start_step(tmp_path: Path) -> None:
    model, ema, history = Tiny(), EMA(0.8, start_step=3), History()
    trainer(tmp_path, 5, [ema, history]).fit(model, loader(5))
    expected = closed_form(history.weights[2], history.weights[3:], [0.8] * 2)
    torch.testing.assert_close(ema.averages["network.weight"].double(), expected, rtol=0, atol=1e-6)


def test_a_start_step_between_two_updates_is_where_the_average_begins(tmp_path: Path) -> None:
    """With every=2 and start_step=3 the average is a copy at 3, and 4 is one step after it."""
    model, ema, history = Tiny(), EMA(0.8, every=2, start_step=3), History()
    trainer(tmp_path, 7, [ema, history]).fit(model, loader(7))
    after = history.weights
    expected = closed_form(after[2], [after[3], after[5]], [0.8, 0.8**2])
    torch.testing.assert_close(ema.averages["network.weight"].double(), expected, rtol=0, atol=1e-6)
    assert ema.step == 6


def test_applied_restores_every_bit_and_exports_buffers() -> None:
    model, ema = Tiny(), EMA(0.5)
    model.network.bias.requires_grad_(False)
    ema.start(model)
    with torch.no_grad():
        model.network.weight.add_(1 / 3)
    ema.update(1)
    raw = {name: t.clone() for name, t in model.state_dict().items()}
    weight = model.network.weight
    with contextlib.suppress(RuntimeError), ema.applied(model):
        torch.testing.assert_close(model.network.weight.detach(), ema.averages["network.weight"], rtol=0, atol=0)
        with ema.applied(model):
            pass
        assert not torch.equal(model.network.weight, raw["network.weight"]), "the inner context swapped back"
        raise RuntimeError("inside")
    assert model.network.weight is weight
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, raw[name]), name
    exported = ema.ema_state_dict(model)
    assert exported.keys() == raw.keys()
    assert torch.equal(exported["network.weight"], ema.averages["network.weight"])
    assert torch.equal(exported["network.bias"], raw["network.bias"]), "frozen parameters are exported as they are"
    assert torch.equal(exported["table"], raw["table"])


def test_tied_weights_are_exported_under_both_names() -> None:
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    module["b"].weight = module["a"].weight
    ema = EMA(0.5)
    ema.start(module)
    with torch.no_grad():
        module["a"].weight.add_(1)
    ema.update(1)
    exported = ema.ema_state_dict(module)
    assert torch.equal(exported["a.weight"], exported["b.weight"])
    assert not torch.equal(exported["b.weight"], module["b"].weight)


def test_low_precision_weights_are_averaged_in_float32() -> None:
    module = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        module.weight.fill_(1.0)
    ema = EMA(0.999)
    ema.start(module)
    with torch.no_grad():
        module.weight.fill_(2.0)
    for step in range(1, 101):
        ema.update(step)
    assert ema.averages["weight"].item() == pytest.approx(2 - 0.999**100, rel=1e-5)


def test_validation_uses_the_average(tmp_path: Path) -> None:
    for validate_with in ("ema", "raw"):
        model, ema = Tiny(), EMA(0.8, validate_with=validate_with)
        fit = trainer(tmp_path, 4, [ema], val_check_interval=4, limit_val_batches=1)
        fit.fit(model, loader(4), loader(1))
        used = ema.averages["network.weight"] if validate_with == "ema" else model.network.weight.detach()
        assert fit.callback_metrics["val/weight"].item() == pytest.approx(used.sum().item())


@pytest.mark.parametrize("every", [1, 2])
def test_resumed_run_equals_the_straight_one_bit_for_bit(tmp_path: Path, every: int) -> None:
    straight, through = Tiny(), EMA(0.8, "count", every=every)
    trainer(tmp_path, 8, [through]).fit(straight, loader(8))

    def run(steps: int, model: Tiny, ema: EMA, ckpt_path: Path | None = None) -> None:
        save = Checkpoint(tmp_path / "ckpt", every_steps=3)
        fit = trainer(tmp_path, steps, [ema, save], plugins=[AtomicCheckpointIO()])
        fit.fit(model, loader(8), ckpt_path=ckpt_path, weights_only=True)

    run(3, Tiny(), EMA(0.8, "count", every=every))
    resumed, ema = Tiny(), EMA(0.8, "count", every=every)
    run(8, resumed, ema, tmp_path / "ckpt" / "last.ckpt")
    assert resumed.seen == [3, 4, 5, 6, 7]
    assert ema.step == through.step
    for name, parameter in straight.named_parameters():
        assert torch.equal(resumed.get_parameter(name), parameter), name
        assert torch.equal(ema.averages[name], through.averages[name]), name


def test_a_changed_model_is_refused() -> None:
    ema = EMA(0.9)
    ema.start(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="differ in 1 parameters: 'bias'"):
        ema.start(nn.Linear(2, 2, bias=False))


def test_a_validation_that_fails_leaves_the_raw_weights_to_be_saved(tmp_path: Path) -> None:
    class Failing(Tiny):
        def validation_step(self, batch: Batch, batch_idx: int) -> None:
            raise RuntimeError("too many corrupt samples")

    straight, model, ema = Tiny(), Failing(), EMA(0.8)
    trainer(tmp_path, 4, []).fit(straight, loader(9))
    with pytest.raises(RuntimeError, match="too many corrupt"):
        trainer(tmp_path, 9, [ema], val_check_interval=4).fit(model, loader(9), loader(1))
    assert model.train_step == 4
    assert torch.equal(model.network.weight, straight.network.weight)
    assert not torch.equal(model.network.weight, ema.averages["network.weight"])


def test_one_that_joins_late_begins_there() -> None:
    """The steps before had no average that they could have decayed."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    ema = EMA(0.5)
    ema.start(module, step=10)
    nn.init.constant_(module.weight, 2.0)
    ema.update(10)
    assert ema.averages["weight"].item() == 1.0
    ema.update(11)
    assert ema.averages["weight"].item() == 1.5

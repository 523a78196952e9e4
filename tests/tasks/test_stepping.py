"""Steps of tasks with several optimizers, and of one whose loss needs the whole batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from torch import nn

from difflab.callbacks.checkpoint import LAST, Checkpoint
from difflab.callbacks.ema import EMA
from difflab.callbacks.guard import NonFiniteGuard
from difflab.callbacks.power_ema import PowerEMA
from difflab.callbacks.training_log import TrainingLog
from difflab.callbacks.weights import WeightsExport
from difflab.commands.continuing import refuse_other_training
from difflab.config.init import WeightsInitConfig
from difflab.config.optimizer import OptimizerConfig
from difflab.errors import UserError
from difflab.parts.selection import averaged_parameters, exported
from difflab.parts.starting import start_from
from difflab.seeding import stream_seed
from difflab.tasks.stepping import Optimized
from difflab.tracking.csv import CSVLogger
from difflab.tracking.csv_rows import read_csv
from run_files import differing
from tasks.alone import with_optimizers, without_trainer
from tasks.toys import STEPS, Adversarial, Contrastive, fit

GENERATOR = {"network.0.weight", "network.0.bias", "network.3.weight", "network.3.bias", "late"}


class KilledError(Exception):
    """Stands for a process that is no more."""


class Norms(Callback):
    """The gradients' norm of each optimizer at each of its steps, after clipping."""

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        for name, optimizer in pl_module.optimizers_by_name().items():
            self.seen[name] = []
            optimizer.register_step_post_hook(lambda one, *_, seen=self.seen[name]: seen.append(norm_of(one)))


def norm_of(optimizer: torch.optim.Optimizer) -> float:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return float(torch.stack([gradient.norm() for gradient in gradients]).norm()) if gradients else 0.0


def with_gradient(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.grad is not None}


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def saved(root: Path) -> dict[str, Any]:
    return torch.load(root / LAST, weights_only=True)


def everything(root: Path) -> list[Callback]:
    return [
        NonFiniteGuard(),
        EMA(0.8),
        PowerEMA(root / "power_ema", [0.1], snapshot_every_steps=3),
        WeightsExport(root / "weights", {}),
        Checkpoint(root, every_steps=2),
    ]


def test_the_clock_counts_batches_whatever_the_number_of_optimizers(tiny_shapes: Path, tmp_path: Path) -> None:
    module = Adversarial()
    run = fit(module, tiny_shapes, tmp_path, everything(tmp_path))
    assert (module.train_step, module.train_images) == (STEPS, STEPS * 8)
    assert run.global_step == 2 * STEPS, "Lightning counts the calls"
    assert saved(tmp_path)["callbacks"]["EMA"]["step"] == STEPS
    assert [len(state["state"]) for state in saved(tmp_path)["optimizer_states"]] == [5, 4]


def test_each_optimizer_changes_its_own_parameters_alone(tiny_shapes: Path, tmp_path: Path) -> None:
    module = Adversarial()
    without_trainer(module)
    (generator, discriminator) = with_optimizers(module)
    before, seen = weights(module), []
    generator.register_step_pre_hook(lambda *_: seen.append(with_gradient(module)))
    generator.register_step_post_hook(lambda *_: seen.append(set(differing(weights(module), before))))
    discriminator.register_step_pre_hook(lambda *_: seen.append(with_gradient(module)))
    batch = {"image": torch.zeros(4, 3, 16, 16, dtype=torch.uint8), "position": torch.arange(4)}
    module.training_step(batch, 0)
    assert seen[0] == GENERATOR - {"late"}, "the late one has no gradient yet"
    assert seen[1] == {f"/{name}" for name in seen[0]}
    assert seen[2] == {name for name in before if name.startswith("discriminator")}
    assert with_gradient(module) == set()


@pytest.mark.parametrize("stop", [2, 3])
def test_stopped_and_continued_is_exact_with_both_optimizers(stop: int, tiny_shapes: Path, tmp_path: Path) -> None:
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    fit(Adversarial(accumulate=2), tiny_shapes, straight, everything(straight))
    fit(Adversarial(accumulate=2), tiny_shapes, halves, everything(halves), steps=stop)
    fit(Adversarial(accumulate=2), tiny_shapes, halves, everything(halves), resume=halves / LAST)
    assert differing(saved(halves), saved(straight)) == []


def test_a_kill_between_two_optimizers_costs_nothing(
    tiny_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    fit(Adversarial(), tiny_shapes, straight, everything(straight))
    update = Adversarial.update

    def dying(self: Adversarial, optimizer: str) -> None:
        update(self, optimizer)
        if (self.train_step, optimizer) == (3, "generator"):
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Adversarial, "update", dying)
        with pytest.raises(KilledError):
            fit(Adversarial(), tiny_shapes, killed, everything(killed))
    assert saved(killed)["difflab"]["train_step"] == 2, "a batch that is half done is not saved"
    fit(Adversarial(), tiny_shapes, killed, everything(killed), resume=killed / LAST)
    assert differing(saved(killed), saved(straight)) == []


@pytest.mark.parametrize(
    ("bad", "stepped"), [("generator", set()), ("discriminator", GENERATOR)], ids=["the first", "the second"]
)
def test_a_bad_loss_drops_its_step_and_those_after_it_in_the_batch(
    bad: str, stepped: set[str], tiny_shapes: Path, tmp_path: Path
) -> None:
    module, before, after = Adversarial(bad=[(3, bad)]), {}, {}

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3:
                before.update(weights(pl_module))

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3:
                after.update(weights(pl_module))

    guard, csv = NonFiniteGuard(), CSVLogger(tmp_path / "metrics.csv")
    fit(module, tiny_shapes, tmp_path, [guard, Watch()], logger=csv)
    assert {place.removeprefix("/") for place in differing(after, before)} == stepped
    assert (module.train_step, module.train_images, guard.skipped) == (STEPS, STEPS * 8, 1)
    assert all(p.isfinite().all() for p in module.parameters())
    skipped = [row for row in read_csv(csv.path) if "train/skipped_steps" in row]
    assert [(row["train/step"], row["train/skipped_steps"]) for row in skipped] == [("3", "1")]


def test_each_optimizer_is_clipped_by_its_own_norm_and_has_its_own_rate(tiny_shapes: Path, tmp_path: Path) -> None:
    norms, csv = Norms(), CSVLogger(tmp_path / "metrics.csv")
    fit(Adversarial(gradient_clip=0.02), tiny_shapes, tmp_path, [TrainingLog(1), norms], logger=csv)
    rows = read_csv(csv.path)
    assert not {"train/lr", "train/grad_norm"} & {key for row in rows for key in row}
    for name in ("generator", "discriminator"):
        before = [float(row[f"train/grad_norm_{name}"]) for row in rows]
        assert norms.seen[name] == pytest.approx([min(norm, 0.02) for norm in before], rel=1e-4)
        assert max(before) > 0.02
    rates = [(float(row["train/lr_generator"]), float(row["train/lr_discriminator"])) for row in rows]
    assert rates == [(pytest.approx(0.01 * min(1, step / 4)), 0.02) for step in range(1, STEPS + 1)]


def test_a_batch_in_parts_is_the_batch(tiny_shapes: Path, tmp_path: Path) -> None:
    whole, parted = Adversarial(), Adversarial(accumulate=4)
    norms: list[list[float]] = []
    # Dropout is drawn anew for each part.
    for module in (whole, parted):
        module.network[2].p = 0.0
        fit(module, tiny_shapes, tmp_path)
        norms.append([float(module.grad_norms[name]) for name in ("generator", "discriminator")])
    # The steps of Adam are the same for gradients that are all several times as large.
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(parted.get_parameter(name), parameter, rtol=1e-4, atol=1e-5)


def test_what_only_training_needs_is_kept_and_neither_averaged_nor_exported(tiny_shapes: Path, tmp_path: Path) -> None:
    module, callbacks = Adversarial(), everything(tmp_path)
    fit(module, tiny_shapes, tmp_path, callbacks)
    content = saved(tmp_path)
    assert content["callbacks"]["EMA"]["averages"].keys() == GENERATOR == averaged_parameters(module).keys()
    assert content["state_dict"].keys() == module.state_dict().keys()
    assert "discriminator.told" in content["state_dict"]
    assert load_file(tmp_path / "weights" / "ema.safetensors").keys() == GENERATOR == exported(module).keys()
    snapshots = list((tmp_path / "power_ema").iterdir())
    assert len(snapshots) == 2
    assert all(load_file(path).keys() == GENERATOR for path in snapshots)
    assert content["difflab"]["training_only"] == ["discriminator"]
    ema = next(one for one in callbacks if isinstance(one, EMA))
    raw = weights(module)
    with ema.applied(module):
        changed = differing(weights(module), raw)
    assert {place.removeprefix("/") for place in changed} == GENERATOR
    assert differing(weights(module), raw) == []


def test_what_only_training_needs_begins_anew_from_the_weights_of_others() -> None:
    source, module = Adversarial(), Adversarial()
    for parameter in source.parameters():
        parameter.data.add_(1)
    own = weights(module.discriminator)
    lines = start_from(
        module, exported(source), "x", WeightsInitConfig.model_validate({"kind": "weights", "from": "x"})
    )
    assert [line.partition(":")[2].partition(":")[0] for line in lines] == [" discriminator.* begins untrained"]
    assert differing(exported(module), exported(source)) == []
    assert differing(weights(module.discriminator), own) == []


def test_a_checkpoint_of_other_optimizers_is_refused_in_one_line(tiny_shapes: Path, tmp_path: Path) -> None:
    fit(Adversarial(), tiny_shapes, tmp_path, everything(tmp_path), steps=2)

    class Swapped(Adversarial):
        def optimized(self) -> Any:
            return dict(reversed(super().optimized().items()))

    refuse_other_training(saved(tmp_path), Adversarial(), "x.ckpt")
    frozen = Adversarial()
    frozen.network[0].requires_grad_(False)
    for other, theirs in ((Contrastive(), 9), (frozen, 9)):
        with pytest.raises(UserError, match=f"x.ckpt is from a run that trained {theirs} tensors") as error:
            refuse_other_training(saved(tmp_path), other, "x.ckpt")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="init=weights"):
        refuse_other_training(saved(tmp_path), Swapped(), "x.ckpt")


def test_an_optimizer_with_nothing_left_to_train_is_refused() -> None:
    module = Adversarial()
    module.discriminator.requires_grad_(False)
    with pytest.raises(UserError, match=r"nothing is left to train for the discriminator: .* init\.train"):
        module.trained_by()


def test_a_parameter_without_an_optimizer_is_a_bug() -> None:
    class Forgetful(Adversarial):
        def optimized(self) -> Any:
            return {"generator": Optimized((self.network,), OptimizerConfig(kind="adam", lr=0.1))}

    with pytest.raises(AssertionError, match="exactly one optimizer"):
        Forgetful().trained_by()


def test_a_loss_over_the_whole_batch_sees_it_whole_also_in_a_run_that_accumulates(
    tiny_shapes: Path, tmp_path: Path
) -> None:
    whole, accumulating = Contrastive(), Contrastive(accumulate=4)
    for module in (whole, accumulating):
        fit(module, tiny_shapes, tmp_path)
    assert accumulating.whole == whole.whole == [8] * STEPS
    assert differing(weights(accumulating), weights(whole)) == []
    loss = accumulating.training_means()["train/loss"]
    assert 0 < loss < math.log(8) + 0.5


def test_dropout_is_drawn_anew_for_every_part_of_a_step_and_alike_when_the_step_is_taken_again() -> None:
    module, batch = Contrastive(accumulate=2), {"position": torch.arange(4)}
    without_trainer(module, rank=1, world_size=2)
    module.train_step = 5

    def drawn() -> list[float]:
        module._parts_of_step = 0
        return [float(torch.rand(())) for _ in range(2) for _ in module.parts(batch)]

    streams = [torch.Generator().manual_seed(stream_seed(3, "dropout", 5, part, 1)) for part in (1, 2, 3, 4)]
    assert drawn() == drawn() == [float(torch.rand((), generator=stream)) for stream in streams]


def test_parts_have_all_fields_of_their_samples() -> None:
    module = Contrastive(accumulate=2)
    without_trainer(module)
    batch = {"position": torch.tensor([4, 5, 6, 7]), "caption": ["a", "b", "c", "d"], "label": torch.arange(4)}
    first, second = module.parts(batch)
    assert (first.batch["caption"], second.batch["caption"]) == (["a", "b"], ["c", "d"])
    assert second.batch["position"].tolist() == [6, 7]
    assert [part.is_last for part in (first, second)] == [False, True]
    assert first.seeds + second.seeds == next(module.parts(batch, 1)).seeds
    with pytest.raises(ValueError, match="a batch of 4 samples has 3 of caption"):
        next(module.parts({**batch, "caption": ["a", "b", "c"]}))

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks.checkpoint import LAST, Checkpoint
from difflab.callbacks.checkpoint_io import AtomicCheckpointIO
from difflab.callbacks.clock import Clock
from difflab.callbacks.ema import EMA
from difflab.callbacks.guard import NonFiniteError, NonFiniteGuard
from difflab.tracking.csv import CSVLogger
from difflab.tracking.csv_rows import read_csv


def fit(root: Path, steps: int, model: Tiny, callbacks: list[Any], **options: Any) -> Any:
    run = trainer(root, steps, callbacks, plugins=[AtomicCheckpointIO()], **options)
    run.fit(model, loader(50))
    return run


def everything(run: Any, model: Tiny, ema: EMA) -> dict[str, Any]:
    optimizer = run.optimizers[0].state_dict()
    state = {f"{i}.{name}": value for i, s in optimizer["state"].items() for name, value in s.items()}
    return {
        **{name: p.detach().clone() for name, p in model.named_parameters()},
        **{f"ema.{name}": average for name, average in ema.averages.items()},
        **state,
    }


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_run_with_a_bad_last_batch_ends_like_one_without_it(tmp_path: Path, clip: float) -> None:
    good, good_ema = Tiny(gradient_clip=clip), EMA(0.8)
    run = fit(tmp_path, 3, good, [NonFiniteGuard(), good_ema])
    expected = everything(run, good, good_ema)
    bad, bad_ema, guard = Tiny(bad_batches=[3, 4], gradient_clip=clip), EMA(0.8), NonFiniteGuard()
    run = fit(tmp_path, 5, bad, [guard, bad_ema])
    actual = everything(run, bad, bad_ema)
    assert bad.seen == [0, 1, 2, 3, 4]
    assert (bad.train_step, bad_ema.step, guard.skipped) == (3, 3, 2)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


@pytest.mark.parametrize("sample", [2, 3])
def test_one_bad_part_drops_its_whole_accumulated_step(sample: int, tmp_path: Path) -> None:
    model = Tiny(bad_samples=[sample], accumulate=2)
    fit(tmp_path, 3, model, [NonFiniteGuard()])
    assert model.skipped_flags == [False, True, False]
    assert model.train_step == 2
    assert model.network.weight.isfinite().all()


def test_training_goes_on_after_a_bad_batch_and_counts_it(tmp_path: Path) -> None:
    model, csv = Tiny(bad_batches=[1, 3]), CSVLogger(tmp_path / "metrics.csv")
    fit(tmp_path, 6, model, [Clock(), NonFiniteGuard(max_in_a_row=2)], logger=csv)
    assert model.train_step == 4
    counts = [
        (row["train/step"], row["train/skipped_steps"]) for row in read_csv(csv.path) if "train/skipped_steps" in row
    ]
    assert counts == [("1", "1"), ("2", "2")]


def test_too_many_in_a_row_stop_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    model, folder = Tiny(bad_batches=[5, 6, 7]), tmp_path / "checkpoints"
    with pytest.raises(NonFiniteError, match="3 times in a row after step 5") as caught:
        fit(tmp_path, 50, model, [NonFiniteGuard(max_in_a_row=3), Checkpoint(folder, every_steps=2)])
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in folder.iterdir()) == [LAST, "step-000002.ckpt", "step-000004.ckpt"]
    assert torch.load(folder / LAST, weights_only=True)["difflab"]["train_step"] == 4


def test_the_count_survives_a_resume() -> None:
    guard = NonFiniteGuard()
    guard.load_state_dict({"skipped": 4})
    assert guard.state_dict() == {"skipped": 4}


def test_the_advice_names_what_there_is(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    folder = run / "checkpoints"
    bad = range(5, 9)
    with pytest.raises(NonFiniteError) as caught:
        fit(tmp_path, 50, Tiny(bad_batches=bad), [NonFiniteGuard(3, folder, 0.1)], precision="bf16-mixed")
    assert "there is no checkpoint yet: start again with a lower learning rate, as optimizer.lr=0.05" in str(
        caught.value
    )
    assert "or the same command with trainer.precision=32-true" in str(caught.value)
    run.with_name("mine-2").mkdir(parents=True)
    callbacks = [NonFiniteGuard(3, folder, 0.1), Checkpoint(folder, every_steps=2)]
    with pytest.raises(NonFiniteError) as caught:
        fit(tmp_path, 50, Tiny(bad_batches=bad), callbacks)
    assert f"resume={folder / LAST} name=mine-3 optimizer.lr=0.05" in str(caught.value)
    assert "precision" not in str(caught.value)


def test_only_rows_of_skips_after_the_checkpoint_come_again() -> None:
    guard = NonFiniteGuard()
    guard.load_state_dict({"skipped": 4})
    assert [guard.logs_again(7, {"train/skipped_steps": n}) for n in ("3", "4", "5")] == [False, False, True]
    assert not guard.logs_again(7, {"train/loss": "9.0"})


def test_the_advice_is_to_go_on_from_the_runs_own_checkpoint_where_it_has_one(tmp_path: Path) -> None:
    """A run that was begun with another's checkpoint may have gone far since."""
    fit(tmp_path, 2, Tiny(), [Checkpoint(tmp_path / "other", every_steps=2)])
    for bad, good in ((range(2, 9), tmp_path / "other" / LAST), (range(4, 9), tmp_path / "own" / LAST)):
        callbacks = [NonFiniteGuard(2, tmp_path / "own", 0.1), Checkpoint(tmp_path / "own", every_steps=2)]
        run = trainer(tmp_path, 50, callbacks, plugins=[AtomicCheckpointIO()])
        with pytest.raises(NonFiniteError) as caught:
            run.fit(Tiny(bad_batches=bad), loader(50), ckpt_path=tmp_path / "other" / LAST, weights_only=True)
        assert f"resume={good} " in str(caught.value)

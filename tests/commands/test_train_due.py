"""What is due at the step of a checkpoint is done once, wherever a kill falls: the run is the one nobody killed."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from callbacks.killing import Killed, killing
from command_line import Done, run_difflab, tiny_training
from difflab.callbacks.evaluation import Evaluation
from difflab.callbacks.power_ema import PowerEMA
from difflab.callbacks.sample_grid import SampleGrid
from difflab.callbacks.training_log import TrainingLog
from difflab.callbacks.validation import Validation
from difflab.callbacks.weights import WeightsExport
from killed_training import killed_for_good
from poisoning import poison
from run_files import assert_same_run, find_run, rows

EVERYTHING = [
    "trainer.max_steps=6",
    "trainer.val_every_steps=2",
    "sampler.steps=2",
    "callbacks.checkpoint.every_steps=2",
    "callbacks.sample_grid={every_steps: 2, n: 2, columns: 2, batch_size: 2}",
    "callbacks.evaluation={every_steps: 2, n: 2, batch_size: 2}",
    "callbacks.power_ema={sigma_rel: [0.1], snapshot_every_steps: 2}",
    "+metrics.oracle={kind: oracle}",
]
AT_END = [
    *EVERYTHING,
    "callbacks.sample_grid={every_steps: 100, n: 2, columns: 2, batch_size: 2}",
    "callbacks.evaluation={every_steps: null, n: 2, batch_size: 2}",
    "callbacks.power_ema={sigma_rel: [0.1], snapshot_every_steps: 100}",
    "trainer.val_every_steps=4",
]
OPTIONS = {"everything": EVERYTHING, "at_end": AT_END}

Train = Callable[..., Done]


@pytest.fixture
def train(tiny_shapes: Path, tmp_path: Path) -> Train:
    """train(which, *overrides): one start of the run in the test's folder."""

    def start(which: str, *overrides: str) -> Done:
        return run_difflab(tiny_training(tiny_shapes, *OPTIONS[which], *overrides), tmp_path)

    return start


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_shapes: Path) -> Callable[[str], Path]:
    """undisturbed(which): the run that nobody killed, trained once."""
    runs: dict[str, Path] = {}

    def of(which: str) -> Path:
        if which not in runs:
            root = tmp_path_factory.mktemp(which)
            done = run_difflab(tiny_training(tiny_shapes, *OPTIONS[which]), root)
            assert done.status == 0, done.err
            runs[which] = find_run(root)
        return runs[which]

    return of


def products(run: Path) -> dict[str, bytes]:
    """What training leaves besides checkpoints and its log."""
    found = [run / "evaluations.jsonl", *run.glob("samples/*"), *run.glob("weights/**/*.safetensors")]
    return {str(path.relative_to(run)): path.read_bytes() for path in found}


def assert_as_undisturbed(run: Path, reference: Path) -> None:
    assert rows(run) == rows(reference)
    assert (run / "evaluations.jsonl").read_bytes() == (reference / "evaluations.jsonl").read_bytes()
    made, expected = products(run), products(reference)
    assert made.keys() == expected.keys()
    assert [name for name in made if name.endswith(".png") and made[name] != expected[name]] == []
    assert_same_run(run, reference)


def is_left_alone(start: Callable[[], Done], run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    done = start()
    assert done.status == 0, done.err
    assert "nothing to train" in done.out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("owner", "method", "step"),
    [
        pytest.param(SampleGrid, "act", 4, marks=pytest.mark.slow),
        pytest.param(Evaluation, "act", 4, marks=pytest.mark.slow),
        (Evaluation, "_append", 4),
        (Validation, "act", 4),
        pytest.param(TrainingLog, "on_validation_end", 2, marks=pytest.mark.slow),
        pytest.param(PowerEMA, "snapshot", 4, marks=pytest.mark.slow),
        pytest.param(SampleGrid, "act", 6, marks=pytest.mark.slow),
        (Evaluation, "_append", 6),
        pytest.param(Validation, "act", 6, marks=pytest.mark.slow),
        pytest.param(WeightsExport, "on_train_end", 6, marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_the_step_of_a_checkpoint_loses_and_doubles_nothing(
    owner: type, method: str, step: int, train: Train, undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    with killing(owner, method, step), pytest.raises(Killed):
        train("everything")
    run = find_run(tmp_path)
    assert train("everything").status == 0
    assert_as_undisturbed(run, undisturbed("everything"))
    is_left_alone(lambda: train("everything"), run)


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        pytest.param(Validation, "act", marks=pytest.mark.slow),
        (PowerEMA, "snapshot"),
        pytest.param(WeightsExport, "on_train_end", marks=pytest.mark.slow),
        pytest.param(SampleGrid, "act", marks=pytest.mark.slow),
        pytest.param(Evaluation, "act", marks=pytest.mark.slow),
        (Evaluation, "_append"),
    ],
)
def test_a_finished_run_makes_up_what_is_due_at_its_end(
    owner: type, method: str, train: Train, undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    with killing(owner, method, 6), pytest.raises(Killed):
        train("at_end")
    run = find_run(tmp_path)
    done = train("at_end")
    assert done.status == 0, done.err
    assert done.out.splitlines()[0].startswith("already at step 6 of 6, but not everything was done there: ")
    assert "Evaluation" in done.out
    assert_as_undisturbed(run, undisturbed("at_end"))
    is_left_alone(lambda: train("at_end"), run)


def test_making_up_may_itself_be_killed(train: Train, undisturbed: Callable[[str], Path], tmp_path: Path) -> None:
    for owner in (SampleGrid, SampleGrid, Evaluation):
        with killing(owner, "act", 6), pytest.raises(Killed):
            train("at_end")
    assert train("at_end").status == 0
    assert_as_undisturbed(find_run(tmp_path), undisturbed("at_end"))


def test_what_was_done_between_checkpoints_is_done_again_and_stands_once(
    train: Train, undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    """Evaluations at 2 and 4 and checkpoints at 3 and 6: killed at 5, the one of 4 is trained and measured again."""
    often = ["callbacks.checkpoint.every_steps=3"]
    with killing(TrainingLog, "act", 5), pytest.raises(Killed):
        train("everything", *often)
    assert train("everything", *often).status == 0
    run, reference = find_run(tmp_path), undisturbed("everything")
    assert rows(run) == rows(reference)
    assert (run / "evaluations.jsonl").read_bytes() == (reference / "evaluations.jsonl").read_bytes()


def test_an_evaluation_that_comes_to_a_finished_run_is_made(train: Train, tmp_path: Path) -> None:
    assert train("at_end", "callbacks.evaluation=null").status == 0
    run = find_run(tmp_path)
    assert not (run / "evaluations.jsonl").exists()
    assert train("at_end").status == 0
    assert (run / "evaluations.jsonl").read_text().startswith('{"train_step": 6, ')
    is_left_alone(lambda: train("at_end"), run)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["samples/step-000006.png", "weights/ema.safetensors", "evaluations.jsonl"])
def test_what_somebody_took_away_from_a_finished_run_is_made_again(
    lost: str, train: Train, undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    assert train("at_end").status == 0
    run = find_run(tmp_path)
    (run / lost).unlink()
    assert train("at_end").status == 0
    assert_as_undisturbed(run, undisturbed("at_end"))


def test_steps_skipped_after_a_checkpoint_are_logged_once(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They carry the step of the checkpoint, and are skipped again after a kill."""
    poison(monkeypatch, lambda module, batch_idx: batch_idx in (1, 4, 5))
    options = ["callbacks.checkpoint.every_steps=3", "trainer.val_every_steps=3", "callbacks.evaluation=null"]
    assert train("everything", *options, "name=one").status == 0
    with killing(TrainingLog, "act", 4), pytest.raises(Killed):
        train("everything", *options, "name=two")
    assert train("everything", *options, "name=two").status == 0
    one, two = (tmp_path / "runs/ddpm/shapes32" / name for name in ("one", "two"))
    assert rows(two) == rows(one)
    skipped = [(row["train/step"], row["train/skipped_steps"]) for row in rows(two) if "train/skipped_steps" in row]
    assert skipped == [("1", "1"), ("3", "2"), ("3", "3")]
    # Validation follows the clock of the run: skipped batches do not move it.
    assert [row["train/step"] for row in rows(two) if "val/loss" in row] == ["3", "6"]


@pytest.mark.slow
def test_a_real_kill_after_the_last_checkpoint(
    train: Train, undisturbed: Callable[[str], Path], tiny_shapes: Path, tmp_path: Path
) -> None:
    arguments = tiny_training(tiny_shapes, *AT_END)
    process = multiprocessing.get_context("spawn").Process(target=killed_for_good, args=(arguments, tmp_path))
    process.start()
    process.join(300)
    process.kill()
    assert process.exitcode == -signal.SIGKILL
    assert train("at_end").status == 0
    assert_as_undisturbed(find_run(tmp_path), undisturbed("at_end"))

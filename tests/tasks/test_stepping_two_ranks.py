"""Two processes take the steps that one takes, also with several optimizers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from difflab.callbacks.ema import EMA
from run_files import differing
from tasks.toys import STEPS, Adversarial, fit
from two_processes import reports_of, run_two_processes

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, tiny_shapes: Path) -> Path:
    """The folder in which two processes have run all scenarios, one after the other."""
    folder = tmp_path_factory.mktemp("stepping")
    run_two_processes(SCRIPT, folder, tiny_shapes)
    return folder


@pytest.mark.parametrize("scenario", ["adversarial", "adversarial_in_parts"])
def test_two_ranks_with_two_optimizers_are_one(scenario: str, ended: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    first, second = reports_of(ended / scenario, ended / "errors.txt")
    assert differing(first, second) == []
    alone, ema = Adversarial(), EMA(0.8)
    alone.network[2].p = 0.0
    fit(alone, tiny_shapes, tmp_path, [ema])
    assert first["step"] == alone.train_step == STEPS
    assert first["weights"].keys() == alone.state_dict().keys()
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(first["weights"][name], tensor, rtol=1e-4, atol=1e-5)
    for name, tensor in ema.averages.items():
        torch.testing.assert_close(first["average"][name], tensor, rtol=1e-4, atol=1e-5)
    assert first["weights"]["late"].abs().max() > 0.01, "of which there was no gradient at first"


def test_a_bad_loss_of_one_optimizer_on_one_rank_is_dropped_on_both(ended: Path) -> None:
    first, second = reports_of(ended / "bad_on_one", ended / "errors.txt")
    assert differing(first, second) == []
    assert (first["step"], first["skipped"]) == (STEPS, 2)
    assert all(tensor.isfinite().all() for tensor in first["weights"].values())


def test_every_step_begins_with_the_buffers_of_the_first_process(ended: Path) -> None:
    first, second = reports_of(ended / "buffers", ended / "errors.txt")
    assert first["begun_with"] == second["begun_with"] == [0, 1, 2]


def test_a_loss_over_a_whole_share_is_exchanged_once(ended: Path) -> None:
    first, second = reports_of(ended / "contrastive", ended / "errors.txt")
    assert differing(first, second) == []
    assert first["whole"] == [4] * STEPS, "half of the batch each, though the run accumulates"


def test_a_gradient_that_one_process_lacks_counts_as_zero(ended: Path) -> None:
    for report in reports_of(ended / "missing_gradients", ended / "errors.txt"):
        both, one, none = report["gradients"]
        assert both.tolist() == [1.5, 1.5]
        assert one.tolist() == [2.0, 0.0]
        assert none is None

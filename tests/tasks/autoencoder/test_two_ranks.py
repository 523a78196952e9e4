"""Two processes train an autoencoder as one does, with and without an adversary."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from run_files import differing
from tasks.autoencoder.scenarios import SCENARIOS
from tasks.autoencoder.small_autoencoders import STEPS
from tasks.toys import fit
from two_processes import reports_of, run_two_processes

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, tiny_shapes: Path) -> Path:
    """The folder in which two processes have run all scenarios, one after the other."""
    folder = tmp_path_factory.mktemp("autoencoders")
    run_two_processes(SCRIPT, folder, tiny_shapes)
    return folder


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_ranks_are_one(scenario: str, ended: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    first, second = reports_of(ended / scenario, ended / "errors.txt")
    assert differing(first, second) == []
    # As many threads as each of the two has: with others, sums differ in their last bits, which Adam magnifies.
    torch.set_num_threads(1)
    alone = SCENARIOS[scenario]()
    fit(alone, tiny_shapes, tmp_path)
    assert first["step"] == alone.train_step == STEPS
    assert first["weights"].keys() == alone.state_dict().keys()
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(
            first["weights"][name], tensor, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert first["means"] == pytest.approx(alone.training_means(), rel=1e-3, abs=1e-4)

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difflab.diffusion.likelihood import BitsPerDim
from difflab.metrics.likelihood import LikelihoodTally, Measured


def measured(total: Tensor, terms: bool = True) -> Measured:
    vb = total[:, None] * torch.tensor([0.25, 0.5, 1.0])  # from the last step down
    of_steps = BitsPerDim(total, total / 2, vb, 10 * vb, 100 * vb) if terms else None
    return Measured(total, total / 2, torch.full_like(total, 0.04), torch.arange(len(total)), of_steps)


def test_means_over_batches_are_means_over_images() -> None:
    tally = LikelihoodTally(steps=3)
    tally.add(torch.tensor([4, 0]), measured(torch.tensor([5.0, 1.0])))
    tally.add(torch.tensor([1, 2, 3]), measured(torch.tensor([2.0, 3.0, 4.0])))
    found = tally.over_ranks()
    assert found.index.tolist() == [0, 1, 2, 3, 4]
    assert found.total.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert found.evaluations.tolist() == [1, 0, 1, 2, 0]
    assert found.mean == pytest.approx(3.0)
    assert float(found.prior.mean()) == pytest.approx(1.5)
    assert found.standard_error == pytest.approx(2.5**0.5 / 5**0.5)
    assert found.probe_error == pytest.approx(0.2 / 5**0.5)
    assert found.terms is not None
    assert found.terms.vb.tolist() == pytest.approx([3.0, 1.5, 0.75]), "the least noisy step stands first"
    assert found.terms.x0_mse.tolist() == pytest.approx([30.0, 15.0, 7.5])
    assert found.terms.eps_mse.tolist() == pytest.approx([300.0, 150.0, 75.0])


def test_one_image_has_no_standard_error_and_no_terms_are_none() -> None:
    tally = LikelihoodTally()
    with pytest.raises(ValueError, match="no image was readable"):
        tally.over_ranks()
    tally.add(torch.tensor([0]), measured(torch.tensor([2.0]), terms=False))
    assert tally.over_ranks().standard_error is None
    assert tally.over_ranks().terms is None

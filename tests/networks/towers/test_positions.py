"""Position embeddings of another size against open_clip's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from open_clip.model import resize_pos_embed

from difflab.networks.towers.positions import resized_positions


@pytest.mark.parametrize(("before", "after"), [(7, 14), (16, 24), (14, 7), (4, 5), (1, 3), (5, 1)])
def test_positions_of_another_grid_are_open_clip_s(before: int, after: int) -> None:
    position = torch.randn(1 + before * before, 6, generator=torch.Generator().manual_seed(before))
    theirs = {"visual.positional_embedding": position}
    resize_pos_embed(theirs, SimpleNamespace(visual=SimpleNamespace(grid_size=(after, after))))
    found = resized_positions(position, after)
    torch.testing.assert_close(found, theirs["visual.positional_embedding"], rtol=0, atol=0)
    assert torch.equal(found[0], position[0])


def test_the_same_grid_stays_to_the_bit() -> None:
    position = torch.randn(10, 4)
    assert torch.equal(resized_positions(position, 3), position)


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_what_is_no_square_is_refused(rows: int) -> None:
    with pytest.raises(ValueError, match=f"{rows} positions are not a square of patches and one more"):
        resized_positions(torch.zeros(rows, 4), 2)

"""Non-leaky augmentation: what is done to an image, and what its label says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from difflab.conditioning.augmentation import Augmentation
from difflab.diffusion.noise import SampleNoise

NOTHING = dict.fromkeys(("x_flip", "y_flip", "quarter_turn", "scale", "rotation", "anisotropy", "translation"), 0.0)
EDM = Augmentation(0.12)
"""EDM's recipe (train.py: --augment=0.12)."""


def only(**kinds: float) -> Augmentation:
    """These kinds alone, always."""
    return Augmentation(**{"probability": 1.0, **NOTHING, **kinds})


def images(n: int, side: int = 16) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def streams(*seeds: int) -> SampleNoise:
    return SampleNoise(seeds)


def test_with_probability_0_nothing_happens_to_a_bit() -> None:
    before = images(64)
    after, labels = Augmentation(0.0, quarter_turn=1.0)(before, streams(*range(64)))
    assert torch.equal(after, before)
    assert torch.equal(labels, torch.zeros(64, 11))


def test_what_is_not_changed_keeps_its_bits_and_has_the_label_0() -> None:
    before = images(400, side=8)
    after, labels = EDM(before, streams(*range(400)))
    told = labels.any(dim=1)
    same = (after == before).flatten(1).all(dim=1)
    assert torch.equal(same, ~told)
    # Half are not mirrored left to right, 0.94 not upside down, 0.88 have not each of four more kinds.
    assert float(same.float().mean()) == pytest.approx(0.5 * 0.94 * 0.88**4, abs=0.07)


def test_the_recipe_has_nine_labels_and_a_kind_that_is_off_has_none() -> None:
    assert EDM.label_size == 9
    assert Augmentation(0.12, quarter_turn=1.0).label_size == 11
    assert only(scale=1.0).label_size == 1
    assert EDM(images(2), streams(0, 1))[1].shape == (2, 9)


@pytest.mark.parametrize(("kind", "dim"), [("x_flip", 3), ("y_flip", 2)])
def test_flips_are_flips_of_every_other_image(kind: str, dim: int) -> None:
    before = images(200)
    after, labels = only(**{kind: 1.0})(before, streams(*range(200)))
    flipped = labels[:, 0] == 1
    assert torch.equal(after[flipped], before[flipped].flip(dim))
    assert torch.equal(after[~flipped], before[~flipped])
    assert 70 < int(flipped.sum()) < 130


def test_quarter_turns_are_exact_and_their_labels_tell_them_apart() -> None:
    before = images(200)
    after, labels = only(quarter_turn=1.0)(before, streams(*range(200)))
    labels_of = {0: (0, 0), 1: (1, 0), 2: (1, 1), 3: (0, 1)}
    for k, label in labels_of.items():
        rows = (labels == torch.tensor(label)).all(dim=1)
        assert 25 < int(rows.sum()) < 75
        assert torch.equal(after[rows], before[rows].rot90(k, (2, 3)))


def blob(right: float, down: float, wide: float = 3.0, high: float = 3.0, side: int = 32) -> Tensor:
    """A Gaussian spot so many pixels from the centre, [1, 1, side, side]."""
    place = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = torch.meshgrid(place, place, indexing="ij")
    return torch.exp(-(((x - right) / wide) ** 2) / 2 - ((y - down) / high) ** 2 / 2).float()[None, None]


SEED = 0  # of a stream whose draws are neither too small to see nor too large to fit


def augmented(before: Tensor, **kinds: float) -> tuple[Tensor, list[float]]:
    after, labels = only(**kinds)(before, streams(SEED))
    return after, labels[0].tolist()


def assert_inside_alike(after: Tensor, expected: Tensor) -> None:
    """Near the edges, the mirror image of a spot may be seen too."""
    inside = slice(6, -6)
    torch.testing.assert_close(after[..., inside, inside], expected[..., inside, inside], rtol=0, atol=0.02)
    assert float(expected[..., inside, inside].max()) > 0.9


def test_scaling_enlarges_by_two_to_the_fifth_of_its_label() -> None:
    after, (label,) = augmented(blob(4.0, -2.0), scale=1.0)
    factor = 2 ** (0.2 * label)
    assert abs(label) > 0.2
    expected = blob(4.0 * factor, -2.0 * factor, 3 * factor, 3 * factor)
    assert_inside_alike(after, expected)


def test_rotation_turns_by_the_angle_of_its_labels() -> None:
    after, (cosine, sine) = augmented(blob(6.0, -1.0), rotation=1.0)
    angle = math.atan2(sine, cosine + 1)
    assert (cosine + 1) ** 2 + sine**2 == pytest.approx(1.0)
    # The label's angle turns against the image's: what a place shows lies at angle + its own.
    right, down = rotated(6.0, -1.0, -angle)
    assert_inside_alike(after, blob(right, down))


def test_translation_moves_by_an_eighth_of_the_image_times_its_labels() -> None:
    after, (right, down) = augmented(blob(0.0, 0.0), translation=1.0)
    expected = blob(4 * right, 4 * down)
    assert abs(right) + abs(down) > 0.5
    assert_inside_alike(after, expected)


@pytest.mark.parametrize("seed", range(6))
def test_anisotropy_stretches_along_the_axis_of_its_labels(seed: int) -> None:
    after, labels = only(anisotropy=1.0)(blob(0.0, 0.0), streams(seed))
    cosine, sine = labels[0].tolist()
    place = torch.arange(32, dtype=torch.float64) - 15.5
    down, right = torch.meshgrid(place, place, indexing="ij")
    # Axes turn against the image's angles, as in a rotation.
    size, angle, weight = math.hypot(cosine, sine), -math.atan2(sine, cosine), after[0, 0].double()
    along = spread(weight, math.cos(angle) * right + math.sin(angle) * down)
    across = spread(weight, math.cos(angle) * down - math.sin(angle) * right)
    # The label is w (cos r, sin r), so -w at r + 180 degrees has the same: longer or shorter is not told.
    factor = 2 ** (0.2 * size)
    assert sorted([along, across]) == pytest.approx([3 / factor, 3 * factor], rel=0.02)


def spread(weight: Tensor, place: Tensor) -> float:
    """Standard deviation of a spot along an axis."""
    return float(((weight * place**2).sum() / weight.sum()).sqrt())


def rotated(right: float, down: float, angle: float) -> tuple[float, float]:
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * right - sin * down, sin * right + cos * down


@pytest.mark.parametrize("size", [1, 3])
def test_an_image_is_augmented_by_its_own_stream_in_any_batch(size: int) -> None:
    before, seeds = images(7), list(range(10, 17))
    always = Augmentation(0.8, quarter_turn=1.0)
    together, labels = always(before, SampleNoise(seeds))
    for start in range(0, 7, size):
        rows = slice(start, start + size)
        alone, told = always(before[rows], SampleNoise(seeds[rows]))
        assert torch.equal(told, labels[rows])
        torch.testing.assert_close(alone, together[rows], rtol=0, atol=1e-5)


def test_autocast_changes_nothing() -> None:
    before, seeds = images(20), range(20)
    after, labels = Augmentation(0.8)(before, streams(*seeds))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, told = Augmentation(0.8)(before, streams(*seeds))
    assert torch.equal(low, after)
    assert torch.equal(told, labels)


def test_one_kind_more_changes_no_other() -> None:
    before, seeds = images(50), range(50)
    flips, turns = only(x_flip=1.0), only(x_flip=1.0, quarter_turn=1.0)
    assert torch.equal(turns(before, streams(*seeds))[1][:, 0], flips(before, streams(*seeds))[1][:, 0])


def test_numbers_below_0_are_refused() -> None:
    with pytest.raises(ValueError, match="must be 0 or more"):
        Augmentation(0.1, scale=-1.0)

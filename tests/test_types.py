from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from difflab.types import Conditioning, Denoised, NoiseLevel, StepContext


def two() -> Conditioning:
    return Conditioning(
        vector=torch.ones(2, 3), tokens=torch.arange(8.0).view(2, 2, 2), token_mask=torch.ones(2, 2) > 0
    )


def test_only_fields_that_are_set_count() -> None:
    assert list(two().fields()) == ["vector", "tokens", "token_mask"]
    assert Conditioning().fields() == {}
    everything = {field.name: torch.zeros(1) for field in dataclasses.fields(Conditioning)}
    assert Conditioning(**everything).fields() == everything


def test_rows_are_taken_from_every_field() -> None:
    row = two()[1:]
    assert torch.equal(row.tokens, torch.tensor([[[4.0, 5.0], [6.0, 7.0]]]))
    assert {name: len(field) for name, field in row.fields().items()} == {"vector": 1, "tokens": 1, "token_mask": 1}
    assert torch.equal(two()[torch.tensor([1, 0])].tokens, two().tokens.flip(0))


def test_cat_puts_rows_together() -> None:
    both = Conditioning.cat([two()[:1], two()[1:]])
    assert both.fields().keys() == two().fields().keys()
    assert all(torch.equal(field, two().fields()[name]) for name, field in both.fields().items())
    with pytest.raises(ValueError, match="different fields"):
        Conditioning.cat([two(), Conditioning(vector=torch.ones(1, 3))])


def test_casting_leaves_masks_alone() -> None:
    half = two().to(torch.float16)
    assert {name: field.dtype for name, field in half.fields().items()} == {
        "vector": torch.float16,
        "tokens": torch.float16,
        "token_mask": torch.bool,
    }


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (("meta",), {}),
        ((), {"device": "meta"}),
        ((torch.device("meta"), torch.float16), {}),
        ((torch.empty(0, device="meta"),), {}),
    ],
)
def test_moving_takes_every_field_along(arguments, keywords) -> None:
    moved = two().to(*arguments, **keywords)
    assert {field.device.type for field in moved.fields().values()} == {"meta"}


def test_merging_adds_vectors_and_joins_sequences() -> None:
    merged = two().merge(
        Conditioning(vector=torch.ones(2, 3), tokens=torch.zeros(2, 1, 2), concat=torch.zeros(2, 1, 4, 4))
    )
    assert torch.equal(merged.vector, torch.full((2, 3), 2.0))
    assert merged.tokens.shape == (2, 3, 2)
    assert merged.concat.shape == (2, 1, 4, 4)


@pytest.mark.parametrize("name", ["pooled", "aug_level"])
def test_two_makers_of_one_field_are_refused(name: str) -> None:
    one = Conditioning(**{name: torch.zeros(2)})
    with pytest.raises(ValueError, match=f"two conditioners both set the field '{name}'"):
        one.merge(one)


@pytest.mark.parametrize(
    ("alpha", "sigma", "expected"),
    [(1.0, 0.0, math.inf), (0.0, 1.0, -math.inf), (math.sqrt(0.5), math.sqrt(0.5), 0.0), (0.8, 0.6, math.log(16 / 9))],
)
def test_log_snr(alpha: float, sigma: float, expected: float) -> None:
    assert NoiseLevel(alpha, sigma).log_snr == pytest.approx(expected)


def test_containers_are_frozen() -> None:
    level = NoiseLevel(1.0, 0.0)
    for container, name in (
        (level, "alpha"),
        (StepContext(0, 1, level, level), "index"),
        (Denoised(torch.zeros(1), torch.zeros(1)), "x0"),
        (Conditioning(), "vector"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(container, name, None)

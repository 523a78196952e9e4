import pytest
import torch
from torch import Tensor

from difflab.conditioning.base import Conditioner, ConditionerSet
from difflab.types import Batch, Conditioning


class Fixed(Conditioner):
    """Makes one field, filled with `value` (0 where dropped)."""

    def __init__(self, field: str, value: float, keys: tuple[str, ...], shape: tuple[int, ...] = (2, 4)) -> None:
        super().__init__(0.5)
        self.field, self.value, self.batch_keys, self.shape = field, value, keys, shape

    def forward(self, batch: Batch, dropped: Tensor | None = None) -> Conditioning:
        made = torch.full(self.shape, self.value)
        return Conditioning(**{self.field: made if dropped is None else made.masked_fill(dropped[:, None], 0.0)})


def test_no_conditioners_tell_the_network_nothing() -> None:
    empty = ConditionerSet()
    assert empty.conditioning({}) is None
    assert empty.batch_keys() == ()


def test_fields_of_several_conditioners_stand_side_by_side_and_vectors_add_up() -> None:
    conditioners = ConditionerSet(
        {
            "a": Fixed("vector", 1.0, ("label",)),
            "b": Fixed("vector", 2.0, ("label", "caption")),
            "c": Fixed("pooled", 5.0, ("json",)),
        }
    )
    made = conditioners.conditioning({})
    assert made is not None
    assert made.fields().keys() == {"vector", "pooled"}
    assert torch.equal(made.vector, torch.full((2, 4), 3.0))
    assert torch.equal(made.pooled, torch.full((2, 4), 5.0))
    assert conditioners.batch_keys() == ("label", "caption", "json")


def test_each_conditioner_is_dropped_by_its_own_name() -> None:
    conditioners = ConditionerSet({"a": Fixed("vector", 1.0, ()), "b": Fixed("pooled", 5.0, ())})
    made = conditioners.conditioning({}, {"b": torch.tensor([True, False])})
    assert made is not None
    assert torch.equal(made.vector, torch.ones(2, 4))
    assert made.pooled[:, 0].tolist() == [0.0, 5.0]


def test_tokens_of_two_conditioners_follow_each_other() -> None:
    conditioners = ConditionerSet({"a": Fixed("tokens", 1.0, (), (2, 3, 4)), "b": Fixed("tokens", 2.0, (), (2, 1, 4))})
    made = conditioners.conditioning({})
    assert made is not None
    assert made.tokens[0, :, 0].tolist() == [1.0, 1.0, 1.0, 2.0]


def test_two_conditioners_that_make_the_same_pooled_field_are_refused() -> None:
    conditioners = ConditionerSet({"a": Fixed("pooled", 1.0, ()), "b": Fixed("pooled", 2.0, ())})
    with pytest.raises(ValueError, match="'pooled'"):
        conditioners.conditioning({})

import pytest
import torch
from torch import Tensor

from difflab.conditioning.base import Conditioner, ConditionerSet
from difflab.diffusion.noise import SampleNoise
from difflab.types import Batch, Conditioning
from words import WordsConditioner

TWO: Batch = {"index": torch.arange(2)}


class Fixed(Conditioner):
    """Makes one field, filled with `value` (0 where dropped)."""

    def __init__(self, field: str, value: float, keys: tuple[str, ...] = (), shape: tuple[int, ...] = (2, 4)) -> None:
        super().__init__(0.5)
        self.field, self.value, self.optional, self.shape = field, value, keys, shape

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        made = torch.full(self.shape, self.value)
        if dropped is not None:
            made = made.masked_fill(dropped.reshape(-1, *[1] * (made.ndim - 1)), 0.0)
        return Conditioning(**{self.field: made})


class Blurred(Conditioner):
    """A vector of noise of its own."""

    draws = True

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        assert noise is not None
        return Conditioning(vector=noise.randn((4,)))


def words(as_field: str, drop_rate: float = 0.1) -> WordsConditioner:
    torch.manual_seed(0)
    return WordsConditioner(4, 3, as_field, drop_rate)


def test_no_conditioners_tell_the_network_nothing() -> None:
    empty = ConditionerSet()
    assert empty.conditioning({}) is None
    assert empty.reads == ()
    assert empty.classes is None


def test_fields_of_several_conditioners_stand_side_by_side_and_vectors_add_up() -> None:
    conditioners = ConditionerSet({"a": Fixed("vector", 1.0), "b": Fixed("vector", 2.0), "c": Fixed("pooled", 5.0)})
    made = conditioners.conditioning(TWO)
    assert made is not None
    assert made.fields().keys() == {"vector", "pooled"}
    assert torch.equal(made.vector, torch.full((2, 4), 3.0))
    assert torch.equal(made.pooled, torch.full((2, 4), 5.0))


def test_each_conditioner_is_dropped_by_its_own_name() -> None:
    conditioners = ConditionerSet({"a": Fixed("vector", 1.0), "b": Fixed("pooled", 5.0)})
    made = conditioners.conditioning(TWO, {"b": torch.tensor([True, False])})
    assert made is not None
    assert torch.equal(made.vector, torch.ones(2, 4))
    assert made.pooled[:, 0].tolist() == [0.0, 5.0]


def test_tokens_of_two_conditioners_follow_each_other() -> None:
    conditioners = ConditionerSet({"a": Fixed("tokens", 1.0, (), (2, 3, 4)), "b": Fixed("tokens", 2.0, (), (2, 1, 4))})
    made = conditioners.conditioning(TWO)
    assert made is not None
    assert made.tokens[0, :, 0].tolist() == [1.0, 1.0, 1.0, 2.0]
    assert made.token_mask is None


@pytest.mark.parametrize("masked_first", [True, False])
def test_tokens_without_a_mask_are_all_real_beside_those_with_one(masked_first: bool) -> None:
    both = {"text": words("tokens"), "fixed": Fixed("tokens", 2.0, (), (2, 2, 4))}
    conditioners = ConditionerSet(both if masked_first else dict(reversed(both.items())))
    made = conditioners.conditioning({**TWO, "caption": ["a red ball", "sky"]})
    assert made is not None
    text, fixed = [[True, True, True], [True, False, False]], [[True, True]] * 2
    rows = zip(text, fixed, strict=True) if masked_first else zip(fixed, text, strict=True)
    assert made.token_mask.tolist() == [a + b for a, b in rows]
    assert made.tokens.shape == (2, 5, 4)


def test_two_conditioners_that_make_the_same_pooled_field_are_refused() -> None:
    conditioners = ConditionerSet({"a": Fixed("pooled", 1.0), "b": Fixed("pooled", 2.0)})
    with pytest.raises(ValueError, match="'pooled'"):
        conditioners.conditioning(TWO)


@pytest.mark.parametrize("field", ["vector", "pooled", "tokens", "concat", "aug_level", "grounding"])
def test_null_conditions_of_any_field_for_a_batch_without_any_other_tensor(field: str) -> None:
    shape = {"aug_level": (2,), "tokens": (2, 3, 4), "grounding": (2, 3, 4), "concat": (2, 3, 8, 8)}.get(field, (2, 4))
    conditioners = ConditionerSet({"a": Fixed(field, 1.0, (), shape)})
    null = conditioners.null(TWO)
    assert null is not None
    assert torch.equal(null.fields()[field], torch.zeros(shape))
    assert conditioners.conditioning(TWO).fields()[field].eq(1).all()


@pytest.mark.parametrize("as_field", ["vector", "tokens"])
def test_a_batch_of_captions_alone_has_conditions_and_nulls(as_field: str) -> None:
    conditioners = ConditionerSet({"text": words(as_field)})
    batch = {**TWO, "caption": ["a red ball", "sky"]}
    told, null = conditioners.conditioning(batch), conditioners.null(batch)
    assert told is not None
    assert null is not None
    assert {k: v.shape for k, v in told.fields().items()} == {k: v.shape for k, v in null.fields().items()}
    assert null.fields()[as_field].eq(0).all()
    assert not told.fields()[as_field][0].eq(0).all()
    assert ConditionerSet({"text": words(as_field, drop_rate=0.0)}).null(batch) is None


def test_what_is_missing_or_has_other_rows_is_one_line() -> None:
    conditioners = ConditionerSet({"text": words("vector")})
    with pytest.raises(ValueError, match=r"^caption is missing: this model is conditioned on it$"):
        conditioners.check(TWO)
    with pytest.raises(ValueError, match=r"^caption has 1 rows, but the batch has 2$"):
        conditioners.conditioning({**TWO, "caption": ["one"]})
    with pytest.raises(ValueError, match=r"^caption=3 is no text$"):
        conditioners.conditioning({**TWO, "caption": ["one", 3]})


def test_what_the_loader_has_to_deliver_are_the_fields_without_a_stand_in() -> None:
    small = Fixed("concat", 1.0)
    small.reads, small.stand_ins = ("low_res",), {"low_res": "image"}
    conditioners = ConditionerSet({"text": words("vector"), "small": small})
    assert conditioners.reads == ("caption", "low_res")
    assert conditioners.missing(["image"]) == ("caption",)
    assert conditioners.missing(["caption"]) == ("low_res",)
    assert conditioners.missing(["caption", "low_res"]) == ()


def test_a_conditioner_draws_from_a_stream_of_its_sample_and_its_name() -> None:
    batch = {"index": torch.arange(3)}
    drawn = ConditionerSet({"blur": Blurred()}).conditioning(batch, seeds=[7, 8, 9])
    assert drawn is not None
    alone = ConditionerSet({"blur": Blurred()}).conditioning({"index": torch.arange(1)}, seeds=[8])
    assert torch.equal(alone.vector[0], drawn.vector[1]), "sample 8 draws the same in any batch"
    assert len(drawn.vector.unique(dim=0)) == 3
    other = ConditionerSet({"other": Blurred()}).conditioning(batch, seeds=[7, 8, 9])
    assert not torch.equal(other.vector, drawn.vector)
    assert not torch.equal(SampleNoise([7]).randn((4,))[0], drawn.vector[0]), "not the sample's own stream"
    beside = ConditionerSet({"first": Blurred(), "blur": Blurred()}).conditioning(batch, seeds=[7, 8, 9])
    only_first = ConditionerSet({"first": Blurred()}).conditioning(batch, seeds=[7, 8, 9])
    torch.testing.assert_close(beside.vector, only_first.vector + drawn.vector)
    with pytest.raises(ValueError, match="the conditioner blur draws"):
        ConditionerSet({"blur": Blurred()}).conditioning(batch)

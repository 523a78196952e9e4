from __future__ import annotations

import pytest
import torch
from torch import nn

from difflab.errors import UserError
from difflab.parts.selection import (
    Count,
    HasTrainingOnly,
    averaged_parameters,
    count,
    exported,
    freeze_named,
    frozen_names,
    trained,
    written,
)


class Half(nn.Module):
    """Parameters, a buffer, and one parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.decoder = nn.Linear(3, 2)
        self.tied = nn.Linear(2, 3, bias=False)
        self.tied.weight = self.encoder[0].weight


def module() -> nn.Module:
    return nn.ModuleDict({"network": Half()})


class Adversary(Half, HasTrainingOnly):
    """Its decoder, and a buffer of it, are for training alone; the tied parameter is not, by its other name."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder.register_buffer("seen", torch.zeros(1))
        self.decoder.tied = nn.Linear(2, 3, bias=False)
        self.decoder.tied.weight = self.encoder[0].weight

    def training_only(self) -> tuple[nn.Module, ...]:
        return (self.decoder,)


ENCODER = {"network.encoder.0.weight", "network.encoder.0.bias", "network.encoder.1.weight", "network.encoder.1.bias"}
DECODER = {"network.decoder.weight", "network.decoder.bias"}
TIED = {"network.tied.weight"}


@pytest.mark.parametrize(
    ("freeze", "train", "expected"),
    [
        ([], [], set()),
        (["network.encoder.*"], [], ENCODER | TIED),
        (["network.decoder.*", "network.encoder.1.*"], [], {n for n in ENCODER if ".1." in n} | DECODER),
        ([], ["network.decoder.*"], ENCODER | TIED),
        ([], ["*.bias"], {"network.decoder.weight", "network.encoder.0.weight", "network.encoder.1.weight"} | TIED),
        (["network.*"], ["network.encoder.1.*"], DECODER | {n for n in ENCODER if ".0." in n} | TIED),
        (["network.encoder.*"], ["network.encoder.*"], set()),
        # A name is enough to freeze a tied parameter, and to train it.
        (["network.tied.weight"], [], {"network.encoder.0.weight"} | TIED),
        (["network.encoder.*"], ["network.tied.*"], ENCODER - {"network.encoder.0.weight"}),
    ],
)
def test_what_the_patterns_freeze(freeze: list[str], train: list[str], expected: set[str]) -> None:
    assert frozen_names(module(), freeze, train) == expected


@pytest.mark.parametrize(
    ("freeze", "train", "line"),
    [
        (
            ["network.encodr.*"],
            [],
            "init.freeze: 'network.encodr.*' matches no parameter; near it are network.encoder.*",
        ),
        ([], ["decoder.*"], "init.train: 'decoder.*' matches no parameter; near it are network.decoder.*"),
        (
            ["network.encoder"],
            [],
            "init.freeze: 'network.encoder' matches no parameter; write network.encoder.* for all",
        ),
        (["xyz"], [], "init.freeze: 'xyz' matches no parameter; there are network.*"),
        (["NETWORK.*"], [], "init.freeze: 'NETWORK.*' matches no parameter"),
        (["network.*"], [], "init.freeze=[network.*] leaves nothing to train; name a part in init.train"),
        (["*.weight", "*.bias"], [], "leaves nothing to train"),
        (["network.encoder.*", "gone"], [], "init.freeze: 'gone' matches no parameter"),
    ],
)
def test_a_pattern_that_is_of_no_use_is_refused(freeze: list[str], train: list[str], line: str) -> None:
    with pytest.raises(UserError) as refusal:
        frozen_names(module(), freeze, train)
    assert str(refusal.value).startswith(line) or line in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_frozen_is_written_and_not_trained() -> None:
    half = module()
    before = list(written(half))
    freeze_named(half, frozen_names(half, ["network.encoder.*"], []))
    assert set(trained(half)) == DECODER
    assert list(written(half)) == before == list(half.state_dict())
    assert count(half) == Count(trained=8, frozen=15, elsewhere=0)
    assert count(half).total == 23


def test_without_patterns_everything_is_trained() -> None:
    half = module()
    assert list(trained(half)) == [name for name, _ in half.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(written(half).values(), half.state_dict().values(), strict=True))


def test_parts_of_training_alone_are_trained_and_written_but_neither_averaged_nor_exported() -> None:
    module = Adversary()
    own = {"decoder.weight", "decoder.bias"}
    assert averaged_parameters(module).keys() == trained(module).keys() - own
    assert "encoder.0.weight" in averaged_parameters(module)
    assert exported(module).keys() == written(module).keys() - own - {"decoder.seen", "decoder.tied.weight"}
    module.encoder.requires_grad_(False)
    assert averaged_parameters(module) == {}, "what is not trained is not averaged"
    plain = nn.ModuleDict({"network": Half()})
    assert averaged_parameters(plain) == trained(plain)
    assert exported(plain).keys() == written(plain).keys()

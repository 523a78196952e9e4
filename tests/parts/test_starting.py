from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difflab.config.init import WeightsInitConfig
from difflab.errors import UserError
from difflab.networks.build import build_network
from difflab.networks.config import UNetConfig
from difflab.parts.selection import HasTrainingOnly, exported, trained, written
from difflab.parts.starting import choose_trained, start_from
from difflab.types import Conditioning

NETWORK: dict[str, Any] = {
    "kind": "unet",
    "channels": 3,
    "base_channels": 16,
    "channel_mult": [1, 2],
    "blocks_per_level": 1,
    "attention_resolutions": [],
    "norm_groups": 8,
}


def unet(seed: int, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    config = UNetConfig.model_validate({**NETWORK, **options})
    network = build_network(config, image_size=16, learned_variance=False)
    with torch.no_grad():
        # Some layers begin at zero: what goes in would not come out.
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return nn.ModuleDict({"network": network})


def init(**options: Any) -> WeightsInitConfig:
    return WeightsInitConfig.model_validate({"kind": "weights", "from": "there", **options})


def predicted(module: nn.Module, x: Tensor, concat: Tensor | None = None) -> Tensor:
    conditioning = None if concat is None else Conditioning(concat=concat)
    with torch.no_grad():
        return module.network(x, torch.full((len(x),), 7.0), conditioning)


def refused(module: nn.Module, state: dict[str, Tensor], **options: Any) -> str:
    with pytest.raises(UserError) as refusal:
        start_from(module, state, "there", init(**options))
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize("extra", [3, 4])
def test_an_extended_network_predicts_what_the_source_does_whatever_the_new_channels_hold(
    patch_size: int, extra: int
) -> None:
    source = unet(0, patch_size=patch_size)
    wide = unet(1, patch_size=patch_size, concat_channels=extra)
    lines = start_from(wide, written(source), "there", init(extend_input="zero"))
    assert lines == ["init: network.conv_in.weight has more input channels than there; the new ones begin at zero"]
    x = torch.randn(2, 3, 16, 16)
    expected = predicted(source, x)
    assert expected.abs().max() > 0.01
    for scale in (0.0, 1.0, 100.0):
        assert torch.equal(predicted(wide, x, scale * torch.randn(2, extra, 16, 16)), expected)


def test_what_has_channels_already_gets_more_behind_them() -> None:
    source, wide = unet(0, concat_channels=3), unet(1, concat_channels=4)
    start_from(wide, written(source), "there", init(extend_input="zero"))
    x, low = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    seen = torch.cat([low, torch.randn(2, 1, 16, 16)], dim=1)
    assert torch.equal(predicted(wide, x, seen), predicted(source, x, low))


def test_the_new_channels_are_trained() -> None:
    wide = unet(1, concat_channels=3)
    start_from(wide, written(unet(0)), "there", init(extend_input="zero"))
    wide.network(
        torch.randn(1, 3, 16, 16), torch.ones(1), Conditioning(concat=torch.randn(1, 3, 16, 16))
    ).sum().backward()
    assert wide.network.conv_in.weight.grad[:, 3:].abs().max() > 0


def test_extending_what_need_not_be_extended_is_refused() -> None:
    line = "init.extend_input: the network takes 3 input channels, there 3: there is nothing to extend; leave it out"
    assert refused(unet(1), written(unet(0)), extend_input="zero") == line
    assert "takes 3 input channels, there 6" in refused(
        unet(1), written(unet(0, concat_channels=3)), extend_input="zero"
    )
    assert "there has no network.conv_in.weight" in refused(unet(1), {"a": torch.ones(1)}, extend_input="zero")
    assert "no input channels" in refused(nn.ModuleDict({"network": nn.Linear(1, 1)}), {}, extend_input="zero")
    assert "no input channels" in refused(nn.ModuleDict({"other": nn.Linear(1, 1)}), {}, extend_input="zero")


def test_other_channels_are_a_misfit_without_extension() -> None:
    line = refused(unet(1, concat_channels=3), written(unet(0)))
    assert "network.conv_in.weight is [16, 3, 3, 3], expected [16, 6, 3, 3]" in line


def test_an_input_that_would_stay_at_zero_is_refused() -> None:
    wide, state = unet(1, concat_channels=3), written(unet(0))
    line = refused(wide, state, extend_input="zero", freeze=["network.conv_in.*", "network.encoder.*"])
    assert line.startswith("init.extend_input=zero, but network.conv_in.weight is frozen")
    start_from(wide, state, "there", init(extend_input="zero", train=["network.conv_in.*"]))


def test_what_fits_is_taken_and_the_rest_is_listed(caplog: pytest.LogCaptureFixture) -> None:
    source, other = unet(0), unet(1, channel_mult=[1, 3])
    before = {name: value.clone() for name, value in written(other).items()}
    state = {**written(source), "network.surplus": torch.ones(2)}
    with caplog.at_level(logging.INFO, logger="difflab"):
        (line,) = start_from(other, state, "there", init(partial=True))
    taken = {name for name, value in before.items() if name in state and state[name].shape == value.shape}
    for name, value in written(other).items():
        assert torch.equal(value, state[name] if name in taken else before[name])
    assert line.startswith(f"init: {len(taken)} of {len(before)} tensors from there (network.time_embed.")
    assert "; not: network." in line
    assert line.endswith("more, listed in log.txt")
    logged = [record.getMessage() for record in caplog.records]
    assert {m.removeprefix("init: taken from there: ") for m in logged if "init: taken" in m} == taken
    left = [m for m in logged if "init: not taken" in m]
    assert "init: not taken from there: network.surplus [2] is unexpected" in left
    assert len(left) == len(before.keys() | state.keys()) - len(taken)


def test_partial_loading_of_all_there_is_says_nothing() -> None:
    assert start_from(unet(1), written(unet(0)), "there", init(partial=True)) == []


def test_a_source_of_which_nothing_fits_is_refused() -> None:
    line = refused(unet(1), {"other.weight": torch.ones(2)}, partial=True)
    assert line.startswith("there has nothing that fits: network.")


def test_partial_loading_is_offered_where_something_fits() -> None:
    some = dict(list(written(unet(0)).items())[1:])
    assert refused(unet(1), some).endswith("is missing; init.partial=true takes what fits")
    assert "init.partial" not in refused(unet(1), {"other.weight": torch.ones(2)})


def test_weights_of_zero_are_offered_for_more_input_channels() -> None:
    zero = "; init.extend_input=zero begins with weights of zero for the new input channels"
    state = written(unet(0))
    assert refused(unet(1, concat_channels=3), state).endswith(zero)
    assert refused(unet(1, concat_channels=3), dict(list(state.items())[:-1])).endswith(
        f"{zero}; init.partial=true takes what fits"
    )
    fewer = written(unet(1, concat_channels=3))
    assert refused(unet(0), fewer).endswith("expected [16, 3, 3, 3]; init.partial=true takes what fits")


def test_frozen_weights_that_the_source_does_not_give_are_refused() -> None:
    state = {name: value for name, value in written(unet(0)).items() if not name.startswith("network.middle")}
    line = refused(unet(1), state, partial=True, freeze=["network.middle.*", "network.encoder.*"])
    assert line.startswith("there does not give network.middle.")
    assert "random weights would stay" in line
    start_from(unet(1), state, "there", init(partial=True, freeze=["network.encoder.*"]))


def test_a_mistaken_pattern_is_refused_before_anything_is_loaded() -> None:
    module = unet(1)
    before = {name: value.clone() for name, value in written(module).items()}
    assert "matches no parameter" in refused(module, written(unet(0)), freeze=["nothing.*"])
    assert all(torch.equal(value, before[name]) for name, value in written(module).items())


def test_it_is_said_how_much_is_trained() -> None:
    module = unet(0)
    assert choose_trained(module, init()) == []
    lines = choose_trained(module, init(train=["network.conv_out.*"]))
    total = sum(p.numel() for p in module.parameters())
    assert lines == [f"init: 435 of {total} parameters are trained"]
    assert set(trained(module)) == {"network.conv_out.weight", "network.conv_out.bias"}


class WithTeacher(HasTrainingOnly, nn.Module):
    """A network with a part that no export has."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.teacher = nn.Linear(2, 2), nn.Linear(2, 1)

    def training_only(self) -> tuple[nn.Module, ...]:
        return (self.teacher,)


def test_parts_that_no_export_has_are_said_to_begin_untrained() -> None:
    module, source = WithTeacher(), WithTeacher()
    lines = start_from(module, exported(source), "there", init())
    (line,) = lines
    assert line.startswith("init: teacher.* begins untrained: there has no weights of it")
    assert torch.equal(module.network.weight, source.network.weight)
    module.teacher.requires_grad_(False)
    assert start_from(module, exported(source), "there", init()) == []


def test_weights_that_are_not_finite_are_refused() -> None:
    state = exported(WithTeacher())
    state["network.bias"] = torch.tensor([0.0, float("nan")])
    assert refused(WithTeacher(), state) == "there: network.bias is not finite (NaN or infinite): take other weights"

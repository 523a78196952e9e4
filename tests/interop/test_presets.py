from __future__ import annotations

import pytest

from difflab.errors import UserError
from difflab.interop.presets import PRESETS, network_choice, preset_named
from difflab.interop.registry import LAYOUTS


@pytest.mark.parametrize("name", PRESETS)
def test_every_layout_of_a_preset_can_express_it(name: str) -> None:
    preset = preset_named(name)
    assert preset.name == name
    for layout in preset.layouts:
        assert LAYOUTS[layout].keymap(preset.target()).official_shapes


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UserError, match="no published network is called 'ddpm/mnist'; there are ddpm/cifar10, "):
        preset_named("ddpm/mnist")
    with pytest.raises(UserError, match=r"network=ddpm: no such choice; there are .*ddpm_cifar10"):
        network_choice("ddpm")

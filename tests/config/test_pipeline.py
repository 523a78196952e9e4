from __future__ import annotations

import pytest

from difflab.config.pipeline import CascadePipelineConfig
from difflab.config.validate import validate
from difflab.errors import UserError


@pytest.mark.parametrize("place", [0, 1])
def test_every_stage_of_a_cascade_draws(place: int) -> None:
    kinds = ["ddim", "ddim"]
    kinds[place] = "ddim_inversion"
    stages = {
        name: {"run": f"runs/{name}", "sampler": {"kind": kind, "steps": 5}, "guidance": {"kind": "none"}}
        for name, kind in zip(("base", "up"), kinds, strict=True)
    }
    name = ("base", "up")[place]
    with pytest.raises(UserError, match=rf"stages\.{name}\.sampler=ddim_inversion goes from images to noise"):
        validate(CascadePipelineConfig, {"kind": "cascade", "stages": stages})

"""Golden fixtures of first stages -> the same networks here, with the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difflab.interop.autoencoder_layout import COMPVIS_AUTOENCODER
from difflab.interop.layout import NETWORK, Target
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.autoencoder.model import Autoencoder
from difflab.networks.build import build_network
from golden_fixtures import Fixture, draw

SMALL = {"kind": "autoencoder", "base_channels": 8, "channel_mult": [1, 2], "blocks_per_level": 1, "norm_groups": 4}


def small(regularizer: dict[str, Any], **values: Any) -> Autoencoder:
    """A tiny autoencoder with initial weights, f = 2 unless `channel_mult` says another."""
    given = {**SMALL, "z_channels": 4, "latent_channels": 4, "regularizer": regularizer, **values}
    return Autoencoder(AutoencoderConfig.model_validate(given))


def config_of(args: dict[str, Any]) -> AutoencoderConfig:
    """The configuration of CompVis' constructor arguments."""
    c = args["ddconfig"]
    kind = c.get("attn_type", "vanilla")
    regularizer = {"kind": "vq", "codes": args["n_embed"]} if "n_embed" in args else {"kind": "kl"}
    attended = [] if kind == "none" else [c["resolution"] // grid for grid in c["attn_resolutions"]]
    return AutoencoderConfig.model_validate(
        {
            "kind": "autoencoder",
            "channels": c["in_channels"],
            "base_channels": c["ch"],
            "channel_mult": list(c["ch_mult"]),
            "blocks_per_level": c["num_res_blocks"],
            "attention_factors": attended,
            "middle_attention": kind != "none",
            "attention_type": "vanilla" if kind == "none" else kind,
            "z_channels": c["z_channels"],
            "latent_channels": args["embed_dim"],
            "regularizer": regularizer,
            "tanh_output": c.get("tanh_out", False),
            "dropout": c["dropout"],
        }
    )


@dataclass(frozen=True)
class Official:
    """A fixture, its inputs, its network."""

    fixture: Fixture
    network: Autoencoder

    def input(self, name: str) -> Tensor:
        spec = self.fixture.spec["inputs"][name]
        values = draw(self.fixture.spec["seed"], f"input:{name}", spec["draw"], "input") * spec.get("scale", 1.0)
        return torch.as_tensor(np.asarray(values, dtype=np.float32))


def official(fixture: Fixture) -> Official:
    """The network of a fixture, with its drawn weights."""
    config = config_of(fixture.spec["args"])
    target = Target(config, fixture.spec["args"]["ddconfig"]["resolution"])
    network = build_network(config, image_size=target.image_size, learned_variance=False)
    assert isinstance(network, Autoencoder)
    state = COMPVIS_AUTOENCODER.keymap(target).from_official(fixture.state_dict())
    network.load_state_dict({key.removeprefix(NETWORK): value for key, value in state.items()})
    return Official(fixture, network.eval())

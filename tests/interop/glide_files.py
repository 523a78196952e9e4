"""Golden fixtures of GLIDE as whole models of ours, with files of their weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from difflab.conditioning.text.config import TextTransformerConditionerConfig
from difflab.interop.layout import Target
from difflab.networks.config import UNetConfig
from difflab.text.config import BytePairsTokenizerConfig
from golden_fixtures import Fixture
from networks.official_networks import guided_target

VOCABULARY = 514
"""Token ids of byte pairs without a merge."""


def glide_target(fixture: Fixture) -> Target:
    """The model of a fixture; its tokenizer is one of the same context, with more ids than the fixture has."""
    args: dict[str, Any] = fixture.spec["args"]
    size = fixture.spec["inputs"]["x"]["shape"][-1]
    # GLIDE counts the factors of the grids with attention, as guided-diffusion's class does.
    network = guided_target(args, size).network
    assert isinstance(network, UNetConfig)
    caption = TextTransformerConditionerConfig(
        kind="text_transformer",
        tokenizer=BytePairsTokenizerConfig(
            kind="byte_pairs", vocabulary=VOCABULARY, context_length=args["text_ctx"], merges=""
        ),
        width=args["xf_width"],
        layers=args["xf_layers"],
        heads=args["xf_heads"],
    )
    network = network.model_copy(update={"context_channels": args["xf_width"]})
    return Target(network, size, learned_variance=True, conditioning={"caption": caption})


def glide_state(fixture: Fixture) -> dict[str, Tensor]:
    """The drawn weights under their official keys, with rows for the ids that the fixture does not have."""
    state = fixture.state_dict()
    rows = state["token_embedding.weight"]
    state["token_embedding.weight"] = torch.cat([rows, torch.ones(VOCABULARY - len(rows), rows.shape[1])])
    return state

"""Layouts of UNets with transformer blocks: CompVis' codes (latent diffusion, Stable Diffusion) and diffusers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from difflab.config.network import NetworkConfig
from difflab.errors import UserError
from difflab.interop.diffusers_unet import DIFFUSERS, diffusers_entries
from difflab.interop.guided import GUIDED, unet_entries
from difflab.interop.keymap import Entry, Shapes
from difflab.interop.unet_layout import UNetLayout, class_embedding, without_weights
from difflab.interop.unet_words import Places
from difflab.networks.config import UNetBase, UNetConfig

TRANSFORMER_EPS = 1e-6
"""Of the norm before transformer blocks, in all official codes."""


@dataclass(frozen=True, kw_only=True)
class TransformerUNetLayout(UNetLayout):
    """The key layout of UNets with transformer blocks, the layers around which are stored as 1x1 convolutions
    (`entries`) or as linear layers (`linear_entries`)."""

    linear_entries: Callable[[Any, Shapes], list[Entry]]

    def takes(self, network: NetworkConfig) -> bool:
        return isinstance(network, UNetConfig) and network.transformer is not None

    def network_entries(self, config: UNetBase, plan: Any, shapes: Shapes) -> list[Entry]:
        assert isinstance(config, UNetConfig), "the layout refuses other networks"
        assert config.transformer is not None, "the layout refuses other networks"
        entries = self.linear_entries if config.transformer.projection == "linear" else self.entries
        return entries(plan, shapes)

    def refuse_network(self, network: UNetBase) -> None:
        super().refuse_network(network)
        transformer = network.transformer if isinstance(network, UNetConfig) else None
        if transformer is None:
            raise UserError(f"{self.code} has transformer blocks, and this network has none; use another layout")
        if transformer.norm_eps != TRANSFORMER_EPS:
            raise UserError(
                f"{self.code} has no network with transformer.norm_eps={transformer.norm_eps} (only {TRANSFORMER_EPS})"
                "; use another layout"
            )


_OPTIONAL = ("transformer", "context_channels", "pooled_channels", "concat_channels")
"""Options that these networks have, where those without transformer blocks have not."""


def _required(layout: UNetLayout) -> dict[str, Any]:
    return {key: value for key, value in layout.requires.items() if key not in _OPTIONAL}


COMPVIS_UNET = TransformerUNetLayout(
    name="compvis_unet",
    program="compvis",
    code="CompVis/latent-diffusion",
    entries=unet_entries(),
    linear_entries=unet_entries(linear=True),
    requires=_required(GUIDED),
    stem="base",
    places=Places("input_blocks.0.0.weight", "out.2.weight", "output_blocks.", classes="label_emb.weight"),
    marker="middle_block.1.transformer_blocks.0.norm1.weight",
    beside=("input_blocks.0.0.weight",),
    conditioners={"class": class_embedding("label_emb"), "text_encoder": without_weights},
)
DIFFUSERS_CONDITION_UNET = TransformerUNetLayout(
    name="diffusers_condition_unet",
    program="diffusers",
    code="diffusers' UNet2DConditionModel",
    entries=diffusers_entries,
    linear_entries=partial(diffusers_entries, linear=True),
    requires=_required(DIFFUSERS),
    stem="base",
    places=Places("conv_in.weight", "conv_out.weight", "up_blocks.", classes="class_embedding.weight"),
    marker="mid_block.attentions.0.transformer_blocks.0.norm1.weight",
    beside=("time_embedding.linear_1.weight",),
    conditioners={"class": class_embedding("class_embedding"), "text_encoder": without_weights},
)

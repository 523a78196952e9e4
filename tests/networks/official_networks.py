"""Golden fixtures of official networks -> the same networks here, under our keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from difflab.config.network import UNetConfig
from difflab.interop.diffusers_unet import DIFFUSERS, from_diffusers_config
from difflab.interop.guided import GUIDED, GUIDED_NEW_ORDER
from difflab.interop.layout import Layout, Target
from difflab.interop.pesser import PESSER
from difflab.networks.build import build_network
from golden_fixtures import Fixture


def pesser_target(constructor: dict[str, Any]) -> Target:
    """pesser's `Model(...)`."""
    network = UNetConfig(
        base_channels=constructor["ch"],
        channel_mult=constructor["ch_mult"],
        blocks_per_level=constructor["num_res_blocks"],
        attention_resolutions=constructor["attn_resolutions"],
        dropout=constructor["dropout"],
    )
    return Target(network, constructor["resolution"])


def guided_target(c: dict[str, Any], image_size: int, concat_channels: int = 0) -> Target:
    """guided-diffusion's and improved-diffusion's `UNetModel(...)`."""
    head_channels = c.get("num_head_channels", -1)
    plain = "symmetric_conv" if c.get("conv_resample", True) else "pool"
    network = UNetConfig(
        channels=c["in_channels"],
        concat_channels=concat_channels,
        base_channels=c["model_channels"],
        channel_mult=c["channel_mult"],
        blocks_per_level=c["num_res_blocks"],
        attention_resolutions=[image_size // factor for factor in c["attention_resolutions"]],
        attention_heads=c["num_heads"] if head_channels == -1 else None,
        attention_head_channels=None if head_channels == -1 else head_channels,
        dropout=float(c["dropout"]),
        adaptive_norm=c["use_scale_shift_norm"],
        resample="residual" if c.get("resblock_updown") else plain,
        time_embedding="adm",
        norm_eps=1e-5,
        init="adm",
    )
    return Target(network, image_size, learned_variance=c["out_channels"] == 2 * c["in_channels"])


def target_and_layout(fixture: Fixture) -> tuple[Target, Layout]:
    """The network of a fixture and the layout of its keys."""
    c = fixture.spec["constructor"]
    if fixture.spec["kind"] == "pesser":
        return pesser_target(c), PESSER
    if fixture.spec["kind"] == "unet2d":
        return from_diffusers_config(c), DIFFUSERS
    concat = c["in_channels"] if fixture.spec.get("class") == "SuperResModel" else 0
    layout = GUIDED_NEW_ORDER if c.get("use_new_attention_order") else GUIDED
    return guided_target(c, fixture.spec["inputs"]["x"]["shape"][-1], concat), layout


def build_target(target: Target) -> nn.Module:
    """The network in eval mode."""
    network = build_network(target.network, image_size=target.image_size, learned_variance=target.learned_variance)
    return network.eval()


def trace(network: nn.Module, names: dict[str, str], call: Any) -> dict[str, Tensor]:
    """Run `call()` and return the outputs of the modules, by official name (official -> ours)."""
    outputs: dict[str, Tensor] = {}

    def keep(official: str) -> Any:
        return lambda module, args, output: outputs.__setitem__(official, output.detach())

    hooks = [network.get_submodule(ours).register_forward_hook(keep(official)) for official, ours in names.items()]
    with torch.inference_mode():
        call()
    for hook in hooks:
        hook.remove()
    return outputs

"""Golden fixtures of official networks -> the same networks here, under our keys."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflab.interop.diffusers_config import from_diffusers_config
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.guided import GUIDED, GUIDED_NEW_ORDER
from difflab.interop.janspiry import JANSPIRY, JANSPIRY_DDPM
from difflab.interop.keymap import KeyMap, shapes_of
from difflab.interop.layout import Layout, Target
from difflab.interop.pesser import PESSER
from difflab.networks.build import build_network
from difflab.networks.config import TransformerConfig, UNetConfig, UNetEncoderConfig
from difflab.networks.places import places
from difflab.networks.plan import BackbonePlan
from difflab.types import Conditioning
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
    upsample_heads = c.get("num_heads_upsample", -1)
    network = UNetConfig(
        **_guided_backbone(c, image_size),
        concat_channels=concat_channels,
        decoder_attention_heads=None if upsample_heads == -1 else upsample_heads,
    )
    return Target(network, image_size, learned_variance=c["out_channels"] == 2 * c["in_channels"])


def classifier_target(c: dict[str, Any]) -> Target:
    """guided-diffusion's `EncoderUNetModel(...)`."""
    backbone = _guided_backbone(c, c["image_size"])
    network = UNetEncoderConfig(kind="unet_encoder", classes=c["out_channels"], pool=c["pool"], **backbone)
    return Target(network, c["image_size"])


def _guided_backbone(c: dict[str, Any], image_size: int) -> dict[str, Any]:
    head_channels = c.get("num_head_channels", -1)
    plain = "symmetric_conv" if c.get("conv_resample", True) else "pool"
    return {
        "channels": c["in_channels"],
        "base_channels": c["model_channels"],
        "channel_mult": c["channel_mult"],
        "blocks_per_level": c["num_res_blocks"],
        "attention_resolutions": [image_size // factor for factor in c["attention_resolutions"]],
        "attention_heads": c["num_heads"] if head_channels == -1 else None,
        "attention_head_channels": None if head_channels == -1 else head_channels,
        "dropout": float(c["dropout"]),
        "adaptive_norm": c["use_scale_shift_norm"],
        "resample": "residual" if c.get("resblock_updown") else plain,
        "time_embedding": "adm",
        "norm_eps": 1e-5,
        "init": "adm",
    }


def compvis_target(c: dict[str, Any]) -> Target:
    """`UNetModel(...)` of latent diffusion, Stable Diffusion and generative-models."""
    size, upsample_heads = c.get("image_size", 8), c.get("num_heads_upsample", -1)
    guided = {"num_heads": -1, "dropout": 0.0, "use_scale_shift_norm": False, **c}
    transforms = c.get("use_spatial_transformer") or c.get("context_dim") is not None
    transformer = {
        "depth": c.get("transformer_depth", 1),
        "projection": "linear" if c.get("use_linear_in_transformer") else "convolution",
    }
    network = UNetConfig(
        **(_guided_backbone(guided, size) | {"channels": c["out_channels"]}),
        concat_channels=c["in_channels"] - c["out_channels"],
        context_channels=c.get("context_dim"),
        pooled_channels=c.get("adm_in_channels"),
        transformer=TransformerConfig.model_validate(transformer) if transforms else None,
        # Without `legacy`, the width of the heads is that of the encoder's.
        decoder_attention_heads=None if upsample_heads == -1 or not c.get("legacy", True) else upsample_heads,
    )
    return Target(network, size)


def janspiry_target(c: dict[str, Any]) -> tuple[Target, Layout]:
    """Janspiry's `UNet(...)`, told of the noise level or (ddpm_modules) of the index of a step."""
    index = "with_time_emb" in c
    network = UNetConfig(
        channels=c["out_channel"],
        concat_channels=c["in_channel"] - c["out_channel"],
        base_channels=c["inner_channel"],
        channel_mult=c["channel_mults"],
        blocks_per_level=c["res_blocks"],
        attention_resolutions=c["attn_res"],
        dropout=float(c["dropout"]),
        resample="symmetric_conv",
        time_embedding="sr3",
        embedding_mult=1,
        embedding_activation=index,
        qkv_bias=False,
        norm_groups=c["norm_groups"],
        norm_eps=1e-5,
        init="orthogonal",
    )
    return Target(network, c["image_size"]), JANSPIRY_DDPM if index else JANSPIRY


def target_and_layout(fixture: Fixture) -> tuple[Target, Layout]:
    """The network of a fixture and the layout of its keys."""
    c = fixture.spec["constructor"]
    if fixture.spec["kind"] == "pesser":
        return pesser_target(c), PESSER
    if fixture.spec["kind"] == "unet2d":
        return from_diffusers_config(c), DIFFUSERS
    if fixture.spec["kind"] in ("sr3_unet", "sr3_process"):
        return janspiry_target(c)
    layout = GUIDED_NEW_ORDER if c.get("use_new_attention_order") else GUIDED
    if fixture.spec["kind"] == "guided_encoder":
        return classifier_target(c), layout
    concat = c["in_channels"] if fixture.spec.get("class") == "SuperResModel" else 0
    return guided_target(c, fixture.spec["inputs"]["x"]["shape"][-1], concat), layout


def network_keymap(layout: Layout, target: Target) -> KeyMap:
    """The map of a network alone, under the keys of its own state dict."""
    network = target.meta_network()
    shapes = shapes_of(network.state_dict())
    return KeyMap(layout.name, layout.entries(network.plan, shapes), shapes, layout.constants(network.plan))


def build_target(target: Target) -> nn.Module:
    """The network in eval mode."""
    network = build_network(target.network, image_size=target.image_size, learned_variance=target.learned_variance)
    return network.eval()


def conditioning(fixture: Fixture, label_embedding: Tensor | None) -> Conditioning:
    """What the network of a fixture is told; label_embedding: [classes, D], where it knows classes."""
    vector = None if label_embedding is None else label_embedding[fixture.input("y")]
    concat = None
    if "low_res" in fixture.spec["inputs"]:
        concat = F.interpolate(fixture.input("low_res"), size=16, mode="bilinear", align_corners=False)
    return Conditioning(vector=vector, concat=concat)


def janspiry_blocks(plan: BackbonePlan) -> dict[str, str]:
    """Janspiry's flat lists of blocks -> our key of the last module of each: its blocks end with their attention."""
    names = {"downs.0": "conv_in"}
    sides, counts = {"encoder": "downs", "middle": "mid", "decoder": "ups"}, {"encoder": 0, "middle": -1, "decoder": -1}
    for place in places(plan):
        counts[place.side] += place.spec.name != "attention"
        names[f"{sides[place.side]}.{counts[place.side]}"] = place.key
    return names


def guided_blocks(plan: BackbonePlan) -> dict[str, str]:
    """guided-diffusion's flat list of blocks -> our key of the last module of each."""
    names = {"input_blocks.0": "conv_in"}
    encoded, decoded = 0, -1
    for place in places(plan):
        if place.side == "middle":
            names["middle_block"] = place.key
        elif place.side == "encoder":
            encoded += place.position == 0
            names[f"input_blocks.{encoded}"] = place.key
        else:
            # An upsampler stands alone in its step here, and at the end of the block before it there.
            decoded += place.skip and place.position == 0
            names[f"output_blocks.{decoded}"] = place.key
    return names


def check_traces(fixture: Fixture, seen: dict[str, Tensor]) -> None:
    """Compare what blocks put out, by official name, with the fixture's fingerprints of all its blocks."""
    blocks = {key.removeprefix("trace.").rsplit(".", 1)[0] for key in fixture.arrays if key.startswith("trace.")}
    assert seen.keys() == blocks
    for block, output in seen.items():
        fixture.check(f"trace.{block}.mean", output.mean(dim=(1, 2, 3)))
        fixture.check(f"trace.{block}.std", output.std(dim=(1, 2, 3), correction=0))
        fixture.check(f"trace.{block}.head", output[0].flatten()[:16])


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

"""The unofficial SR3 code (Janspiry/Image-Super-Resolution-via-Iterative-Refinement): its network and its files.

Its network puts the enlarged image before x, ours behind it: a matter of the first convolution's input channels. A
file `<name>_gen.pth` holds the network under `denoise_fn.` and, beside it, twelve tables of the schedule.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from difflab.diffusion.config import DiscreteDiffusionConfig
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.schedules import build_betas
from difflab.interop.keymap import Entry, Fused, Shapes, both
from difflab.interop.unet_layout import UNetLayout, without_weights
from difflab.interop.unet_words import Places
from difflab.networks.attention import AttentionSpec
from difflab.networks.places import places
from difflab.networks.plan import UNetPlan

_SIDES = {"encoder": "downs", "middle": "mid", "decoder": "ups"}
_BLOCK = {
    "norm1": "block1.block.0",
    "conv1": "block1.block.3",
    "norm2": "block2.block.0",
    "conv2": "block2.block.3",
    "shortcut": "res_conv",
}
_TABLES = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
"""The tables of the schedule, in the order of its files."""


@dataclass(frozen=True)
class ConcatFirst:
    """Input channels [concat, x] of a convolution there, [x, concat] here."""

    concat_channels: int

    def to_ours(self, official: Sequence[Tensor]) -> Tensor:
        return official[0].roll(-self.concat_channels, dims=1)

    def to_official(self, ours: Tensor) -> list[Tensor]:
        return [ours.roll(self.concat_channels, dims=1)]


def _entries_with(embedding: str, block_embedding: str) -> Callable[[UNetPlan, Shapes], list[Entry]]:
    def entries(plan: UNetPlan, shapes: Shapes) -> list[Entry]:
        found = [
            *both(f"{embedding}.1", "time_embed.linear1"),
            *both(f"{embedding}.3", "time_embed.linear2"),
            Entry(("downs.0.weight",), "conv_in.weight", ConcatFirst(plan.concat_channels)),
            Entry(("downs.0.bias",), "conv_in.bias"),
            *both("final_conv.block.0", "norm_out"),
            *both("final_conv.block.3", "conv_out"),
        ]
        # Blocks and resamplers are counted together on each side; attention is part of the block before it.
        counts = {"encoder": 0, "middle": -1, "decoder": -1}
        leaves = {"embed": block_embedding, **_BLOCK}
        for place in places(plan):
            attention = isinstance(place.spec, AttentionSpec)
            counts[place.side] += not attention
            official = f"{_SIDES[place.side]}.{counts[place.side]}"
            if attention:
                found += both(f"{official}.attn.norm", f"{place.key}.norm")
                found.append(Entry((f"{official}.attn.qkv.weight",), f"{place.key}.qkv.weight", Fused(1, pointwise=2)))
                found += both(f"{official}.attn.out", f"{place.key}.out", Fused(1, pointwise=2))
            elif f"{place.key}.conv.weight" in shapes:
                found += both(f"{official}.conv", f"{place.key}.conv")
            else:
                for ours, theirs in leaves.items():
                    if f"{place.key}.{ours}.weight" in shapes:
                        found += both(f"{official}.res_block.{theirs}", f"{place.key}.{ours}")
        return found

    return entries


def _frequencies(plan: UNetPlan) -> dict[str, Tensor]:
    """model/ddpm_modules/unet.py, TimeEmbedding: the buffer of the embedding of integer times."""
    channels = plan.embedding.sinusoid_channels
    exponents = torch.arange(0, channels, 2, dtype=torch.float32, device="cpu") * (-math.log(10_000) / channels)
    return {"time_mlp.0.inv_freq": torch.exp(exponents)}


def schedule_tables(diffusion: DiscreteDiffusionConfig) -> dict[str, Tensor]:
    """The tables that its files hold, float32 [T]; model/sr3_modules/diffusion.py, set_new_noise_schedule."""
    betas = build_betas(diffusion.schedule, diffusion.timesteps)
    # The prediction type affects no table; with x0 they are also defined where no signal is left.
    process = GaussianProcess(betas, prediction="x0", posterior_clip="floor")
    with np.errstate(divide="ignore"):
        recip = 1.0 / process.alphas_cumprod
    own = {"sqrt_recip_alphas_cumprod": np.sqrt(recip), "sqrt_recipm1_alphas_cumprod": np.sqrt(recip - 1.0)}
    tables = {name: own[name] if name in own else getattr(process, name) for name in _TABLES}
    return {name: torch.tensor(table, dtype=torch.float32, device="cpu") for name, table in tables.items()}


_REQUIRES = {
    "patch_size": 1,
    "pad": False,
    "context_channels": None,
    "pooled_channels": None,
    "transformer": None,
    "attention_heads": 1,
    "decoder_attention_heads": None,
    "middle_attention": True,
    "adaptive_norm": False,
    "resample": "symmetric_conv",
    "time_embedding": "sr3",
    "embedding_mult": 1,
    "qkv_bias": False,
    "norm_eps": 1e-5,
    "residual_scale": 1.0,
    "skip_scale": 1.0,
}

JANSPIRY = UNetLayout(
    name="janspiry",
    code="Janspiry's SR3",
    entries=_entries_with("noise_level_mlp", "noise_func.noise_func.0"),
    requires={**_REQUIRES, "embedding_activation": False},
    stem="base",
    places=Places("downs.0.weight", "final_conv.block.3.weight", "ups."),
    marker="noise_level_mlp.1.weight",
    conditioners={"low_res": without_weights},
    order=("noise_level_mlp", "downs", "mid", "ups", "final_conv"),
    prefix="denoise_fn.",
    tables=schedule_tables,
)
JANSPIRY_DDPM = dataclasses.replace(
    JANSPIRY,
    name="janspiry-ddpm",
    code="Janspiry's DDPM",
    entries=_entries_with("time_mlp", "mlp.1"),
    requires={**_REQUIRES, "embedding_activation": True},
    marker="time_mlp.1.weight",
    order=("time_mlp", "downs", "mid", "ups", "final_conv"),
    constants=_frequencies,
)
"""The same repository's network conditioned on the step index."""

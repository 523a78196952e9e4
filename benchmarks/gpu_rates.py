"""Images a second as floating-point operations a second, and as a share of what a card can do."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.stage import Stage
from difflab.networks.build import build_network

PEAKS = {
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H200": 989.4,
    "NVIDIA GH200 480GB": 989.4,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
}
"""Dense bf16 TFLOP/s by the datasheets, by the name that torch gives a card."""


def peak_of(card: str | None) -> float | None:
    """TFLOP/s in bf16; None for a card that is not known here, and for none."""
    return None if card is None else PEAKS.get(card)


def utilisation(tflops: float, card: str | None) -> str:
    """Model FLOPs utilisation, in words."""
    peak = peak_of(card)
    if peak is None:
        return f"no MFU: the peak of {card} is not known" if card else "no MFU without a card"
    return f"MFU {100.0 * tflops / peak:.1f} %"


def flops_per_image(stage: Stage, *, training: bool) -> int:
    """Floating-point operations of the experiment's network for one image: forward, and in training backward too.

    A multiplication with an addition is two. What checkpointing recomputes is not counted, nor what is no convolution
    or matrix product. Nothing is computed: the tensors are on the meta device.
    """
    data = stage.config.data
    network = stage.config.network.model_copy(update={"checkpoint_activations": False})
    learned = stage.config.diffusion.learns_variance
    with torch.device("meta"):
        module = build_network(network, image_size=data.image_size, learned_variance=learned)
        x, time = torch.empty(1, data.channels, data.image_size, data.image_size), torch.empty(1)
    return flops_of(module.train(training), x, time, backward=training)


def flops_of(module: nn.Module, *inputs: torch.Tensor, backward: bool) -> int:
    """Those of one call of a module, and of the gradients of all its parameters."""
    counter = FlopCounterMode(display=False)
    with counter, torch.set_grad_enabled(backward):
        out = module(*inputs)
        if backward:
            out.sum().backward()
    return counter.get_total_flops()

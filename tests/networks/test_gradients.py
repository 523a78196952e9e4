"""Gradients with and without recomputation: equal, takable twice, and differentiable themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from networks.small_networks import awake, inputs, small, small_encoder

KINDS = ["unet", "unet_encoder"]


def network_of(kind: str, **options: Any) -> nn.Module:
    return awake(small(**options) if kind == "unet" else small_encoder(**options))


def objective(network: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    return network(x, time).square().mean()


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_changes_memory_not_gradients(kind: str) -> None:
    runs: list[tuple[Tensor, Tensor, list[Tensor | None]]] = []
    recomputed = []
    for checkpoint in (False, True):
        network = network_of(kind, dropout=0.2, checkpoint_activations=checkpoint)
        if checkpoint:
            network.get_submodule("encoder.0.block.0").register_forward_pre_hook(lambda *_: recomputed.append(1))
        x, time = inputs()
        x.requires_grad_(True)
        torch.manual_seed(3)
        value = objective(network, x, time)
        value.backward()
        assert x.grad is not None
        runs.append((value, x.grad, [p.grad for p in network.parameters()]))
    assert len(recomputed) == 2
    torch.testing.assert_close(runs[1], runs[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_graph_can_be_gone_through_twice(kind: str, checkpoint: bool) -> None:
    network = network_of(kind, checkpoint_activations=checkpoint)
    x, time = inputs()
    x.requires_grad_(True)
    value = objective(network, x, time)
    (first,) = torch.autograd.grad(value, x, retain_graph=True)
    (second,) = torch.autograd.grad(value, x)
    assert first.any()
    torch.testing.assert_close(second, first)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_gradient_has_a_gradient(kind: str, checkpoint: bool) -> None:
    """Of the penalty |grad_x f|^2, against finite differences; torch's plain attention has second derivatives."""
    network = network_of(kind, checkpoint_activations=checkpoint).double()
    x, time = inputs()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def penalty(step: float) -> tuple[Tensor, Tensor]:
        shifted = (x.double() + step * direction).requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(network, shifted, time), shifted, create_graph=True)
        return gradient.square().sum(), shifted

    with sdpa_kernel(SDPBackend.MATH):
        value, start = penalty(0.0)
        parameters = list(network.parameters())
        slope, *of_parameters = torch.autograd.grad(value, [start, *parameters])
        difference = (penalty(1e-5)[0] - penalty(-1e-5)[0]) / 2e-5
    torch.testing.assert_close((slope * direction).sum(), difference, rtol=1e-6, atol=0.0)
    assert all(gradient.isfinite().all() and gradient.any() for gradient in of_parameters)

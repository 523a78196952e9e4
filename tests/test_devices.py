"""What a device does by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.utils.deterministic as deterministic
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from difflab.devices import choose_algorithms
from difflab.types import Conditioning
from networks.small_networks import inputs, small, small_encoder

NOT_DETERMINISTIC_ON_CUDA = {
    # The operations that torch.use_deterministic_algorithms(True) refuses on CUDA, by its documentation.
    "adaptive_max_pool2d_backward",
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "avg_pool3d_backward",
    "bincount",
    "cumsum",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
    "histc",
    "kthvalue",
    "max_pool3d_with_indices_backward",
    "max_unpool2d",
    "max_unpool3d",
    "median",
    "nll_loss2d_backward",
    "nll_loss2d_forward",
    "put",
    "put_",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "replication_pad1d_backward",
    "replication_pad2d_backward",
    "replication_pad3d_backward",
    "resize_",
    "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward",
    "upsample_linear1d_backward",
    "upsample_trilinear3d_backward",
}


class Seen(TorchDispatchMode):
    """The names of all operations that ran inside, backward too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def algorithms() -> Iterator[None]:
    """The choice of before, afterwards."""
    before, filling = torch.get_deterministic_debug_mode(), deterministic.fill_uninitialized_memory
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
        yield
    torch.use_deterministic_algorithms(before > 0, warn_only=before == 1)
    deterministic.fill_uninitialized_memory = filling


@pytest.mark.usefixtures("algorithms")
@pytest.mark.parametrize("compiles", [False, True])
def test_deterministic_is_strict_on_cuda_alone(compiles: bool) -> None:
    # A switch that only warns leaves the backward passes of attention as they are on CUDA: in any order.
    modes = {}
    for device in ("cuda", "cpu", "mps"):
        choose_algorithms(True, device, compiles=compiles)
        modes[device] = torch.get_deterministic_debug_mode()
        assert not deterministic.fill_uninitialized_memory
        choose_algorithms(False, device, compiles=compiles)
        assert torch.get_deterministic_debug_mode() == 0
    assert modes == {"cuda": 2, "cpu": 1, "mps": 1}


@pytest.mark.parametrize(
    "build",
    [
        *(lambda resample=resample: small(resample=resample) for resample in ("asymmetric_conv", "symmetric_conv")),
        *(lambda resample=resample: small(resample=resample) for resample in ("pool", "residual")),
        lambda: small(adaptive_norm=True, dropout=0.1, patch_size=2, context_channels=8),
        *(lambda pool=pool: small_encoder(pool) for pool in ("adaptive", "attention", "spatial", "spatial_v2")),
    ],
)
def test_no_network_needs_what_is_refused_there(build: Callable[[], nn.Module]) -> None:
    network = build()
    x, time = inputs()
    tokens = Conditioning(tokens=torch.randn(2, 3, 8)) if "tokens" in network.reads else None
    with Seen() as seen:
        out: Tensor = network(x, time, tokens)
        out.square().mean().backward()
    assert {"convolution", "convolution_backward"} <= seen.names
    assert seen.names & NOT_DETERMINISTIC_ON_CUDA == set()

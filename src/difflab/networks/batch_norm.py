"""Batch normalization whose statistics are those of the global batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from difflab.networks.processes import in_several_processes, sum_over_processes


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over the images of all processes, on any device (`nn.SyncBatchNorm` requires a GPU).

    In training every process has to call it with the same number of channels; the numbers of images may differ. The
    backward pass sums the gradients of all processes, so that averaging the gradients of parameters over processes, as
    DistributedDataParallel does, gives those of one process with the whole batch. Statistics are computed in float32 or
    wider, and running averages are equal on all processes.
    """

    def forward(self, input: Tensor) -> Tensor:
        """input [B, C, H, W] -> the same shape and dtype."""
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        if not self.training or not in_several_processes():
            return super().forward(wide).to(input.dtype)
        count, total = sum_over_processes(wide.new_tensor(input.numel() / input.shape[1]), wide.sum(dim=(0, 2, 3)))
        mean = total / count
        centred = wide - mean[:, None, None]
        # The squares of the differences, not the difference of the squares, which cancels.
        (squares,) = sum_over_processes(centred.square().sum(dim=(0, 2, 3)))
        variance = squares / count
        self._average(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        out = centred * scale[:, None, None]
        return (out if not self.affine else out + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _average(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)

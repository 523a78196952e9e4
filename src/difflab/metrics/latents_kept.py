"""What images are reconstructed from, and what is kept of their latents over any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from difflab.metrics.gather import gather_rows, sum_over_ranks
from difflab.metrics.reference import in_order
from difflab.metrics.samples import Expected, check_all_there


@dataclass(frozen=True)
class MadeOf:
    """What a batch of reconstructions was made of.

    originals: uint8 [B, C, H, W].
    kl: [B], the divergence of each latent from the standard normal, in nats; zeros if latents have no distribution.
    codes: int64 [B, h, w], the numbers of the codes, of a codebook of `codebook_size`; None without one.
    scenes: what the data records of each original, as plain values; None if it records nothing.
    """

    originals: Tensor
    kl: Tensor
    codes: Tensor | None = None
    codebook_size: int | None = None
    scenes: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Latents:
    """Of all n images. kl: float64 [n]. counts: int64 [codes], how often each code occurs; None without a codebook."""

    kl: Tensor
    counts: Tensor | None


class SampleLatents:
    """The divergence of each image's latent, and how often each code occurs in all of them."""

    def __init__(self) -> None:
        self._index: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]
        self._kl: list[Tensor] = [torch.zeros(0, dtype=torch.float64)]
        self._counts = torch.zeros(0, dtype=torch.int64)

    def update(self, made_of: MadeOf, index: Tensor) -> None:
        """made_of: of a batch; index int64 [B]."""
        self._index.append(index.cpu())
        self._kl.append(made_of.kl.cpu().double())
        if made_of.codes is not None:
            assert made_of.codebook_size is not None, "codes are of a codebook"
            found = torch.bincount(made_of.codes.cpu().flatten(), minlength=made_of.codebook_size)
            self._counts = found + (self._counts if len(self._counts) else 0)

    def gathered(self, n: Expected) -> Latents:
        """Of every process. Raises ValueError unless the expected images were each given once."""
        index = gather_rows(torch.cat(self._index))
        check_all_there(index, n)
        kl = in_order(index, gather_rows(torch.cat(self._kl)))[1]
        # A process without images does not know the size of the codebook.
        size = int(gather_rows(torch.tensor([len(self._counts)])).max())
        mine = self._counts if len(self._counts) else torch.zeros(size, dtype=torch.int64)
        return Latents(kl, sum_over_ranks(mine) if size else None)

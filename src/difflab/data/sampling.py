"""The plan of a run: the samples of global batch k, and this rank's share of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from difflab.data.hashing import permutation
from difflab.errors import UserError
from difflab.seeding import stream_seed


@dataclass(frozen=True)
class BatchPlan:
    """A rank's share of one global batch.

    indices, positions: int64 [b], dataset indices and positions in the global batch. weights: float32 [b], 0 for
        padding.
    """

    number: int
    epoch: int
    indices: np.ndarray
    positions: np.ndarray
    weights: np.ndarray


class GlobalBatches:
    """Splits the samples 0..n-1 into global batches, numbered through all epochs.

    Global batch k holds the same samples whatever the number of ranks; rank r takes its positions [r*b, (r+1)*b) with
    b = global_batch / world_size. With `shuffle` every epoch has its own order, a function of (seed, epoch).
    drop_last: the incomplete tail of an epoch is dropped (other samples in each epoch); otherwise the last batch is
        padded with samples of weight 0, so that every sample counts exactly once and all ranks get the same number of
        batches of the same size.

    Raises UserError if the ranks cannot share the batch equally, or the data set is smaller than one batch.
    """

    def __init__(
        self,
        n: int,
        global_batch: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        drop_last: bool = True,
    ) -> None:
        if global_batch % world_size:
            raise UserError(
                f"a batch of {global_batch} samples cannot be shared equally by {world_size} ranks; "
                f"choose a batch_size divisible by {world_size}"
            )
        if n < 1:
            raise UserError("the split holds no samples; choose another split or make the data set again")
        if drop_last and n < global_batch:
            raise UserError(
                f"the data set has {n} samples, fewer than one batch of {global_batch}; "
                f"set data.batch_size to {n} or less, or use more data"
            )
        assert 0 <= rank < world_size
        self.n = n
        self.global_batch = global_batch
        self.seed = seed
        self.rank = rank
        self.rank_batch = global_batch // world_size
        self.shuffle = shuffle
        self.drop_last = drop_last

    @property
    def batches_per_epoch(self) -> int:
        """The number of global batches in one pass."""
        return self.n // self.global_batch if self.drop_last else -(-self.n // self.global_batch)

    @property
    def dropped_per_epoch(self) -> int:
        """Samples left out of each epoch."""
        return self.n % self.global_batch if self.drop_last else 0

    def epoch_of(self, number: int) -> int:
        """The epoch that global batch `number` belongs to."""
        return number // self.batches_per_epoch

    def batch(self, number: int) -> BatchPlan:
        """This rank's share of global batch `number` (counted over epochs)."""
        epoch, place = divmod(number, self.batches_per_epoch)
        positions = np.arange(self.rank * self.rank_batch, (self.rank + 1) * self.rank_batch)
        slots = place * self.global_batch + positions
        real = slots < self.n
        slots = np.minimum(slots, self.n - 1)
        indices = _order(self.n, stream_seed(self.seed, "order", epoch))[slots] if self.shuffle else slots
        return BatchPlan(number, epoch, indices, positions, real.astype(np.float32))


@lru_cache(maxsize=2)
def _order(n: int, seed: int) -> np.ndarray:
    return permutation(n, seed)

"""The data loader: global batches in order, prefetched by workers, resumable after any batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from difflab.data.bad_samples import BadSamples
from difflab.data.batching import BatchReader, BatchRequest
from difflab.data.captions import caption_draws
from difflab.data.hashing import hash_indices
from difflab.data.processes import EndsWith, reading_context
from difflab.data.sampling import BatchPlan, GlobalBatches
from difflab.data.transforms import crop_draws, flips
from difflab.errors import UserError
from difflab.seeding import stream_seed
from difflab.types import Batch

_log = logging.getLogger(__name__)


class ShardLoader:
    """Yields the batches (`difflab.types.Batch`, this rank's share) of a plan.

    Training (total_batches given): one iteration yields the batches from the current position up to total_batches,
    through as many epochs as that takes, so a trainer sees one long epoch of known length; an iteration that starts at
    the end continues with another total_batches.
    Evaluation (total_batches None): every iteration is one pass over the plan.

    The position counts the batches yielded, not those prefetched by workers; with `state_dict` and `load_state_dict`
    another loader, on any number of ranks and workers, continues with the very next batch.

    flip, random_crop, random_caption: mirror and crop images and choose a line of a caption file at random, as
        functions of (seed, epoch, dataset index) alone. So are the fields that the reader makes of images.

    Raises UserError while iterating if more samples are bad than allowed, and OSError with the path of the shard if the
    machine cannot read it.
    """

    def __init__(
        self,
        reader: BatchReader,
        plan: GlobalBatches,
        *,
        total_batches: int | None = None,
        flip: bool = False,
        random_crop: bool = False,
        random_caption: bool = False,
        workers: int = 0,
        prefetch: int = 2,
        max_bad_fraction: float = 0.0,
        pin_memory: bool | None = None,
    ) -> None:
        self.plan = plan
        self.total_batches = total_batches
        self.batches = 0
        self.bad = BadSamples(total=len(reader), max_fraction=max_bad_fraction)
        self._requests = _Requests(plan, flip, random_crop, random_caption, seeded=bool(reader.made))
        self._loader = _torch_loader(reader, self._requests, workers, prefetch, pin_memory)
        if plan.dropped_per_epoch and total_batches is not None:
            _log.info(
                "%d of %d samples do not fill a batch of %d and are left out of each epoch, other ones each time",
                plan.dropped_per_epoch,
                plan.n,
                plan.global_batch,
            )

    def __len__(self) -> int:
        """The number of batches of a whole iteration."""
        return self.plan.batches_per_epoch if self.total_batches is None else self.total_batches

    @property
    def epoch(self) -> int:
        """The epoch (pass over the data, from 0) of the last batch yielded."""
        return self.plan.epoch_of(max(self.batches - 1, 0))

    @property
    def dropped_per_epoch(self) -> int:
        """Samples left out of each epoch because they do not fill a batch."""
        return self.plan.dropped_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        start = 0 if self.total_batches is None else self.batches
        stop = start + len(self) - start % len(self)
        self.batches = start
        self._requests.start, self._requests.stop = start, stop
        for loaded in self._loader:
            if isinstance(loaded, Exception):
                raise loaded
            batch, bad = loaded
            self.bad.add([(index, text) for index, text in bad])
            if batch is None:
                raise UserError(f"no readable sample found in place of {bad[0][1]}; repair the data set")
            self.batches += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: how many batches were yielded, and of which plan."""
        return {
            "batches": self.batches,
            "samples": self.plan.n,
            "global_batch": self.plan.global_batch,
            "seed": self.plan.seed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration start after the last batch of `state`.

        Raises UserError if the state belongs to other data, another batch size or seed, whose batches would differ.
        """
        for name, ours in self.state_dict().items():
            if name != "batches" and state.get(name, ours) != ours:
                raise UserError(
                    f"cannot continue where the run stopped: its data had {name}={state[name]}, now it is {ours}; "
                    "use the same data, batch size, accumulation and seed, or start a new run"
                )
        self.batches = int(state["batches"])


class _Requests:
    """The batch sampler of the DataLoader: the plans from `start` to `stop`."""

    def __init__(
        self, plan: GlobalBatches, flip: bool, random_crop: bool, random_caption: bool, *, seeded: bool
    ) -> None:
        self.plan = plan
        self.flip = flip
        self.random_crop = random_crop
        self.random_caption = random_caption
        self.seeded = seeded
        self.start = 0
        self.stop = 0

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[BatchRequest]:
        for number in range(self.start, self.stop):
            plan = self.plan.batch(number)
            mirrored = (
                flips(self.plan.seed, plan.epoch, plan.indices) if self.flip else np.zeros(len(plan.indices), bool)
            )
            cut = crop_draws(self.plan.seed, plan.epoch, plan.indices) if self.random_crop else None
            line = caption_draws(self.plan.seed, plan.epoch, plan.indices) if self.random_caption else None
            yield BatchRequest(plan, mirrored, cut, line, self._seeds(plan) if self.seeded else ())

    def _seeds(self, plan: BatchPlan) -> list[int]:
        hashed = hash_indices(plan.indices, stream_seed(self.plan.seed, "made", plan.epoch))
        return [int(number) >> 1 for number in hashed]


class _Reporting:
    """Passes errors of the user or the machine on unchanged: from another process DataLoader would raise an error whose
    message is a traceback."""

    def __init__(self, reader: BatchReader) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitems__(self, request: BatchRequest) -> Any:
        try:
            return self.reader.__getitems__(request)
        except (UserError, OSError) as error:
            return error


class _Unwarned(DataLoader[Any]):
    def check_worker_number_rationality(self) -> None:
        """Nothing: torch would warn of more workers than cores, and these wait most of the time (`refuse_workers`)."""


def _torch_loader(
    reader: BatchReader, requests: _Requests, workers: int, prefetch: int, pin_memory: bool | None
) -> DataLoader[Any]:
    return _Unwarned(
        _Reporting(reader),  # pyrefly: ignore
        batch_sampler=requests,  # pyrefly: ignore
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        prefetch_factor=prefetch if workers else None,
        persistent_workers=workers > 0,
        multiprocessing_context=reading_context() if workers else None,
        worker_init_fn=EndsWith() if workers else None,
        # Its own generator: DataLoader takes a seed per iteration, which must not advance the global random state.
        generator=torch.Generator(),
    )


def _as_it_is(loaded: Any) -> Any:
    return loaded

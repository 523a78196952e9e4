"""Statistics of the data set that samples are compared with, computed once per extractor and cached."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from difflab.cache import cache_root
from difflab.config.data import DataConfig
from difflab.data.shard_names import as_word
from difflab.errors import UserError
from difflab.files import write_shared
from difflab.metrics.extractors.base import FeatureExtractor
from difflab.metrics.gather import all_true, gather_rows
from difflab.metrics.gaussian import GaussianStatistics
from difflab.metrics.protocol import ExtractorRecord, ReferenceRecord
from difflab.progress import track
from difflab.rank_logging import say_once
from difflab.seeding import stream_seed
from difflab.types import Batch

KEPT_FEATURES = 10_000
"""About this many features are kept of larger data sets, for metrics that compare images one by one."""

FORMAT_VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReferenceStatistics:
    """The statistics of a data set: Gaussian statistics of `record.n` images, and the features [m, D] float32 of all or
    KEPT_FEATURES of them (None if only the statistics are known), ordered by dataset index."""

    record: ReferenceRecord
    gaussian: GaussianStatistics
    features: Tensor | None


class Reference(Protocol):
    """Anything that samples can be compared with. content_hash: equal for equal data."""

    @property
    def content_hash(self) -> str: ...

    def statistics(self, extractor: FeatureExtractor, n: int | None = None) -> ReferenceStatistics:
        """Statistics of at most n of its images (None: all of them). All processes call it together."""
        ...


@dataclass(frozen=True)
class DataReference:
    """A data set as a reference.

    name: for messages and records. content_hash: equal for equal data. split: which part of it.
    preparation: the preprocessing of each image (crop, size, channels).
    total: number of images in the split.
    batches: limit (None: all) -> this process's share of that many images, as batches of uint8 images; rows of weight 0
        are padding. Only called if the statistics are not in the cache.
    batch_size: images in a batch, over all processes.
    """

    name: str
    content_hash: str
    split: str
    preparation: str
    total: int
    batches: Callable[[int | None], Iterable[Batch]]
    batch_size: int

    def statistics(self, extractor: FeatureExtractor, n: int | None = None) -> ReferenceStatistics:
        """From the cache, or computed by all processes together and cached; all images if there are fewer than n.

        Raises UserError if no image of the split can be read.
        """
        n = None if n is None or n >= self.total else n
        key = self._key(extractor.record, n)
        path = cache_path(key)
        cached = _read(path, key)
        if all_true(cached is not None):
            assert cached is not None
            return cached
        doing = f"{extractor.record.name} features of {n or self.total} images of {self.name}"
        _log.info("computing %s", doing)
        count = -(-(n or self.total) // self.batch_size)
        made = self._compute(extractor, n, track(self.batches(n), count, f"{doing}, batches of {self.batch_size}"))
        _write(path, key, made)
        return made

    def _key(self, extractor: ExtractorRecord, n: int | None) -> dict[str, Any]:
        return {
            "version": FORMAT_VERSION,
            "extractor": extractor.model_dump(mode="json"),
            "content_hash": self.content_hash,
            "split": self.split,
            "preparation": self.preparation,
            "n": self.total if n is None else n,
        }

    def _compute(self, extractor: FeatureExtractor, n: int | None, batches: Iterable[Batch]) -> ReferenceStatistics:
        gaussian = GaussianStatistics.empty(extractor.record.feature_dim, statistics_device(extractor.device))
        kept: list[Tensor] = [torch.zeros(0, extractor.record.feature_dim)]
        indices: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]
        keep_all = (n or self.total) <= KEPT_FEATURES
        for batch in batches:
            counts = batch["weight"] > 0
            index = batch["index"][counts].cpu()
            if not len(index):
                continue
            features = extractor(batch["image"][counts]).pool
            gaussian.update(features)
            chosen = torch.ones(len(index), dtype=torch.bool) if keep_all else _drawn(index, n or self.total)
            kept.append(features[chosen.to(features.device)].cpu())
            indices.append(index[chosen])
        gaussian = gaussian.over_ranks().cpu()
        order, features = in_order(gather_rows(torch.cat(indices)), gather_rows(torch.cat(kept)))
        if len(order.unique()) != len(order):
            raise ValueError(f"the batches of {self.name} hold some images twice; give each process its own share")
        if gaussian.n == 0:
            raise UserError(f"{self.name} split {self.split} holds no readable image to compare with")
        record = ReferenceRecord(
            name=self.name,
            content_hash=self.content_hash,
            split=self.split,
            preparation=self.preparation,
            n=gaussian.n,
        )
        return ReferenceStatistics(record, gaussian, features)


def shards_reference(
    data: DataConfig, split: str, *, batch_size: int, rank: int = 0, world_size: int = 1
) -> DataReference:
    """A split of a directory of shards, read as in training but never mirrored.

    Raises UserError if the data is missing or does not fit its configuration.
    """
    from difflab.data.build import build_dataset, build_eval_loader

    split = data.split_called(split)
    dataset = build_dataset(data, split=split)
    directory = dataset.directory
    digest = hashlib.sha256()
    for shard in directory.split(split).shards:
        # Third-party shards have no hash of all their bytes, but one of every name, size and first bytes in them.
        content = shard.sha256 or shard.content or hashlib.sha256(directory.offsets(shard).tobytes()).hexdigest()
        digest.update(f"{shard.path} {shard.samples} {shard.bytes} {content}\n".encode())
    return DataReference(
        name=Path(data.path).name,
        content_hash=digest.hexdigest(),
        split=split,
        preparation=f"crop={data.fixed_crop} size={data.image_size} channels={data.channels} alpha={data.alpha}",
        total=len(dataset),
        batches=lambda limit: build_eval_loader(
            data, split=split, batch_size=batch_size, rank=rank, world_size=world_size, limit=limit
        ),
        batch_size=batch_size,
    )


def cache_path(key: dict[str, Any]) -> Path:
    """The cache file of the statistics described by `key`."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    split = as_word(key["split"])
    return cache_root() / "reference" / f"{key['extractor']['name']}-{split}-{key['n']}-{digest}.safetensors"


def statistics_device(device: torch.device) -> torch.device:
    """The device for float64 sums of features: their own, unless it does not support float64."""
    return torch.device("cpu") if device.type == "mps" else device


def in_order(index: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Both sorted by index."""
    order = index.argsort(stable=True)
    return index[order], rows[order]


def _drawn(index: Tensor, total: int) -> Tensor:
    drawn = [stream_seed(0, "reference-feature", int(i)) % total < KEPT_FEATURES for i in index]
    return torch.tensor(drawn, dtype=torch.bool)


def _write(path: Path, key: dict[str, Any], made: ReferenceStatistics) -> None:
    """Caches statistics; a cache that cannot be written to makes the next evaluation slower, which is reported."""
    from safetensors.torch import save

    tensors = {"mean": made.gaussian.mean, "scatter": made.gaussian.scatter, "features": made.features}
    metadata = {"key": json.dumps(key, sort_keys=True), "record": made.record.model_dump_json()}
    content = save({name: t.contiguous() for name, t in tensors.items() if t is not None}, metadata)
    try:
        write_shared(path, content)
    except OSError as error:
        say_once(
            f"reference statistics cannot be kept in {path.parent} ({error.strerror or error}), so they will be "
            "computed again; set DIFFLAB_CACHE to a folder that can be written to"
        )


def _read(path: Path, key: dict[str, Any]) -> ReferenceStatistics | None:
    """The cached statistics; None if there are none, of another key, or damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if metadata.get("key") != json.dumps(key, sort_keys=True):
            return None
        record = ReferenceRecord.model_validate_json(metadata["record"])
        gaussian = GaussianStatistics(record.n, tensors["mean"], tensors["scatter"])
        whole = all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
    except (SafetensorError, ValueError, KeyError) as error:
        say_once(f"{path} is damaged ({type(error).__name__}); computing it again")
        return None
    except OSError as error:
        say_once(f"{path} cannot be read ({error.strerror or error}); computing it again")
        return None
    if not whole:
        say_once(f"{path} is damaged (its numbers are not finite); computing it again")
        return None
    return ReferenceStatistics(record, gaussian, tensors.get("features"))

"""Builds data loaders from the `data` group of the configuration."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from difflab.config.data import DataConfig, is_pattern
from difflab.data.batching import BatchReader, FromImages
from difflab.data.configured import open_configured, samples_of
from difflab.data.directory import DataDirectory
from difflab.data.encoded.checking import refuse_other_captions
from difflab.data.left_out import described
from difflab.data.loader import ShardLoader
from difflab.data.processes import refuse_workers
from difflab.data.reading import ShardDataset
from difflab.data.sampling import GlobalBatches
from difflab.errors import UserError
from difflab.text.base import Tokenizer

_log = logging.getLogger(__name__)


def build_train_loader(
    cfg: DataConfig,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    total_batches: int,
    tokenizers: Mapping[str, Tokenizer] | None = None,
    empty_captions: bool = True,
    images: bool = True,
    made: Mapping[str, FromImages] | None = None,
) -> ShardLoader:
    """The training batches of `rank`: `total_batches` global batches of `cfg.batch_size` samples, shuffled by `seed`.

    tokenizers, empty_captions, images, made: as in `BatchReader`.

    Raises UserError if the data is missing, does not fit the configuration, or is smaller than a batch.
    """
    dataset = build_dataset(cfg, split=cfg.train_split)
    plan = GlobalBatches(len(dataset), cfg.batch_size, seed=seed, rank=rank, world_size=world_size)
    reader = BatchReader(
        dataset, one_pass=False, tokenizers=tokenizers, empty_captions=empty_captions, images=images, made=made
    )
    return _loader(cfg, reader, plan, total_batches=total_batches)


def build_eval_loader(
    cfg: DataConfig,
    *,
    split: str,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    limit: int | None = None,
    chosen: Sequence[int] | None = None,
    tokenizers: Mapping[str, Tokenizer] | None = None,
    empty_captions: bool = True,
    images: bool = True,
) -> ShardLoader:
    """One pass over a split in order, `batch_size` samples at a time over all ranks; padding has weight 0.

    limit: at most this many samples, spread evenly over the split. chosen: these samples alone, by index, instead.
    tokenizers, empty_captions, images: as in `BatchReader`.

    Raises UserError if the data is missing or does not fit the configuration.
    """
    dataset = _dataset(cfg, open_configured(cfg), split)
    if chosen is None:
        n = len(dataset) if limit is None else min(limit, len(dataset))
        subset = None if n == len(dataset) else spread_evenly(n, len(dataset))
    else:
        n, subset = len(chosen), np.asarray(chosen, dtype=np.int64)
    plan = GlobalBatches(n, batch_size, rank=rank, world_size=world_size, shuffle=False, drop_last=False)
    reader = BatchReader(
        dataset, one_pass=True, subset=subset, tokenizers=tokenizers, empty_captions=empty_captions, images=images
    )
    return _loader(cfg, reader, plan, total_batches=None)


def spread_evenly(n: int, total: int) -> np.ndarray:
    """The indices of n of `total` samples, int64, in order."""
    return np.arange(n) * total // n


def build_dataset(cfg: DataConfig, *, split: str) -> ShardDataset:
    """The samples of one split as configured by `cfg`, with random access. Logs which files of the tars are not read.

    Raises UserError if the data is missing or does not fit the configuration.
    """
    directory = open_configured(cfg)
    dataset = _dataset(cfg, directory, split)
    if left_out := directory.left_out():
        _log.warning("%s: %s", cfg.path, described(left_out))
    return dataset


def refuse_misfit(cfg: DataConfig, split: str) -> None:
    """Raises UserError if a split cannot satisfy `cfg`, as far as the index shows."""
    _dataset(cfg, open_configured(cfg), split).close()


def _dataset(cfg: DataConfig, directory: DataDirectory, split: str) -> ShardDataset:
    _refuse_other_images(cfg, directory)
    _refuse_overlap(cfg, directory)
    if directory.index.channels not in (None, cfg.channels):
        held, read = ("grey", "colour") if cfg.channels == 3 else ("colour", "grey")
        _log.warning("%s holds %s images, which are read as %s (data.channels=%d)", cfg.path, held, read, cfg.channels)
    if "boxes" in cfg.fields and cfg.crop != "none":
        raise UserError(
            f"boxes are shares of the whole image, of which data.crop={cfg.crop} may cut a part: set data.crop=none, "
            "with images of one size (difflab data make)"
        )
    if "segmentation" in cfg.fields and cfg.crop != "none":
        raise UserError(
            f"segmentation has a class for each pixel of the stored image, which data.crop={cfg.crop} may change: set "
            "data.crop=none, with images of one size (difflab data make)"
        )
    for field in cfg.fields:
        refuse_other_captions(directory, field, cfg.captions)
    if directory.split(split).samples == 0:
        left_out = directory.left_out()
        why = described(left_out) if left_out else "its tars are empty"
        raise UserError(f"{cfg.path}: the split {split!r} holds no samples: {why}")
    return samples_of(
        cfg,
        directory,
        split,
        tuple(cfg.fields),
        image_size=cfg.image_size,
        channels=cfg.channels,
        crop=cfg.fixed_crop,
        alpha=cfg.alpha,
        captions=cfg.captions,
        classes=cfg.classes,
    )


def class_names_of(cfg: DataConfig) -> list[str] | None:
    """The names of the classes in the order of the labels, or None if the data set does not name them.

    Raises UserError if the data is missing.
    """
    return open_configured(cfg).index.classes


def with_class_names(cfg: DataConfig) -> DataConfig:
    """The same configuration, with the data set's class names if none are given.

    Raises UserError if given names differ from those of the data set.
    """
    names = class_names_of(cfg) if cfg.classes is not None else None
    if names is None or len(names) != cfg.classes or cfg.class_names == names:
        return cfg
    if cfg.class_names is not None:
        number, ours, theirs = next(
            (i, a, b) for i, (a, b) in enumerate(zip(cfg.class_names, names, strict=True)) if a != b
        )
        raise UserError(
            f"data.class_names calls class {number} {ours!r}, the index of {cfg.path} calls it {theirs!r}: leave "
            "data.class_names=null"
        )
    return cfg.model_copy(update={"class_names": names})


def source_of(cfg: DataConfig) -> str | None:
    """The source from which `difflab data make` made the data set, or None if its index does not say.

    Raises UserError if the data is missing.
    """
    name = open_configured(cfg).index.source.get("name")
    return None if name is None else str(name)


def _refuse_other_images(cfg: DataConfig, directory: DataDirectory) -> None:
    index = directory.index
    if cfg.crop == "none" and index.image_size not in (None, cfg.image_size):
        raise UserError(
            f"{cfg.path} holds {index.image_size} px images, data.image_size={cfg.image_size}: set "
            f"data.image_size={index.image_size}, or choose a crop (data.crop=adm, edm or resize_short)"
        )
    if "label" in cfg.fields and index.classes is not None and len(index.classes) != cfg.classes:
        raise UserError(
            f"{cfg.path} has {len(index.classes)} classes, data.classes={cfg.classes}: "
            f"set data.classes={len(index.classes)}"
        )


def _refuse_overlap(cfg: DataConfig, directory: DataDirectory) -> None:
    """Named splits never share a shard; globs can."""
    train, val = cfg.train_split, cfg.val_split
    if val is None or not (is_pattern(train) or is_pattern(val)):
        return
    if directory.has_split(train) and directory.has_split(val):
        both = {shard.path for shard in directory.split(train).shards}
        both &= {shard.path for shard in directory.split(val).shards}
        if both:
            raise UserError(
                f"data.train_split={train!r} and data.val_split={val!r} share {len(both)} shard(s) of {cfg.path} such "
                f"as {min(both)}; what a run trains on cannot validate it: make them disjoint"
            )


def _loader(cfg: DataConfig, reader: BatchReader, plan: GlobalBatches, *, total_batches: int | None) -> ShardLoader:
    refuse_workers(cfg.workers)
    loader = ShardLoader(
        reader,
        plan,
        total_batches=total_batches,
        flip=cfg.flip and total_batches is not None,
        random_crop=cfg.is_random_crop and total_batches is not None,
        random_caption=cfg.captions == "lines" and total_batches is not None,
        workers=cfg.workers,
        prefetch=cfg.prefetch,
        max_bad_fraction=cfg.max_bad_fraction,
    )
    loader.bad.add(reader.dataset.beyond_the_end())
    return loader

"""The samples per class of a split, its captions, and the phrases of its boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from difflab.config.data import DataConfig
from difflab.data.bad_samples import BadSample
from difflab.data.captions import captions_in
from difflab.data.configured import open_configured, samples_of
from difflab.data.directory import DataDirectory
from difflab.data.reading import ShardDataset
from difflab.errors import UserError
from difflab.progress import track

_LOOKED_AT_FOR_A_CAPTION = 64


def class_counts(directory: DataDirectory, split: str) -> tuple[dict[str, int], str | None]:
    """{class: its samples}, the largest first, of a split with labels; and what is wrong with invalid labels, if any.

    Classes of the index without a sample are included; if it has no names, a class is named by its label.
    """
    dataset = ShardDataset(directory, split, fields=("label",))
    labels: Counter[int] = Counter()
    bad: list[str] = []
    for index in track(range(len(dataset)), len(dataset), f"counting {split}"):
        try:
            labels[dataset.sample(index, image=False)["label"]] += 1
        except BadSample as error:
            bad.append(str(error))
    names = directory.index.classes
    known = range(len(names)) if names is not None else sorted(labels)
    ordered = sorted(known, key=lambda label: (-labels[label], label))
    counts = {str(label) if names is None else names[label]: labels[label] for label in ordered}
    return counts, f"{len(bad)} labels cannot be used, as {bad[0]}" if bad else None


def example_caption(directory: DataDirectory, split: str) -> str | None:
    """The first caption of a split that is not empty, among the first samples; None if there is none."""
    dataset = ShardDataset(directory, split, fields=("caption",))
    for index in range(min(len(dataset), _LOOKED_AT_FOR_A_CAPTION)):
        try:
            if caption := dataset.sample(index, image=False)["caption"]:
                return caption
        except BadSample:
            # Reported when samples are verified; other samples have captions.
            continue
    return None


def captions_of(cfg: DataConfig, split: str, most: int = 100_000) -> Iterator[str]:
    """The captions of a split, all lines of each if `cfg.captions` is lines; of at most `most` samples, spread evenly.

    Unreadable ones are left out. Raises UserError if the split is missing, or no sample has a caption that can be read
    and is not empty.
    """
    dataset = samples_of(cfg, open_configured(cfg), split, ("caption",))
    count = min(most, len(dataset))
    bad: BadSample | None = None
    read = False
    for number in track(range(count), count, f"reading captions of {split}"):
        try:
            text = dataset.sample(number * len(dataset) // count, image=False)["caption"]
        except BadSample as error:
            # Training reports all of them.
            bad = bad or error
            continue
        read = read or bool(text)
        yield from captions_in(text, cfg.captions)
    if not read:
        why = "all of them are empty" if bad is None else f"none of them can be read, as {bad}"
        raise UserError(f"{cfg.path} has no captions in split {split!r}: {why}")


def phrases_of(cfg: DataConfig) -> Iterator[str]:
    """The phrases of all boxes of the training split, and of the validation split if there is one, whose boxes are
    drawn during training. Those of unreadable samples are left out.

    Raises UserError if the training split is missing, or none of its samples has a phrase that can be read.
    """
    directory = open_configured(cfg)
    yield from _phrases_of_split(cfg, directory, cfg.train_split)
    if cfg.val_split is not None and directory.has_split(cfg.val_split):
        # What is wrong with it is said when it is drawn.
        with suppress(UserError):
            yield from _phrases_of_split(cfg, directory, cfg.val_split)


def _phrases_of_split(cfg: DataConfig, directory: DataDirectory, split: str) -> Iterator[str]:
    dataset = samples_of(cfg, directory, split, ("phrases",))
    bad: BadSample | None = None
    read = False
    for index in track(range(len(dataset)), len(dataset), f"reading phrases of {split}"):
        try:
            phrases = dataset.sample(index, image=False)["phrases"]
        except BadSample as error:
            # Training reports all of them.
            bad = bad or error
            continue
        read = read or bool(phrases)
        yield from phrases
    if not read:
        why = "no image has a box" if bad is None else f"none of them can be read, as {bad}"
        raise UserError(f"{cfg.path} has no phrases of boxes in split {split!r}: {why}")

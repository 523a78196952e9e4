"""The arrays of a data set: their shapes, and which encoder computed them."""

from __future__ import annotations

from dataclasses import dataclass

from difflab.data.arrays import array_extension, array_names
from difflab.data.bad_samples import BadSample
from difflab.data.directory import DataDirectory
from difflab.data.encoded.checking import encoder_of
from difflab.data.reading import ShardDataset

_LOOKED_AT = 32


@dataclass(frozen=True)
class ArrayFacts:
    """An array of the samples.

    shape, dtype: of a sample's; of a line's, if it has a row for each line of the captions. None if no sample among the
        first ones has it.
    encoder, sha256: what computed it; None if `difflab data encode` did not.
    captions: which part of the captions was encoded, None for other arrays.
    """

    name: str
    shape: list[int] | None
    dtype: str | None
    encoder: str | None = None
    sha256: str | None = None
    captions: str | None = None

    def in_words(self) -> str:
        """As in `image_embedding [512] float16, clip 0a1b2c3d`."""
        shape = "" if self.shape is None else f" {self.shape} {self.dtype}"
        a_line = " a line" if self.captions == "lines" else ""
        by = "" if self.encoder is None or self.sha256 is None else f", {self.encoder} {self.sha256[:8]}"
        return f"{self.name}{shape}{a_line}{by}"


def arrays_of(directory: DataDirectory) -> list[ArrayFacts]:
    """The arrays of all splits by name. Of those that no encoder computed the first samples are read."""
    names = array_names({extension for shard in directory.index.shards for extension in shard.members})
    return [_facts(directory, name) for name in names]


def _facts(directory: DataDirectory, name: str) -> ArrayFacts:
    known = encoder_of(directory, name)
    if known is not None:
        return ArrayFacts(name, list(known.shape), known.dtype, known.encoder, known.sha256, known.captions)
    for split, entry in directory.index.splits.items():
        if not any(shard.members.get(array_extension(name)) for shard in entry.shards):
            continue
        dataset = ShardDataset(directory, split, fields=(name,))
        for index in range(min(len(dataset), _LOOKED_AT)):
            try:
                found = dataset.sample(index, image=False)[name]
            except BadSample:
                # Inspecting the samples reports them.
                continue
            return ArrayFacts(name, list(found.shape), str(found.dtype).removeprefix("torch."))
    return ArrayFacts(name, None, None)

"""A stored CLIP that judges samples: embeddings of images of any size, and of captions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from difflab.data.transforms import fit
from difflab.metrics.extractors.base import FeatureExtractor, Features, full_precision, sha256_of_tensors
from difflab.metrics.gather import gather_rows, rank, world_size
from difflab.metrics.protocol import ExtractorRecord
from difflab.metrics.reference import in_order
from difflab.pipelines.embedding import EmbeddingPipeline
from difflab.pipelines.stored import load_stored
from difflab.progress import track
from difflab.tasks.build import Model

AT_ONCE = 256
"""Texts that are embedded at once."""


class CLIPJudge(FeatureExtractor):
    """Its features are embeddings of unit length, at full precision.

    Images of another size are resized as CLIP's own preprocessing does (openai/CLIP, clip.py): bicubically until the
    short side fits, then the centre.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        super().__init__(model.network, device)
        config = model.config
        self._pipeline = EmbeddingPipeline(model, too_long="truncate")
        self._size, self._channels = config.image_size, config.channels
        self.record = ExtractorRecord(
            name="clip",
            weights_sha256=sha256_of_tensors(model.network),
            feature_dim=len(self._embedded(["a"])[0]),
            layer="embedding",
            size=config.image_size,
            resize="resize_short",
        )

    def _features(self, images: Tensor) -> Features:
        fitted = [fit(image, self._size, "resize_short") for image in images[:, : self._channels].cpu()]
        return Features(self._pipeline.images(torch.stack(fitted)), None)

    @property
    def context_length(self) -> int:
        """The largest number of tokens of a text; longer ones are truncated."""
        return self._pipeline.tokenizer.context_length

    def is_truncated(self, text: str) -> bool:
        """Whether a text has more tokens than that."""
        return len(self._pipeline.tokenizer.encode(text)) > self.context_length

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of unit length, float64 [n, dim]; each distinct text is embedded once, by one of the processes.

        Every process must call it with the same texts.
        """
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        mine = list(distinct)[rank() :: world_size()]
        batches = [mine[begin : begin + AT_ONCE] for begin in range(0, len(mine), AT_ONCE)]
        found = [self._embedded(batch) for batch in track(batches, len(batches), f"embedding {len(distinct)} texts")]
        index = torch.tensor([distinct[text] for text in mine], dtype=torch.int64)
        rows = torch.cat(found) if found else torch.zeros(0, 0, dtype=torch.float64)
        ordered = in_order(gather_rows(index), gather_rows(rows))[1]
        return ordered[[distinct[text] for text in texts]]

    def _embedded(self, texts: Sequence[str]) -> Tensor:
        with torch.inference_mode(), full_precision(self.device):
            return self._pipeline.texts(texts).cpu().double()


def judge_at(run: str, weights: Path, device: torch.device) -> CLIPJudge:
    """The CLIP of a run, whose weights are in a file; loaded once as long as the file does not change."""
    return _loaded(run, weights.resolve(), weights.stat().st_mtime_ns, torch.device(device))


@functools.lru_cache(maxsize=4)
def _loaded(run: str, weights: Path, changed: int, device: torch.device) -> CLIPJudge:
    # `weights` and `changed` distinguish the states of a run in the cache.
    return CLIPJudge(load_stored(run, "auto", device)[0], device)

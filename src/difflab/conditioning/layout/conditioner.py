"""Layouts by a transformer that is trained with the network (Rombach et al. 2022, section 4.3.1)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from difflab.conditioning.base import Conditioner
from difflab.conditioning.layout.config import LayoutConditionerConfig
from difflab.conditioning.layout.tokens import WHOLE, LayoutTokens
from difflab.conditioning.tokens.spec import spec_of
from difflab.data.boxes import Box, read_box
from difflab.diffusion.noise import SampleNoise
from difflab.networks.towers.token_transformer import TokenTransformer
from difflab.rank_logging import say_once
from difflab.types import Batch, Conditioning

_SHOWN = 3


class LayoutConditioner(Conditioner):
    """`batch["boxes"]` and `batch["phrases"]`, lists per sample -> tokens [B, L, width], L as in `LayoutTokens`.

    Boxes are [x0, y0, x1, y1] within 0..1, each with a phrase, which is one of `categories`. `batch["crop"]`, a box per
    sample, says which part of the image is shown, if the model was trained with it. The null has no objects.

    State-dict keys: encoder.*, those of a `TokenTransformer`.
    """

    reads = ("boxes", "phrases")
    makes = ("tokens",)

    def __init__(
        self, categories: Sequence[str], tokens: LayoutTokens, encoder: TokenTransformer, drop_rate: float = 0.0
    ) -> None:
        super().__init__(drop_rate)
        self.categories, self.tokens, self.encoder = tuple(categories), tokens, encoder
        self._numbers = {phrase: number for number, phrase in enumerate(self.categories)}
        self.optional = ("crop",) if tokens.crop else ()

    def check(self, batch: Batch) -> None:
        """Raises ValueError for phrases that are no category, and boxes without one, outside 0..1 or turned round."""
        super().check(batch)
        for row, (boxes, phrases) in enumerate(zip(batch["boxes"], batch["phrases"], strict=True)):
            if len(boxes) != len(phrases):
                raise ValueError(f"sample {row} has {len(boxes)} boxes and {len(phrases)} phrases: give one for each")
            for number, box in enumerate(boxes):
                read_box(list(box), f"box {number}")
            for phrase in phrases:
                if phrase not in self._numbers:
                    raise ValueError(self._unknown(phrase))
        for box in batch.get("crop", ()) if self.tokens.crop else ():
            read_box(list(box), "crop")

    def make(self, batch: Batch, dropped: Tensor | None, noise: SampleNoise | None) -> Conditioning:
        rows, device = len(batch["boxes"]), self.encoder.position.device
        crops = batch.get("crop", [WHOLE] * rows) if self.tokens.crop else [WHOLE] * rows
        ids = torch.tensor([self._ids(*one) for one in zip(batch["boxes"], batch["phrases"], crops, strict=True)])
        ids = ids.to(device)
        if dropped is not None:
            ids = torch.where(dropped.to(device)[:, None], torch.tensor(self.tokens([]), device=device), ids)
        return Conditioning(tokens=self.encoder(ids))

    def _ids(self, boxes: Sequence[Box], phrases: Sequence[str], crop: Box) -> list[int]:
        if len(boxes) > self.tokens.max_objects:
            say_once(f"some layouts have more than max_objects={self.tokens.max_objects} boxes: their largest are kept")
        return self.tokens([(self._numbers[phrase], box) for phrase, box in zip(phrases, boxes, strict=True)], crop)

    def _unknown(self, phrase: str) -> str:
        near = difflib.get_close_matches(phrase, self.categories, n=_SHOWN, cutoff=0.5)
        listed = near or self.categories[:_SHOWN]
        more = "" if near or len(self.categories) <= _SHOWN else ", ..."
        return (
            f"{phrase!r} is none of the {len(self.categories)} phrases that this model knows: use one of those, as "
            f"{', '.join(map(repr, listed))}{more}"
        )


def build(config: LayoutConditionerConfig, *, embedding_dim: int, image_size: int) -> LayoutConditioner:
    """Builds the conditioner of a configuration; see `build_conditioners`."""
    assert config.categories is not None, "they are found before anything is built"
    tokens = LayoutTokens(vocabulary=config.vocabulary, max_objects=config.max_objects, crop=config.crop)
    encoder = TokenTransformer(spec_of(config), vocabulary=config.vocabulary, context=config.context_length)
    return LayoutConditioner(config.categories, tokens, encoder, config.drop_rate)

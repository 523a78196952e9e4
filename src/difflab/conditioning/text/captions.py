"""The token ids of a batch's captions, of which some are dropped."""

from __future__ import annotations

import torch
from torch import Tensor

from difflab.text.base import Tokenizer, Tokens
from difflab.types import Batch


def caption_tokens(batch: Batch, tokenizer: Tokenizer, device: torch.device, dropped: Tensor | None) -> Tokens:
    """Returns the ids and mask of `batch["caption"]`, on a device; those in `batch[tokenizer.field]` if it has them.

    Where `dropped` (bool [B]) is True, they are those of the empty caption.
    """
    field = tokenizer.field
    tokens = Tokens(batch[field], batch[f"{field}_mask"]) if field in batch else tokenizer(batch["caption"])
    ids, mask = tokens.ids.to(device), tokens.mask.to(device)
    if dropped is not None:
        empty, chosen = tokenizer([""]), dropped.to(device)[:, None]
        ids = torch.where(chosen, empty.ids.to(device), ids)
        mask = torch.where(chosen, empty.mask.to(device), mask)
    return Tokens(ids, mask)

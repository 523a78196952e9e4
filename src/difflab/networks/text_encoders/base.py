"""What every text encoder takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from torch import Tensor

from difflab.errors import UserError
from difflab.networks.frozen import OfAnotherFile


@dataclass(frozen=True)
class TextStates:
    """What an encoder knows of texts.

    tokens: [B, L, width], of padding too, which Stable Diffusion attends to.
    pooled: [B, pooled_width], of the whole text.
    mask: bool [B, L], True for the tokens of the text, with its start and end.
    """

    tokens: Tensor
    pooled: Tensor
    mask: Tensor


class TextEncoder(OfAnotherFile):
    """Token ids and their mask to states. Subclasses implement `states` and `own_weights`."""

    def forward(self, ids: Tensor, mask: Tensor) -> TextStates:
        """ids int64 [B, L] and mask bool [B, L], True for the tokens of the text -> the states."""
        tokens, pooled = self.states(ids, mask)
        return TextStates(tokens, pooled.to(tokens.dtype), mask)

    def states(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the tokens [B, L, width], which outside the mask are what the official code has there, and the pooled
        state [B, pooled_width]."""
        raise NotImplementedError


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """tokens [B, L, W] -> their mean over the mask [B, W]; zero for a text without tokens."""
    weight = mask.to(tokens.dtype)[..., None]
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)


def renamed(state: Mapping[str, Tensor], prefix: str, parts: tuple[str, ...], to: str) -> dict[str, Tensor]:
    """Returns the tensors whose name, without any `prefix`, begins with one of `parts`, as `to` + that name."""
    names = {name: name.removeprefix(prefix) for name in state}
    return {to + short: state[name] for name, short in names.items() if short.startswith(parts)}


def transformers() -> ModuleType:
    """The library. Raises UserError if it is not installed."""
    try:
        import transformers as library
    except ModuleNotFoundError:
        raise UserError("published text encoders need transformers: pip install 'difflab[text]'") from None
    return library

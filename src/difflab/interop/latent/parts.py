"""A whole latent diffusion model: what is read of other programs, and what is written for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from difflab.interop.latent.clip_tokenizer import TextTokenizer
from difflab.networks.text_encoders.config import TransformersCLIPArchitecture
from difflab.tasks.denoising.config import DenoisingModelConfig

FIRST_STAGE, TEXT_ENCODER = "first_stage", "text_encoder"
"""The folders of frozen parts in an exported folder."""


@dataclass(frozen=True)
class TextTower:
    """A frozen text encoder: the text tower of a CLIP of transformers, and its tokenizer.

    state: under the names of `CLIPTextModel`, text_model.*; text_projection.weight too if it has a projection.
    """

    architecture: TransformersCLIPArchitecture
    state: Mapping[str, Tensor]
    tokenizer: TextTokenizer


@dataclass(frozen=True)
class LatentModel:
    """A diffusion model of latents, with the parts that it does not train.

    config:      the model; the places of frozen parts are paths in its folder.
    state:       network.*, conditioners.*, first_stage.scale and first_stage.shift, under our keys.
    first_stage: network.* of the autoencoder, under our keys.
    tower:       the text encoder; None for a model without captions.
    notes:       how it was read, in lines.
    merged:      the LoRA files that were merged into it: file, sha256, scale.
    """

    config: DenoisingModelConfig
    state: Mapping[str, Tensor]
    first_stage: Mapping[str, Tensor]
    tower: TextTower | None = None
    notes: tuple[str, ...] = ()
    merged: tuple[Mapping[str, str | float], ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """All weights; those of the parts under <folder of the part>.<key>."""
        tower = {} if self.tower is None else self.tower.state
        parts = {FIRST_STAGE: self.first_stage, TEXT_ENCODER: tower}
        return dict(self.state) | {f"{part}.{name}": t for part, state in parts.items() for name, t in state.items()}

"""Builds a CLIP, and the module that trains it, from a validated configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from difflab.conditioning.base import ConditionerSet
from difflab.errors import UserError, user_errors
from difflab.networks.build import build_network
from difflab.tasks.build import Model
from difflab.tasks.contrastive.config import ContrastiveModelConfig, ContrastiveTrainConfig
from difflab.tasks.contrastive.loss import InfoNCE, SigLIP
from difflab.tasks.contrastive.module import ContrastiveModule
from difflab.text.base import Tokenizer
from difflab.text.build import build_tokenizer

if TYPE_CHECKING:
    from difflab.networks.towers.clip import CLIP


def build_model(config: ContrastiveModelConfig) -> Model:
    """Builds the model with initial weights."""
    with user_errors("network"):
        network = build_network(config.network, image_size=config.image_size, learned_variance=False)
    return Model(config, network, ConditionerSet({}))


def build_module(config: ContrastiveTrainConfig) -> ContrastiveModule:
    """Builds the LightningModule with initial weights."""
    # Networks that give embeddings of images and texts have what the module uses of a CLIP.
    network = cast("CLIP", build_model(config.model()).network)
    tokenizer = build_tokenizer(config.tokenizer)
    _refuse_other_ends(tokenizer, config.tokenizer.kind)
    return ContrastiveModule(
        network,
        tokenizer,
        config.optimizer,
        loss=InfoNCE(config.local_loss) if config.loss == "infonce" else SigLIP(),
        max_scale=config.max_scale,
        seed=config.seed,
        max_steps=config.trainer.max_steps,
        accumulate=config.trainer.accumulate,
        gradient_clip=config.trainer.gradient_clip,
    )


def _refuse_other_ends(tokenizer: Tokenizer, kind: str) -> None:
    """Raises UserError unless the highest token id is what ends a text: there the text tower takes its features."""
    ids = tokenizer.encode("")
    end = ids[-1] if ids else tokenizer.padding
    if end != tokenizer.vocabulary - 1:
        raise UserError(
            f"tokenizer.kind={kind}: its texts end with id {end} of {tokenizer.vocabulary}, but the text tower takes "
            "the features of a text at its highest id: choose a tokenizer of a CLIP, or tokenizer=byte_pairs"
        )

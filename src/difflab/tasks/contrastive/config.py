"""The contrastive task: the configuration of its runs, and of the models that they leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from difflab.config.learning import TrainingTexts
from difflab.config.model import EmbeddingModelConfig, ModelConfig
from difflab.config.network import Gives, NetworkBase, NetworkConfig, of_other_tasks
from difflab.config.task import TASKS
from difflab.config.train import TrainConfig
from difflab.text.config import TokenizerBase, TokenizerConfig

ContrastiveNetwork = Annotated[NetworkConfig, BeforeValidator(of_other_tasks)]


def refuse_other_tokens(network: NetworkBase, tokenizer: TokenizerBase) -> None:
    """Raises ValueError if the text tower is made for other texts than the tokenizer gives."""
    for key, ours in network.text_sizes.items():
        theirs = getattr(tokenizer, key)
        if ours != theirs:
            raise ValueError(
                f"network.text.{key}={ours} but tokenizer.{key}={theirs}: weights and tokenizer belong together; leave "
                f"network.text.{key} out"
            )


class ContrastiveModelConfig(EmbeddingModelConfig):
    """Two towers that embed images and texts in one space."""

    title: ClassVar[str] = "a CLIP"

    task: Literal["contrastive"] = "contrastive"
    network: ContrastiveNetwork

    @property
    def untold(self) -> Mapping[str, Any]:
        return {**super().untold, "tokenizer": self.tokenizer.in_words()}

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        refuse_other_tokens(self.network, self.tokenizer)
        return self


@TASKS.register(
    ContrastiveModelConfig,
    build_model="difflab.tasks.contrastive.build:build_model",
    build_module="difflab.tasks.contrastive.build:build_module",
)
class ContrastiveTrainConfig(TrainConfig):
    """`task=contrastive`: trains two towers to tell which text belongs to which image (CLIP, Radford et al. 2021)."""

    network_gives: ClassVar[Gives] = "embeddings"

    task: Literal["contrastive"]
    network: ContrastiveNetwork
    """The two towers."""
    tokenizer: TokenizerConfig
    """How captions become token ids."""
    loss: Literal["infonce", "siglip"] = "infonce"
    """infonce: symmetric cross entropy over the global batch (CLIP); siglip: each pair alone (Zhai et al. 2023)."""
    local_loss: bool = False
    """Whether each process computes the logits of its own pairs alone: the same gradient, in less memory. SigLIP's
    always does."""
    max_scale: Annotated[float, Field(ge=1)] | None = 100.0
    """The largest factor on the cosines (CLIP, section 2.5); null sets no limit."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        self.network.refuse_other_data(self.data)
        refuse_other_tokens(self.network, self.tokenizer)
        if self.data.batch_size < 2:
            raise ValueError("data.batch_size=1 has no other pair to tell from: give at least 2")
        if self.trainer.accumulate > 1 and self.network.normalizes_batches:
            raise ValueError(
                f"trainer.accumulate={self.trainer.accumulate}, but the image tower normalizes whole batches: set "
                "trainer.accumulate=1, or choose a Vision Transformer"
            )
        self.callbacks.refuse_drawing("a CLIP draws no images: choose callbacks=classifier")
        return self

    def completed(self, texts: TrainingTexts, earlier: ModelConfig | None = None) -> Self:
        theirs = earlier.tokenizer if isinstance(earlier, EmbeddingModelConfig) else None
        return self.model_copy(update={"tokenizer": self.tokenizer.completed(texts.captions, theirs)})

    def model(self) -> ContrastiveModelConfig:
        return self.stored_as(ContrastiveModelConfig)

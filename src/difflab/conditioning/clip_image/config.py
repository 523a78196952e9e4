"""Configuration of the conditioner that reads an image through a frozen CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from difflab.conditioning.config import ConditionerBase
from difflab.config.axes import CONDITIONERS
from difflab.config.data import DataConfig
from difflab.config.fitting import Makes
from difflab.config.parts import FrozenConfig
from difflab.config.registry import load
from difflab.networks.clip_image.config import CLIPImageArchitecture


@CONDITIONERS.register("difflab.conditioning.clip_image.conditioner:build")
class CLIPImageConditionerConfig(ConditionerBase):
    """The embedding of an image by a frozen CLIP, as one token: a model that draws variations of images."""

    from_image: ClassVar[bool] = True
    given_by: ClassVar[str | None] = "images=FOLDER"

    kind: Literal["clip_image"]
    weights: FrozenConfig
    """The CLIP, which is never trained nor copied: its run directory, its exported folder, or the file of weights in
    it."""
    architecture: CLIPImageArchitecture | None = None
    """Its image tower; null reads it from the configuration of the CLIP when a run starts, which records it."""
    width: Annotated[int, Field(ge=1)] | None = None
    """Channels of the token, equal to network.context_channels, to which the embedding is normalized and projected by
    layers that are trained; null = the embedding as it is (Stable Diffusion's image variations)."""
    encoded: Literal["auto", "never"] = "auto"
    """Whether training reads the embeddings of `difflab data encode clip=...` if the data has them; never = images are
    encoded anew."""
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a training sample gets a token of zeros instead."""

    @property
    def learns(self) -> bool:
        return self.architecture is None

    @property
    def untold(self) -> Mapping[str, Any]:
        sha256 = self.weights.sha256
        return {} if sha256 is None else {"weights": f"CLIP (of sha256 {sha256[:12]})"}

    @property
    def described_architecture(self) -> CLIPImageArchitecture:
        """The architecture, which must be known."""
        assert self.architecture is not None, "it is read before anything is built"
        return self.architecture

    def described(self) -> Self:
        if self.architecture is not None:
            return self
        weights, architecture = load("difflab.interop.stored_parts:clip_image")(self.weights)
        return self.model_copy(update={"weights": weights, "architecture": architecture})

    def makes(self, channels: int) -> Makes:
        width = self.width
        if width is None and self.architecture is not None:
            width = self.architecture.embedding_dim
        return Makes(("tokens",), {} if width is None else {"tokens": width})

    def refuse_other_data(self, name: str, data: DataConfig) -> None:
        if self.architecture is not None and self.architecture.channels != data.channels:
            raise ValueError(
                f"conditioning.{name} is a CLIP for images of {self.architecture.channels} channels, but "
                f"data.channels={data.channels}: give the CLIP of such images, or set "
                f"data.channels={self.architecture.channels}"
            )

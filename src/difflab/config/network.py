"""The `network` axis: the network that denoises or classifies images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, ValidationInfo

from difflab.config.axes import NETWORKS
from difflab.config.base import Config
from difflab.config.data import DataConfig
from difflab.config.fitting import Reads

Gives = Literal["images", "logits", "embeddings", "reconstructions"]
"""What a network outputs: images of its input's shape, one logit per class, embeddings of images and texts, or a latent
of images and their reconstructions from it."""


class NetworkBase(Config):
    """Base of the configurations of networks.

    gives:    what it outputs.
    channels: image channels.
    """

    gives: ClassVar[Gives] = "images"

    kind: str
    channels: Annotated[int, Field(ge=1)] = 3

    @property
    def embedding_channels(self) -> int:
        """Width of the time embedding, and therefore of `Conditioning.vector`."""
        raise NotImplementedError

    @property
    def size_multiple(self) -> int:
        """Image height and width must be multiples of this."""
        return 1

    @property
    def pads(self) -> bool:
        """Whether images of other sizes are padded to that multiple."""
        return False

    @property
    def text_sizes(self) -> Mapping[str, int]:
        """What has to be equal in its tokenizer (context_length, vocabulary); empty if it reads no token ids."""
        return {}

    @property
    def normalizes_batches(self) -> bool:
        """Whether an image's output depends on the others of its batch while it is trained."""
        return False

    @property
    def takes_any_size(self) -> bool:
        """Whether one network is for images of all sizes that are multiples of `size_multiple`."""
        return False

    @property
    def reads(self) -> Reads:
        """The fields of its conditioning that the network reads."""
        return Reads(())

    @property
    def logits(self) -> int | None:
        """The number of classes of a classifier, None for other networks."""
        return None

    def architecture(self, image_size: int) -> dict[str, object]:
        """What determines keys, shapes and computation, for images of that many pixels per side: equal if the weights
        of one network fit the other."""
        return self.model_dump()

    @property
    def untold(self) -> Mapping[str, Any]:
        """What weights do not show, and has to be as it was when they were trained."""
        return {}

    def in_words(self, image_size: int) -> tuple[str, ...]:
        """What there is to say of it besides what its task does, for images of that many pixels per side."""
        return ()

    @classmethod
    def fitted(cls, values: Mapping[str, Any], image_size: int, channels: int) -> dict[str, Any]:
        """Values that suit images of this size and number of channels, for keys that a file leaves open (null).

        values: the section as composed; the user's values in it are kept, and may be invalid. Its `channels` are
            already those of the images, unless they were given.
        """
        return {}

    def refuse_other_data(self, data: DataConfig) -> None:
        """Raises ValueError if it does not fit the images of `data`."""
        if self.channels != data.channels:
            raise ValueError(f"network.channels={self.channels} but data.channels={data.channels}; set both alike")


NetworkConfig = Annotated[NetworkBase, NETWORKS]
"""One network, selected by `kind`; each task takes those with the outputs that it trains."""


def of_other_tasks(value: Any, info: ValidationInfo) -> Any:
    """Validates before the networks of one task. Raises ValueError for a network of another task, naming that task."""
    from difflab.config.task import TASKS

    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    kinds = {
        name: tuple(
            network.name
            for network in NETWORKS.values()
            if cast("type[NetworkBase]", network.config).gives == task.train.network_gives
        )
        for name, task in TASKS.items()
    }
    ours = kinds.get(info.data.get("task", ""), ())
    others = [name for name, taken in kinds.items() if kind in taken]
    if ours and kind is not None and kind not in ours:
        wanted = f"choose one of kind {' or '.join(ours)}"
        if not others:
            raise ValueError(f"kind={kind!r} is not known; {wanted}")
        # An experiment fixes its task.
        set_ = "set" if info.data.get("experiment") == "custom" else "take an experiment of"
        raise ValueError(
            f"task={info.data['task']} cannot train kind={kind}: {wanted}, or {set_} task={' or task='.join(others)}"
        )
    return value

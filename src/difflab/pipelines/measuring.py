"""Checks whether a stored model and a data set have what a measurement needs."""

from __future__ import annotations

from difflab.config.data import DataConfig
from difflab.config.model import Measurement, ModelConfig
from difflab.errors import UserError
from difflab.tasks.build import Model

_LACKS: dict[Measurement, str] = {
    "samples": "draws no images: give run= a diffusion model",
    "likelihood": "has no likelihood of images: give run= a diffusion model",
    "accuracy": "does not classify: give run= a classifier",
    "zero_shot": "embeds no texts: give run= a CLIP (task=contrastive)",
    "retrieval": "embeds no texts: give run= a CLIP (task=contrastive)",
    "probe": "has no features to probe: give run= a CLIP (task=contrastive)",
    "reconstructions": "reconstructs no images: give run= an autoencoder (task=autoencoder)",
    "embeddings": "embeds no images or texts: give run= a CLIP (task=contrastive)",
}


_EVALUATED: tuple[Measurement, ...] = ("samples", "reconstructions")


def command_of(what: Measurement) -> str | None:
    """The command that measures it; None for embeddings, which `difflab data encode` stores with a data set."""
    if what == "embeddings":
        return None
    return "evaluate" if what in _EVALUATED else what.replace("_", "-")


def require_measured(run: str, model: ModelConfig, what: Measurement) -> None:
    """Raises UserError if a stored model does not support this measurement."""
    if what not in model.measures:
        raise UserError(f"run={run} is {model.title} and {_LACKS[what]}")


def refuse_other_images(model: Model, data: DataConfig) -> None:
    """Raises UserError if the images or classes do not match those of the model."""
    config = model.config
    if (data.channels, data.image_size) != (config.channels, config.image_size):
        raise UserError(
            f"the model takes {config.channels}x{config.image_size}x{config.image_size} images, the data has "
            f"{data.channels}x{data.image_size}x{data.image_size}: set data.image_size={config.image_size} and "
            f"data.channels={config.channels}, or choose other data"
        )
    known = config.logits if config.logits is not None else model.conditioners.classes
    if known is not None and known != data.classes:
        given = "null" if data.classes is None else data.classes
        raise UserError(
            f"the model has {known} classes, the data has data.classes={given}: choose data with the "
            "classes that it was trained on"
        )

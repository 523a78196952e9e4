"""The configuration of transformers' `CLIPModel` and of its image processor, to and from ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from difflab.errors import UserError
from difflab.interop.clip_shapes import CLIPShape, ratio_of
from difflab.interop.config_files import ConfigFile, Count
from difflab.interop.native import validated
from difflab.networks.towers.config import Activation, CLIPConfig, TextTransformerConfig, ViTConfig

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
"""Where newer versions store the image processor, under `image_processor`."""

_ACTIVATIONS: dict[str, Activation] = {"quick_gelu": "quick_gelu", "gelu": "gelu"}
"""Their `hidden_act` -> ours. Their other names are of other functions."""
_BICUBIC = 3
"""Of Pillow."""
_EPS = 1e-5
_FIRST_OF_HIGHEST = 2
"""An `eos_token_id` that stands for the token with the highest id."""
_HALVES = {"clip_text_model": ("text", "image"), "clip_vision_model": ("image", "text")}


class TextFile(ConfigFile):
    """The text_config of config.json, with the library's defaults."""

    vocab_size: Count = 49408
    hidden_size: Count = 512
    intermediate_size: Count = 2048
    num_hidden_layers: Count = 12
    num_attention_heads: Count = 8
    max_position_embeddings: Count = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = _EPS
    eos_token_id: int | list[int] | None = 49407


class VisionFile(ConfigFile):
    """The vision_config of config.json, with the library's defaults."""

    hidden_size: Count = 768
    intermediate_size: Count = 3072
    num_hidden_layers: Count = 12
    num_attention_heads: Count = 12
    num_channels: Count = 3
    image_size: Count = 224
    patch_size: Count = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = _EPS


class CLIPFile(ConfigFile):
    """config.json of `CLIPModel`, with the library's defaults."""

    text_config: TextFile = Field(default_factory=TextFile)
    vision_config: VisionFile = Field(default_factory=VisionFile)
    projection_dim: Count = 512


class ProcessorFile(ConfigFile):
    """preprocessor_config.json of `CLIPImageProcessor`, with the library's defaults."""

    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    do_normalize: bool | None = True
    do_center_crop: bool | None = True
    size: int | dict[str, int | None] | None = None
    crop_size: int | dict[str, int | None] | None = None
    resample: int | None = _BICUBIC


def from_transformers_config(
    path: Path, content: Mapping[str, Any], processor: tuple[Path, Mapping[str, Any]] | None
) -> tuple[CLIPConfig, int, list[str]]:
    """The network of a folder's config.json at `path`, the size of its images, and remarks.

    processor: the file of the image processor and its content; None if there is none.
    Raises UserError naming the file and the key if our CLIP is not theirs.
    """
    c = validated(CLIPFile, _sections(path, content), path)
    text, vision = c.text_config, c.vision_config
    for name, section in (("text_config", text), ("vision_config", vision)):
        if section.layer_norm_eps != _EPS:
            raise UserError(f"{path}: {name}.layer_norm_eps={section.layer_norm_eps} is not supported (only {_EPS})")
        if section.hidden_act not in _ACTIVATIONS:
            raise UserError(
                f"{path}: {name}.hidden_act={section.hidden_act!r} is not supported (only {' and '.join(_ACTIVATIONS)})"
            )
    if text.hidden_act != vision.hidden_act:
        raise UserError(
            f"{path}: text_config.hidden_act={text.hidden_act!r} but vision_config.hidden_act={vision.hidden_act!r}; a "
            "CLIP has one activation here"
        )
    ends = text.eos_token_id if isinstance(text.eos_token_id, list) else [text.eos_token_id]
    if any(end not in (_FIRST_OF_HIGHEST, text.vocab_size - 1) for end in ends):
        raise UserError(
            f"{path}: text_config.eos_token_id={text.eos_token_id} is not supported: a text ends at its highest id, "
            f"{text.vocab_size - 1} (or {_FIRST_OF_HIGHEST}, as older versions wrote it)"
        )
    shape = CLIPShape(
        {
            "kind": "clip",
            "channels": vision.num_channels,
            "embedding_dim": c.projection_dim,
            "image": {
                "kind": "vit",
                "width": vision.hidden_size,
                "layers": vision.num_hidden_layers,
                "patch_size": vision.patch_size,
                "mlp_ratio": ratio_of(vision.intermediate_size, vision.hidden_size),
            },
            "text": {
                "kind": "transformer",
                "context_length": text.max_position_embeddings,
                "vocabulary": text.vocab_size,
                "width": text.hidden_size,
                "layers": text.num_hidden_layers,
                "mlp_ratio": ratio_of(text.intermediate_size, text.hidden_size),
            },
        },
        vision.image_size,
    )
    mean, std, notes = _normalization(path, processor, vision.image_size, vision.num_channels)
    heads = {"image": vision.num_attention_heads, "text": text.num_attention_heads}
    try:
        config = shape.config(_ACTIVATIONS[text.hidden_act], mean=mean, std=std, heads=heads)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return config, vision.image_size, notes


def _sections(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    kind = content.get("model_type", "clip")
    if kind in _HALVES:
        half, other = _HALVES[kind]
        raise UserError(
            f"{path}: model_type={kind!r} is the {half} half of a CLIP, which has no {other} tower: take the folder of "
            "the whole CLIPModel"
        )
    if kind != "clip":
        raise UserError(f"{path}: model_type={kind!r} is not supported (only clip)")
    found = dict(content)
    for name in ("text_config", "vision_config"):
        # Older versions wrote both, and read the second.
        older = found.pop(f"{name}_dict", None)
        if found.get(name) is None or older is not None:
            found[name] = older or {}
    return found


def _normalization(
    path: Path, processor: tuple[Path, Mapping[str, Any]] | None, image_size: int, channels: int
) -> tuple[list[float] | None, list[float] | None, list[str]]:
    """Mean and std, None for OpenAI's."""
    if processor is None:
        return None, None, [f"took the mean and std of OpenAI's images: there is no {PREPROCESSOR} beside {path.name}"]
    file, content = processor
    c = validated(ProcessorFile, content, file)
    crop = c.crop_size if c.do_center_crop is not False else c.size
    sides = {side for side in (crop.values() if isinstance(crop, dict) else [crop]) if side is not None}
    if sides - {image_size}:
        raise UserError(
            f"{file}: its images are of {' or '.join(map(str, sorted(sides)))} pixels, but {path.name} has "
            f"vision_config.image_size={image_size}"
        )
    notes = []
    if c.resample not in (None, _BICUBIC):
        notes.append(f"{file.name} has resample={c.resample}: images are resized bicubically here")
    if c.do_normalize is False:
        return [0.0] * channels, [1.0] * channels, notes
    return c.image_mean, c.image_std, notes


def to_transformers_config(config: CLIPConfig, image_size: int) -> dict[str, Any]:
    """The config.json from which transformers builds this network; the layout has refused what it has not."""
    image, text = config.image, config.text
    assert isinstance(image, ViTConfig)
    assert isinstance(text, TextTransformerConfig)
    names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    own = {"hidden_act": names[config.activation], "layer_norm_eps": _EPS, "projection_dim": config.embedding_dim}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embedding_dim,
        "logit_scale_init_value": round(config.log_scale_init, 4),
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text.vocabulary,
            "hidden_size": text.width,
            "intermediate_size": text.hidden,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.context_length,
            **own,
            # Start and end are the highest ids, and texts are padded with 0.
            "bos_token_id": text.vocabulary - 2,
            "eos_token_id": text.vocabulary - 1,
            "pad_token_id": 0,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": image.width,
            "intermediate_size": image.hidden,
            "num_hidden_layers": image.layers,
            "num_attention_heads": image.heads,
            "num_channels": config.channels,
            "image_size": image_size,
            "patch_size": image.patch_size,
            **own,
        },
    }


def to_processor_config(config: CLIPConfig, image_size: int) -> dict[str, Any]:
    """The preprocessor_config.json: bicubic, centre crop, mean and std."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": image_size},
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": image_size, "width": image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": config.mean,
        "image_std": config.std,
        "do_convert_rgb": config.channels == 3,
    }

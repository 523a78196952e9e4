"""The open_clip_config.json of a CLIP, to and from ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from difflab.errors import UserError
from difflab.interop.clip_shapes import CLIPShape, ratio_of
from difflab.interop.config_files import ConfigFile, Count
from difflab.interop.native import validated
from difflab.networks.towers.config import CLIPConfig, ResNetConfig, TextTransformerConfig, ViTConfig

OPEN_CLIP_CONFIG = "open_clip_config.json"

_FIXED: dict[str, dict[str, Any]] = {
    "vision_cfg": {
        "ls_init_value": None,
        "attentional_pool": False,
        "no_ln_pre": False,
        "pos_embed_type": "learnable",
        "final_ln_after_pool": False,
        "pool_type": "tok",
        "act_kwargs": None,
        "norm_kwargs": None,
        "timm_model_name": None,
    },
    "text_cfg": {
        "ls_init_value": None,
        "embed_cls": False,
        "pad_id": 0,
        "no_causal_mask": False,
        "final_ln_after_pool": False,
        "pool_type": "argmax",
        "proj_bias": False,
        "proj_type": "linear",
        "act_kwargs": None,
        "norm_kwargs": None,
        "hf_model_name": None,
        "hf_tokenizer_name": None,
        "tokenizer_kwargs": None,
    },
}
"""Options that change what a tower computes, or which texts it reads, and the values that our CLIP has."""
_BLOCKS = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
"""Options of blocks that are not CLIP's own."""
_HEAD_WIDTH = 64


class VisionCfg(ConfigFile):
    """vision_cfg, with open_clip's defaults."""

    layers: Count | Annotated[list[Count], Field(min_length=4, max_length=4)] = 12
    width: Count = 768
    head_width: Count = _HEAD_WIDTH
    mlp_ratio: float = 4.0
    patch_size: Count | None = 16
    image_size: Count = 224


class TextCfg(ConfigFile):
    """text_cfg, with open_clip's defaults."""

    context_length: Count = 77
    vocab_size: Count = 49408
    width: Count = 512
    heads: Count = 8
    layers: Count = 12
    mlp_ratio: float = 4.0


class ModelCfg(ConfigFile):
    """model_cfg."""

    embed_dim: Count
    vision_cfg: VisionCfg
    text_cfg: TextCfg
    quick_gelu: bool = False
    init_logit_bias: float | None = None


class PreprocessCfg(ConfigFile):
    """preprocess_cfg; what is missing is OpenAI's."""

    size: Count | list[Count] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"


class OpenCLIPFile(ConfigFile):
    """open_clip_config.json."""

    model_cfg: ModelCfg
    preprocess_cfg: PreprocessCfg = Field(default_factory=PreprocessCfg)


def from_open_clip_config(path: Path, content: Mapping[str, Any]) -> tuple[CLIPConfig, int, list[str]]:
    """The network of the file at `path`, the size of its images, and remarks.

    Raises UserError naming the file and the key if our CLIP is not theirs.
    """
    c = validated(OpenCLIPFile, content, path)
    model, preprocess = c.model_cfg, c.preprocess_cfg
    for name, section in (("vision_cfg", model.vision_cfg), ("text_cfg", model.text_cfg)):
        _refuse_options(path, name, section.model_extra or {})
    vision, text = model.vision_cfg, model.text_cfg
    sizes = {*(preprocess.size if isinstance(preprocess.size, list) else [preprocess.size])} - {None}
    if sizes - {vision.image_size}:
        raise UserError(
            f"{path}: preprocess_cfg.size={preprocess.size} but model_cfg.vision_cfg.image_size={vision.image_size}"
        )
    notes = []
    if preprocess.mean is None or preprocess.std is None:
        notes.append(f"took the mean and std of OpenAI's images: {path.name} has none")
    if preprocess.interpolation != "bicubic":
        notes.append(f"{path.name} has interpolation={preprocess.interpolation}: images are resized bicubically here")
    if preprocess.resize_mode != "shortest":
        notes.append(
            f"{path.name} has resize_mode={preprocess.resize_mode}: of images that are not square the centre is taken "
            "here"
        )
    bias = {} if model.init_logit_bias is None else {"logit_bias_init": model.init_logit_bias}
    shape = CLIPShape(
        {
            "kind": "clip",
            "channels": 3,
            "embedding_dim": model.embed_dim,
            "image": _image(path, vision),
            "text": {
                "kind": "transformer",
                "context_length": text.context_length,
                "vocabulary": text.vocab_size,
                "width": text.width,
                "layers": text.layers,
                "mlp_ratio": text.mlp_ratio,
            },
            **bias,
        },
        vision.image_size,
    )
    heads = {"image": shape.attending["image"] // vision.head_width, "text": text.heads}
    activation = "quick_gelu" if model.quick_gelu else "gelu"
    try:
        return shape.config(activation, mean=preprocess.mean, std=preprocess.std, heads=heads), shape.image_size, notes
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _image(path: Path, vision: VisionCfg) -> dict[str, Any]:
    if isinstance(vision.layers, list):
        return {"kind": "resnet", "depths": vision.layers, "width": vision.width}
    if vision.patch_size is None:
        raise UserError(f"{path}: model_cfg.vision_cfg.patch_size=null is not supported with layers={vision.layers}")
    return {
        "kind": "vit",
        "width": vision.width,
        "layers": vision.layers,
        "patch_size": vision.patch_size,
        "mlp_ratio": vision.mlp_ratio,
    }


def _refuse_options(path: Path, name: str, options: Mapping[str, Any]) -> None:
    fixed = _FIXED[name] | dict.fromkeys(_BLOCKS, False)
    for key, value in options.items():
        if key in fixed and value != fixed[key] and value:
            raise UserError(
                f"{path}: model_cfg.{name}.{key}={value!r} is not supported (only {fixed[key]!r}); CLIP's towers are "
                "OpenAI's"
            )


def to_open_clip_config(config: CLIPConfig, image_size: int) -> dict[str, Any]:
    """The open_clip_config.json from which open_clip builds this network."""
    image, text = config.image, config.text
    assert isinstance(text, TextTransformerConfig)
    if isinstance(image, ViTConfig):
        vision: dict[str, Any] = {
            "image_size": image_size,
            "layers": image.layers,
            "width": image.width,
            "head_width": image.width // image.heads,
            "mlp_ratio": ratio_of(image.hidden, image.width),
            "patch_size": image.patch_size,
        }
    else:
        assert isinstance(image, ResNetConfig)
        head_width = 32 * image.width // image.heads
        vision = {"image_size": image_size, "layers": image.depths, "width": image.width, "head_width": head_width}
        vision["patch_size"] = None
    bias = {} if config.logit_bias_init is None else {"init_logit_bias": config.logit_bias_init}
    return {
        "model_cfg": {
            "embed_dim": config.embedding_dim,
            "quick_gelu": config.activation == "quick_gelu",
            **bias,
            "vision_cfg": vision,
            "text_cfg": {
                "context_length": text.context_length,
                "vocab_size": text.vocabulary,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
                "mlp_ratio": ratio_of(text.hidden, text.width),
            },
        },
        "preprocess_cfg": {
            "size": image_size,
            "mean": config.mean,
            "std": config.std,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }

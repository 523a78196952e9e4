"""The pipeline folders of diffusers that are read whole: of which parts they consist, and whether these are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflab.errors import UserError
from difflab.interop import native
from difflab.interop.diffusers_autoencoder import KL, VQ
from difflab.interop.diffusers_condition import CONDITION
from difflab.interop.layout import Target
from difflab.interop.opening import PIPELINE, described_by_folder

STABLE_DIFFUSION, INPAINTING = "StableDiffusionPipeline", "StableDiffusionInpaintPipeline"
LATENT_DIFFUSION, UNET_CLASS = "LDMPipeline", "UNet2DModel"
VERSION = "0.42.1"
"""Of the library whose files are written, which its pipelines for inpainting ask for."""


@dataclass(frozen=True)
class PipelineParts:
    """What pipelines of some classes consist of.

    classes: of the pipelines.
    parts:   the folders that they must have -> the classes that are read; () for those that their own file says.
    """

    classes: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]


OF_TEXT = PipelineParts(
    (STABLE_DIFFUSION, "StableDiffusionImg2ImgPipeline", INPAINTING),
    {
        "unet": (CONDITION,),
        "vae": (KL,),
        "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "scheduler": (),
    },
)
UNCONDITIONAL = PipelineParts((LATENT_DIFFUSION,), {"unet": (UNET_CLASS,), "vqvae": (VQ, KL), "scheduler": ()})
_ALL = (OF_TEXT, UNCONDITIONAL)


def is_pipeline(path: Path) -> bool:
    """Whether a path is the folder of a pipeline with a network that attends to a text, a first stage, or both, or of
    one of the pipelines that are read here."""
    if not (path / PIPELINE).is_file():
        return False
    content = native.read_json(path / PIPELINE)
    if any(content.get("_class_name") in known.classes for known in _ALL):
        return True
    return any(class_of(content, name) is not None for name in ("vae", "vqvae", "text_encoder"))


def parts_of(path: Path, content: Mapping[str, Any]) -> PipelineParts:
    """The parts of the pipeline whose model_index.json has that content. Raises UserError if it is not read."""
    kind = content.get("_class_name")
    for known in _ALL:
        if kind in known.classes:
            return known
    names = ", ".join(name for known in _ALL for name in known.classes)
    raise UserError(
        f"{path / PIPELINE}: _class_name={kind!r}; read of the pipelines with a first stage or a text encoder are "
        f"{names}"
    )


def check_parts(path: Path, content: Mapping[str, Any], parts: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Raises UserError for a part that is missing or is not read; returns remarks on parts that are left out."""
    for name, classes in parts.items():
        if not (path / name).is_dir():
            raise UserError(
                f"{path}: has no folder {name}/, which is a part of a {content['_class_name']}: fetch the folder again"
            )
        found = class_of(content, name)
        if classes and found not in classes:
            what = "has no class" if found is None else f"is a {found}"
            raise UserError(f"{path / PIPELINE}: {name} {what}; read is {' or '.join(classes)}")
    left = [name for name in content if name not in parts and class_of(content, name) is not None]
    return [f"left out the pipeline's {', '.join(left)}"] if left else []


def class_of(content: Mapping[str, Any], name: str) -> str | None:
    """The class of a part by the content of model_index.json; None if the pipeline does without it."""
    match content.get(name):
        case [_, str(kind)]:
            return kind
        case _:
            return None


def described_part(folder: Path, kind: str) -> Target:
    """The network of a part, by its config.json. kind: of the network, `unet` or `autoencoder`.

    Raises UserError if there is no such file, if it is of another kind, or for a network that difflab has not.
    """
    target = described_by_folder(folder)
    if target is None:
        raise UserError(f"{folder}: has no {native.CONFIG}, which says what its weights are of: fetch the folder again")
    if target.network.kind != kind:
        raise UserError(
            f"{folder / native.CONFIG}: describes the network of another part ({target.network.kind} in place of "
            f"{kind}): fetch the folder again"
        )
    return target

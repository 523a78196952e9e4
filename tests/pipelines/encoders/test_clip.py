"""A stored CLIP as an encoder: what its towers compute, raw, under the names that are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.config.axes import ENCODERS
from difflab.config.validate import validate
from difflab.data.encoded.encoder import Encoder
from difflab.errors import UserError
from difflab.files import sha256_of
from difflab.images import as_float
from difflab.interop.native import WEIGHTS
from difflab.pipelines.encoders.clip import build
from difflab.pipelines.encoders.config import CLIPEncoderConfig
from difflab.pipelines.stored import load_stored
from drawn_clip import DIM, LENGTH, RESNET, export_clip

EVERY = [f"{what}_{part}" for what in ("image", "caption") for part in ("embedding", "features", "tokens")]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_clip(tmp_path_factory.mktemp("clip"))


def encoder_of(run: Path, **options: Any) -> Encoder:
    return build(validate(CLIPEncoderConfig, {"kind": "clip", "run": str(run), **options}), CPU, None)


def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_default_is_both_embeddings_as_the_towers_give_them(clip: Path) -> None:
    encoder = encoder_of(clip)
    assert encoder.fields == ("image_embedding", "caption_embedding")
    assert encoder.sha256 == sha256_of(clip / WEIGHTS)
    assert encoder.images is not None
    assert encoder.captions is not None
    network = load_stored(clip)[0].network
    found = encoder.images.encode(pixels())["image_embedding"]
    assert torch.equal(found, network.encode_image(as_float(pixels())))
    assert not torch.allclose(found.norm(dim=-1), torch.ones(3), atol=1e-2)
    tokens = encoder.captions.tokenizer(["a red circle", "b"])
    texts = encoder.captions.encode(tokens)["caption_embedding"]
    assert torch.equal(texts, network.encode_text(tokens.ids))


def test_every_output_of_a_tower_is_a_field(clip: Path) -> None:
    fields = [*EVERY, "image_penultimate", "caption_penultimate", "caption_mask"]
    encoder = encoder_of(clip, fields=fields, prefix="small_")
    assert set(encoder.fields) == {f"small_{field}" for field in fields}
    assert encoder.images is not None
    assert encoder.captions is not None
    images = encoder.images.encode(pixels())
    tokens = encoder.captions.tokenizer(["a red circle", "b"])
    texts = encoder.captions.encode(tokens)
    assert images.keys() | texts.keys() == set(encoder.fields)
    shapes = {name: tuple(value.shape[1:]) for name, value in {**images, **texts}.items()}
    assert shapes == {
        "small_image_embedding": (DIM,),
        "small_image_features": (16,),
        "small_image_tokens": (5, 16),
        "small_image_penultimate": (5, 16),
        "small_caption_embedding": (DIM,),
        "small_caption_features": (16,),
        "small_caption_tokens": (LENGTH, 16),
        "small_caption_penultimate": (LENGTH, 16),
        "small_caption_mask": (LENGTH,),
    }
    assert torch.equal(texts["small_caption_mask"], tokens.mask)
    alone = encoder_of(clip, fields=["caption_mask"])
    assert alone.images is None
    assert alone.captions is not None
    assert alone.captions.encode(tokens).keys() == {"caption_mask"}
    assert torch.allclose(images["small_image_embedding"], encoder_of(clip).images.encode(pixels())["image_embedding"])


def test_how_images_and_captions_are_prepared_is_the_models_unless_given(small_clip: Path, clip: Path) -> None:
    of_run, of_export = encoder_of(small_clip).images, encoder_of(clip).images
    assert (of_run.image_size, of_run.crop, of_run.alpha) == (16, "none", "white")
    given = encoder_of(clip, crop="resize_short", alpha="black", too_long="truncate")
    assert (given.images.crop, given.images.alpha) == ("resize_short", "black")
    assert (of_export.crop, of_export.alpha) == ("none", "white")
    assert given.captions.tokenizer(["x" * 200]).ids.shape == (1, LENGTH)
    assert given.captions.settings["too_long"] == "truncate"
    assert given.images.settings | {"crop": "none", "alpha": "white"} == of_export.settings


def test_what_cannot_be_encoded_is_one_line(clip: Path, tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="and embeds no images or texts: give run= a CLIP"):
        encoder_of(tiny_run)
    with pytest.raises(UserError, match=r"run=.*nowhere does not exist"):
        encoder_of(tmp_path / "nowhere")
    with pytest.raises(UserError, match="give at least one, and each once"):
        encoder_of(clip, fields=["image_embedding", "image_embedding"])
    with pytest.raises(UserError, match="give at least one"):
        encoder_of(clip, fields=[])
    with pytest.raises(UserError, match="prefix"):
        encoder_of(clip, prefix="Mine")
    resnet = encoder_of(export_clip(tmp_path / "rn", image_size=32, image=RESNET), fields=["image_penultimate"])
    with pytest.raises(UserError, match="this tower has no penultimate: leave image_penultimate out of fields"):
        resnet.images.encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_it_is_the_default_encoder() -> None:
    assert ENCODERS.default == "clip"
    assert ENCODERS["clip"].load_builder() is build

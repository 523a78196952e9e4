"""What the index says of encoded fields, and the refusal of those that another encoder computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from difflab.config.data import DataConfig
from difflab.config.trainer import TrainerConfig
from difflab.config.validate import validate
from difflab.data.datamodule import ShardDataModule
from difflab.data.encoded.checking import encoder_of, refuse_other_captions, refuse_other_images, require_encoder
from difflab.data.encoded.field import EncodedField
from difflab.data.index import INDEX_NAME
from difflab.data.opening import open_data
from difflab.errors import UserError

OURS, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture
def encoded_data(tiny_data: Path) -> Path:
    entry = EncodedField(encoder="clip", sha256=OURS, dtype="float16", shape=[8])
    index = json.loads((tiny_data / INDEX_NAME).read_text())
    index["fields"] = {
        "image_embedding": entry.model_dump(),
        "caption_embedding": entry.model_copy(update={"captions": "lines"}).model_dump(),
        "first": entry.model_copy(update={"captions": "first_line"}).model_dump(),
    }
    (tiny_data / INDEX_NAME).write_text(json.dumps(index))
    return tiny_data


def test_the_index_says_which_encoder_computed_a_field(encoded_data: Path) -> None:
    directory = open_data(encoded_data)
    found = encoder_of(directory, "image_embedding")
    assert found is not None
    assert found.in_words() == "[8] float16, clip abababab"
    assert require_encoder(directory, "image_embedding", OURS) == found
    assert encoder_of(directory, "label") is None
    assert directory.index.fields["caption_embedding"].in_words() == "[8] float16 a line, clip abababab"


def test_another_encoder_is_refused(encoded_data: Path) -> None:
    directory = open_data(encoded_data)
    with pytest.raises(UserError, match=r"embedding was computed by clip abababab, but the model needs .* cdcdcdcd"):
        require_encoder(directory, "image_embedding", OTHER)
    with pytest.raises(UserError, match="has no field latent of the encoder with sha256 abababab: encode the data"):
        require_encoder(directory, "latent", OURS)


def test_a_loader_takes_the_states_that_its_model_needs(encoded_data: Path) -> None:
    data = validate(DataConfig, {"path": str(encoded_data), "image_size": 8, "batch_size": 2})
    trainer = validate(TrainerConfig, {"max_steps": 1})
    cached = {"image_embedding": OURS, "caption_states": OURS}
    assert ShardDataModule(data, trainer, seed=0, cached=cached).data.fields == ["image_embedding"]
    assert ShardDataModule(data, trainer, seed=0, fields=["label"]).data.fields == ["label"]
    with pytest.raises(UserError, match="image_embedding was computed by clip abababab, but the model needs"):
        ShardDataModule(data, trainer, seed=0, cached={"image_embedding": OTHER})


def test_fields_of_other_captions_are_refused(encoded_data: Path) -> None:
    directory = open_data(encoded_data)
    for field, captions in (("caption_embedding", "lines"), ("caption_embedding", "first_line"), ("label", "whole")):
        refuse_other_captions(directory, field, captions)
    with pytest.raises(UserError, match=r"captions=lines, but data.captions=whole: set data.captions=lines or .*first"):
        refuse_other_captions(directory, "caption_embedding", "whole")
    with pytest.raises(UserError, match=r"captions=first_line, but data.captions=lines: set data.captions=first_line"):
        refuse_other_captions(directory, "first", "lines")


def test_a_vector_is_of_the_whole_image_and_a_grid_of_its_pixels(tiny_data: Path) -> None:
    seen = {"image_size": 224, "channels": 3, "crop": "resize_short", "alpha": "white"}
    vector = EncodedField(encoder="clip", sha256=OURS, dtype="float16", shape=[8], settings=seen)
    index = json.loads((tiny_data / INDEX_NAME).read_text())
    grid = vector.model_copy(update={"shape": [4, 2, 2]})
    index["fields"] = {"vector": vector.model_dump(), "grid": grid.model_dump()}
    (tiny_data / INDEX_NAME).write_text(json.dumps(index))
    data = validate(DataConfig, {"path": str(tiny_data), "image_size": index["image_size"], "batch_size": 2})
    directory = open_data(tiny_data)
    refuse_other_images(directory, "vector", data)
    with pytest.raises(UserError, match=r"grid was computed with image_size=224, but data.image_size="):
        refuse_other_images(directory, "grid", data)
    with pytest.raises(UserError, match=r"vector was computed of images as they are, but data.flip=true"):
        refuse_other_images(directory, "vector", data.model_copy(update={"flip": True}))
    cropped = data.model_copy(update={"image_size": 4, "crop": "adm"})
    with pytest.raises(UserError, match=r"vector was computed with crop=resize_short, but data.crop=adm"):
        refuse_other_images(directory, "vector", cropped)

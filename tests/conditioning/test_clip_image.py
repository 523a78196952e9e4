"""An image by the embedding of a frozen CLIP: how it is computed, given and left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.clip_image.conditioner import FIELD, CLIPImageConditioner
from difflab.conditioning.clip_image.config import CLIPImageConditionerConfig
from difflab.config.data import DataConfig
from difflab.errors import UserError
from difflab.files import sha256_of
from difflab.images import resize, to_float
from difflab.interop.native import WEIGHTS
from difflab.parts.loading import load_frozen
from difflab.pipelines.stored import load_stored
from drawn_clip import DIM, export_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_clip(tmp_path_factory.mktemp("clip"))


def config_of(clip: Path, **options: Any) -> CLIPImageConditionerConfig:
    return CLIPImageConditionerConfig.model_validate(
        {"kind": "clip_image", "weights": {"path": str(clip)}, **options}
    ).described()


def conditioner_of(clip: Path, **options: Any) -> CLIPImageConditioner:
    torch.manual_seed(0)
    made = build_conditioners({"image": config_of(clip, **options)}, embedding_dim=4, image_size=8)["image"]
    load_frozen(made)
    assert isinstance(made, CLIPImageConditioner)
    return made


def pixels(size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def batch_of(**fields: Any) -> dict[str, Any]:
    return {"index": torch.arange(2), **fields}


def tokens_of(conditioner: CLIPImageConditioner, **fields: Any) -> torch.Tensor:
    tokens = conditioner(batch_of(**fields)).tokens
    assert tokens is not None
    return tokens


def test_the_token_is_the_embedding_that_the_clip_gives(clip: Path) -> None:
    network = load_stored(clip)[0].network
    conditioner = conditioner_of(clip)
    expected = network.encode_image(to_float(pixels()))
    torch.testing.assert_close(tokens_of(conditioner, image=pixels()), expected[:, None], rtol=1e-5, atol=1e-6)
    assert not list(conditioner.parameters())
    assert not conditioner.state_dict()


def test_images_of_another_size_are_resized_as_clip_does(clip: Path) -> None:
    large = pixels(40)
    small = resize(to_float(large), 16, "bicubic").clamp(-1, 1)
    conditioner = conditioner_of(clip)
    torch.testing.assert_close(tokens_of(conditioner, image=large), tokens_of(conditioner, image=small))


def test_an_embedding_takes_the_place_of_the_image(clip: Path) -> None:
    conditioner = conditioner_of(clip, width=6)
    whole = tokens_of(conditioner, image=pixels())
    assert whole.shape == (2, 1, 6)
    embedding = conditioner.complete(batch_of(image=pixels()))["embedding"]
    assert torch.equal(tokens_of(conditioner, embedding=embedding), whole)
    stored = tokens_of(conditioner, image=pixels() // 2, **{FIELD: embedding})
    assert torch.equal(stored, whole)
    given = tokens_of(conditioner, embedding=embedding, **{FIELD: embedding.flip(0)})
    assert torch.equal(given, whole)


def test_what_the_data_has_is_of_the_same_file(clip: Path) -> None:
    assert conditioner_of(clip).cached == {FIELD: sha256_of(clip / WEIGHTS)}
    assert conditioner_of(clip, encoded="never").cached == {}


@pytest.mark.parametrize("width", [None, 6])
def test_a_dropped_image_is_a_token_of_zeros(clip: Path, width: int | None) -> None:
    conditioner = conditioner_of(clip, width=width, drop_rate=0.1)
    tokens = conditioner(batch_of(image=pixels()), torch.tensor([True, False])).tokens
    assert tokens is not None
    assert (tokens[0] == 0).all()
    assert torch.equal(tokens[1], tokens_of(conditioner, image=pixels())[1])


def test_what_cannot_be_is_refused_in_a_line(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"embedding has 3 numbers, but images of this model's CLIP have {DIM}: give"):
        tokens_of(conditioner_of(clip), embedding=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="embedding is missing: this model is conditioned on it"):
        tokens_of(conditioner_of(clip))
    grey = DataConfig(path="grey", image_size=16, channels=1, batch_size=2)
    with pytest.raises(ValueError, match=r"conditioning.look is a CLIP for images of 3 channels, but data.channels=1"):
        config_of(clip).refuse_other_data("look", grey)
    with pytest.raises(UserError, match="nothing does not exist"):
        config_of(tmp_path / "nothing")

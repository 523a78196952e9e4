"""Stored models as parts of others: what is no run directory, and no folder of difflab."""

from __future__ import annotations

from pathlib import Path

import pytest

from difflab.config.parts import FrozenConfig
from difflab.errors import UserError
from difflab.interop.stored_parts import autoencoder, clip_image


def test_a_run_that_is_not_there_is_to_be_trained(tmp_path: Path) -> None:
    place = FrozenConfig(path=str(tmp_path / "run"))
    with pytest.raises(UserError) as error:
        autoencoder(place)
    assert str(error.value) == (
        f"{tmp_path / 'run'} does not exist: train an autoencoder (task=autoencoder) there first, or give the path of "
        "another run directory or exported folder"
    )
    with pytest.raises(UserError, match="train a CLIP"):
        clip_image(place)


def test_a_folder_of_another_program_is_to_be_imported(tmp_path: Path) -> None:
    (tmp_path / "diffusion_pytorch_model.safetensors").touch()
    with pytest.raises(UserError, match=f"`difflab weights import {tmp_path} --out FOLDER` makes one") as error:
        autoencoder(FrozenConfig(path=str(tmp_path)))
    assert "has no weights/ema.safetensors or weights/raw.safetensors or model.safetensors: " in str(error.value)
    assert "\n" not in str(error.value)

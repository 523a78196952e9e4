"""A small Stable Diffusion, as diffusers saves one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from interop.latent.small_pipelines import PNDM, small_pipeline


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, which stays as it is."""
    from diffusers import PNDMScheduler

    folder = tmp_path_factory.mktemp("pipeline")
    small_pipeline(folder / "tokenizer", PNDMScheduler(**PNDM)).save_pretrained(folder / "theirs")
    return folder / "theirs"


@pytest.fixture
def copied(pipeline: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    shutil.copytree(pipeline, tmp_path / "sd")
    return tmp_path / "sd"

"""Stored models of difflab as frozen parts of others: which file has the weights, and what model they are of."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from difflab.config.model import ModelConfig, NetworkModelConfig
from difflab.config.network import NetworkBase
from difflab.config.parts import FrozenConfig
from difflab.config.stored import read_train_config
from difflab.errors import UserError
from difflab.frozen_files import file_in, find
from difflab.interop.native import CONFIG, WEIGHTS, exported_model
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.clip_image.config import CLIPImageArchitecture
from difflab.networks.towers.config import CLIPConfig

Network = TypeVar("Network", bound=NetworkBase)

OF_RUNS = ("weights/ema.safetensors", "weights/raw.safetensors", WEIGHTS)
"""The files of weights in a run directory or an exported folder, the best first."""


def model_of(weights: FrozenConfig) -> tuple[Path, ModelConfig]:
    """The path of a file of weights, of a run or in an exported folder, and the configuration of its model.

    Raises UserError if there is none.
    """
    path, _ = find(weights)
    run = path.parent.parent / "config.yaml"
    if path.parent.name == "weights" and run.is_file():
        return path, read_train_config(run).model()
    if not (path.parent / CONFIG).is_file():
        raise UserError(
            f"{path} has no {CONFIG} beside it that says what it is: give a run directory or an exported folder "
            "(`difflab weights import` makes one of other files; a checkpoint's weights are in weights/ of its run)"
        )
    return path, exported_model(path.parent)


def autoencoder(weights: FrozenConfig) -> tuple[FrozenConfig, AutoencoderConfig]:
    """The file of the weights and the architecture of a stored autoencoder. Raises UserError if there is none."""
    file, _, network = _network_of(weights, AutoencoderConfig, "an autoencoder (task=autoencoder)")
    return file, network


def clip_image(weights: FrozenConfig) -> tuple[FrozenConfig, CLIPImageArchitecture]:
    """The file of the weights and the image tower of a stored CLIP. Raises UserError if there is none."""
    wanted = "a CLIP (task=contrastive)"
    file, model, network = _network_of(weights, CLIPConfig, wanted)
    return file, CLIPImageArchitecture.of(network, model.image_size)


def _refuse_unstored(weights: FrozenConfig, wanted: str) -> None:
    """Raises UserError if a path is of nothing at all, or of a folder of another program."""
    path = None if weights.path is None or weights.sha256 is not None else Path(weights.path).expanduser()
    if path is None or path.is_file():
        return
    if not path.exists():
        raise UserError(
            f"{path} does not exist: train {wanted} there first, or give the path of another run directory or exported "
            "folder"
        )
    if not any((path / name).is_file() for name in OF_RUNS):
        raise UserError(
            f"{path} has no {' or '.join(OF_RUNS)}: give a run directory that has been trained, or an exported folder "
            f"(`difflab weights import {path} --out FOLDER` makes one of other programs' weights)"
        )


def _network_of(weights: FrozenConfig, kind: type[Network], wanted: str) -> tuple[FrozenConfig, ModelConfig, Network]:
    """The file of the weights of a stored model, the model, and its network, which must be of a kind."""
    _refuse_unstored(weights, wanted)
    file = file_in(weights, OF_RUNS)
    path, model = model_of(file)
    network = model.network if isinstance(model, NetworkModelConfig) else None
    if not isinstance(network, kind):
        raise UserError(f"{path} is of {model.title}, not of {wanted}")
    return file, model, network

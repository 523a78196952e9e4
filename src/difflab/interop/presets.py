"""The published networks that weights may be for, by name."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from difflab.conf_dir import conf_dir
from difflab.config.network import NetworkConfig, UNetConfig
from difflab.errors import UserError
from difflab.interop.layout import Target


@dataclass(frozen=True)
class Preset:
    """A published network: which choice of conf/network it is, and what its experiment adds.

    layouts: those its released files come in.
    source:  where the weights were published.
    """

    name: str
    network: str
    image_size: int
    learned_variance: bool
    layouts: tuple[str, ...]
    source: str

    def target(self) -> Target:
        """The network itself."""
        return Target(network_choice(self.network), self.image_size, self.learned_variance)


_PORT = "pesser/pytorch_diffusion: converted from the TensorFlow checkpoints"

PRESETS = {
    preset.name: preset
    for preset in (
        Preset("ddpm/cifar10", "ddpm_cifar10", 32, False, ("pesser", "diffusers"), f"{_PORT}; google/ddpm-cifar10-32"),
        Preset(
            "ddpm/lsun_bedroom", "ddpm_256", 256, False, ("pesser", "diffusers"), f"{_PORT}; google/ddpm-bedroom-256"
        ),
        Preset("ddpm/lsun_church", "ddpm_256", 256, False, ("pesser", "diffusers"), f"{_PORT}; google/ddpm-church-256"),
        Preset("ddpm/lsun_cat", "ddpm_256", 256, False, ("pesser", "diffusers"), f"{_PORT}; google/ddpm-cat-256"),
        Preset("ddpm/celebahq256", "ddpm_256", 256, False, ("pesser", "diffusers"), "google/ddpm-celebahq-256"),
    )
}


def network_choice(name: str) -> NetworkConfig:
    """The configuration conf/network/<name>.yaml; UserError when there is none of that name."""
    folder = conf_dir() / "network"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise UserError(f"network={name}: no such choice; there are {known}")
    return UNetConfig.model_validate(yaml.safe_load(path.read_text()))


def preset_named(name: str) -> Preset:
    """A preset; UserError when there is none of that name."""
    if name not in PRESETS:
        raise UserError(f"no published network is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]

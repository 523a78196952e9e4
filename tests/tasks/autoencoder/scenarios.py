"""The trainings that one process and two have to do alike."""

from __future__ import annotations

from collections.abc import Callable

from difflab.tasks.autoencoder.module import AutoencoderModule
from tasks.autoencoder.small_autoencoders import small_module

SCENARIOS: dict[str, Callable[[], AutoencoderModule]] = {
    "kl": lambda: small_module("kl", learned=True),
    "vq": lambda: small_module("vq", restart_codes_every=2),
    "actnorm": lambda: small_module("kl", norm="actnorm"),
    "alone": lambda: small_module("vq", start=None),
}

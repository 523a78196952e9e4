"""The published latent diffusion models whose checkpoints are recognized, by the name of their experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from difflab.interop.guided import GUIDED
from difflab.interop.keymap import KeyMap, Shapes
from difflab.interop.latent_unets import COMPVIS_UNET
from difflab.interop.layout import Target
from difflab.interop.presets import network_choice


@dataclass(frozen=True)
class LatentPreset:
    """A published model: its choice of conf/network, and the places per side of its latents.

    source: where the weights were published.
    """

    name: str
    network: str
    latent_size: int
    source: str

    def target(self) -> Target:
        """Its network alone."""
        return Target(network_choice(self.network), self.latent_size)


def _all() -> Iterator[LatentPreset]:
    ldm = "CompVis/latent-diffusion (README)"
    for name in ("celeba256", "ffhq256", "lsun_beds256"):
        yield LatentPreset(f"ldm/{name}", "ldm_celeba256", 64, ldm)
    yield LatentPreset("ldm/cin256_v2", "ldm_cin256_v2", 64, ldm)
    yield LatentPreset("ldm/text2img256", "ldm_text2img256", 64, ldm)
    yield LatentPreset("ldm/txt2img_large", "ldm_text2img_large", 32, ldm)
    yield LatentPreset("ldm/lsun_churches256", "ldm_churches256", 32, ldm)
    yield LatentPreset("ldm/inpainting_big", "ldm_inpainting_big", 64, ldm)
    yield LatentPreset("ldm/semantic_256", "ldm_semantic_256", 64, f"{ldm}; the one at 512 pixels has its shapes, too")
    yield LatentPreset("ldm/layout_openimages256", "ldm_layout_openimages256", 64, ldm)
    yield LatentPreset("ldm/bsr_sr", "ldm_bsr_sr", 64, ldm)
    yield LatentPreset("sd/v1", "sd_v1", 64, "CompVis/stable-diffusion (README), 1.1 to 1.5")
    yield LatentPreset("sd/v1_inpainting", "sd_v1_inpainting", 64, "runwayml (stable-diffusion-inpainting)")
    second = "Stability-AI/stablediffusion (README)"
    yield LatentPreset("sd/v2_base", "sd_v2", 64, f"{second}, 2-base and 2.1-base")
    yield LatentPreset("sd/v2_768", "sd_v2_768", 96, f"{second}, 2 and 2.1")
    yield LatentPreset("sd/v2_inpainting", "sd_v2_inpainting", 64, f"{second}, inpainting")
    yield LatentPreset("sd/v2_zero_snr", "sd_v2", 64, "Lin et al. 2024")


LATENT_PRESETS = {preset.name: preset for preset in _all()}


def unet_keymap(target: Target) -> KeyMap:
    """The map of a UNet's keys in CompVis' checkpoints. Raises UserError for a UNet that they have not."""
    return (COMPVIS_UNET if COMPVIS_UNET.takes(target.network) else GUIDED).keymap(target)


def fitting_latent_presets(shapes: Shapes) -> list[str]:
    """The published models whose UNet has exactly these official shapes."""
    return [name for name, preset in LATENT_PRESETS.items() if _official(preset.network, preset.latent_size) == shapes]


def presets_of_network(target: Target) -> list[str]:
    """The published models that have this network, at this size of latents."""
    ours = target.architecture()
    return [name for name, preset in LATENT_PRESETS.items() if preset.target().architecture() == ours]


@cache
def _official(network: str, latent_size: int) -> Mapping[str, tuple[int, ...]]:
    return unet_keymap(Target(network_choice(network), latent_size)).official_shapes

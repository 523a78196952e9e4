"""The published models whose weights are recognized, by the name of their experiment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from difflab.conditioning.config import ClassConditionerConfig, ConditioningConfig, LowResConditionerConfig
from difflab.config.axes import NETWORKS
from difflab.config.groups import choices_of, contents
from difflab.config.network import NetworkConfig
from difflab.errors import UserError
from difflab.interop.layout import Target


@dataclass(frozen=True)
class Preset:
    """A published model: its choice of conf/network, and what its experiment adds.

    layouts: those of its released files.
    file:    the published file's name or suffix; "" if the model was published only as a folder.
    source:  where the weights were published.
    classes: the number of classes of a conditional model or a classifier; None for none.
    low_res: the low-resolution conditioning of an upsampler; None for other models.
    conditioning: the choice of conf/conditioning of a model that reads captions; None for other models.
    """

    name: str
    network: str
    image_size: int
    learned_variance: bool
    layouts: tuple[str, ...]
    file: str
    source: str
    classes: int | None = None
    low_res: LowResConditionerConfig | None = None
    conditioning: str | None = None

    @property
    def architecture(self) -> tuple[object, ...]:
        """What determines keys and shapes: presets that share it are compared with a file only once."""
        return (self.network, self.image_size, self.learned_variance, self.classes, self.conditioning)

    def target(self) -> Target:
        """The model itself."""
        network = network_choice(self.network, self.classes)
        conditioning: ConditioningConfig = {}
        if self.conditioning is not None:
            conditioning |= conditioning_choice(self.conditioning)
        if self.classes is not None and network.kind == "unet":
            conditioning["class_label"] = ClassConditionerConfig(kind="class", classes=self.classes)
        if self.low_res is not None:
            conditioning["low_res"] = self.low_res
        return Target(network, self.image_size, self.learned_variance, conditioning)


def _area(size: int) -> LowResConditionerConfig:
    return LowResConditionerConfig(kind="low_res", size=size)


def _ddpm() -> Iterator[Preset]:
    port = "pesser/pytorch_diffusion (ckpt_util.py), converted from the TensorFlow checkpoints"
    both = ("pesser", "diffusers")
    yield Preset(
        "ddpm/cifar10", "ddpm_cifar10", 32, False, both, "model-790000.ckpt", f"{port}; google/ddpm-cifar10-32"
    )
    for data, step in (("bedroom", 2388000), ("church", 4432000), ("cat", 1761000)):
        file, source = f"model-{step}.ckpt", f"{port}; google/ddpm-{data}-256"
        yield Preset(f"ddpm/lsun_{data}", "ddpm_256", 256, False, both, file, source)
    yield Preset("ddpm/celebahq256", "ddpm_256", 256, False, both, "", "google/ddpm-celebahq-256")


def _adm() -> Iterator[Preset]:
    source, older, imagenet = "openai/guided-diffusion (README)", ("guided",), 1000
    for size in (64, 128, 256, 512):
        # 64x64_diffusion alone was trained with --use_new_attention_order.
        layouts = ("guided-new-order",) if size == 64 else older
        file, name = f"{size}x{size}_diffusion.pt", f"adm/imagenet{size}"
        yield Preset(name, f"adm_{size}", size, True, layouts, file, source, imagenet)
        file, name = f"{size}x{size}_classifier.pt", f"adm/imagenet{size}_classifier"
        yield Preset(name, f"adm_classifier_{size}", size, False, older, file, source, imagenet)
    yield Preset("adm/imagenet256_uncond", "adm_256", 256, True, older, "256x256_diffusion_uncond.pt", source)
    for data in ("bedroom", "cat", "horse", "horse_nodropout"):
        yield Preset(f"adm/lsun_{data}", "adm_256", 256, True, older, f"lsun_{data}.pt", source)
    for small, size in ((64, 256), (128, 512)):
        name = f"{small}_{size}_upsampler"
        file = f"{name}.pt"
        yield Preset(
            f"adm/imagenet{name}", f"adm_{name}", size, True, older, file, source, imagenet, low_res=_area(small)
        )


def _improved() -> Iterator[Preset]:
    source, older, imagenet = "openai/improved-diffusion (README)", ("guided",), 1000
    for name, network, size, file in (
        ("cifar10", "improved_cifar10", 32, "cifar10_uncond_50M_500K.pt"),
        ("cifar10_vlb", "improved_cifar10", 32, "cifar10_uncond_vlb_50M_500K.pt"),
        ("imagenet64", "improved_imagenet64", 64, "imagenet64_uncond_100M_1500K.pt"),
        ("imagenet64_vlb", "improved_imagenet64", 64, "imagenet64_uncond_vlb_100M_1500K.pt"),
        ("lsun_bedroom_bs128", "improved_lsun", 256, "lsun_uncond_100M_1200K_bs128.pt"),
        ("lsun_bedroom_bs64", "improved_lsun", 256, "lsun_uncond_100M_2400K_bs64.pt"),
    ):
        yield Preset(f"improved/{name}", network, size, True, older, file, source)
    name, file = "improved/imagenet64_cond", "imagenet64_cond_270M_250K.pt"
    yield Preset(name, "improved_imagenet64_cond", 64, True, older, file, source, imagenet)
    name, file = "improved/imagenet64_256_upsampler", "upsample_cond_500K.pt"
    yield Preset(name, "improved_upsampler", 256, True, older, file, source, imagenet, low_res=_area(64))


def _sr3() -> Iterator[Preset]:
    source = "Janspiry/Image-Super-Resolution-via-Iterative-Refinement (README), unofficial; faces"
    for small, size in ((16, 128), (64, 512)):
        conditioner = LowResConditionerConfig(kind="low_res", size=small, downsample="bicubic", upsample="bicubic")
        name, network = f"sr3/janspiry_{small}_{size}", f"sr3_janspiry_{small}_{size}"
        yield Preset(name, network, size, False, ("janspiry",), "", source, low_res=conditioner)


def _clip() -> Iterator[Preset]:
    source, of_openai = "openai/CLIP (clip.py)", ("openai_clip", "open_clip_custom")
    for name, size, file in (
        ("rn50", 224, "RN50.pt"),
        ("rn101", 224, "RN101.pt"),
        ("rn50x4", 288, "RN50x4.pt"),
        ("rn50x16", 384, "RN50x16.pt"),
        ("rn50x64", 448, "RN50x64.pt"),
        ("vit_b32", 224, "ViT-B-32.pt"),
        ("vit_b16", 224, "ViT-B-16.pt"),
        ("vit_l14", 224, "ViT-L-14.pt"),
        ("vit_l14_336", 336, "ViT-L-14-336px.pt"),
    ):
        # transformers has no CLIP with a ResNet.
        layouts = of_openai if name.startswith("rn") else (*of_openai, "transformers_clip")
        yield Preset(f"clip/{name}", f"clip_{name}", size, False, layouts, file, source)
    for name, repository in (
        ("vit_h14", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
        ("vit_g14", "laion/CLIP-ViT-g-14-laion2B-s12B-b42K"),
        ("vit_bigg14", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"),
    ):
        layouts = (*of_openai, "transformers_clip")
        yield Preset(f"clip/{name}", f"clip_{name}", 224, False, layouts, "", f"{repository} (open_clip)")


def _glide() -> Iterator[Preset]:
    source = "openai/glide-text2im (download.py)"
    yield Preset("glide/base64", "glide_base", 64, True, ("glide",), "base.pt", source, conditioning="glide")


def _autoencoders() -> Iterator[Preset]:
    layouts = ("compvis_autoencoder", "diffusers_autoencoder")
    ldm = "CompVis/latent-diffusion (README)"
    for name in ("kl_f4", "kl_f8", "kl_f16", "kl_f32", "vq_f4", "vq_f4_noattn", "vq_f8", "vq_f8_n256", "vq_f16"):
        yield Preset(f"autoencoder/{name}", name, 256, False, layouts, "", ldm)
    for name, file, source in (
        ("sd_vae", "", "the first stage inside of Stable Diffusion 1 and 2"),
        ("sd_vae_ft_ema", "vae-ft-ema-560000-ema-pruned.ckpt", "stabilityai/sd-vae-ft-ema and -original"),
        ("sd_vae_ft_mse", "vae-ft-mse-840000-ema-pruned.ckpt", "stabilityai/sd-vae-ft-mse and -original"),
    ):
        yield Preset(f"autoencoder/{name}", "sd_vae", 256, False, layouts, file, source)
    source = "stabilityai/stable-diffusion-x4-upscaler (vae)"
    yield Preset("autoencoder/sd_x4_vae", "sd_x4_vae", 256, False, layouts, "", source)
    for codes in (1024, 16384):
        name, source = f"vqgan_f16_{codes}", "CompVis/taming-transformers (README)"
        yield Preset(f"autoencoder/{name}", name, 256, False, layouts, "", source)


PRESETS = {
    preset.name: preset for preset in (*_ddpm(), *_adm(), *_improved(), *_sr3(), *_clip(), *_glide(), *_autoencoders())
}
"""By experiment. A test ensures that each is the model of its experiment."""


def network_choice(name: str, classes: int | None = None) -> NetworkConfig:
    """The configuration conf/network/<name>.yaml; UserError if there is none of that name.

    classes: replaces a classifier file's reference to the data.
    """
    values = contents("network", name)
    if values is None:
        raise UserError(f"network={name}: no such choice; there are {', '.join(choices_of('network'))}")
    # Published models are in colour; the small ones derive the rest from the size of their images.
    own = {"${data.classes}": classes, "${data.channels}": 3}
    values = {key: own.get(value, value) if isinstance(value, str) else value for key, value in values.items()}
    config: Any = NETWORKS[str(values["kind"])].config
    values |= config.fitted(values, 32, 3)
    return TypeAdapter(NetworkConfig).validate_python(values)


def conditioning_choice(name: str) -> ConditioningConfig:
    """The configuration conf/conditioning/<name>.yaml; UserError if there is none of that name."""
    values = contents("conditioning", name)
    if values is None:
        raise UserError(f"conditioning={name}: no such choice; there are {', '.join(choices_of('conditioning'))}")
    return TypeAdapter(ConditioningConfig).validate_python(values)


def preset_named(name: str) -> Preset:
    """The preset of a name; UserError if there is none."""
    if name not in PRESETS:
        raise UserError(f"no published model is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]

"""Corruptions of images in five severities, with the parameters of ImageNet-C (Hendrycks & Dietterich 2019).

Lengths in pixels are for images of 224 px and scale with the size; noise is per pixel at any size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from difflab.config.zero_shot import Corruption
from difflab.pipelines.robustness.blurs import defocus, motion, zoom
from difflab.pipelines.robustness.elastic import elastic

Array = np.ndarray
Rule = Callable[[Array, int, np.random.Generator], Array]


def corrupted(pixels: Array, corruption: Corruption, severity: int, seed: int) -> Array:
    """pixels: uint8 [H, W, C], of 1 or 3 channels. severity: 1 to 5. seed: of whatever is random."""
    found = RULES[corruption](pixels / 255.0, severity - 1, np.random.default_rng(seed))
    return (found.clip(0, 1) * 255).round().astype(np.uint8)


def _gaussian_noise(x: Array, level: int, random: np.random.Generator) -> Array:
    return x + random.normal(scale=(0.08, 0.12, 0.18, 0.26, 0.38)[level], size=x.shape)


def _shot_noise(x: Array, level: int, random: np.random.Generator) -> Array:
    photons = (60, 25, 12, 5, 3)[level]
    return random.poisson(x * photons) / photons


def _impulse_noise(x: Array, level: int, random: np.random.Generator) -> Array:
    """Some values become 0 or 1."""
    chosen = random.random(x.shape) < (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    return np.where(chosen, random.random(x.shape) < 0.5, x)


def _defocus_blur(x: Array, level: int, random: np.random.Generator) -> Array:
    return defocus(x, *((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[level])


def _motion_blur(x: Array, level: int, random: np.random.Generator) -> Array:
    return motion(x, *((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[level], degrees=random.uniform(-45, 45))


def _zoom_blur(x: Array, level: int, random: np.random.Generator) -> Array:
    most, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[level]
    return zoom(x, np.arange(1, most, step).tolist())


def _brightness(x: Array, level: int, random: np.random.Generator) -> Array:
    """The value of HSV is raised; hue and saturation stay."""
    value = x.max(axis=2, keepdims=True)
    raised = (value + (0.1, 0.2, 0.3, 0.4, 0.5)[level]).clip(0, 1)
    return np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised)


def _contrast(x: Array, level: int, random: np.random.Generator) -> Array:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[level] + mean


def _elastic(x: Array, level: int, random: np.random.Generator) -> Array:
    alpha, sigma, shift = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))[
        level
    ]
    return elastic(x, alpha, sigma, shift, random)


def _pixelate(x: Array, level: int, random: np.random.Generator) -> Array:
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[level]
    image, size = _image(x), x.shape[1::-1]
    small = image.resize((max(1, int(size[0] * share)), max(1, int(size[1] * share))), Image.Resampling.BOX)
    return _array(small.resize(size, Image.Resampling.BOX))


def _jpeg(x: Array, level: int, random: np.random.Generator) -> Array:
    buffer = io.BytesIO()
    _image(x).save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[level])
    with Image.open(buffer) as image:
        return _array(image)


def _image(x: Array) -> Image.Image:
    pixels = (x * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _array(image: Image.Image) -> Array:
    pixels = np.asarray(image) / 255.0
    return pixels[..., None] if pixels.ndim == 2 else pixels


RULES: Mapping[Corruption, Rule] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic": _elastic,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}

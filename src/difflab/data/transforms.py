"""Turns a decoded image into the network's square input, by the rules of official codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from difflab.config.data import Crop
from difflab.data.hashing import hash_indices
from difflab.seeding import stream_seed

if TYPE_CHECKING:
    from PIL import Image as PillowImage

SMALLEST_CUT, LARGEST_CUT = 0.8, 1.0
"""Range of the side of a random crop as a fraction of the short side; ADM (`image_datasets.random_crop_arr`)."""

SMALLEST_SQUARE = 0.5
"""Least side of a random square as a fraction of the short side; latent diffusion (`ImageNetSR`, min_crop_f)."""


def fit(image: Tensor, size: int, crop: Crop) -> Tensor:
    """uint8 [C, H, W] -> uint8 [C, size, size] by the named rule (`difflab.config.data.DataConfig.crop`).

    An image that already has the size is returned unchanged, whatever the rule.

    Raises ValueError naming both sizes if `crop` is none and they differ.
    """
    height, width = image.shape[-2:]
    if height == width == size:
        return image
    if crop == "none":
        refuse_other_size(height, width, size)
    cut = {"adm": crop_adm, "edm": crop_edm, "resize_short": crop_resize_short, "area": crop_area}[crop]
    return _from_pillow(cut(_to_pillow(image), size))


def refuse_other_size(
    height: int, width: int, size: int, options: str = "data.image_size, or data.crop to adm, edm or resize_short"
) -> None:
    """Raises ValueError naming both sizes, and the options that resolve it, if they differ."""
    if not height == width == size:
        raise ValueError(f"the image is {width}x{height} px, wanted is {size}x{size}: set {options}")


def fit_whole(image: Tensor, size: int, background: int) -> Tensor:
    """uint8 [C, H, W] -> uint8 [C, size, size]: the whole image by `pad_square`, from images of any size.

    An image that already has the size is returned unchanged.
    """
    if image.shape[-2:] == (size, size):
        return image
    return _from_pillow(pad_square(_to_pillow(image), size, background))


def fit_drawn(image: Tensor, size: int, crop: Crop, draws: Sequence[int]) -> Tensor:
    """uint8 [C, H, W] -> uint8 [C, size, size]: a random crop from images of any size.

    crop: the rule outside training (adm, resize_short or area), of which this is the random counterpart. An image that
    already has the size is enlarged and cropped by adm and area too: that is the augmentation.
    """
    cut = {"adm": crop_adm_random, "resize_short": crop_resize_short_random, "area": crop_area_random}[crop]
    return _from_pillow(cut(_to_pillow(image), size, draws))


def crop_adm(image: PillowImage.Image, size: int) -> PillowImage.Image:
    """Halves by box filter while the short side is at least twice `size`, bicubic to the short side, centre crop.

    ADM (guided-diffusion, `image_datasets.center_crop_arr`); EDM2 calls it center-crop-dhariwal.
    """
    resized = _short_side_to(_halved(image, size), size)
    return _square_at(resized, size, (resized.width - size) // 2, (resized.height - size) // 2)


def crop_adm_random(image: PillowImage.Image, size: int, draws: Sequence[int]) -> PillowImage.Image:
    """As `crop_adm`, but to a random short side in size / LARGEST_CUT .. size / SMALLEST_CUT, and cropped anywhere.

    draws: three random integers >= 0, uniform over a range that is large compared with an image (`crop_draws`): for the
    short side, the top and the left. ADM (guided-diffusion, `image_datasets.random_crop_arr`).
    """
    shortest, longest = math.ceil(size / LARGEST_CUT), math.ceil(size / SMALLEST_CUT)
    for_side, for_top, for_left = draws
    side = shortest + for_side % (longest - shortest + 1)
    resized = _short_side_to(_halved(image, side), side)
    return _square_at(resized, size, for_left % (resized.width - size + 1), for_top % (resized.height - size + 1))


def crop_edm(image: PillowImage.Image, size: int) -> PillowImage.Image:
    """Centre square of the full image, then Lanczos to `size` (EDM, `dataset_tool.py --transform=center-crop`)."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.LANCZOS)


def crop_resize_short(image: PillowImage.Image, size: int) -> PillowImage.Image:
    """Bicubic (Pillow's is antialiased) until the short side is `size`, then the centre square."""
    resized = _short_side_to(image, size)
    return _square_at(resized, size, (resized.width - size) // 2, (resized.height - size) // 2)


def crop_resize_short_random(image: PillowImage.Image, size: int, draws: Sequence[int]) -> PillowImage.Image:
    """As `crop_resize_short`, but a square anywhere along the long side (CLIP, section 2.3).

    draws: as in `crop_adm_random`; the first is not used.
    """
    resized = _short_side_to(image, size)
    _, for_top, for_left = draws
    return _square_at(resized, size, for_left % (resized.width - size + 1), for_top % (resized.height - size + 1))


def crop_area(image: PillowImage.Image, size: int) -> PillowImage.Image:
    """Centre square of the full image, then the mean of the covered pixels (Pillow's box filter) to `size`."""
    side = min(image.size)
    return _square_by_area(image, side, size, (image.width - side) // 2, (image.height - side) // 2)


def crop_area_random(image: PillowImage.Image, size: int, draws: Sequence[int]) -> PillowImage.Image:
    """As `crop_area`, but a square anywhere, of a random side from SMALLEST_SQUARE of the short side to all of it.

    draws: as in `crop_adm_random`. Latent diffusion (`data/imagenet.py`, `ImageNetSR`).
    """
    short = min(image.size)
    shortest = math.ceil(short * SMALLEST_SQUARE)
    for_side, for_top, for_left = draws
    side = shortest + for_side % (short - shortest + 1)
    left, top = for_left % (image.width - side + 1), for_top % (image.height - side + 1)
    return _square_by_area(image, side, size, left, top)


def pad_square(image: PillowImage.Image, size: int, background: int) -> PillowImage.Image:
    """Bicubic (Pillow's is antialiased) until the long side is `size`, larger or smaller, then centred on a square.

    The short side is rounded half to even and is at least one pixel. If an odd number of pixels remains, the right or
    the lower margin has one more. background: the value of all channels there, 0..255.
    """
    from PIL import Image

    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new(image.mode, (size, size), (background,) * len(image.getbands()))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return square


def flips(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Which images are mirrored: bool, one for each dataset index, a function of (seed, epoch, index) alone."""
    return (hash_indices(indices, stream_seed(seed, "flip", epoch)) >> np.uint64(63)).astype(bool)


def crop_draws(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """The random numbers of `crop_adm_random`: uint64 [n, 3], each row a function of (seed, epoch, dataset index)."""
    streams = [stream_seed(seed, "crop", what, epoch) for what in ("side", "top", "left")]
    return np.stack([hash_indices(indices, stream) for stream in streams], axis=1)


def _halved(image: PillowImage.Image, size: int) -> PillowImage.Image:
    from PIL import Image

    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return image


def _short_side_to(image: PillowImage.Image, size: int) -> PillowImage.Image:
    from PIL import Image

    scale = size / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def _square_at(image: PillowImage.Image, size: int, left: int, top: int) -> PillowImage.Image:
    return image.crop((left, top, left + size, top + size))


def _square_by_area(image: PillowImage.Image, side: int, size: int, left: int, top: int) -> PillowImage.Image:
    from PIL import Image

    return _square_at(image, side, left, top).resize((size, size), Image.Resampling.BOX)


def _to_pillow(image: Tensor) -> PillowImage.Image:
    from PIL import Image

    array = image[0] if image.shape[0] == 1 else image.permute(1, 2, 0)
    return Image.fromarray(array.contiguous().numpy())


def _from_pillow(image: PillowImage.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()

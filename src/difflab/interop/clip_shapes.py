"""What keys and shapes tell of a CLIP: everything but its activation, its heads and how images are normalized."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from difflab.config.validate import problem_in_words
from difflab.errors import UserError
from difflab.interop.keymap import Shapes
from difflab.networks.towers.config import OPENAI_MEAN, OPENAI_STD, Activation, CLIPConfig

_HEAD_WIDTH = 64
"""Of every CLIP of OpenAI, and most others."""


@dataclass(frozen=True)
class CLIPKeys:
    """Where a layout has what tells the shape of a CLIP.

    image_block, text_block: patterns of the keys of a block, whose group is its number.
    hidden:      the rest of the key of the first layer of a block's perceptron.
    transposed:  whether projections are [dim, width].
    first, stem, stage: of a ResNet, its first and its third convolution, and a pattern of blocks with the numbers of
                 stage and block.
    pool_position, pool_projection: of a ResNet. bias: the bias of the logits.
    """

    patch: str
    image_position: str
    image_projection: str
    image_block: str
    tokens: str
    text_position: str
    text_block: str
    hidden: str
    transposed: bool = False
    first: str = ""
    stem: str = ""
    stage: str = ""
    pool_position: str = ""
    pool_projection: str = ""
    bias: str = "logit_bias"

    def absent(self, shapes: Shapes) -> list[str]:
        """The keys of those that tell the shape which a state dict of such a CLIP does not have."""
        vit = (self.patch, self.image_position, self.image_projection)
        resnet = (self.first, self.stem, self.pool_position, self.pool_projection)
        # Only a ResNet has its third convolution.
        image = resnet if self.stem in shapes else vit
        return [key for key in (*image, self.tokens, self.text_position) if key not in shapes]


@dataclass(frozen=True)
class CLIPShape:
    """The values of a `CLIPConfig` that shapes tell, without heads; the number of pixels per side of its images."""

    values: dict[str, Any]
    image_size: int

    def config(
        self,
        activation: Activation,
        *,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        heads: Mapping[str, int] | None = None,
    ) -> CLIPConfig:
        """The configuration with what shapes do not tell; heads of 64 channels unless given for `image` and `text`.

        Raises UserError for a width that has no such heads.
        """
        values: dict[str, Any] = {
            **self.values,
            "activation": activation,
            "mean": mean or list(OPENAI_MEAN),
            "std": std or list(OPENAI_STD),
        }
        for name, width in self.attending.items():
            found = (heads or {}).get(name) or _heads_of(name, width)
            values[name] = {**values[name], "heads": found}
        try:
            return CLIPConfig.model_validate(values)
        except ValidationError as error:
            raise UserError(problem_in_words(error)) from error

    @property
    def attending(self) -> dict[str, int]:
        """Tower -> the channels that its heads share."""
        image, text = self.values["image"], self.values["text"]
        return {"image": image["width"] * (32 if image["kind"] == "resnet" else 1), "text": text["width"]}


def shape_of_clip(shapes: Shapes, keys: CLIPKeys) -> CLIPShape | None:
    """What the shapes of a state dict tell; None where the keys are not those of a CLIP."""
    try:
        image, image_size, channels, dim = (_vit if keys.image_position in shapes else _resnet)(shapes, keys)
        width = shapes[keys.tokens][1]
        text = {
            "kind": "transformer",
            "context_length": shapes[keys.text_position][0],
            "vocabulary": shapes[keys.tokens][0],
            "width": width,
            "layers": _blocks(shapes, keys.text_block),
            "mlp_ratio": ratio_of(shapes[_first(shapes, keys.text_block) + keys.hidden][0], width),
        }
    except UserError:
        raise
    except (KeyError, IndexError, StopIteration, ValueError, ZeroDivisionError):
        return None
    bias = {"logit_bias_init": 0.0} if keys.bias in shapes else {}
    values = {"kind": "clip", "channels": channels, "embedding_dim": dim, "image": image, "text": text, **bias}
    return CLIPShape(values, image_size)


def _vit(shapes: Shapes, keys: CLIPKeys) -> tuple[dict[str, Any], int, int, int]:
    width, channels, patch, _ = shapes[keys.patch]
    rows = shapes[keys.image_position][0]
    image = {
        "kind": "vit",
        "width": width,
        "patch_size": patch,
        "layers": _blocks(shapes, keys.image_block),
        "mlp_ratio": ratio_of(shapes[_first(shapes, keys.image_block) + keys.hidden][0], width),
    }
    dim = shapes[keys.image_projection][0 if keys.transposed else 1]
    return image, patch * _grid(rows, keys.image_position), channels, dim


def _resnet(shapes: Shapes, keys: CLIPKeys) -> tuple[dict[str, Any], int, int, int]:
    found = [match for key in shapes if (match := re.match(keys.stage, key))]
    stages = sorted({int(match[1]) for match in found})
    depths = [len({match[2] for match in found if int(match[1]) == stage}) for stage in stages]
    image = {"kind": "resnet", "depths": depths, "width": shapes[keys.stem][0]}
    rows = shapes[keys.pool_position][0]
    return image, 32 * _grid(rows, keys.pool_position), shapes[keys.first][1], shapes[keys.pool_projection][0]


def _grid(rows: int, key: str) -> int:
    grid = math.isqrt(max(0, rows - 1))
    if grid < 1 or grid * grid != rows - 1:
        raise UserError(f"{key} has {rows} rows, which are not a square of patches and one more")
    return grid


def _first(shapes: Shapes, block: str) -> str:
    return next(match[0] for key in shapes if (match := re.match(block, key)))


def _blocks(shapes: Shapes, block: str) -> int:
    return len({match[1] for key in shapes if (match := re.match(block, key))})


def ratio_of(hidden: int, width: int) -> float:
    """The ratio whose product with the width, rounded down, is the hidden width."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _heads_of(tower: str, width: int) -> int:
    if width % _HEAD_WIDTH:
        raise UserError(
            f"the number of heads of its {tower} tower cannot be told: {width} channels are no multiple of "
            f"{_HEAD_WIDTH}; name the experiment with --preset, or put the config.json of transformers or the "
            "open_clip_config.json beside it"
        )
    return width // _HEAD_WIDTH

"""A checkpoint of CompVis' codes (latent diffusion, Stable Diffusion), taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from difflab.errors import UserError
from difflab.interop.keymap import Shapes, shapes_of
from difflab.interop.unpickle import read_content

UNET, AVERAGES = "model.diffusion_model.", "model_ema."
STAGE, CONDITION = "first_stage_model.", "cond_stage_model."
SCALE = "scale_factor"
_WRAPPER = "state_dict"
_AVERAGED = "diffusion_model."
"""The beginning of the names of averages, which have lost their dots."""
_COUNTERS = ("decay", "num_updates")
_UNET_KEY, _STAGE_KEY = f"{UNET}input_blocks.0.0.weight", f"{STAGE}decoder.conv_in.weight"
Which = Literal["auto", "ema", "raw"]


@dataclass(frozen=True)
class Checkpoint:
    """The parts of a file, under the names that they have without the prefix of the part.

    averages: of the UNet, under the names of its weights; None if the file has none.
    tables:   the tensors beside the parts, such as betas.
    beside:   the entries of the file that are no tensors, by name.
    """

    path: Path
    format: str
    unet: Mapping[str, Tensor]
    averages: Mapping[str, Tensor] | None
    first_stage: Mapping[str, Tensor]
    condition: Mapping[str, Tensor]
    tables: Mapping[str, Tensor]
    beside: tuple[str, ...]

    @property
    def unet_shapes(self) -> Shapes:
        """The official shapes of the UNet."""
        return shapes_of(self.unet)

    def chosen(self, which: Which) -> tuple[Mapping[str, Tensor], str]:
        """The weights of the UNet: averages where there are some (`auto`), or those that are asked for; and a remark.

        Raises UserError if averages are asked for and there are none.
        """
        if self.averages is None:
            if which == "ema":
                raise UserError(f"{self.path}: has no averages ({AVERAGES}*): take --weights raw")
            return self.unet, f"it has no averages ({AVERAGES}*): took the weights as they are"
        if which == "raw":
            return self.unet, f"took the weights as they are, not their averages ({AVERAGES}*)"
        return self.averages, f"took the averages of training ({AVERAGES}*); --weights raw takes the weights themselves"


def open_checkpoint(path: Path) -> Checkpoint | None:
    """The parts of a file; None if it is not a checkpoint of a UNet with its first stage.

    Raises UserError for a file that cannot be read, or whose averages are of another network.
    """
    if not path.is_file():
        return None
    kind, content = read_content(path)
    if not isinstance(content, Mapping):
        return None
    wrapped = isinstance(content.get(_WRAPPER), Mapping)
    entries: Mapping[str, Any] = content[_WRAPPER] if wrapped else content
    tensors = {str(key): value for key, value in entries.items() if isinstance(value, Tensor)}
    if _UNET_KEY not in tensors or _STAGE_KEY not in tensors:
        return None
    unet = _within(tensors, UNET)
    tables = {key: value for key, value in tensors.items() if "." not in key}
    parts = (UNET, AVERAGES, STAGE, CONDITION)
    others = [key for key in tensors if "." in key and not key.startswith(parts)]
    beside = [str(key) for key in content if key != _WRAPPER] if wrapped else []
    return Checkpoint(
        path,
        kind,
        unet,
        _averages(path, tensors, unet),
        _within(tensors, STAGE),
        _within(tensors, CONDITION),
        tables,
        (*beside, *others, *(str(key) for key, value in entries.items() if not isinstance(value, Tensor) and wrapped)),
    )


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _averages(path: Path, tensors: Mapping[str, Tensor], unet: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Averages under the names of the weights, from which theirs are told, but not the other way round (`LitEma`)."""
    found = _within(tensors, AVERAGES)
    if not any(key not in _COUNTERS for key in found):
        return None
    flat = {key: (_AVERAGED + key).replace(".", "") for key in unet}
    lacking = [key for key, name in flat.items() if name not in found]
    if lacking:
        raise UserError(f"{path}: its averages ({AVERAGES}*) have no {lacking[0]}: they are of another network")
    return {key: found[name] for key, name in flat.items()}

"""Merges LoRA files into a latent diffusion model: W + scale * alpha / rank * up @ down (Hu et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from difflab.console import listed
from difflab.errors import UserError
from difflab.files import sha256_of
from difflab.interop.latent.lora_file import TEXT, UNET, Change, LoRAFile, read_lora
from difflab.interop.latent.parts import LatentModel
from difflab.interop.latent.pipeline_out import network_target
from difflab.interop.latent.presets import unet_keymap
from difflab.interop.latent_unets import DIFFUSERS_CONDITION_UNET
from difflab.interop.layout import NETWORK

_WEIGHT = ".weight"


def parsed(argument: str) -> tuple[Path, float]:
    """A file and the scale of its changes, from FILE or FILE:SCALE.

    Raises UserError for a scale that is no number, or not a finite one.
    """
    path, colon, scale = argument.rpartition(":")
    if not colon or Path(argument).exists():
        return Path(argument), 1.0
    try:
        number = float(scale)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"--lora {argument}: {scale!r} is not a number; write FILE or FILE:0.8")
    return Path(path), number


def merged(model: LatentModel, path: Path, scale: float) -> LatentModel:
    """The model with the changes of a LoRA file, `scale` times.

    Raises UserError for a file of another base, for one that changes a layer twice or to numbers that are not finite,
    and if nothing in it is of this model.
    """
    file = read_lora(path)
    state, left = _unet(model, file, scale)
    tower = model.tower
    if tower is not None:
        own = _by_name(tower.state)
        # Newer versions of transformers have no `text_model.` in the names.
        short = {name.removeprefix("text_model."): key for name, key in own.items()}
        text, unknown = _changed(file, TEXT, tower.state, [own, short], scale)
        tower, left = replace(tower, state=text), left + unknown
    else:
        left += list(file.changes[TEXT])
    total = sum(map(len, file.changes.values()))
    if len(left) == total:
        raise UserError(f"{path}: none of its {total} changes is of a layer of this model, as {listed(left, 2)}")
    notes = [f"merged {path} with scale {scale:g} into {total - len(left)} layers"]
    if left:
        notes.append(f"{path}: {len(left)} of its {total} changes match no layer: {listed(left, 6)}")
    record = {"file": path.name, "sha256": sha256_of(path), "scale": scale}
    return replace(model, state=state, tower=tower, notes=(*model.notes, *notes), merged=(*model.merged, record))


def _unet(model: LatentModel, file: LoRAFile, scale: float) -> tuple[dict[str, Tensor], list[str]]:
    """The state with the changes of the UNet, under whichever of the official names they are; and those left."""
    target = network_target(model.config)
    own = {key: value for key, value in model.state.items() if key.startswith(NETWORK)}
    others = {key: value for key, value in model.state.items() if key not in own}
    if not DIFFUSERS_CONDITION_UNET.takes(target.network):
        raise UserError(f"{file.path}: a LoRA is for a UNet with transformer blocks, and this model's has none")
    diffusers, compvis = DIFFUSERS_CONDITION_UNET.keymap(target), unet_keymap(target)
    official = diffusers.to_official(own)
    # Both names of a weight, where it is one tensor in both.
    renamed = {one.ours: one.official for one in compvis.entries}
    second = {
        renamed[one.ours][number].removesuffix(_WEIGHT): key
        for one in diffusers.entries
        for number, key in enumerate(one.official)
    }
    changed, left = _changed(file, UNET, official, [_by_name(official), second], scale)
    return {**diffusers.from_official(changed), **others}, left


def _by_name(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name of a module -> the key of its weight."""
    return {key.removesuffix(_WEIGHT): key for key in state if key.endswith(_WEIGHT)}


def _changed(
    file: LoRAFile, part: str, state: Mapping[str, Tensor], names: list[dict[str, str]], scale: float
) -> tuple[dict[str, Tensor], list[str]]:
    """The state with the changes of a part, and the names of those that match none of `names`."""
    # kohya's scripts write underscores in place of dots, from which a name is told but not the other way round.
    known = {form: key for table in names for name, key in table.items() for form in (name, name.replace(".", "_"))}
    changed, left = dict(state), []
    names_of: dict[str, str] = {}
    for module, change in file.changes[part].items():
        key = known.get(module)
        if key is None:
            left.append(module)
            continue
        if (other := names_of.setdefault(key, module)) != module:
            raise UserError(f"{file.path}: {other} and {module} are the same layer: take one of them out of the file")
        changed[key] = _applied(file.path, module, changed[key], change, scale)
    return changed, left


def _applied(path: Path, module: str, weight: Tensor, change: Change, scale: float) -> Tensor:
    delta = change.of(weight)
    if delta is None:
        assert change.down is not None, "it is whole"
        assert change.up is not None, "it is whole"
        raise UserError(
            f"{path}: a LoRA of another base: its change of {module} is {list(change.up.shape)} times "
            f"{list(change.down.shape)}, for a weight of {list(weight.shape)}"
        )
    after = (weight.float() + scale * delta).to(weight.dtype)
    if not after.isfinite().all() and weight.isfinite().all():
        raise UserError(f"{path}: with scale {scale:g}, its change of {module} gives numbers that are not finite")
    return after

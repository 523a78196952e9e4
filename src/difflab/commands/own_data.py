"""Fills in the values that training derives from its data, after a configuration is composed and before resolution.

`data.path=...` alone is then enough: size, channels and classes are those of the data set, and everything that refers
to them (`${data.classes}`) follows, as do options of networks and conditioners that depend on the image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab.config.axes import CONDITIONERS, NETWORKS
from difflab.config.groups import contents
from difflab.config.overrides import literal
from difflab.config.registry import Registry
from difflab.errors import UserError

if TYPE_CHECKING:
    from difflab.data.facts import DataFacts

FACTS = ("image_size", "channels", "classes", "class_names")
COLOUR = 3
OPEN = (None, "???")
UNKNOWN: dict[str, Any] = {"image_size": 32, "channels": 3}
"""Assumed when a configuration is only checked and the data does not exist yet."""
UNKNOWN_LATENTS = (4, 4)
"""Channels, and the factor f, that are assumed of a first stage that does not exist yet."""


def fill_in(composed: Any, choices: Mapping[str, Any], overrides: Sequence[str], *, checking: bool | None) -> list[str]:
    """Fills in the values that depend on the data and its size; returns messages about what was read.

    Facts in a file of the group `data` apply to the path in that file. For another path, and if the file leaves size or
    channels open, they are read from the data set at the path; values given by the user must agree with it.
    composed: an OmegaConf container, modified in place. checking: the data need not exist, and defaults are assumed;
    None if the configuration is only shown, and unknown values stay open.

    Raises UserError in one line for facts that do not agree or that the data lacks, and for data that is missing or
    unreadable.
    """
    from omegaconf import open_dict

    with open_dict(composed):
        if choices.get("first_stage") == "none" and not any(key.startswith("first_stage.") for key in _keys(overrides)):
            # An experiment's values for the first stage that it names are not those of none.
            composed.first_stage = None
        said = _fill_in_facts(composed, choices, overrides, checking=checking)
        _fill_in_what_suits(composed, overrides)
    return said


def fill_in_reference(
    composed: Any, choices: Mapping[str, Any], overrides: Sequence[str], *, checking: bool | None
) -> list[str]:
    """`fill_in` for a data set that existing samples are compared with, where its file leaves facts open."""
    from omegaconf import OmegaConf, open_dict

    data = composed.get("data")
    if not OmegaConf.is_dict(data) or not any(OmegaConf.is_missing(data, fact) for fact in UNKNOWN):
        return []
    with open_dict(composed):
        if OmegaConf.is_missing(data, "batch_size"):
            data.batch_size = composed.batch_size
        return _fill_in_facts(composed, choices, overrides, checking=checking)


def _fill_in_facts(
    composed: Any, choices: Mapping[str, Any], overrides: Sequence[str], *, checking: bool | None
) -> list[str]:
    from omegaconf import OmegaConf

    data: Any = OmegaConf.to_container(composed.data, resolve=True)
    path = data.get("path") if isinstance(data, dict) else None
    if not isinstance(path, str) or path in ("", "???"):
        return []
    stated = contents("data", str(choices.get("data"))) or {}
    is_open = any(data.get(fact) in OPEN for fact in UNKNOWN)
    if path == stated.get("path") and not is_open:
        return []
    if not Path(path).is_dir() and (checking is not False or not is_open):
        # Training itself reports that the data is missing.
        if checking:
            composed.data.update({fact: value for fact, value in UNKNOWN.items() if data.get(fact) in OPEN})
        return []
    from difflab.data.facts import facts_of

    facts = facts_of(path, "last_dot" if data.get("keys") == "last_dot" else "first_dot", data.get("made_with"))
    given = {fact for fact in FACTS if _is_given(fact, data, stated, overrides)}
    _refuse_disagreement({fact: data.get(fact) for fact in given}, data, facts)
    found = {fact: getattr(facts, fact) for fact in FACTS if fact not in given}
    if "classes" in given and facts.classes != data.get("classes"):
        found.pop("class_names", None)
    if found.get("channels", 3) is None:
        found["channels"] = 3
    composed.data.update({**found, "class_names": _verbatim(found["class_names"])} if "class_names" in found else found)
    changed = any(found[fact] != stated.get(fact) for fact in found if fact != "class_names")
    said = [f"{facts.says_so}: {facts.in_words()}"] if changed else []
    return said + _without_validation(composed, data, stated, overrides, facts)


def _without_validation(
    composed: Any, data: Mapping[str, Any], stated: Mapping[str, Any], overrides: Sequence[str], facts: DataFacts
) -> list[str]:
    """Own data need not have a validation split, unless one is requested by name."""
    split = data.get("val_split")
    is_requested = bool({"data.val_split", "trainer.val_every_steps"} & _keys(overrides))
    if is_requested or split is None or split != stated.get("val_split") or split in (facts.splits or [split]):
        return []
    composed.data.val_split = None
    validates = bool("trainer" in composed and composed.trainer.get("val_every_steps"))
    if validates:
        composed.trainer.val_every_steps = 0
    return [f"{facts.says_so}: no split {split!r}, so there is no validation"] if validates else []


def _is_given(fact: str, data: Mapping[str, Any], stated: Mapping[str, Any], overrides: Sequence[str]) -> bool:
    """Whether a fact is given by an override, by a file of another group, or as the size to which a file crops."""
    if fact in UNKNOWN and data.get(fact) in OPEN:
        return False
    if fact == "image_size" and stated.get("crop", "none") != "none":
        return True
    if f"data.{fact}" in _keys(overrides):
        return fact != "class_names" or data.get(fact) is not None
    return data.get(fact) != stated.get(fact)


def _refuse_disagreement(given: Mapping[str, Any], data: Mapping[str, Any], facts: DataFacts) -> None:
    from difflab.data.facts import MIXED_SIZES

    says, crop = facts.says_so, data.get("crop")
    if "image_size" not in given and facts.image_size is None and facts.channels is None:
        raise UserError(
            f"{says.parent} holds no image that can be read: `difflab data inspect {says.parent}` says what is in it"
        )
    if "image_size" not in given and facts.image_size is None:
        first = "" if crop not in (None, "none") else " and data.crop=adm, edm or resize_short"
        raise UserError(
            f"{says.parent} holds {MIXED_SIZES}: set data.image_size=...{first}, or make it with one "
            "(difflab data make ... resolution=...)"
        )
    size, channels, classes = (given.get(fact) for fact in ("image_size", "channels", "classes"))
    if crop == "none" and _differ(size, facts.image_size):
        raise UserError(
            f"{says} says {facts.image_size} px images, data.image_size={size}: set data.image_size="
            f"{facts.image_size} or leave it out, or choose a crop (data.crop=adm, edm or resize_short)"
        )
    if _differ(channels, facts.channels):
        raise UserError(
            f"data.channels={channels}, but {says} says {facts.channels}: leave data.channels out, and "
            f"network.channels={facts.channels} follows"
        )
    if isinstance(classes, int) and facts.classes is None:
        raise UserError(
            f"data.classes={classes}, but {data['path']} has no label (.cls files) in split {data['train_split']!r}: "
            "leave data.classes out, or make the data with classes (difflab data make ... classes=top)"
        )
    if isinstance(classes, int) and classes != facts.classes:
        raise UserError(f"data.classes={classes}, but {says} says {facts.classes}: leave data.classes out")


def _verbatim(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else [literal(name) for name in names]


def _differ(given: object, found: int | None) -> bool:
    # Values that are not numbers are refused by the validation.
    return isinstance(given, int) and found is not None and given != found


def _fill_in_what_suits(composed: Any, overrides: Sequence[str]) -> None:
    from omegaconf import OmegaConf

    data = OmegaConf.to_container(composed.data, resolve=True)
    size, channels = (data.get(fact) if isinstance(data, dict) else None for fact in UNKNOWN)
    # The validation reports errors in these, without values that would be derived from them.
    size = size if isinstance(size, int) and 1 <= size <= 1 << 16 else UNKNOWN["image_size"]
    channels = channels if isinstance(channels, int) else UNKNOWN["channels"]
    noised_channels, noised_size = _noised(composed.get("first_stage"), channels, size)
    network, conditioning = composed.get("network"), composed.get("conditioning")
    if OmegaConf.is_dict(network):
        if network.get("channels") in (None, COLOUR) and "network.channels" not in _keys(overrides):
            network.channels = noised_channels
        _suit(NETWORKS, "network", network, noised_size, noised_channels)
    for name, section in conditioning.items() if OmegaConf.is_dict(conditioning) else ():
        if OmegaConf.is_dict(section):
            # A condition, such as a low-resolution image, is one of the images, also where latents are noised.
            _suit(CONDITIONERS, f"conditioning.{name}", section, size, channels)


def _noised(section: Any, channels: int, size: int) -> tuple[int, int]:
    """Channels and pixels per side of what a network sees: of latents, if there is a first stage."""
    from omegaconf import OmegaConf

    if not OmegaConf.is_dict(section):
        return channels, size
    values: Any = OmegaConf.to_container(section, resolve=True)
    weights = values.get("weights")
    if not isinstance(weights, dict) or not any(weights.values()):
        # The validation reports that.
        return channels, size
    from difflab.config.validate import validate
    from difflab.networks.first_stage.config import FirstStageConfig

    try:
        config = validate(FirstStageConfig, values)
    except UserError:
        # The validation of the whole reports it.
        return channels, size
    try:
        latent, side, _ = config.described().latent_shape(size, size)
    except UserError:
        # Training itself reports that the first stage is missing, or is none.
        return UNKNOWN_LATENTS[0], max(size // UNKNOWN_LATENTS[1], 1)
    return latent, max(side, 1)


def _keys(overrides: Sequence[str]) -> set[str]:
    return {override.partition("=")[0].lstrip("+") for override in overrides}


def _suit(axis: Registry, key: str, section: Any, size: int, channels: int) -> None:
    """Fills in the options of a section's kind that depend on size and channels."""
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(section, resolve=True)
    name = values.get("kind")
    if not isinstance(name, str) or name not in axis:
        return
    config: Any = axis[name].config
    try:
        section.update(config.fitted(values, size, channels))
    except ValueError as error:
        raise UserError(f"{key}: {error}") from None

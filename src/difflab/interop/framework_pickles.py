"""Reads objects of training frameworks in pickles as plain records: nothing of theirs is imported, and none of it runs.

Official checkpoints of latent diffusion have Lightning's callbacks besides their weights, under the classes of these,
and others the configuration of their training, as OmegaConf's objects.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

_FRAMEWORKS = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf")
"""The packages whose objects say something of a training, and nothing of weights."""
_OF_RECORDS = (
    "typing.Any", "collections.defaultdict",
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "str", "int", "float", "bool", "object")),
)  # fmt: skip
"""The names besides theirs that such objects have in their state."""


class FrameworkRecord:
    """A class of a framework, whose objects are dictionaries: of their items if they have some."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:
        # torch's safe unpickler adds items to its own containers alone.
        return OrderedDict()


def framework_stand_ins(names: Iterable[str]) -> list[tuple[type[FrameworkRecord], str]]:
    """What torch's safe unpickler takes in place of the globals of a file that are the frameworks'.

    names: `module.name` of every global of the file.
    """
    found = {name for name in names if name.partition(".")[0] in _FRAMEWORKS}
    return [(FrameworkRecord, name) for name in (*_OF_RECORDS, *sorted(found))]

"""Which tensors of a module are trained, averaged, checkpointed and exported; the only place that decides this."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from difflab.errors import UserError
from difflab.networks.frozen import Frozen

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Count:
    """Numbers of parameters: trained ones, untrained ones that are written with the model, and those of frozen parts,
    which are never written."""

    trained: int
    frozen: int
    elsewhere: int

    @property
    def total(self) -> int:
        return self.trained + self.frozen + self.elsewhere


class HasTrainingOnly:
    """A module that may have parts that are used in training only, such as a discriminator."""

    def training_only(self) -> Sequence[nn.Module]:
        """Returns those parts: trained, and kept in checkpoints, but neither averaged nor exported."""
        return ()


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that the optimizers train, each under its first name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def averaged_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the averaged parameters, each under its first name: all trained ones but those used in training only."""
    places = training_only_places(module)
    if not places:
        return trained(module)
    lasting = {id(p) for name, p in module.named_parameters(remove_duplicate=False) if not is_inside(name, places)}
    return {name: p for name, p in trained(module).items() if id(p) in lasting}


def written(module: nn.Module) -> dict[str, Tensor]:
    """Returns the contents of a checkpoint, all of which are required to resume training.

    These are all parameters, trained or not, and the buffers; nothing of frozen parts.
    """
    return module.state_dict()


def exported(module: nn.Module) -> dict[str, Tensor]:
    """Returns the contents of an export or weights file: all that is `written` but the parts used in training only."""
    places = training_only_places(module)
    return {name: tensor for name, tensor in written(module).items() if not is_inside(name, places)}


def training_only_places(module: nn.Module) -> list[str]:
    """Returns the names of the modules that are used in training only."""
    parts = {id(part) for part in module.training_only()} if isinstance(module, HasTrainingOnly) else set()
    return [place for place, part in module.named_modules(remove_duplicate=False) if id(part) in parts]


def is_inside(name: str, places: Iterable[str]) -> bool:
    """Whether a parameter or buffer of this name belongs to one of the modules at `places`."""
    return any(name.startswith(f"{place}.") for place in places)


def frozen_parts(module: nn.Module) -> dict[str, Frozen]:
    """Returns the parts whose weights are stored elsewhere, by their names in the module."""
    return {name: part for name, part in module.named_modules() if isinstance(part, Frozen)}


def frozen_state(module: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors of the frozen parts, which must be loaded, under the names of the parts.

    For the layouts of other programs, which do not store parts separately.
    """
    parts = frozen_parts(module).items()
    return {f"{name}.{key}": tensor for name, part in parts for key, tensor in part.module.state_dict().items()}


def count(module: nn.Module) -> Count:
    """Returns the number of parameters of each kind; of frozen parts, those that are loaded."""
    own = list(module.parameters())
    parts = {id(part.module): part.module for part in frozen_parts(module).values() if part.is_loaded}
    return Count(
        trained=sum(p.numel() for p in own if p.requires_grad),
        frozen=sum(p.numel() for p in own if not p.requires_grad),
        elsewhere=sum(p.numel() for part in parts.values() for p in part.parameters()),
    )


def frozen_names(module: nn.Module, freeze: Sequence[str], train: Sequence[str]) -> set[str]:
    """Returns the parameters that `init.freeze` and `init.train` exclude from training, under all their names.

    A parameter is frozen if a pattern of `freeze` matches one of its names and none of `train` does; without `freeze`,
    only parameters that match `train` are trained.
    Raises UserError if a pattern matches nothing, or if nothing is left to train.
    """
    if not freeze and not train:
        return set()
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    known = [name for same in names.values() for name in same]
    for key, patterns in (("freeze", freeze), ("train", train)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in known):
                raise UserError(f"init.{key}: {pattern!r} matches no parameter; {_near(pattern, known, module)}")
    kept = [same for same in names.values() if _matches(same, freeze or ("*",)) and not _matches(same, train)]
    if len(kept) == len(names):
        raise UserError(
            f"init.freeze={_as_list(freeze)} leaves nothing to train; name a part in init.train, as in "
            f"'init.train=[{_groups(known)[0]}]'"
        )
    return {name for same in kept for name in same}


def freeze_named(module: nn.Module, names: Iterable[str]) -> None:
    """Excludes these parameters from training."""
    chosen = set(names)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name in chosen:
            parameter.requires_grad_(False)


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _near(pattern: str, known: Sequence[str], module: nn.Module) -> str:
    inside = [place for place in frozen_parts(module) if fnmatchcase(f"{place}.", f"{pattern.rstrip('*')}*")]
    if inside:
        return f"{inside[0]} is a frozen part, which is never trained"
    if any(name.startswith(f"{pattern}.") for name in known):
        return f"write {pattern}.* for all of it"
    groups = _groups(known)
    near = difflib.get_close_matches(pattern, [*groups, *known], n=_NAMES_SHOWN, cutoff=0.5)
    return f"near it are {', '.join(near)}" if near else f"there are {', '.join(groups[:_NAMES_SHOWN])}, ..."


def _groups(known: Sequence[str]) -> list[str]:
    """Returns a pattern for each module that has parameters, the shortest first."""
    groups = {f"{place}.*" for name in known for place in _places(name)}
    return sorted(groups, key=lambda group: (group.count("."), group))


def _places(name: str) -> Iterator[str]:
    parts = name.split(".")
    for end in range(1, len(parts)):
        yield ".".join(parts[:end])


def _as_list(patterns: Sequence[str]) -> str:
    return f"[{','.join(patterns)}]"

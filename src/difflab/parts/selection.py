"""What of a module is trained, averaged, kept in checkpoints and exported: everybody who lists it asks here."""

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
    """Numbers of parameters: those that are trained, those that stay but are written with the model, and those of its
    frozen parts, which are never written."""

    trained: int
    frozen: int
    elsewhere: int

    @property
    def total(self) -> int:
        return self.trained + self.frozen + self.elsewhere


class HasTrainingOnly:
    """A module that may have parts of no use after training, such as a discriminator."""

    def training_only(self) -> Sequence[nn.Module]:
        """Those parts: trained, and kept in checkpoints, but neither averaged nor exported."""
        return ()


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, each under its first name: those of the optimizers."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def averaged_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters that averages follow, each under its first name: all but those of training alone."""
    places = training_only_places(module)
    if not places:
        return trained(module)
    lasting = {id(p) for name, p in module.named_parameters(remove_duplicate=False) if not is_inside(name, places)}
    return {name: p for name, p in trained(module).items() if id(p) in lasting}


def written(module: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds, and has to hold when training goes on.

    All parameters, trained or not, and the buffers; of frozen parts nothing.
    """
    return module.state_dict()


def exported(module: nn.Module) -> dict[str, Tensor]:
    """What an export and a file of weights hold: of what is `written` all but the parts of training alone."""
    places = training_only_places(module)
    return {name: tensor for name, tensor in written(module).items() if not is_inside(name, places)}


def training_only_places(module: nn.Module) -> list[str]:
    """Where the parts stand that only training needs."""
    parts = {id(part) for part in module.training_only()} if isinstance(module, HasTrainingOnly) else set()
    return [place for place, part in module.named_modules(remove_duplicate=False) if id(part) in parts]


def is_inside(name: str, places: Iterable[str]) -> bool:
    """Whether a parameter or buffer of this name belongs to one of the modules at `places`."""
    return any(name.startswith(f"{place}.") for place in places)


def frozen_parts(module: nn.Module) -> dict[str, Frozen]:
    """The parts whose weights come from elsewhere, by where they stand in the module."""
    return {name: part for name, part in module.named_modules() if isinstance(part, Frozen)}


def frozen_state(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of the frozen parts, which have to be loaded, under the names at which the parts stand.

    For layouts of other programs, which know no part that lies elsewhere.
    """
    parts = frozen_parts(module).items()
    return {f"{name}.{key}": tensor for name, part in parts for key, tensor in part.module.state_dict().items()}


def count(module: nn.Module) -> Count:
    """How many parameters there are of each sort; those of frozen parts as far as they are loaded."""
    own = list(module.parameters())
    parts = {id(part.module): part.module for part in frozen_parts(module).values() if part.is_loaded}
    return Count(
        trained=sum(p.numel() for p in own if p.requires_grad),
        frozen=sum(p.numel() for p in own if not p.requires_grad),
        elsewhere=sum(p.numel() for part in parts.values() for p in part.parameters()),
    )


def frozen_names(module: nn.Module, freeze: Sequence[str], train: Sequence[str]) -> set[str]:
    """The parameters that `init.freeze` and `init.train` keep from being trained, under all their names.

    A parameter is frozen where a pattern of `freeze` matches one of its names and none of `train` does; without
    `freeze`, `train` names all that is trained.
    Raises UserError for a pattern that matches nothing, and where nothing is left to train.
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
    """Keep these parameters from being trained."""
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
    """A pattern for each module that has parameters, the shortest first."""
    groups = {f"{place}.*" for name in known for place in _places(name)}
    return sorted(groups, key=lambda group: (group.count("."), group))


def _places(name: str) -> Iterator[str]:
    parts = name.split(".")
    for end in range(1, len(parts)):
        yield ".".join(parts[:end])


def _as_list(patterns: Sequence[str]) -> str:
    return f"[{','.join(patterns)}]"

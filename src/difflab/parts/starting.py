"""Initial weights from another model: which are used, and which must not be omitted silently."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from difflab.config.init import WeightsInitConfig
from difflab.errors import UserError, user_errors
from difflab.interop.keymap import Shapes, describe_differences, refuse_misfit, shapes_of
from difflab.parts.selection import (
    count,
    exported,
    freeze_named,
    frozen_names,
    is_inside,
    trained,
    training_only_places,
)

_NAMES_SHOWN = 3
_NETWORK = "network."

_log = logging.getLogger(__name__)


@runtime_checkable
class TakesOtherSizes(Protocol):
    """A network that can begin with the weights of one for inputs of other sizes."""

    def fitted(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Returns its state dict, and a line for each tensor that was changed. Raises ValueError if it cannot."""
        ...


@dataclass(frozen=True)
class Started:
    """The tensors with which a model was initialised.

    taken: tensors from the source. extended: the one among them that was given more input channels.
    left: descriptions of unmatched tensors on either side, empty unless that was permitted.
    """

    taken: tuple[str, ...]
    extended: str | None
    left: tuple[str, ...]

    def lines(self, source: str, total: int) -> list[str]:
        """Returns what the user must know, one line each; `total` is the model's number of tensors."""
        lines = []
        if self.extended is not None:
            lines.append(f"init: {self.extended} has more input channels than {source}; the new ones begin at zero")
        if self.left:
            shown = "; ".join(self.left[:_NAMES_SHOWN])
            more = (
                f" and {len(self.left) - _NAMES_SHOWN} more, listed in log.txt" if len(self.left) > _NAMES_SHOWN else ""
            )
            lines.append(
                f"init: {len(self.taken)} of {total} tensors from {source} ({_shown(self.taken)}); not: {shown}{more}"
            )
        return lines


def choose_trained(module: nn.Module, init: WeightsInitConfig) -> list[str]:
    """Excludes parameters from training by `init.freeze` and `init.train`; returns lines that say how many are left."""
    names = frozen_names(module, init.freeze, init.train)
    if not names:
        return []
    freeze_named(module, names)
    numbers = count(module)
    return [f"init: {numbers.trained} of {numbers.trained + numbers.frozen} parameters are trained"]


def start_from(module: nn.Module, state: Mapping[str, Tensor], source: str, init: WeightsInitConfig) -> list[str]:
    """Initialises `module` with the weights `state` of `source`; returns lines on tensors that were not simply copied.

    Raises UserError if they do not fit, or if frozen parameters would be left without weights.
    """
    expected = shapes_of(exported(module))
    state, fitted = _fitted(module, state, source)
    frozen = frozen_names(module, init.freeze, init.train)
    extended = None
    if init.extend_input is not None:
        key = _input_weight(module)
        state, extended = {**state, key: _extended(state, expected, key, source)}, key
        if key in frozen:
            raise UserError(
                f"init.extend_input={init.extend_input}, but {key} is frozen, so that its new channels would stay at "
                f"zero: add it to init.train, or leave it out of init.freeze"
            )
    if not init.partial:
        refuse_misfit(state, expected, source, hint=_hint(module, state, expected))
    started = _take(module, state, expected, extended, source)
    if not started.taken:
        refuse_misfit(state, expected, source, "has nothing that fits")
    _refuse_frozen_at_random(frozen, started.taken, source)
    for name in started.taken if started.left else ():
        _log.info("init: taken from %s: %s", source, name)
    for phrase in started.left:
        _log.info("init: not taken from %s: %s", source, phrase)
    return fitted + started.lines(source, len(expected)) + _untrained(module, source)


def _untrained(module: nn.Module, source: str) -> list[str]:
    """Returns a line for each part that is trained, but in no export."""
    places = training_only_places(module)
    return [
        f"init: {place}.* begins untrained: {source} has no weights of it, which a run keeps in its checkpoints alone "
        "(resume=CHECKPOINT goes on with them)"
        for place in places
        if any(is_inside(name, [place]) for name in trained(module))
    ]


def _fitted(module: nn.Module, state: Mapping[str, Tensor], source: str) -> tuple[Mapping[str, Tensor], list[str]]:
    """Returns the weights for the sizes of this network, where it can take those of others, and what was changed."""
    network = getattr(module, "network", None)
    if not isinstance(network, TakesOtherSizes):
        return state, []
    own = {key.removeprefix(_NETWORK): value for key, value in state.items() if key.startswith(_NETWORK)}
    with user_errors(source):
        fitted, lines = network.fitted(own)
    return {**state, **{_NETWORK + key: value for key, value in fitted.items()}}, [f"init: {line}" for line in lines]


def _hint(module: nn.Module, state: Mapping[str, Tensor], expected: Shapes) -> str:
    """Returns the options that accept weights that do not fit unchanged; empty if there are none."""
    fitting = _fitting(state, expected).keys()
    if not fitting:
        return ""
    options = []
    key = f"network.{getattr(getattr(module, 'network', None), 'input_weight', None)}"
    more = key in expected and key in state and _takes_more(expected[key], state[key])
    if more:
        options.append("init.extend_input=zero begins with weights of zero for the new input channels")
    if state.keys() | expected.keys() != fitting | ({key} if more else set()):
        options.append("init.partial=true takes what fits")
    return "".join(f"; {option}" for option in options)


def _takes_more(wanted: tuple[int, ...], weight: Tensor) -> bool:
    """Whether two weights differ only in their input channels, with more channels in the wanted one."""
    there = tuple(weight.shape)
    return len(there) == len(wanted) and there[1] < wanted[1] and (there[0], *there[2:]) == (wanted[0], *wanted[2:])


def _fitting(state: Mapping[str, Tensor], expected: Shapes) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if expected.get(name) == tuple(value.shape)}


def _take(
    module: nn.Module, state: Mapping[str, Tensor], expected: Shapes, extended: str | None, source: str
) -> Started:
    fitting = _fitting(state, expected)
    broken = next((name for name, value in fitting.items() if not bool(torch.isfinite(value).all())), None)
    if broken is not None:
        raise UserError(f"{source}: {broken} is not finite (NaN or infinite): take other weights")
    module.load_state_dict(fitting, strict=False)
    left = describe_differences(shapes_of(state), expected)
    return Started(tuple(name for name in expected if name in fitting), extended, tuple(left))


def _input_weight(module: nn.Module) -> str:
    """Returns the name of the network's first convolution weight, which has the input channels."""
    name = getattr(getattr(module, "network", None), "input_weight", None)
    if name is None:
        raise UserError("init.extend_input: this network has no input channels that could be more; leave it out")
    return f"network.{name}"


def _extended(state: Mapping[str, Tensor], expected: Shapes, key: str, source: str) -> Tensor:
    weight, wanted = state.get(key), expected[key]
    if weight is None:
        raise UserError(f"init.extend_input: {source} has no {key} that could be extended")
    if weight.ndim != len(wanted) or weight.shape[1] >= wanted[1]:
        raise UserError(
            f"init.extend_input: the network takes {wanted[1]} input channels, {source} "
            f"{weight.shape[1] if weight.ndim > 1 else 'none'}: there is nothing to extend; leave it out"
        )
    # The source's channels come first: conditioning is concatenated after the image.
    shape = (*weight.shape[:1], wanted[1] - weight.shape[1], *weight.shape[2:])
    return torch.cat([weight, weight.new_zeros(shape)], dim=1)


def _refuse_frozen_at_random(frozen: Collection[str], taken: Collection[str], source: str) -> None:
    missing = sorted(set(frozen) - set(taken))
    if missing:
        raise UserError(
            f"{source} does not give {_shown(missing)}, which init.freeze keeps from being trained: random weights "
            "would stay; train them, as in 'init.train=[...]', or take another source"
        )


def _shown(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:_NAMES_SHOWN])
    return f"{first}, ..." if len(names) > _NAMES_SHOWN else first

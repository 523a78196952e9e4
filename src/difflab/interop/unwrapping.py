"""Finds the state dict in the content of a file: under wrapper names, in any order and depth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from difflab.console import listed
from difflab.errors import UserError
from difflab.interop.layout import NETWORK
from difflab.interop.layouts import LAYOUTS, OUR_MARKERS, is_our_scalar, is_ours, marked_layouts
from difflab.interop.numpy_pickles import NumpyArray
from difflab.interop.unpickle import read_content

WRAPPERS = (
    "ema", "ema_model", "ema_state_dict", "model_ema", "state_dict", "model_state_dict", "model", "module", "net",
    "network", "unet", "online_model", "diffusion_model", "denoise_fn", "params_ema", "params",
)  # fmt: skip
"""Names under which programs store their weights: entries of a checkpoint, or the first parts of its keys."""

_BY_TORCH = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch's own wrappers insert into keys, at any place."""
_NOT_WEIGHTS = ("optim", "sched", "scaler", "rng", "random", "callbacks", "loops")
"""Beginnings of the names of entries that hold tensors, but no weights."""
_MARKERS = (
    *((layout.marker, *layout.beside) for layout in LAYOUTS.values()),
    *(tuple(prefix + key for key in marks) for prefix in (NETWORK, "") for marks in OUR_MARKERS),
)
"""The keys that tell a network of a known layout, the first of them and those that it has besides."""
_DEEPEST = 16


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file. `notes` describes, in one line each, the steps taken to find them.

    beside: tensors next to the prefix of their keys, by name: tables of a noise schedule, for example.
    """

    path: Path
    format: str
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    beside: Mapping[str, Tensor] = field(default_factory=dict)


def read_weights(path: str | Path, wrapper: str | None = None) -> WeightFile:
    """The state dict in a .safetensors file or in one written by torch.save (.pt, .pth, .ckpt, .bin).

    wrapper: the location of the weights, the names of nested entries (and of key prefixes) joined by dots, as in
             `ema` or `state_dict.ema_model`; None if the file has one state dict.
    Nothing in the file is executed. Raises UserError for a file that cannot be read (see `read_content`), that holds no
    weights, or that holds several state dicts if `wrapper` selects none.
    """
    path = Path(path)
    kind, content = read_content(path)
    state, beside, notes = unwrap(path, content, wrapper)
    if path.suffix == ".safetensors" and kind != "safetensors":
        notes.insert(0, f"the file is a {kind}, although its name says safetensors")
    if kind == "torchscript":
        notes.insert(0, "a TorchScript archive, of which the tensors were read and the code was not")
    return WeightFile(path, kind, state, tuple(notes), beside)


def unwrap(
    path: Path, content: Any, wrapper: str | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """The state dict in the content of the file `path`, the tensors beside its prefix, and one line for each step taken
    to find it."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state dict")
    notes: list[str] = []
    if wrapper is None and _is_our_checkpoint(content):
        wrapper = "state_dict"
        notes.append("a training checkpoint of difflab: its averages, if it has any, are under callbacks.EMA.averages")
    tensors = _without_torch_wrappers(dict(_tensors_in(content)), notes)
    if wrapper is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if f"{name}.".startswith(f"{wrapper}.")}
    if not tensors:
        where = "no weights in it" if wrapper is None else f"has no weights under {wrapper!r}"
        raise UserError(f"{path}: {where}; its entries are {listed(content) or 'none'}")
    root = _only_root(path, tensors, "" if wrapper is None else f"{wrapper}.")
    state = {name.removeprefix(root): tensor for name, tensor in tensors.items() if name.startswith(root)}
    if (layouts := marked_layouts(state)) or is_ours(state):
        # Step counters beside the weights; of a network of a known layout it is known which scalars are weights.
        weights = (*(layout.is_weight for layout in layouts), is_our_scalar)
        state = {name: tensor for name, tensor in state.items() if tensor.ndim or any(is_(name) for is_ in weights)}
    return state, _beside(root, tensors), notes + _notes(content, root, state)


def _is_our_checkpoint(content: Mapping[Any, Any]) -> bool:
    return isinstance(content.get("difflab"), Mapping) and isinstance(content.get("state_dict"), Mapping)


def _tensors_in(content: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested mappings under its dotted name; numpy arrays only if there is no tensor at all."""
    found = dict(_leaves(content, ()))
    if tensors := {name: leaf for name, leaf in found.items() if isinstance(leaf, Tensor)}:
        yield from tensors.items()
        return
    for name, leaf in found.items():
        if isinstance(leaf, NumpyArray) and leaf.shape and (tensor := leaf.tensor()) is not None:
            yield name, tensor


def _leaves(content: Mapping[Any, Any], above: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    # A file may contain a mapping in itself, or nest more of them than Python can follow.
    if id(content) in above or len(above) == _DEEPEST:
        return
    for key, value in content.items():
        if isinstance(value, Mapping):
            for name, leaf in _leaves(value, (*above, id(content))):
                yield f"{key}.{name}", leaf
        elif isinstance(value, Tensor | NumpyArray):
            yield str(key), value


def _without_torch_wrappers(tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    for part in _BY_TORCH:
        renamed = {".".join(p for p in name.split(".") if p != part): tensor for name, tensor in tensors.items()}
        if renamed.keys() != tensors.keys() and len(renamed) == len(tensors):
            tensors = renamed
            notes.append(f"dropped {part + '.'!r} from the keys")
    return tensors


def _only_root(path: Path, tensors: Mapping[str, Tensor], given: str) -> str:
    """The prefix of every key of the one state dict in `tensors`, all of which begin with `given`."""
    roots = _marked_roots(tensors) or _likely_roots(tensors, given)
    if len(roots) == 1:
        return roots[0]
    counts = {root: sum(name.startswith(root) for name in tensors) for root in roots}
    sets = ", ".join(f"{root.rstrip('.') or 'the top'} ({count} tensors)" for root, count in counts.items())
    example = next(root for root in roots if root).rstrip(".")
    raise UserError(f"{path}: holds several sets of weights, {sets}; choose one, as with --wrapper {example}")


def _marked_roots(tensors: Mapping[str, Tensor]) -> list[str]:
    """The prefixes of networks of known layouts, found by their marker keys."""
    roots: dict[str, None] = {}
    for name in tensors:
        for marker, *beside in _MARKERS:
            root = name.removesuffix(marker)
            if root != name and (not root or root.endswith(".")) and all(root + key in tensors for key in beside):
                roots[root] = None
                break
    return list(roots)


def _beside(root: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors, by name, next to the last part of `root`."""
    above = root[:-1].rpartition(".")[0]
    above = f"{above}." if above else ""
    names = {name: name.removeprefix(above) for name in tensors if name.startswith(above)}
    return {short: tensors[name] for name, short in names.items() if root and "." not in short}


def _likely_roots(tensors: Mapping[str, Tensor], given: str) -> list[str]:
    """The same for files of unknown networks, found by the usual names of wrappers."""
    names = [name for name in tensors if not name.removeprefix(given).lower().startswith(_NOT_WEIGHTS)]
    roots = [given]
    while True:
        following = [deeper for root in roots for deeper in _wrappers_below(root, names) or [root]]
        if following == roots:
            return roots
        roots = following


def _wrappers_below(root: str, names: Iterable[str]) -> list[str]:
    parts = {name.removeprefix(root).partition(".")[0]: None for name in names if name.startswith(root)}
    return [f"{root}{part}." for part in parts if part in WRAPPERS and f"{root}{part}" not in names]


def _notes(content: Mapping[Any, Any], root: str, state: Mapping[str, Tensor]) -> list[str]:
    """What was used and what was left out."""
    entries: list[str] = []
    beside: list[str] = []
    rest = root
    while isinstance(content.get(name := rest.partition(".")[0]), Mapping):
        beside += [str(key) for key in content if key != name]
        entries.append(name)
        content, rest = content[name], rest.partition(".")[2]
    notes = [f"took the weights under {'.'.join(entries)!r}"] if entries else []
    taken = {rest + key for key in state}
    left_out = {key: value for key, value in content.items() if not _contributes(str(key), taken)}
    for what, of_tensors in (("entries that are not tensors", False), ("tensors", True)):
        if names := [key for key, value in left_out.items() if isinstance(value, Tensor) == of_tensors]:
            notes.append(f"left out {what}: {listed(names)}")
    if beside:
        notes.append(f"left out the entries beside it: {listed(beside)}")
    if rest:
        notes.append(f"dropped the prefix {rest!r} of every key")
    return notes


def _contributes(key: str, taken: set[str]) -> bool:
    name = ".".join(part for part in key.split(".") if part not in _BY_TORCH)
    return name in taken or any(other.startswith(f"{name}.") for other in taken)

"""A part of a model that is never trained and whose weights lie elsewhere: a text encoder, a first stage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from typing_extensions import override

from difflab.config.parts import FrozenConfig

_LOADED: WeakValueDictionary[Hashable, nn.Module] = WeakValueDictionary()
"""The modules that are loaded in this process: every model that has one of them has the same."""
_CPU = torch.device("cpu")


class Frozen(nn.Module):
    """`build(*arguments)` with the weights of a file, as a part of a model.

    source: the file. arguments: hashable; what builds the same module from the same file is loaded once in a process.

    The module inside is no submodule: no parameter of it is listed or trained, none of its tensors stands in a state
    dict or is asked for on loading, and it stays in evaluation mode whatever mode the model is in. It goes to the
    device that the model goes to. Gradients pass through it.

    It is empty until `difflab.parts.loading.load_frozen` of the model that it is a part of; calling it calls the module
    inside.
    """

    def __init__(self, source: FrozenConfig, build: Callable[..., nn.Module], *arguments: Hashable) -> None:
        super().__init__()
        self.source = source
        self._build, self._arguments = build, arguments
        self._sha256: str | None = None
        # Not by attribute: nn.Module would make a submodule of it.
        self.__dict__["_inner"] = None

    @property
    def is_loaded(self) -> bool:
        return self.__dict__["_inner"] is not None

    @property
    def module(self) -> nn.Module:
        """The module with its weights."""
        inner = self.__dict__["_inner"]
        assert inner is not None, "load_frozen comes before a frozen part is used"
        return inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def shares(self, sha256: str) -> bool:
        """Take the module that this process has loaded with the weights of that hash; whether there is one."""
        found = _LOADED.get(self._key(sha256, _CPU, None))
        if found is not None:
            self._hold(found, sha256)
        return found is not None

    def empty(self) -> nn.Module:
        """A module to be filled with the weights, on the CPU. Nothing is drawn from the random state of the process."""
        # Not on the meta device: buffers that no file holds would stay there.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            return self._build(*self._arguments)

    def fill(self, module: nn.Module, sha256: str) -> None:
        """Take `module`, with its weights on the CPU, as the part."""
        module.eval().requires_grad_(False)
        where = _where(module)
        for key in (self._key(sha256, _CPU, None), self._key(sha256, where.device, where.dtype)):
            _LOADED[key] = module
        self._hold(module, sha256)

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        super()._apply(fn, recurse)
        if self.is_loaded:
            self._go_where(fn)
        return self

    def _go_where(self, fn: Callable[[Tensor], Tensor]) -> None:
        # Another model may hold this module and stay where it is.
        now = _where(self.module)
        then = fn(torch.empty(0, device=now.device, dtype=now.dtype))
        if (then.device, then.dtype) == (now.device, now.dtype):
            return
        assert self._sha256 is not None
        key = self._key(self._sha256, then.device, then.dtype)
        found = _LOADED.get(key)
        if found is None:
            found = _LOADED[key] = copy.deepcopy(self.module).to(then.device, then.dtype)
        self._hold(found, self._sha256)

    def _hold(self, module: nn.Module, sha256: str) -> None:
        self.__dict__["_inner"], self._sha256 = module, sha256

    def _key(self, sha256: str, device: torch.device, dtype: torch.dtype | None) -> Hashable:
        return sha256, self._build, self._arguments, str(device), dtype


def _where(module: nn.Module) -> Tensor:
    """A tensor on the device and of the type of the module's weights."""
    return next((t for t in module.state_dict().values() if t.is_floating_point()), torch.empty(0))

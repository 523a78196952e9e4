"""A part of a model that is never trained and stored separately: a text encoder, a first stage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from typing_extensions import override

from difflab.config.parts import FrozenConfig

_LOADED: WeakValueDictionary[Hashable, nn.Module] = WeakValueDictionary()
"""The modules loaded in this process, shared by all models that use them."""
_CPU = torch.device("cpu")


class Frozen(nn.Module):
    """`build(*arguments)` with the weights of a file, as part of a model.

    source: the file. arguments: hashable; the same module from the same file is loaded once per process.
    unused: the names of modules in the file that this one does not have.

    The inner module is not a submodule: its parameters are not listed or trained, its tensors are neither in the state
    dict nor required on loading, and it is in evaluation mode whatever the mode of the model. It follows the model to
    its device. Gradients pass through it.

    It is empty until `difflab.parts.loading.load_frozen` is called on the model; calling it calls the inner module.
    """

    def __init__(
        self,
        source: FrozenConfig,
        build: Callable[..., nn.Module],
        *arguments: Hashable,
        unused: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.source, self.unused = source, tuple(unused)
        self._build, self._arguments = build, arguments
        self._sha256: str | None = None
        # Not set as an attribute, which nn.Module would register as a submodule.
        self.__dict__["_inner"] = None

    @property
    def is_loaded(self) -> bool:
        return self.__dict__["_inner"] is not None

    @property
    def module(self) -> nn.Module:
        """The inner module with its weights."""
        inner = self.__dict__["_inner"]
        assert inner is not None, "load_frozen must be called before a frozen part is used"
        return inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def shares(self, sha256: str) -> bool:
        """Uses the module already loaded in this process with weights of that hash; returns whether there is one."""
        found = _LOADED.get(self._key(sha256, _CPU, None))
        if found is not None:
            self._hold(found, sha256)
        return found is not None

    def empty(self) -> nn.Module:
        """Returns a module to be filled with weights, on the CPU. The global random state is not used."""
        # Not on the meta device: buffers that no file holds would stay there.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            return self._build(*self._arguments)

    def fill(self, module: nn.Module, sha256: str) -> None:
        """Sets `module`, with its weights on the CPU, as the inner module."""
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
        # Another model may share this module and keep it on its device.
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
    """Returns a tensor on the device and of the dtype of the module's weights."""
    return next((t for t in module.state_dict().values() if t.is_floating_point()), torch.empty(0))

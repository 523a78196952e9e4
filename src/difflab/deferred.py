"""Deferred imports: what Lightning and torchvision load, but training never uses."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def defer_imports() -> None:
    """Defers torchmetrics, torchvision and torch's compiler, except for the parts that training needs.

    They are loaded normally once anything else of them is used. Together they take longer than all other imports of
    training besides torch: torchmetrics brings several hundred metrics and scipy.signal, torchvision its models, and
    both of them, like Lightning, the compiler. Call it before the first import of Lightning; packages that are already
    loaded are left unchanged.
    """
    for name, light in _LIGHT.items():
        if name not in sys.modules:
            _put_off(name, light)


@dataclass(frozen=True)
class _Light:
    """What can be used of a package before it is loaded.

    modules: its submodules that can be imported alone. attributes: those available without it, by name.
    """

    modules: Sequence[str]
    attributes: Mapping[str, Callable[[], Any]]


def _attribute(module: str, name: str, *before: str) -> Callable[[], Any]:
    def find() -> Any:
        for other in before:
            importlib.import_module(other)
        return getattr(importlib.import_module(module), name)

    return find


class _Compiled(type):
    """Metaclass of a stand-in for compiled modules, which has no instances before the compiler is loaded."""

    def __instancecheck__(cls, instance: object) -> bool:
        compiler = sys.modules.get("torch._dynamo.eval_frame")
        return compiler is not None and isinstance(instance, compiler.OptimizedModule)


class OptimizedModule(metaclass=_Compiled):
    """A stand-in for `torch._dynamo.OptimizedModule` in Lightning's isinstance checks."""


def _disable() -> Callable[..., Any]:
    import torch

    def disable(fn: Any = None, recursive: bool = True, **options: Any) -> Any:
        """`torch.compiler.disable`, which loads the compiler at the first call of the guarded function."""
        if "wrapping" in options:
            # This is that first call.
            load(sys.modules["torch._dynamo"])
            return torch._dynamo.disable(fn, recursive, **options)
        return torch._disable_dynamo(fn, recursive)

    return disable


def _no_graph_to_break(msg: str = "") -> None:
    """`torch._dynamo.graph_break` without compilation; optimizers call it at every step."""


_LIGHT = {
    "torchmetrics": _Light(
        ("__about__", "aggregation", "collections", "metric", "utilities"),
        {
            "__version__": _attribute("torchmetrics.__about__", "__version__"),
            "_logger": lambda: logging.getLogger("torchmetrics"),
            # Its modules import each other in a cycle that can only be entered at one point.
            "Metric": _attribute("torchmetrics.metric", "Metric", "torchmetrics.utilities"),
            "MetricCollection": _attribute("torchmetrics.collections", "MetricCollection", "torchmetrics.utilities"),
        },
    ),
    "torchvision": _Light(
        ("_internally_replaced_utils", "_utils", "extension", "io", "utils", "version"),
        {"__version__": _attribute("torchvision.version", "__version__")},
    ),
    "torch._dynamo": _Light(
        (), {"OptimizedModule": lambda: OptimizedModule, "disable": _disable, "graph_break": lambda: _no_graph_to_break}
    ),
}


class _Deferred(ModuleType):
    """A package whose `__init__` has not run yet."""

    def __init__(self, spec: ModuleSpec, light: _Light) -> None:
        super().__init__(spec.name)
        assert spec.loader is not None, "it is a package of files"
        assert spec.submodule_search_locations is not None, "it is a package"
        self.__spec__, self.__loader__, self.__file__ = spec, spec.loader, spec.origin
        self.__path__ = spec.submodule_search_locations
        self.__package__ = spec.name
        self._light = light
        self._lock = threading.RLock()
        self._is_loading = False

    def __getattr__(self, name: str) -> Any:
        if name in self._light.attributes and not self._is_loading:
            return self._light.attributes[name]()
        # Python itself looks up others, such as `__wrapped__`, which does not count as use of the package.
        if not name.startswith("__") or name == "__all__":
            load(self)
        if isinstance(self, _Deferred):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self, name)

    def __dir__(self) -> Iterable[str]:
        load(self)
        return ModuleType.__dir__(self)


def load(module: ModuleType) -> None:
    """Runs the `__init__` of a deferred package once; other threads wait until it is complete."""
    if isinstance(module, _Deferred):
        with module._lock:
            if type(module) is _Deferred and not module._is_loading:
                spec = module.__spec__
                assert spec is not None
                assert spec.loader is not None
                module._is_loading = True
                try:
                    spec.loader.exec_module(module)
                finally:
                    module._is_loading = False
                # pyrefly: ignore
                module.__class__ = ModuleType


class _Loading(MetaPathFinder):
    """Finds nothing, but loads a package before a submodule that cannot be imported alone."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> None:
        for name, light in _LIGHT.items():
            inner = fullname.removeprefix(f"{name}.")
            if inner != fullname and inner.partition(".")[0] not in light.modules:
                load(sys.modules[name])


def _put_off(name: str, light: _Light) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None:
        return
    module = _Deferred(spec, light)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
    if not any(isinstance(finder, _Loading) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Loading())

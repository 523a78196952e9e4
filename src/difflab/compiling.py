"""Compiled networks for sampling and measuring: when they are used, and how torch caches their code."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from difflab.cache import cache_root
from difflab.console import say_on_stderr
from difflab.devices import compiling_pays, under_autocast
from difflab.errors import UserError
from difflab.types import Conditioning, Network

Choice = Literal["auto"] | bool

BACKEND = "inductor"
SWITCH = "TORCH_COMPILE_DISABLE"
"""The environment variable that makes `torch.compile` return its argument, in training and in sampling."""
KINDS = 4
"""How many kinds of inputs (which fields, of what shapes) a network is compiled for; others run without compilation.

Code for any number of rows would be one kind, but torch selects other convolutions for fewer than 16 of them."""

_WITHOUT = "sampling continues without compiled code"


class CompiledNetworks:
    """The compiled code of networks, shared by several pieces of work, such as the points of a sweep."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[nn.Module, torch.dtype | None], _CompiledNetwork] = {}

    def of(self, network: nn.Module, dtype: torch.dtype | None) -> _CompiledNetwork:
        """The code of one network with its arithmetic in `dtype`; compiles nothing yet."""
        key = network, dtype
        if key not in self._compiled:
            self._compiled[key] = _CompiledNetwork(network, dtype)
        return self._compiled[key]


@dataclass
class Compilation:
    """Which networks of one piece of work run as compiled code.

    choice:   true, false, or auto: each network with enough work (`difflab.devices.compiling_pays`). That depends only
              on the configuration and the device, so that a command generates the same bits each time, and several
              processes decide alike.
    images:   the largest number of images of any process, `batch` at a time.
    device:   the type of their device.
    networks: the code compiled so far.
    speaks:   whether this process prints messages.
    """

    choice: Choice = False
    images: int = 0
    batch: int = 1
    device: str = "cpu"
    networks: CompiledNetworks = field(default_factory=CompiledNetworks)
    speaks: bool = True
    _decided: dict[nn.Module, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.choice is True and not _is_switched_off() and not has_compiler(self.device):
            raise UserError(
                f"compile=true needs a C++ compiler, and there is no {_compiler(self.device)} here: install it, "
                "name another one in CXX, or leave compile=true out"
            )

    @property
    def used(self) -> bool:
        """Whether a network was run as compiled code."""
        return any(self._decided.values())

    def network(self, network: nn.Module, dtype: torch.dtype | None, *, rows: int, calls: int) -> Network:
        """The network with its arithmetic in `dtype` and its output in float32, compiled if it should be.

        rows: images of this batch; a batch smaller than the others is not compiled, nor are calls with gradients.
        calls: rows that the network processes for each image.

        Raises UserError in a call, if compile=true and torch cannot compile it.
        """
        eager = under_autocast(network, dtype)
        if self.choice is False:
            return eager

        def call(x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
            if torch.is_grad_enabled():
                return eager(x, time, conditioning)
            if network not in self._decided:
                self._decided[network] = self._is_worth(network, eager, (x, time, conditioning), dtype, calls)
            if not self._decided[network] or rows != self.batch:
                return eager(x, time, conditioning)
            try:
                return self.networks.of(network, dtype)(x, time, conditioning)
            except NotCompiledError as error:
                self._give_up(network, str(error))
                return eager(x, time, conditioning)

        return call

    def _is_worth(
        self,
        network: nn.Module,
        eager: Network,
        inputs: tuple[Tensor, Tensor, Conditioning | None],
        dtype: torch.dtype | None,
        calls: int,
    ) -> bool:
        if self.choice == "auto":
            x, time, conditioning = inputs
            conditioning = None if conditioning is None else conditioning[:1]
            flops = flops_of(network, lambda: eager(x[:1], time[:1], conditioning))
            layers = sum(isinstance(part, _LAYERS) for part in network.modules())
            if not compiling_pays(flops * calls * self.images, layers, self.device, dtype):
                return False
        if _is_switched_off():
            self._say(f"{SWITCH} is set, so torch compiles nothing: {_WITHOUT}")
            return False
        if self.choice == "auto" and not has_compiler(self.device):
            self._say(
                f"compiling the network would pay here, but there is no C++ compiler ({_compiler(self.device)}): "
                f"{_WITHOUT}; install one, or name it in CXX"
            )
            return False
        if not self.networks.of(network, dtype).is_ready:
            self._say("compiling the network: about a minute, less if its code is in the cache")
        return True

    def _give_up(self, network: nn.Module, why: str) -> None:
        if self.choice is True:
            raise UserError(f"compile=true, but torch cannot compile this network here ({why}): leave compile=true out")
        self._decided[network] = False
        self._say(f"torch could not compile the network ({why}): {_WITHOUT}; compile=false does not try")

    def _say(self, line: str) -> None:
        if self.speaks:
            say_on_stderr(f"note: {line}")


class NotCompiledError(RuntimeError):
    """A network could not be compiled. The message is the reason in one line."""


class _CompiledNetwork:
    """One network's compiled code, for each kind of inputs."""

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        self._network, self._dtype = network, dtype
        self._compiled: Network | None = None
        self._kinds: set[tuple[object, ...]] = set()
        self._failure: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether anything has been compiled."""
        return self._compiled is not None

    def __call__(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """Calls the network. Raises NotCompiledError if torch cannot compile it, or could not before."""
        if self._failure is not None:
            raise NotCompiledError(self._failure)
        # Other strides would count as another kind of input.
        x, time = x.contiguous(), time.contiguous()
        conditioning = None if conditioning is None else conditioning.map(torch.Tensor.contiguous)
        kind = _kind_of(x, conditioning)
        if kind not in self._kinds:
            if len(self._kinds) == KINDS:
                return under_autocast(self._network, self._dtype)(x, time, conditioning)
            self._kinds.add(kind)
            self._compile(x, time, conditioning)
            if len(self._kinds) == KINDS:
                say_on_stderr(f"note: compiled for {KINDS} kinds of inputs; any further ones run without compiled code")
        assert self._compiled is not None, "it was compiled for this kind of inputs"
        with torch.compiler.set_stance("eager_on_recompile"):
            return self._compiled(x, time, conditioning)

    def _compile(self, x: Tensor, time: Tensor, conditioning: Conditioning | None) -> None:
        with _compiler_ready() as failures:
            try:
                if self._compiled is None:
                    # A copy, as this layout suits compiled code only; other calls keep theirs, and so their rounding.
                    network = copy.deepcopy(self._network).to(memory_format=torch.channels_last)
                    run = under_autocast(network, self._dtype)
                    # Only this creates the folder of torch's cache.
                    self._compiled = torch.compile(run, backend=BACKEND, fullgraph=True, dynamic=False)
                self._compiled(x, time, conditioning)
            except failures as error:
                self._failure = _in_one_line(error)
                raise NotCompiledError(self._failure) from error


@contextlib.contextmanager
def _compiler_ready() -> Iterator[tuple[type[BaseException], ...]]:
    """Inside the context, torch compiles into difflab's cache, silently, and keeps all code; yields its exceptions."""
    _keep_code_in_cache()
    import torch._dynamo

    remarks = logging.getLogger("torch.utils.cpp_extension")
    level = remarks.level
    # Not worth a message: a machine without a GPU.
    remarks.setLevel(logging.ERROR)
    try:
        # All networks share the code object that torch counts; `KINDS` is the bound.
        with torch._dynamo.config.patch(recompile_limit=sys.maxsize, accumulated_recompile_limit=sys.maxsize):
            yield torch._dynamo.exc.TorchDynamoException, OSError
    finally:
        remarks.setLevel(level)


def _keep_code_in_cache() -> None:
    """Makes torch cache its code below DIFFLAB_CACHE, unless TORCHINDUCTOR_CACHE_DIR is set."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # Torch sets its own default there as soon as anything imports its compiler.
    default = Path(default_cache_dir()).absolute()
    if Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", default)) == default:
        # Code for the CPU depends on the number of threads.
        folder = cache_root() / "compiled" / f"{torch.get_num_threads()}-threads"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder.absolute())


def flops_of(network: nn.Module, run: Callable[[], object]) -> int:
    """Floating-point operations of the network's convolutions and linear layers while `run` calls it."""
    found = 0

    def count(layer: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal found
        weight = layer.weight
        assert isinstance(weight, Tensor), "the counted layers have one"
        found += 2 * weight.numel() * (output.numel() // weight.shape[0])

    handles = [part.register_forward_hook(count) for part in network.modules() if isinstance(part, _LAYERS)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found


_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _is_switched_off() -> bool:
    return os.environ.get(SWITCH) == "1"


def has_compiler(device: str) -> bool:
    """Whether the compiler that torch needs exists: a C++ compiler for a CPU, a C compiler for a GPU's launcher."""
    return shutil.which(_compiler(device)) is not None


def _compiler(device: str) -> str:
    if device == "cuda":
        return os.environ.get("CC") or ("gcc" if shutil.which("gcc") else "cc")
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def _kind_of(x: Tensor, conditioning: Conditioning | None) -> tuple[object, ...]:
    fields = {} if conditioning is None else conditioning.fields()
    # Code for one grad mode cannot be used in the other.
    modes = torch.is_inference_mode_enabled(), torch.get_num_threads()
    return (*modes, *((name, v.shape, v.dtype) for name, v in {"x": x, **fields}.items()))


def _in_one_line(error: BaseException, limit: int = 200) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Torch names what raised, and gives the reason on a new line after a colon.
    line = " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
    return line if len(line) <= limit else f"{line[:limit]}..."

"""Compiled networks: when there are any, for which inputs, and what is said where there cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from difflab import compiling
from difflab.compiling import Compilation, CompiledNetworks, flops_of
from difflab.devices import compiling_pays
from difflab.errors import UserError
from difflab.types import Conditioning

ENOUGH = 1e15


class Small(nn.Module):
    """x [B, 3, 4, 4], time [B], and a vector [B, 6] or concat [B, 3, 4, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.embed = nn.Linear(6, 3)

    def forward(self, x: Tensor, time: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        h = self.conv(x) + time[:, None, None, None]
        if conditioning is not None and conditioning.vector is not None:
            h = h + self.embed(conditioning.vector)[:, :, None, None]
        if conditioning is not None and conditioning.concat is not None:
            h = h + conditioning.concat
        return torch.nn.functional.silu(h)


def inputs(rows: int, **told: Tensor) -> tuple[Tensor, Tensor, Conditioning | None]:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 3, 4, 4, generator=generator)
    return x, torch.arange(rows) * 1.0, Conditioning(**told) if told else None


@pytest.fixture
def network() -> Small:
    torch.manual_seed(0)
    return Small().eval().requires_grad_(False)


class Backend:
    """A backend of torch.compile that runs the graph as it was traced, and counts what it is given."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []
        self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, example: object) -> Callable[..., object]:
        self.graphs.append(graph)

        def run(*values: object) -> object:
            self.calls += 1
            return graph.forward(*values)

        return run


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    torch._dynamo.reset()
    made = Backend()
    monkeypatch.setattr(compiling, "BACKEND", made)
    return made


# -- what auto stands for --------------------------------------------------------------------------------------------


def test_auto_compiles_where_there_is_enough_to_do() -> None:
    decided = [compiling_pays(flops, 60, "cpu", torch.bfloat16) for flops in (0.0, 1e12, ENOUGH, 1e18)]
    assert decided == sorted(decided)
    assert (decided[0], decided[-1]) == (False, True)


@pytest.mark.parametrize(("images", "pays"), [(64, False), (512, False), (4000, True), (50_000, True)])
def test_auto_for_the_small_guided_network(monkeypatch: pytest.MonkeyPatch, images: int, pays: bool) -> None:
    # cfg/shapes32 with 50 guided steps, on two threads of a CPU without AMX.
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert compiling_pays(533e6 * 50 * 2 * images, 61, "cpu", torch.bfloat16) is pays


def test_a_network_of_more_layers_takes_longer_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    powers = [2.0**k for k in range(80)]
    least = {layers: next(f for f in powers if compiling_pays(f, layers, "cpu", None)) for layers in (10, 1000)}
    assert least[1000] > least[10]


def test_a_faster_device_needs_more_work_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def least(device: str, dtype: torch.dtype | None) -> float:
        return next(f for f in (2.0**k for k in range(80)) if compiling_pays(f, 60, device, dtype))

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert least("cpu", None) < least("cpu", torch.bfloat16) < least("cuda", torch.bfloat16)
    two = least("cpu", None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert least("cpu", None) > two


def test_nothing_is_compiled_for_devices_that_were_never_measured() -> None:
    assert not compiling_pays(1e30, 1, "mps", None)


def test_the_work_of_a_network_is_counted(network: Small) -> None:
    x, time, told = inputs(1, vector=torch.zeros(1, 6))
    convolution, linear = 2 * (3 * 3 * 3 * 3) * 16, 2 * 3 * 6
    assert flops_of(network, lambda: network(x, time, told)) == convolution + linear
    assert not network.conv._forward_hooks


@pytest.mark.parametrize(("images", "compiled"), [(2, False), (10**12, True)])
def test_auto_follows_from_the_work_alone(network: Small, backend: Backend, images: int, compiled: bool) -> None:
    compilation = Compilation("auto", images)
    run = compilation.network(network, None, rows=1, calls=100)
    with torch.inference_mode():
        run(*inputs(4))
    assert compilation.used is compiled
    assert bool(backend.calls) is compiled


def test_auto_decides_the_same_where_code_is_there_already(network: Small, backend: Backend) -> None:
    # The points of a sweep share it, and a sweep may go on where it was stopped.
    networks = CompiledNetworks()
    with torch.inference_mode():
        Compilation(True, 2, networks=networks).network(network, None, rows=1, calls=1)(*inputs(4))
        few = Compilation("auto", 2, networks=networks)
        few.network(network, None, rows=1, calls=1)(*inputs(4))
    assert not few.used


# -- compiled code ---------------------------------------------------------------------------------------------------


def test_forced_off_nothing_is_compiled(network: Small, backend: Backend) -> None:
    compilation = Compilation(False, 10**12)
    with torch.inference_mode():
        compilation.network(network, None, rows=1, calls=1000)(*inputs(4))
    assert not compilation.used
    assert not backend.graphs


def test_the_last_smaller_batch_is_no_further_compilation(network: Small, backend: Backend) -> None:
    compilation = Compilation(True, 11, batch=4)
    with torch.inference_mode():
        # Guidance asks for twice the rows: of the last two images for just as many as a batch has.
        for rows, asked in ((4, 8), (4, 8), (2, 4), (3, 6)):
            given = inputs(asked, vector=torch.ones(asked, 6))
            torch.testing.assert_close(compilation.network(network, None, rows=rows, calls=1)(*given), network(*given))
    assert len(backend.graphs) == 1
    assert backend.calls == 3  # once to compile it


def test_guidance_within_an_interval_has_code_for_both_batches(network: Small, backend: Backend) -> None:
    run = Compilation(True, 8, batch=4).network(network, None, rows=4, calls=1)
    with torch.inference_mode():
        for asked in (4, 8, 8, 4, 8, 4):
            torch.testing.assert_close(run(*inputs(asked)), network(*inputs(asked)))
    assert len(backend.graphs) == 2
    assert backend.calls == 2 + 6


def test_how_tensors_lie_in_memory_is_no_other_kind(network: Small, backend: Backend) -> None:
    run = Compilation(True).network(network, None, rows=1, calls=1)
    x, time, _ = inputs(4)
    with torch.inference_mode():
        plain = run(x, time, Conditioning(vector=torch.ones(4, 6)))
        last = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(run(last, time, Conditioning(vector=torch.ones(1, 6).expand(4, 6))), plain)
    assert len(backend.graphs) == 1


def test_many_kinds_of_inputs_are_no_storm_of_compilations(
    network: Small, backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Compilation(True, speaks=False).network(network, None, rows=1, calls=1)
    told = [
        {},
        {"vector": torch.ones(3, 6)},
        {"concat": torch.ones(3, 3, 4, 4)},
        {"vector": torch.ones(3, 6), "concat": torch.ones(3, 3, 4, 4)},
        {"concat": torch.ones(3, 3, 4, 4, dtype=torch.float64)},
        {"concat": torch.ones(3, 3, 4, 1)},
    ]
    with torch.inference_mode():
        for fields in [*told, *told]:
            given = inputs(3, **fields)
            torch.testing.assert_close(run(*given), network(*given).float())
    assert len(backend.graphs) == compiling.KINDS
    assert capsys.readouterr().err.count("\n") == 1


def test_networks_of_one_class_each_have_their_code(backend: Backend) -> None:
    # torch forgets the code of a function after eight versions of it, unless it is told not to.
    networks = [Small().eval().requires_grad_(False) for _ in range(10)]
    compilation = Compilation(True)
    with torch.inference_mode():
        for _ in range(2):
            for one in networks:
                given = inputs(3)
                torch.testing.assert_close(compilation.network(one, None, rows=1, calls=1)(*given), one(*given))
    assert backend.calls >= 20


def test_gradients_go_through_the_network_itself(network: Small, backend: Backend) -> None:
    run = Compilation(True).network(network, None, rows=1, calls=1)
    x, time, _ = inputs(3)
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(run(x, time).sum(), x)
    assert bool(gradient.any())
    assert not backend.graphs


def test_autocast_is_part_of_the_code(network: Small, backend: Backend) -> None:
    run = Compilation(True).network(network, torch.bfloat16, rows=1, calls=1)
    x, time, _ = inputs(3)
    with torch.inference_mode():
        out = run(x, time)
        with torch.autocast("cpu", torch.bfloat16):
            expected = network(x, time).float()
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


# -- where there is nothing to compile with --------------------------------------------------------------------------


def test_compile_true_without_a_compiler_is_a_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"compile=true needs a C\+\+ compiler.*CXX"):
        Compilation(True)


def test_auto_without_a_compiler_goes_on_and_says_so(
    network: Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    compilation = Compilation("auto", 10**12)
    run = compilation.network(network, None, rows=1, calls=100)
    with torch.inference_mode():
        for _ in range(3):
            torch.testing.assert_close(run(*inputs(3)), network(*inputs(3)))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "compiler" in said
    assert not compilation.used


@pytest.mark.parametrize("choice", ["auto", True])
def test_torch_told_to_compile_nothing(
    network: Small,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    choice: compiling.Choice,
) -> None:
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    compilation = Compilation(choice, 10**12)
    run = compilation.network(network, None, rows=1, calls=100)
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(run(*inputs(3)), network(*inputs(3)))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "TORCH_COMPILE_DISABLE" in said
    assert not backend.graphs
    assert not compilation.used


def fails(graph: torch.fx.GraphModule, example: object) -> Callable[..., object]:
    raise RuntimeError("no such instruction\nand much more")


def test_a_network_that_cannot_be_compiled_runs_as_it_is(
    network: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", fails)
    torch._dynamo.reset()
    compilation = Compilation("auto", 10**12)
    run = compilation.network(network, None, rows=1, calls=100)
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(run(*inputs(3)), network(*inputs(3)))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2, said  # that it is being compiled, and that it could not be
    assert "could not compile" in said[1]
    assert not compilation.used


def test_compile_true_says_why_it_cannot(network: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", fails)
    torch._dynamo.reset()
    run = Compilation(True).network(network, None, rows=1, calls=100)
    with torch.inference_mode(), pytest.raises(UserError, match="compile=true, but torch cannot") as refused:
        run(*inputs(3))
    assert "\n" not in str(refused.value)


def test_a_cache_that_cannot_be_written_is_no_end_of_drawing(
    network: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compile(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/cache/compiled")

    monkeypatch.setattr(torch, "compile", compile)
    compilation = Compilation("auto", 10**12)
    with torch.inference_mode():
        given = inputs(3)
        torch.testing.assert_close(compilation.network(network, None, rows=1, calls=100)(*given), network(*given))
        with pytest.raises(UserError, match=r"compile=true, but torch cannot .*Permission denied: '/cache/compiled'"):
            Compilation(True).network(network, None, rows=1, calls=1)(*given)
    assert "Permission denied: '/cache/compiled'" in capsys.readouterr().err.splitlines()[-2]
    assert not compilation.used


def test_the_next_point_of_a_sweep_knows_that_it_cannot_be_compiled(
    network: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", fails)
    torch._dynamo.reset()
    networks = CompiledNetworks()
    for _ in range(2):
        point = Compilation("auto", 10**12, networks=networks)
        with torch.inference_mode():
            given = inputs(3)
            torch.testing.assert_close(point.network(network, None, rows=1, calls=100)(*given), network(*given))
        assert not point.used
        assert "no such instruction" in capsys.readouterr().err


# -- torch's compiler as it is ---------------------------------------------------------------------------------------

PROGRAM = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_compiling import Small, inputs
from difflab.compiling import Compilation
torch.manual_seed(0)
network = Small().eval().requires_grad_(False)
run = Compilation(True).network(network, None, rows=1, calls=1)
with torch.inference_mode():
    for rows in (3, 3):
        torch.testing.assert_close(run(*inputs(rows)), network(*inputs(rows)))
from torch._dynamo.utils import counters
print(counters["inductor"]["fxgraph_cache_hit"], counters["inductor"]["fxgraph_cache_miss"])
"""


@pytest.mark.slow
def test_code_is_kept_in_the_cache_for_the_next_process(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TORCHINDUCTOR_CACHE_DIR"}
    environment["DIFFLAB_CACHE"] = str(tmp_path)
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    found = []
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        found.append(ended.stdout.split())
    assert found == [["0", "1"], ["1", "0"]]
    assert {path.name for path in tmp_path.iterdir()} == {"compiled"}

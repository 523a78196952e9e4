"""What training does not use is not imported, and is there all the same once something asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "scipy.signal",
    "torchmetrics.functional",
    "torchvision.ops",
    "torch._dynamo.eval_frame",
    "torch._inductor",
    "sympy",
)

BEGIN = f"""
import sys
from difflab.deferred import defer_imports
defer_imports()
import lightning.pytorch
from torchvision.io import decode_image
from torchmetrics import Metric, MetricCollection
loaded = [name for name in {HEAVY} if name in sys.modules]
assert not loaded, loaded
"""


def in_a_fresh_process(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_lightning_took_is_of_the_packages_that_are_loaded_later() -> None:
    in_a_fresh_process(
        """
import torch, torchmetrics, torchvision
assert torchmetrics.__version__[0].isdigit() and torchvision.__version__[0].isdigit()
loaded = [name for name in ("scipy.signal", "torchmetrics.functional", "torchvision.ops") if name in sys.modules]
assert not loaded, loaded
assert issubclass(torchmetrics.MeanMetric, Metric) and torchmetrics.Metric is Metric
assert torchmetrics.MetricCollection is MetricCollection
assert torchmetrics.functional.mean_squared_error(torch.zeros(2), torch.ones(2)) == 1
assert torchvision.transforms.CenterCrop(2)(torch.zeros(1, 4, 4)).shape == (1, 2, 2)
assert torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5).tolist() == [0]
try:
    torchmetrics.no_such_metric
except AttributeError as error:
    assert "no_such_metric" in str(error)
"""
    )


def test_the_compiler_compiles_and_keeps_out_of_what_was_closed_to_it_before() -> None:
    in_a_fresh_process(
        """
import torch
from difflab.config.optimizer import OptimizerConfig
from difflab.optimizer import build_optimizer
@torch.compiler.disable
def closed(x):
    return x.cos()
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.SGD([weight], lr=1.0)
weight.sum().backward()
optimizer.step()
assert weight.tolist() == [0, 0, 0]
graphs = []
def backend(graph, _):
    graphs.append([node.target for node in graph.graph.nodes if node.op.startswith("call")])
    return graph.forward
out = torch.compile(lambda x: closed(x.sin()) + 1, backend=backend)(torch.zeros(3))
assert out.tolist() == [2, 2, 2]
assert "torch._dynamo.eval_frame" in sys.modules
assert [target for graph in graphs for target in graph if target in ("cos", torch.cos)] == [], graphs
assert len(graphs) == 2, graphs
"""
    )


def test_threads_that_ask_at_once_all_find_it() -> None:
    in_a_fresh_process(
        """
import threading, torchmetrics
together, found = threading.Barrier(4), []
def ask():
    together.wait()
    found.append(getattr(torchmetrics, "MeanSquaredError", None))
threads = [threading.Thread(target=ask) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(found) == 4 and set(found) == {torchmetrics.MeanSquaredError}, found
"""
    )


def test_all_of_a_package_can_be_asked_for() -> None:
    in_a_fresh_process(
        """
import torchvision
assert "models" in dir(torchvision)
from torchmetrics import *
assert issubclass(MeanSquaredError, Metric)
"""
    )


def test_lightning_knows_a_module_that_is_compiled() -> None:
    in_a_fresh_process(
        """
import torch
from lightning.pytorch.utilities.compile import _maybe_unwrap_optimized
from torch._dynamo import OptimizedModule
class Model(lightning.pytorch.LightningModule):
    def forward(self, x):
        return x + 1
model = Model()
assert not isinstance(model, OptimizedModule)
compiled = torch.compile(model, backend="eager")
assert isinstance(compiled, OptimizedModule)
assert _maybe_unwrap_optimized(compiled) is model
"""
    )


@pytest.mark.slow
def test_training_imports_nothing_of_the_heavy_ones(tiny_shapes: Path, tmp_path: Path) -> None:
    in_a_fresh_process(
        f"""
import os
os.chdir({str(tmp_path)!r})
from difflab.commands.train import main
main(["experiment=ddpm/shapes32", "data.path={tiny_shapes}", "data.image_size=16", "network=unet_tiny",
      "data.batch_size=4", "trainer.max_steps=2", "trainer.accelerator=cpu", "callbacks.sample_grid=null",
      "logger=csv"])
assert os.path.exists("runs/ddpm/shapes32"), os.listdir()
loaded = [name for name in {HEAVY} if name in sys.modules]
assert not loaded, loaded
"""
    )

"""What is measured: an experiment's configuration, shards of its size, and its network on the device."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from difflab.commands.composing import compose_and_validate
from difflab.config.train import TrainConfig
from difflab.data.build import build_train_loader
from difflab.data.loader import ShardLoader
from difflab.data.shapes.source import ShapesSource
from difflab.data.writing import write_shards
from difflab.devices import Accelerator, on_cuda_only, resolve_accelerator, training_precision
from difflab.networks.build import build_network
from difflab.tasks.build import Model, build_model
from difflab.tasks.denoising.config import DenoisingTrainConfig

EXPERIMENT = "ddpm/cifar10"
HALF_WIDTH = "network.base_channels=64"
SMALL_BATCH = "data.batch_size=16"
"""The default: the CIFAR-10 network of DDPM at half its width, so that a CPU makes a step in about a second."""

SHARD_IMAGES = 512
"""Enough that the images of neighbouring batches differ; they lie in the page cache either way."""

_AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Stage:
    """A composed experiment and the folder that its run and shards go to."""

    config: TrainConfig
    plain: dict[str, Any]
    overrides: list[str]
    folder: Path
    accelerator: Accelerator

    @property
    def device(self) -> torch.device:
        return torch.device(self.accelerator)

    @property
    def autocast(self) -> torch.dtype | None:
        """The type of the network's arithmetic in this experiment's training, None for float32."""
        return _AUTOCAST[training_precision(self.config.trainer.precision, self.accelerator)]

    def settings(self) -> dict[str, Any]:
        """What a figure depends on besides the machine."""
        trainer = self.config.trainer
        return {
            "experiment": self.config.experiment,
            "overrides": self.overrides,
            "device": self.accelerator,
            "batch": self.config.data.batch_size,
            "image_size": self.config.data.image_size,
            "workers": self.config.data.workers,
            "precision": training_precision(trainer.precision, self.accelerator),
            "channels_last": on_cuda_only(trainer.channels_last, self.accelerator),
            "compile": on_cuda_only(trainer.compile, self.accelerator),
            "deterministic": trainer.deterministic,
        }

    def headline(self) -> str:
        """The settings in a line."""
        s = self.settings()
        switches = [name for name in ("channels_last", "compile", "deterministic") if s[name]]
        size = f"{s['batch']} images of {s['image_size']} px"
        return f"{s['experiment']} on {s['device']}: {size}, {', '.join([s['precision'], *switches])}; " + " ".join(
            self.overrides
        )

    def network(self) -> nn.Module:
        """The experiment's network, freshly initialised, on the CPU."""
        learned = self.config.diffusion.learns_variance
        return build_network(self.config.network, image_size=self.config.data.image_size, learned_variance=learned)

    def placed(self, network: nn.Module) -> nn.Module:
        """On the device, in the layout and compiled as training does it."""
        network.to(self.device)
        if on_cuda_only(self.config.trainer.channels_last, self.accelerator):
            network.to(memory_format=torch.channels_last)
        if on_cuda_only(self.config.trainer.compile, self.accelerator):
            network.compile()
        return network

    def model(self) -> Model:
        """The experiment's network with its conditioners, freshly initialised, on the CPU."""
        return build_model(self.config.model())

    @property
    def is_told_classes(self) -> bool:
        """Whether the experiment's network is told of classes."""
        return isinstance(self.config, DenoisingTrainConfig) and bool(self.config.conditioning)

    def batches(self, count: int = 8) -> list[Tensor]:
        """uint8 training batches on the device."""
        return [batch["image"].to(self.device) for batch in self._read(count)]

    def labels(self, count: int = 8) -> list[Tensor] | None:
        """The classes of those batches, int64 [B]; None where the network is told of none."""
        return [batch["label"].to(self.device) for batch in self._read(count)] if self.is_told_classes else None

    def _read(self, count: int) -> ShardLoader:
        fields = ["label"] if self.is_told_classes else []
        data = self.config.data.model_copy(update={"workers": 0, "fields": fields})
        return build_train_loader(data, seed=self.config.seed, total_batches=count)


@contextlib.contextmanager
def open_stage(experiment: str, overrides: Sequence[str], *, with_shards: bool = True) -> Iterator[Stage]:
    """Compose `experiment` with overrides, in a temporary folder with shapes shards of the right size.

    Raises UserError as `difflab train` would.
    """
    with tempfile.TemporaryDirectory(prefix="difflab-benchmark-") as temporary:
        folder = Path(temporary)
        arguments = [f"experiment={experiment}", "logger=csv", f"output_root={folder / 'runs'}", *overrides]
        if with_shards:
            arguments += [f"data.path={folder / 'shards'}", "data.val_split=null"]
        config, plain = compose_and_validate("train", TrainConfig, arguments)
        if with_shards:
            n = max(SHARD_IMAGES, config.data.batch_size)
            write_shards(ShapesSource(resolution=config.data.image_size, n=n), folder / "shards")
        accelerator = resolve_accelerator(config.trainer.accelerator)
        yield Stage(config, plain, list(overrides), folder, accelerator)


def add_experiment_options(parser: argparse.ArgumentParser) -> None:
    """--experiment, --batch and any override of the configuration."""
    parser.add_argument("--experiment", default=EXPERIMENT, help="default %(default)s, at half its width")
    parser.add_argument("--batch", type=int, help="images of a step")
    parser.add_argument(
        "overrides", nargs="*", help="anything `difflab train` takes, as in trainer.precision=bf16-mixed"
    )


def overrides_of(args: argparse.Namespace) -> list[str]:
    """The overrides that these options stand for; on a CPU the loader reads in the training process."""
    default = args.experiment == EXPERIMENT
    made = [HALF_WIDTH, SMALL_BATCH] if default else []
    if args.batch is not None:
        made = [*made[:1], f"data.batch_size={args.batch}"]
    if not torch.cuda.is_available():
        made.append("data.workers=0")
    return [*made, *args.overrides]


def synchroniser(device: torch.device) -> Callable[[], None]:
    """Waits until all that was queued on the device is done."""
    return torch.cuda.synchronize if device.type == "cuda" else _nothing


def _nothing() -> None:
    pass

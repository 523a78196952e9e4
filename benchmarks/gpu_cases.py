"""What is trained and drawn on the GPU: three published networks, at batches that fit 80 GiB."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.gpu_report import Goal
from benchmarks.stage import Stage, open_stage

AGAINST_DIFFUSERS = Goal(1.0)
AGAINST_EAGER_DIFFUSERS = Goal(1.3)


@dataclass(frozen=True)
class Case:
    """One network of the literature.

    batch: images of a training step; drawn: images of a batch that is drawn.
    block: steps in a row before another contender has its turn.
    images, tflops: what training should reach a second.
    tiny: what makes a network of the same kind that a CPU trains in no time.
    """

    name: str
    experiment: str
    batch: int
    drawn: int
    block: int
    overrides: tuple[str, ...] = ()
    tiny: tuple[str, ...] = ()
    images: Goal | None = None
    tflops: Goal | None = None

    @contextlib.contextmanager
    def stage(self, args: Scale, *more: str, with_shards: bool = True) -> Iterator[Stage]:
        """The experiment, composed at this scale."""
        batch = f"data.batch_size={4 if args.tiny else args.batch or self.batch}"
        tiny = (*TINY, *self.tiny) if args.tiny else ()
        with open_stage(self.experiment, [*self.overrides, batch, *tiny, *more], with_shards=with_shards) as stage:
            yield stage


@dataclass(frozen=True)
class Scale:
    """tiny: for a dry run on the CPU; batch: instead of every case's own."""

    tiny: bool = False
    batch: int | None = None

    @property
    def steps(self) -> int:
        """DDIM steps of a drawing."""
        return 2 if self.tiny else 10

    def block(self, case: Case) -> int:
        """Steps in a row."""
        return 1 if self.tiny else case.block

    @property
    def rounds(self) -> int:
        """Turns of every contender at most."""
        return 1 if self.tiny else 7


TINY = (
    "data.image_size=16",
    "data.workers=0",
    "trainer.accelerator=cpu",
    "network.base_channels=32",
    "network.channel_mult=[1,2]",
    "network.blocks_per_level=1",
    "network.attention_resolutions=[8]",
)
_ADM = ("data.classes=6",)  # the shapes have six; an embedding of as many rows costs no time
_TINY_ADM = ("network.attention_head_channels=32",)

ADM64 = Case("adm64", "adm/imagenet64", batch=64, drawn=64, block=3, overrides=_ADM, tiny=_TINY_ADM, images=Goal(150.0))
CIFAR10 = Case("cifar10", "ddpm/cifar10", batch=128, drawn=256, block=10, tflops=Goal(72.0))
ADM256 = Case(
    "adm256",
    "adm/imagenet256",
    batch=8,
    drawn=8,
    block=2,
    # Compiled, its first step would take a quarter of all the time that there is.
    overrides=(*_ADM, "network.checkpoint_activations=true", "trainer.compile=false"),
    tiny=_TINY_ADM,
)

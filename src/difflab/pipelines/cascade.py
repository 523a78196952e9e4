"""Models one after the other: the first draws, each further one enlarges what the one before it drew (ADM-U)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from difflab.errors import UserError
from difflab.images import Rounding, to_uint8
from difflab.pipelines.finite import NonFiniteSamplesError
from difflab.pipelines.single import SinglePipeline
from difflab.seeding import stream_seed
from difflab.types import StepHook


class CascadePipeline:
    """ADM, section 5.2 (ADM-U): pictures go from stage to stage as uint8, as the official archives carry them.

    stages: by name, in their order. Every stage with classes is told the same ones; each has noise of its own.

    Raises UserError where a stage enlarges nothing, or another size than the stage before it draws.
    """

    def __init__(self, stages: Mapping[str, SinglePipeline]) -> None:
        self.stages = dict(stages)
        names, pipelines = list(self.stages), list(self.stages.values())
        for name, before, pipeline in zip(names[1:], pipelines, pipelines[1:], strict=False):
            check_stage(name, before.shape, pipeline)
        self.last = pipelines[-1]
        self.rounding: Rounding = self.last.rounding
        self.autocast: torch.dtype | None = self.last.autocast

    @property
    def device(self) -> torch.device:
        return self.last.device

    @property
    def n_steps(self) -> int:
        return self.last.n_steps

    def draw(
        self, indices: Sequence[int], seed: int, *, classes: Sequence[int] | None = None, hook: StepHook | None = None
    ) -> Tensor:
        """float32 [len(indices), C, H, W] of the last stage, nominally in [-1, 1]."""
        if classes is None:
            classes = self.labels(indices, seed)
        images: Tensor | None = None
        drawn: Tensor | None = None
        for number, (name, stage) in enumerate(self.stages.items()):
            try:
                drawn = stage.draw(
                    indices,
                    _seed_of(number, seed),
                    classes=_told(stage, classes),
                    low_res=images,
                    hook=hook if stage is self.last else None,
                )
            except NonFiniteSamplesError as bad:
                raise bad.in_stage(name) from None
            images = None if stage is self.last else to_uint8(drawn, stage.rounding)
        assert drawn is not None, "a cascade has stages"
        return drawn

    def __call__(self, indices: Sequence[int], seed: int, classes: Sequence[int] | None = None) -> Tensor:
        """The same as uint8 [len(indices), C, H, W]."""
        return to_uint8(self.draw(indices, seed, classes=classes), self.rounding)

    def labels(self, indices: Sequence[int], seed: int) -> list[int] | None:
        """The classes of the first stage that has any."""
        return next(
            (stage.labels(indices, seed) for stage in self.stages.values() if stage.class_count() is not None), None
        )

    def class_count(self) -> int | None:
        """That of the first stage that has any."""
        return next((count for stage in self.stages.values() if (count := stage.class_count()) is not None), None)

    def check_classes(self, classes: Sequence[int]) -> None:
        """Raises UserError for classes that a stage does not have, or where none has any."""
        having = [stage for stage in self.stages.values() if stage.class_count() is not None]
        if not having:
            raise UserError("no stage of this cascade has classes: leave classes=null")
        for stage in having:
            stage.check_classes(classes)

    def record(self) -> dict[str, Any]:
        """Sampler and guidance of each stage."""
        stages = {name: stage.record() for name, stage in self.stages.items()}
        return {"sampler": {}, "guidance": {}, "pipeline": {"kind": "cascade", "stages": stages}}


def check_stage(name: str, before: Sequence[int], stage: SinglePipeline) -> None:
    """Raises UserError unless `stage` enlarges images of the shape `before`."""
    upsampler = stage.enlarges()
    if upsampler is None:
        raise UserError(
            f"pipeline.stages.{name} enlarges nothing: only the first stage draws from noise alone; "
            "give the run of an upsampler"
        )
    if before[-1] != upsampler.size:
        raise UserError(
            f"pipeline.stages.{name} enlarges {upsampler.size}x{upsampler.size} images, "
            f"the stage before it draws {before[-2]}x{before[-1]}"
        )
    if before[0] != stage.shape[0]:
        raise UserError(
            f"pipeline.stages.{name} enlarges images of {stage.shape[0]} channels, "
            f"the stage before it draws {before[0]}"
        )


def _seed_of(number: int, seed: int) -> int:
    # The first stage draws what it would draw alone.
    return seed if number == 0 else stream_seed(seed, "stage", number)


def _told(stage: SinglePipeline, classes: Sequence[int] | None) -> Sequence[int] | None:
    return classes if stage.class_count() is not None else None
